"""lazycred's records: a Fernet token, and its key as KMS encrypted it, in a JSON object.

::

    {"data": "gAAAA…", "key": "AQICA…"}

KMS's plaintext is the 44 ASCII characters of the Fernet key, and there is no encryption context: a
record opens under any name, in any store. What it can be held to is the KMS key.
"""

from __future__ import annotations

import json
from typing import Final

from cryptography.fernet import Fernet, InvalidToken

from iam_auth_proxy.errors import Malformed, RecordUnusable
from iam_auth_proxy.protocol.strict import decode_base64, encode_base64, loads_object

_LIMIT: Final = 1 << 30
_ENDS: Final = (b'{"data":', b'{"key":')  # Python 2 orders a dict's keys by their hashes


def new_key() -> bytes:
    """A Fernet key: 44 ASCII characters."""
    return Fernet.generate_key()


def seal(value: bytes, key: bytes) -> str:
    """A Fernet token of ``value``."""
    return Fernet(key).encrypt(value).decode("ascii")


def unseal(token: str, key: bytes, name: str) -> bytes:
    """What is in a token.

    :raises RecordUnusable: it was changed, or is of another key.
    """
    try:
        return Fernet(key).decrypt(token)
    except (InvalidToken, ValueError) as error:
        raise RecordUnusable(f"{name}: its token does not open") from error


def dumps(token: str, wrapped: bytes) -> bytes:
    """A record as lazycred writes it, to the byte."""
    return json.dumps({"data": token, "key": encode_base64(wrapped)}).encode("ascii")


def loads(record: bytes, name: str) -> tuple[str, bytes]:
    """Token and wrapped key of a record.

    :raises RecordUnusable: it is none; the original leaves such where KMS failed it (``null``, or
        with ``"key": null``).
    """
    try:
        fields = loads_object(record, "the record", at_most=_LIMIT)
        token, key = fields.get("data"), fields.get("key")
        if fields.keys() != {"data", "key"} or not isinstance(token, str):
            raise Malformed("it has other members than a record of lazycred")
        if not isinstance(key, str):
            raise Malformed("it was written without its key, and can never be opened")
        return token, decode_base64(key, "its key")
    except Malformed as error:
        raise RecordUnusable(f"{name}: {error}") from error


def looks_like(start: bytes) -> bool:
    """Whether an object that begins so may be a record."""
    return start.lstrip().startswith(_ENDS)


def value_size(record: int) -> int:
    """About how many bytes there are in a record of that many: the format does not say."""
    return max(0, record * 3 // 4 - 300)
