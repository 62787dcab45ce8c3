"""KMS around data keys: which key seals, and which may have sealed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from iam_auth_proxy.aws.base import Decrypted, Encrypted, Kms
from iam_auth_proxy.errors import (
    CiphertextInvalid,
    ConfigError,
    Malformed,
    Problem,
    RecordUnusable,
    WrongKey,
)
from iam_auth_proxy.names import KeyArn, parse_key_arn, parse_key_reference


class Wrapping:
    """KMS with a store's own keys, and with no others: what somebody sealed with a key of his own
    is not opened.

    :param keys: in any spelling; the first wraps, each may have wrapped what is read.
    :raises ConfigError: there is none, or one is no KMS key.
    """

    def __init__(self, kms: Kms, keys: Sequence[str]) -> None:
        self._kms = kms
        self._keys = check_keys(keys)

    def wrap(self, data_key: bytes, context: Mapping[str, str]) -> Encrypted:
        """Wrap a data key with the first of the KMS keys."""
        return self._kms.encrypt(self._keys[0], data_key, context)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str], arn: str = "") -> Decrypted:
        """With whichever of the keys it is.

        :param arn: the key that the record names; empty where it names none.
        :raises WrongKey: that is none of the keys.
        :raises RecordUnusable: none of them opens it: its context is another, or it was changed.
        """
        failure: CiphertextInvalid | None = None
        for key in self._keys:
            if arn and ":key/" in key and not same_key(key, arn):
                continue
            try:
                opened = self._kms.decrypt(key, wrapped, context)
            except CiphertextInvalid as error:
                failure = error  # of another key, or changed: KMS does not say which
                continue
            if arn and not same_key(opened.key_arn, arn):
                raise WrongKey(f"sealed under {opened.key_arn}, and said to be under {arn}")
            return opened
        if failure is None:
            raise WrongKey(
                f"sealed under {arn}",
                public="The secret is sealed under a KMS key that is none of this store's.",
                remedy=f"If that key is to be trusted, add it: --kms-key {arn}",
            )
        raise RecordUnusable("KMS does not open its data key with the store's keys") from failure


def check_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """The keys of a store.

    :raises ConfigError: there is none, or one is no KMS key.
    """
    if not keys:
        raise ConfigError([Problem("kms-key", "the secret store needs a KMS key")])
    for key in keys:
        try:
            parse_key_reference(key)
        except Malformed as error:
            raise ConfigError([Problem("kms-key", f"{key}: {error}")]) from error
    return tuple(keys)


def same_key(one: str, other: str) -> bool:
    """Whether two key ARNs are of one key; the replicas of a multi-Region key are."""
    return one == other or _everywhere(parse_key_arn(one)) == _everywhere(parse_key_arn(other))


def _everywhere(key: KeyArn) -> tuple[str, ...]:
    region = "" if key.key_id.startswith("mrk-") else key.region
    return key.partition, region, key.account, key.key_id
