"""What a store holds is told without KMS, and without a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from iam_auth_proxy.aws.base import ObjectStore
from iam_auth_proxy.errors import NoSuchSecret
from iam_auth_proxy.keys.build import open_listing, parse_place
from iam_auth_proxy.keys.folder import FolderObjects
from iam_auth_proxy.keys.listing import Listing
from iam_auth_proxy.keys.secrets import SecretStore
from iam_auth_proxy.local_aws import LocalAws
from tests.keys.conftest import NOW


def test_it_says_what_the_store_says_and_asks_no_kms(
    aws: LocalAws, store: SecretStore, objects: ObjectStore
) -> None:
    store.put("a", b"one", now=NOW)
    store.put("a", b"three", now=NOW)
    store.put("gone", b"", now=NOW)
    store.delete("gone", now=NOW)
    store.put_lazycred("lazy", b"value")
    before = len(aws.calls)
    listing = Listing(objects, store.place)
    assert [(each.name, each.version) for each in listing.list()] == [("a", 2), ("lazy", 0)]
    assert listing.list() == store.list()
    assert listing.history("a") == store.history("a")
    assert [each.deleted for each in listing.history("gone")] == [False, True]
    with pytest.raises(NoSuchSecret, match="there is no b in s3://bucket/prefix"):
        listing.history("b")
    assert [call for call in aws.calls[before:] if call.service == "kms"] == []


def test_by_the_name_of_a_store(
    aws: LocalAws, store: SecretStore, objects: ObjectStore, tmp_path: Path
) -> None:
    written = store.put("a", b"one", now=NOW)
    folder = isinstance(objects, FolderObjects)
    place = parse_place(str(tmp_path / "store") if folder else "s3://bucket/prefix")
    for listing in (open_listing(place), open_listing(place, [written.key])):
        assert listing.list() == [written]
