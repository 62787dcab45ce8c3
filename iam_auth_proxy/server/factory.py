"""Makes the server's AWS clients and its key ring: the only module here that reaches boto3."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from iam_auth_proxy.aws.base import Kms, Sts
from iam_auth_proxy.errors import (
    AwsUnavailable,
    ConfigError,
    IamAuthError,
    Problem,
    StoreUnavailable,
    WrongKey,
)
from iam_auth_proxy.protocol.keyring import KeyRing, Rings, StaticRings
from iam_auth_proxy.server.rings import GateRings
from iam_auth_proxy.server.settings import Settings

if TYPE_CHECKING:
    from iam_auth_proxy.keys.rotation import WatchedRings

log = logging.getLogger(__name__)

Aws = Callable[[], tuple[Kms, Sts]]


def clients(settings: Settings, kms: Kms | None, sts: Sts | None) -> Aws:
    """A function that gives KMS and STS: the given ones, or boto3's, made at its first call.

    It raises LoginNeeded where the AWS configuration cannot be read.

    Not earlier: importing boto3 takes a while, its credentials may not be there when an app is
    imported, and its clients do not survive the fork of a pre-loading server.
    """
    made: list[tuple[Kms, Sts]] = [(kms, sts)] if kms is not None and sts is not None else []
    lock = threading.Lock()

    def get() -> tuple[Kms, Sts]:
        with lock:
            if not made:
                own_kms, own_sts = _boto3(settings)
                made.append((kms or own_kms, sts or own_sts))
            return made[0]

    return get


def rings(settings: Settings, given: Rings | None) -> GateRings:
    """What the gate signs and verifies with: the secret key, or the stored ring.

    Nothing is read before the first request, or :meth:`GateRings.start`.

    :param given: instead.
    :raises ConfigError: the settings name no place of a ring.
    """
    if given is None and not settings.keyring:
        given = StaticRings(KeyRing.from_secret(settings.secret_key))
    if isinstance(given, StaticRings):
        return GateRings(given, rotates=False)
    from iam_auth_proxy.keys.rotation import WatchedRings, open_rings

    if isinstance(given, WatchedRings):
        return _watched(settings, given)
    if given is not None:
        return GateRings(given, rotates=True)

    keys = settings.keyring_kms_keys or (settings.kms_key,)
    watched = open_rings(
        settings.keyring,
        [str(key) for key in keys],
        region=settings.region,
        poll=settings.keyring_poll,
    )
    return _watched(settings, watched)


def _watched(settings: Settings, watched: WatchedRings) -> GateRings:
    watched.on_rotation(_say)

    def start() -> None:
        try:
            watched.start()
        except (AwsUnavailable, StoreUnavailable, ConfigError):
            raise
        except IamAuthError as error:
            remedy = error.remedy
            if isinstance(error, WrongKey):
                remedy = "If that key is to be trusted, add it to IAM_AUTH_KEYRING_KMS_KEYS"
            text = f"the key ring cannot be used: {error}" + (f". {remedy}" if remedy else "")
            raise ConfigError([Problem(watched.place, text)]) from error

    def ready() -> None:
        policy = watched.policy
        if policy is not None and policy.max_session < settings.max_session:
            log.warning(
                "sessions last up to %d s here, and %s is made for %d s: a rotation ends longer "
                "ones early. Run: iam-auth-proxy keyring set %s --max-session %ds",
                settings.max_session, watched.place, policy.max_session,
                watched.place, settings.max_session,
            )  # fmt: skip

    return GateRings(watched, rotates=True, start=start, close=watched.close, ready=ready)


def _say(before: KeyRing, now: KeyRing) -> None:
    """What changed, in the log of every worker."""
    old, new = ({version.id for version in ring.versions} for ring in (before, now))
    if before.primary.id != now.primary.id:
        log.info("key %s signs from now on, in place of %s", now.primary.id, before.primary.id)
    for id in sorted(new - old - {now.primary.id}):
        log.info("key %s is accepted from now on", id)
    for id in sorted(old - new):
        log.info("key %s is accepted no more: what it signed is refused", id)


def _boto3(settings: Settings) -> tuple[Kms, Sts]:
    from iam_auth_proxy.aws.clients import make_clients

    return make_clients(region_name=settings.region, key=str(settings.kms_key))
