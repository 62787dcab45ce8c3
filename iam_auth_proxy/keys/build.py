"""Opens a secret store by its name, with boto3. Imported when it is needed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iam_auth_proxy.errors import ConfigError, Problem
from iam_auth_proxy.keys.lazyconfig import LazyConfig
from iam_auth_proxy.keys.listing import Listing
from iam_auth_proxy.keys.secrets import SecretStore

if TYPE_CHECKING:
    from iam_auth_proxy.aws.base import ObjectStore
    from iam_auth_proxy.aws.login import Login
    from iam_auth_proxy.aws.renewal import Logins

# Amazon S3 User Guide, "Bucket naming rules".
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
# "Legacy" ones, of us-east-1 before March 2018: lazycred's own sample has one.
_OLD_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9!_.*'()+=-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is.

    :ivar name: what its records call it.
    :ivar bucket: empty for a folder. ``prefix``: in front of every key, as it is.
    :ivar folder: absolute.
    """

    name: str
    bucket: str = ""
    prefix: str = ""
    folder: Path = Path()


def parse_place(text: str) -> Place:
    """``s3://BUCKET[/PREFIX]``, ``file:DIR`` or ``DIR``.

    :raises ConfigError: none of them.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        prefix = prefix.strip("/")
        parts = prefix.split("/") if prefix else []
        if not _BUCKET.fullmatch(bucket):
            raise _problem(
                text, f"{bucket!r} is no bucket's name, of 3 to 63 of a-z, 0-9, dots and hyphens"
            )
        if not all(map(_PART.fullmatch, parts)):
            problem = f"{prefix!r} is no prefix, of names with a single slash between them"
            raise _problem(text, problem)
        place = "/".join([f"s3://{bucket}", *parts])
        return Place(place, bucket, f"{prefix}/" if prefix else "")
    path = text.removeprefix("file:")
    if separator or not path:
        raise _problem(text, "a store is s3://BUCKET/PREFIX or a folder")
    folder = Path(os.path.expanduser(path)).resolve()
    return Place(f"file:{folder}", folder=folder)


def lazycred_place(config: LazyConfig) -> Place:
    """Where lazycred keeps its records: in its bucket, under its path and the name, just so."""
    bucket, _, prefix = config.s3_path.partition("/")
    if not _OLD_BUCKET.fullmatch(bucket):
        raise _problem(f"s3_path {config.s3_path!r}", "it does not begin with a bucket's name")
    return Place(f"s3://{config.s3_path}", bucket, prefix)


def open_store(
    place: Place,
    keys: Sequence[str],
    *,
    profile: str = "",
    region: str = "",
    name: str = "",
    environ: Mapping[str, str] = os.environ,
) -> SecretStore:
    """The store there, with the credentials that boto3 finds. Asks AWS nothing yet.

    :param name: what its records call it, where it was moved.
    :raises ConfigError: no key, no such folder, or one that others may write into.
    :raises LoginNeeded: the profile does not exist, or its files cannot be read.
    """
    from iam_auth_proxy.aws.clients import AwsKms, logins_of
    from iam_auth_proxy.keys.wrapping import check_keys

    logins = logins_of(profile, region, check_keys(keys)[0], environ)
    return SecretStore(_objects(place, logins), AwsKms(logins), keys, name or place.name)


def open_listing(
    place: Place,
    keys: Sequence[str] = (),
    *,
    profile: str = "",
    region: str = "",
    name: str = "",
    environ: Mapping[str, str] = os.environ,
) -> Listing:
    """What is in the store there, which takes no KMS key; else as :func:`open_store`.

    :param keys: of the first, the region serves where no other is configured.
    """
    from iam_auth_proxy.aws.clients import logins_of
    from iam_auth_proxy.keys.wrapping import check_keys

    logins = logins_of(profile, region, check_keys(keys)[0] if keys else "", environ)
    return Listing(_objects(place, logins), name or place.name)


def _objects(place: Place, logins: Logins[Login]) -> ObjectStore:
    if place.bucket:
        from iam_auth_proxy.aws.objects import S3Objects

        return S3Objects(logins, place.bucket, place.prefix)
    from iam_auth_proxy.keys.folder import FolderObjects

    return FolderObjects(place.folder)


def _problem(place: str, text: str) -> ConfigError:
    return ConfigError([Problem(place, text)])
