"""A client of boto3 behind the interface that the verifier and the issuer know KMS by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from iam_auth_proxy.aws.base import Decrypted, Encrypted
from iam_auth_proxy.errors import AwsUnavailable, IamAuthError

Answer = Mapping[str, Any]


class HalfAnswer(AwsUnavailable):
    """An answer that lacks what it must have."""


def ensure_text(str_or_bytes: str | bytes, encoding: str = "utf-8") -> str:
    """Text, decoded if it was bytes."""
    return str_or_bytes.decode(encoding) if isinstance(str_or_bytes, bytes) else str_or_bytes


def ensure_bytes(
    str_or_bytes: str | bytes, encoding: str = "utf-8", errors: str = "strict"
) -> bytes:
    """Bytes, encoded if it was text."""
    return str_or_bytes.encode(encoding, errors) if isinstance(str_or_bytes, str) else str_or_bytes


class ClientKms:
    """:class:`iam_auth_proxy.aws.base.Kms` with a client that was made elsewhere.

    :param client: gives the one to use, which may be another each time.
    :param arn_of: finds the ARN of a key with it; what it raises comes through as ours.
    :param timed: measures a decryption.
    """

    def __init__(
        self,
        client: Callable[[], Any],
        arn_of: Callable[[str], str] = str,
        timed: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._client = client
        self._arn_of = arn_of
        self._timed = timed

    def encrypt(self, key: str, plaintext: bytes, context: Mapping[str, str]) -> Encrypted:
        answer: Answer = _asked(
            "kms:Encrypt",
            key,
            lambda: self._client().encrypt(
                KeyId=key, Plaintext=plaintext, EncryptionContext=dict(context)
            ),
        )
        blob = ensure_bytes(_member(answer, "CiphertextBlob"))
        return Encrypted(blob, str(answer.get("KeyId", "")))

    def decrypt(self, key: str, ciphertext: bytes, context: Mapping[str, str]) -> Decrypted:
        with self._timed():
            answer: Answer = _asked(
                "kms:Decrypt",
                key,
                lambda: self._client().decrypt(
                    KeyId=key, CiphertextBlob=ciphertext, EncryptionContext=dict(context)
                ),
            )
        plaintext = ensure_bytes(_member(answer, "Plaintext"))
        return Decrypted(plaintext, _member(answer, "KeyId"))

    def key_arn(self, key: str) -> str:
        return str(_asked("kms:DescribeKey", key, lambda: self._arn_of(key)))


def _member(answer: Answer, name: str) -> Any:
    if name not in answer:
        raise HalfAnswer(f"the answer of KMS has no {name}")
    return answer[name]


def _asked(action: str, key: str, call: Callable[[], Any]) -> Any:
    """What the call gives, or what botocore raises as an error of ours.

    :raises IamAuthError: :class:`AwsError` where AWS says no, else :class:`AwsUnavailable`.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    from iam_auth_proxy.aws.failures import NO_ANSWER, UNREADABLE, Asked, from_botocore_error

    try:
        return call()
    except IamAuthError:
        raise
    except (BotoCoreError, ClientError, *NO_ANSWER, *UNREADABLE) as error:
        raise from_botocore_error(error, Asked(action, key)) from error
