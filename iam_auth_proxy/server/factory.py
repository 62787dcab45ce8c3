"""Where the server's AWS clients are made: the one place of this room that reaches boto3."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from iam_auth_proxy.aws.base import Kms, Sts
from iam_auth_proxy.errors import AwsUnavailable, LoginNeeded
from iam_auth_proxy.server.settings import Settings

log = logging.getLogger(__name__)

Aws = Callable[[], tuple[Kms, Sts]]


def clients(settings: Settings, kms: Kms | None, sts: Sts | None) -> Aws:
    """A function that gives KMS and STS: the given ones, or boto3's, made at its first call.

    It raises AwsUnavailable where the AWS configuration cannot be read.

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


def _boto3(settings: Settings) -> tuple[Kms, Sts]:
    from iam_auth_proxy.aws.clients import make_clients

    try:
        return make_clients(region_name=settings.region, key=str(settings.kms_key))
    except LoginNeeded as error:
        log.error("the server has no AWS configuration: %s", error)
        raise AwsUnavailable(str(error)) from error
