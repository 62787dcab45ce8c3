"""lazycred's names: ``import iam_auth_proxy.compat.lazycred as lazycred``; its command as a module.

``put`` says True or False, ``get`` gives bytes or None, and what went wrong is logged, as in the
original. Records are the original's, so that both read what either wrote. What is different:

- ``put`` never says True unless what it wrote opens again, and a failure destroys nothing (the
  original overwrites the secret with nothing where KMS fails, or where it is given text).
- the configuration is read anew at each use, and a ``.lazycred`` counts only if it is one's own.
- only records under the configured KMS key are opened.
- the command ends with 1 where it failed, and ``get`` prints the bytes as they are.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from iam_auth_proxy.errors import ConfigError, IamAuthError, Malformed
from iam_auth_proxy.keys import build, lazyconfig
from iam_auth_proxy.keys.secrets import SecretStore

__all__ = ["get", "put", "set_config"]

log = logging.getLogger("LazyCredLogger")

_USAGE = "Usage: lazycred put NAME [FILE]\n       lazycred get NAME"
_inline: Mapping[str, str] | None = None


def set_config(config: Mapping[str, str]) -> None:
    """Use ``s3_path``, ``key_alias`` and ``region`` of this, now and from now on."""
    global _inline
    _inline = dict(config)


def put(key: str, data: bytes | str) -> bool:
    """Store a secret; text as UTF-8."""
    try:
        _store().put_lazycred(key, _bytes(data))
    except IamAuthError as error:
        log.error("Unable to put %s: %s", key, _words(error))
        return False
    return True


def get(key: str) -> bytes | None:
    """A secret; None where there is none, or where anything else is wrong."""
    try:
        return _store().get(key).value
    except IamAuthError as error:
        log.error("Unable to get %s: %s", key, _words(error))
        return None


def _bytes(data: object) -> bytes:
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise Malformed(f"a secret is bytes or text, not {type(data).__name__}")


def _store() -> SecretStore:
    return _opened(lazyconfig.find(_inline))


@lru_cache(maxsize=4)
def _opened(config: lazyconfig.LazyConfig) -> SecretStore:
    place = build.lazycred_place(config)
    return build.open_store(place, [config.key], region=config.region)


def _words(error: IamAuthError) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    return " ".join(filter(None, [error.public, str(error), error.remedy]))


def main(args: Sequence[str]) -> int:
    """The command: ``put NAME [FILE]``, ``get NAME``. 0 if it was done, else 1."""
    logging.basicConfig(format="%(levelname)s:%(name)s:%(message)s")
    what, name, *more = [*args, "", ""][: max(2, len(args))]
    if what == "put" and name and len(more) <= 1:
        try:
            data = Path(more[0]).read_bytes() if more else sys.stdin.buffer.read()
        except OSError as error:
            log.error("Unable to read %s: %s", more[0] if more else "stdin", error.strerror)
            return 1
        return 0 if put(name, data) else 1
    if what == "get" and name and not more:
        value = get(name)
        if value is None:
            return 1
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
        return 0
    print(_USAGE)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
