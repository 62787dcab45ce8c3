"""What a forked child sees."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable


def in_a_child(do: Callable[[], None]) -> int:
    """Call ``do`` in a fork of this process; 0 if it returned, what it raised is on stderr."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            do()
            status = 0
        except BaseException:  # noqa: BLE001  # told, and then the child ends
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
