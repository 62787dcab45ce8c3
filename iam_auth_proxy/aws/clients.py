"""boto3 behind the interfaces of ``aws.base``, as the server uses them: with its own identity.

KMS is called in the region of the key, STS in the configured one. Errors as ``aws.base`` says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from botocore.credentials import Credentials

from iam_auth_proxy.aws.base import (
    AS_USUAL,
    CallerIdentity,
    ClientSettings,
    Decrypted,
    Encrypted,
    Kms,
    Sts,
)
from iam_auth_proxy.aws.connections import Answer, Connections
from iam_auth_proxy.aws.login import Login, region
from iam_auth_proxy.aws.renewal import Logins
from iam_auth_proxy.errors import AwsError
from iam_auth_proxy.names import parse_key_reference
from iam_auth_proxy.protocol.proof import SessionCredentials
from iam_auth_proxy.protocol.signed_identity import StsRequest

MAX_PLAINTEXT: Final = 4096
"""Bytes (KMS API reference, Encrypt). A session token alone may have as many."""


def encrypt(
    connections: Connections,
    signer: Credentials,
    near: str,
    key: str,
    plaintext: bytes,
    context: Mapping[str, str],
) -> Encrypted:
    """KMS Encrypt in the key's region, or in region ``near`` where the key says none.

    :raises AwsError: the plaintext is longer than KMS takes.
    """
    if len(plaintext) > MAX_PLAINTEXT:
        raise AwsError(
            f"{len(plaintext)} bytes are more than KMS Encrypt takes",
            public="The proof is longer than KMS encrypts: AWS's session tokens have grown.",
            remedy="Tell the app's owner: only the signed identity is independent of their length.",
        )
    answer = connections.call(
        "kms",
        parse_key_reference(key).region or near,
        "encrypt",
        signer,
        resource=key,
        KeyId=key,
        Plaintext=plaintext,
        EncryptionContext=dict(context),
    )
    return Encrypted(answer["CiphertextBlob"], answer["KeyId"])


def caller_identity(connections: Connections, signer: Credentials, near: str) -> CallerIdentity:
    """GetCallerIdentity as whoever ``signer`` is, at the STS of region ``near``."""
    answer = connections.call("sts", near, "get_caller_identity", signer)
    return CallerIdentity(answer["Account"], answer["Arn"], answer["UserId"])


class AwsKms:
    """:class:`~iam_auth_proxy.aws.base.Kms` as ourselves."""

    def __init__(self, logins: Logins[Login]) -> None:
        self._logins = logins

    def encrypt(self, key: str, plaintext: bytes, context: Mapping[str, str]) -> Encrypted:
        return self._logins.use(
            lambda login: encrypt(
                login.connections, login.credentials(), login.region, key, plaintext, context
            )
        )

    def decrypt(self, key: str, ciphertext: bytes, context: Mapping[str, str]) -> Decrypted:
        answer = self._call(
            "decrypt", key, CiphertextBlob=ciphertext, EncryptionContext=dict(context)
        )
        return Decrypted(answer["Plaintext"], answer["KeyId"])

    def key_arn(self, key: str) -> str:
        arn: str = self._call("describe_key", key).part("KeyMetadata")["Arn"]
        return arn

    def _call(self, operation: str, key: str, **parameters: Any) -> Answer:
        where = parse_key_reference(key).region
        return self._logins.use(
            lambda login: login.connections.call(
                "kms",
                where or login.region,
                operation,
                login.credentials(),
                resource=key,
                KeyId=key,
                **parameters,
            )
        )


class AwsSts:
    """:class:`~iam_auth_proxy.aws.base.Sts` as ourselves, or with a user's credentials."""

    def __init__(self, logins: Logins[Login]) -> None:
        self._logins = logins

    def caller_identity(self, credentials: SessionCredentials | None = None) -> CallerIdentity:
        if credentials is None:
            return self._logins.use(
                lambda login: caller_identity(login.connections, login.credentials(), login.region)
            )
        signer = Credentials(
            credentials.access_key_id, credentials.secret_access_key, credentials.session_token
        )
        # These are the visitor's credentials: if AWS refuses them, our own login may still be good.
        login = self._logins.current()
        return caller_identity(login.connections, signer, login.region)

    def check_signed_identity(self, request: StsRequest) -> CallerIdentity:
        return self._logins.current().connections.identities.check(request)


def logins_of(
    profile: str = "",
    region_name: str = "",
    key: str = "",
    environ: Mapping[str, str] = os.environ,
    settings: ClientSettings = AS_USUAL,
) -> Logins[Login]:
    """A login with the credentials that boto3 finds. Asks AWS nothing yet.

    :param key: whose region serves where no other is configured.
    :param settings: how AWS is asked, and by whom where not by whom boto3 finds.
    :raises LoginNeeded: the profile does not exist, or its files cannot be read.
    """
    of_key = parse_key_reference(key).region if key else ""
    logins = Logins(
        lambda: Login(
            profile,
            near=lambda of_profile: region(region_name, environ, of_profile, of_key),
            settings=settings,
        )
    )
    logins.current()
    return logins


def make_clients(
    *,
    profile: str = "",
    region_name: str = "",
    key: str = "",
    environ: Mapping[str, str] = os.environ,
    settings: ClientSettings = AS_USUAL,
) -> tuple[Kms, Sts]:
    """KMS and STS as :func:`logins_of` says, which see also."""
    logins = logins_of(profile, region_name, key, environ, settings)
    return AwsKms(logins), AwsSts(logins)
