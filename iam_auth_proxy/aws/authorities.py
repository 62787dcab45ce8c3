"""Certificate authorities for the calls to AWS: the usual ones and a person's own."""

from __future__ import annotations

import atexit
import os
import tempfile
from functools import cache
from pathlib import Path

from botocore.httpsession import get_cert_path


@cache
def bundle(further: str, usual: str | None = None) -> str:
    """The path of a PEM file that holds both, for as long as this process runs.

    botocore takes one file in place of its own, so a company's authority alone would make AWS
    itself unknown.

    :param further: a PEM file.
    :param usual: what botocore is configured with (``AWS_CA_BUNDLE``); its own where absent.
    :raises OSError: a file cannot be read or written.
    """
    parts = [Path(path).read_bytes() for path in (usual or str(get_cert_path(True)), further)]
    descriptor, path = tempfile.mkstemp(prefix="iam-auth-proxy-", suffix=".pem")
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"\n".join(parts))
    atexit.register(Path(path).unlink, missing_ok=True)
    return path
