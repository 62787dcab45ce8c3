"""Key rings by their names."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from iam_auth_proxy.errors import ConfigError, StoreUnavailable
from iam_auth_proxy.keys.build import Place
from iam_auth_proxy.keys.rotation import open_ring, open_rings, parse_ring_place
from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.resources import Key
from iam_auth_proxy.protocol.lifecycle import Policy
from tests.keys.conftest import NOW
from tests.support.forking import in_a_child


@pytest.mark.parametrize(
    ("text", "place", "name"),
    [
        ("s3://bucket/ring", Place("s3://bucket", "bucket"), "ring"),
        ("s3://bucket/a/b/ring", Place("s3://bucket/a/b", "bucket", "a/b/"), "ring"),
        ("file:/etc/app/ring", Place("file:/etc/app", folder=Path("/etc/app")), "ring"),
        ("/etc/app/ring", Place("file:/etc/app", folder=Path("/etc/app")), "ring"),
    ],
)
def test_places(text: str, place: Place, name: str) -> None:
    assert parse_ring_place(text) == (place, name)


@pytest.mark.parametrize(
    "text",
    ["", "ring", "/ring", "s3:/ring", "s3://ring", "s3://bucket/", "file:/ring", "file:ring",
     "file:/etc/.ring", "file:/etc/a b", "http://x/y", "s3://BUCKET/ring", "s3://bucket//ring"],
)  # fmt: skip
def test_no_places(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_ring_place(text)
    with pytest.raises(ConfigError):
        open_rings(text, ["alias/x"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://b/c/d", "'b' is no bucket's name"),
        ("s3://BUCKET/ring", "'BUCKET' is no bucket's name"),
        ("s3://bucket/a b/ring", "'a b' is no prefix"),
        ("http://x/y", "a key ring is s3://BUCKET/PREFIX/NAME"),
        ("http://x/y/z", "a key ring is s3://BUCKET/PREFIX/NAME"),
        ("s3://bucket", "a key ring is s3://BUCKET/PREFIX/NAME"),
    ],
)
def test_what_is_wrong_with_a_place(text: str, said: str) -> None:
    """Of the place as it was typed, and never in the form of another setting."""
    with pytest.raises(ConfigError) as refused:
        parse_ring_place(text)
    (problem,) = refused.value.problems
    assert problem.place == text
    assert problem.text.startswith(said)


def test_nothing_is_opened_before_it_is_used() -> None:
    open_rings("s3://bucket/ring", ["alias/x"], environ={})
    with pytest.raises(ConfigError):
        open_rings("s3://bucket/ring", [])


def test_a_ring_that_is_watched(aws: LocalAws, key: Key, tmp_path: Path) -> None:
    text = f"file:{tmp_path}/rings/web"
    rings = open_rings(text, [key.arn], clock=lambda: NOW)
    assert not rings.reread(NOW)
    with pytest.raises(StoreUnavailable, match="There is no such key ring"):
        rings.at(NOW)
    created = open_ring(text, [key.arn]).create(Policy(), NOW)
    assert rings.reread(NOW + 10)
    assert rings.at(NOW) == created.ring.at(NOW)
    rings.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_ring_that_was_read_before_a_fork(aws: LocalAws, key: Key, tmp_path: Path) -> None:
    """As by gunicorn --preload: parent and children, each with connections of its own."""
    text = f"file:{tmp_path}/rings/web"
    store = open_ring(text, [key.arn])
    store.create(Policy(), time.time())
    rings = open_rings(text, [key.arn], poll=0.05).start()
    told = threading.Event()
    rings.on_rotation(lambda before, now: told.set())

    def child() -> None:
        assert len(rings.at(time.time()).versions) == 1
        open_ring(text, [key.arn]).rotate(time.time())
        assert told.wait(30)
        assert len(rings.at(time.time()).versions) == 2
        assert rings.health(time.time()).ok

    assert in_a_child(child) == 0
    assert told.wait(30)
    assert len(rings.at(time.time()).versions) == 2
    rings.close()
