"""Makes issuers of service tokens, for scripts, with boto3. Imported when it is needed."""

from __future__ import annotations

import os
from collections.abc import Mapping

from iam_auth_proxy.aws.base import AS_USUAL, ClientSettings, Kms
from iam_auth_proxy.protocol.service_token import Caller
from iam_auth_proxy.tokens.issuer import LIFETIME, SKEW, Issuer


def open_issuer(
    key: str,
    caller: Caller,
    to: str,
    *,
    profile: str = "",
    region: str = "",
    lifetime: float = LIFETIME,
    skew: float = SKEW,
    extra: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
    settings: ClientSettings = AS_USUAL,
) -> Issuer:
    """An issuer with the credentials that boto3 finds. Asks AWS nothing yet.

    :param region: where the key is, if ``key`` does not say so and the profile's is another.
    :param settings: how KMS is asked, and by whom. No two issuers share clients.
    :raises Malformed: as :class:`.issuer.Issuer`.
    :raises LoginNeeded: the profile does not exist, or its files cannot be read.
    """
    kms = open_kms(key, profile=profile, region=region, environ=environ, settings=settings)
    return Issuer(kms, key, caller, to, lifetime=lifetime, skew=skew, extra=extra)


def open_kms(
    key: str = "",
    *,
    profile: str = "",
    region: str = "",
    environ: Mapping[str, str] = os.environ,
    settings: ClientSettings = AS_USUAL,
) -> Kms:
    """KMS with the credentials that boto3 finds. Asks AWS nothing yet.

    What it gives has clients of its own: whoever asks with other keys or timeouts gets others.

    :raises Malformed: ``key`` is none.
    :raises LoginNeeded: the profile does not exist, or its files cannot be read.
    """
    from iam_auth_proxy.aws.clients import make_clients

    return make_clients(
        profile=profile, region_name=region, key=key, environ=environ, settings=settings
    )[0]
