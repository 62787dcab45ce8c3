"""The secret store, in a folder and in S3, over KMS."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iam_auth_proxy.aws.base import ObjectStore
from iam_auth_proxy.errors import (
    AccessDenied,
    AwsUnavailable,
    ConfigError,
    IamAuthError,
    KeyUnusable,
    Malformed,
    NoSuchSecret,
    RecordUnusable,
    VersionConflict,
    WrongKey,
)
from iam_auth_proxy.keys.secrets import SecretStore
from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.resources import Key
from iam_auth_proxy.protocol.record import FRAME, loads_head
from tests.keys.conftest import NOW, OpenStore


def raw(objects: ObjectStore, key: str) -> bytes:
    with objects.read(key).body as body:
        return body.read()


def overwrite(objects: ObjectStore, key: str, record: bytes) -> None:
    """As somebody may who can write to the store and has no KMS key."""
    objects.delete(key)
    objects.create(key, io.BytesIO(record))


def test_put_get_history_list(store: SecretStore, key: Key) -> None:
    first = store.put("web/db", b"one\0\xff\n", now=NOW)
    assert (first.version, first.size, first.key, first.created) == (1, 6, key.arn, int(NOW))
    store.put("web/db", b"two", now=NOW + 9)
    store.put("web", b"", now=NOW)
    assert store.get("web/db").value == b"two"
    assert store.get("web/db", 1).value == b"one\0\xff\n"
    assert store.get("web").value == b""
    assert [(each.name, each.version, each.size) for each in store.list()] == [
        ("web", 1, 0),
        ("web/db", 2, 3),
    ]
    assert [each.version for each in store.history("web/db")] == [1, 2]
    assert store.history("web/db")[0] == first
    assert store.latest("web/db") == 2
    assert store.latest("other") == 0


def test_what_is_not_there(store: SecretStore) -> None:
    assert store.list() == []
    store.put("a", b"x", now=NOW)
    with pytest.raises(NoSuchSecret):
        store.get("b")
    with pytest.raises(NoSuchSecret):
        store.get("a", 2)
    with pytest.raises(NoSuchSecret):
        store.history("b")
    with pytest.raises(NoSuchSecret):
        store.delete("b", now=NOW)
    with pytest.raises(NoSuchSecret):
        store.rewrap("b")


def test_a_name_leads_nowhere_else(store: SecretStore) -> None:
    for name in ("", "../a", "a/../b", "/etc/passwd", "a/@00000001", ".lock", "a\0b"):
        with pytest.raises(Malformed):
            store.put(name, b"x", now=NOW)
        with pytest.raises(Malformed):
            store.get(name)


@pytest.mark.parametrize("size", [FRAME - 1, FRAME, 3 * FRAME + 7, (9 << 20) + 1])
def test_values_of_any_size_come_in_pieces(store: SecretStore, size: int) -> None:
    value = bytes(range(251)) * (size // 251 + 1)
    done: list[int] = []
    wrote = store.put("big", Trickle(value[:size]), now=NOW, progress=done.append)
    assert wrote.size == size
    assert done[-1] == size
    into = io.BytesIO()
    assert store.copy("big", into, progress=done.append) == wrote
    assert into.getvalue() == value[:size]
    assert store.history("big") == [wrote]


class Trickle(io.BytesIO):
    """A pipe: it gives less than was asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(30_000, size or 0) if (size or 0) > 0 else size)


def test_text_is_not_bytes(store: SecretStore, objects: ObjectStore) -> None:
    """L4: the original stores ``null`` over the secret, and says True."""
    store.put("a", b"good", now=NOW)
    wrong: Any = "text"
    with pytest.raises(TypeError):
        store.put("a", wrong, now=NOW)
    assert store.get("a").value == b"good"
    assert objects.keys("") == ["a/@00000001"]


# -- deleting --------------------------------------------------------------------------------------


def test_delete_leaves_a_marker(store: SecretStore) -> None:
    store.put("a", b"one", now=NOW)
    marker = store.delete("a", now=NOW)
    assert (marker.version, marker.deleted) == (2, True)
    with pytest.raises(NoSuchSecret, match="deleted"):
        store.get("a")
    with pytest.raises(NoSuchSecret):
        store.delete("a", now=NOW)
    assert store.list() == []
    assert store.get("a", 1).value == b"one"
    assert [each.deleted for each in store.history("a")] == [False, True]
    assert store.put("a", b"new", now=NOW).version == 3


def test_purge_leaves_nothing_but_the_marker(store: SecretStore, objects: ObjectStore) -> None:
    store.put("a", b"one", now=NOW)
    store.put("a", b"two", now=NOW)
    store.put("a/b", b"another", now=NOW)
    store.delete("a", now=NOW)
    store.delete("a", now=NOW, purge=True)
    assert objects.keys("") == ["a/@00000003", "a/b/@00000001"]
    with pytest.raises(NoSuchSecret):
        store.get("a", 1)
    assert [each.version for each in store.history("a")] == [3]
    assert store.put("a", b"new", now=NOW).version == 4


# -- compare-and-swap ------------------------------------------------------------------------------


def test_only_the_expected_version_is_followed(store: SecretStore) -> None:
    store.put("a", b"one", now=NOW, if_version=0)
    with pytest.raises(VersionConflict):
        store.put("a", b"lost", now=NOW, if_version=0)
    with pytest.raises(VersionConflict):
        store.delete("a", now=NOW, if_version=2)
    store.put("a", b"two", now=NOW, if_version=1)
    assert store.get("a").value == b"two"


def test_of_two_writers_one_wins(
    store: SecretStore, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have seen version 1, and both write version 2."""
    store.put("a", b"one", now=NOW)
    both, create = threading.Barrier(2), objects.create

    def together(key: str, body: BinaryIO) -> None:
        both.wait(10)
        create(key, body)

    monkeypatch.setattr(objects, "create", together, raising=False)

    def put(value: bytes) -> bytes:
        try:
            store.put("a", value, now=NOW, if_version=1)
        except VersionConflict:
            return b""
        return value

    with ThreadPoolExecutor(2) as pool:
        winners = [each for each in pool.map(put, [b"x", b"y"]) if each]
    assert len(winners) == 1
    assert store.get("a").value == winners[0]
    assert store.latest("a") == 2


def test_without_an_expectation_all_writes_are_kept(store: SecretStore) -> None:
    values = [bytes([65 + index]) * FRAME * 2 for index in range(6)]
    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(lambda value: store.put("a", value, now=NOW).version, values))
    assert sorted(versions) == [1, 2, 3, 4, 5, 6]
    for version, value in zip(versions, values, strict=True):
        assert store.get("a", version).value == value


def test_reading_many_side_by_side(store: SecretStore) -> None:
    for index in range(20):
        store.put(f"s{index}", b"%d" % index, now=NOW)
    found = store.get_many(f"s{index}" for index in range(20))
    assert {name: secret.value for name, secret in found.items()} == {
        f"s{index}": b"%d" % index for index in range(20)
    }
    with pytest.raises(NoSuchSecret):
        store.get_many(["s1", "none", "s2"])


# -- KMS -------------------------------------------------------------------------------------------


def test_what_kms_is_told(aws: LocalAws, store: SecretStore) -> None:
    """L5: the original sends no encryption context at all."""
    store.put("web/db", b"x", now=NOW)
    context = {
        "iam-auth-store": "s3://bucket/prefix",
        "iam-auth-secret": "web/db",
        "iam-auth-version": "1",
    }
    told = [call for call in aws.calls if call.service == "kms"]
    assert [(call.action, call.context) for call in told] == [
        ("Encrypt", context),
        ("Decrypt", context),
    ]


@pytest.mark.parametrize("action", ["Encrypt", "Decrypt"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"code": "AccessDeniedException"}, AccessDenied),
        ({"code": "DisabledException"}, KeyUnusable),
        ({"code": "KMSInternalException", "status": 500, "times": None}, AwsUnavailable),
        ({"code": "ThrottlingException", "times": None}, AwsUnavailable),
        ({"drop": True, "times": None}, AwsUnavailable),
    ],
)
def test_a_failure_of_kms_writes_nothing(
    aws: LocalAws,
    store: SecretStore,
    objects: ObjectStore,
    action: str,
    fault: dict[str, Any],
    error: type[IamAuthError],
) -> None:
    """L3: the original goes on, destroys the secret that was there, and says True."""
    store.put("a", b"good", now=NOW)
    aws.fault("kms", action, **fault)
    with pytest.raises(error):
        store.put("a", b"new", now=NOW)
    aws.clear_faults()
    assert objects.keys("") == ["a/@00000001"]
    assert store.get("a").value == b"good"
    aws.fault("kms", "Decrypt", **fault)
    with pytest.raises(error):
        store.get("a")


def test_what_does_not_open_again_is_not_written(
    store: SecretStore, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken memory, say: between sealing and writing a bit of the value has turned."""
    from iam_auth_proxy.keys import drafts

    write = drafts._write
    turn = {60: lambda data: data[:-1] + bytes([data[-1] ^ 1])}
    monkeypatch.setattr(
        drafts, "_write", lambda body, data: write(body, turn.get(len(data), bytes)(data))
    )
    with pytest.raises(RecordUnusable):
        store.put("a", bytes(44), now=NOW)
    assert objects.keys("") == []


def test_another_key_is_not_asked(
    aws: LocalAws, store: SecretStore, open_store: OpenStore, objects: ObjectStore
) -> None:
    """L6: the original opens whatever KMS opens, under whichever key."""
    evil = aws.key("alias/evil")
    open_store(evil.arn).put("a", b"attacker-chosen", now=NOW)
    aws.clear_calls()
    with pytest.raises(WrongKey, match=evil.arn):
        store.get("a")
    assert not [call for call in aws.calls if call.service == "kms"]
    # By an alias the store does not know its key's ARN; KMS does.
    with pytest.raises(RecordUnusable):
        open_store("alias/secrets").get("a")
    # A head that claims the right key opens no better.
    record = raw(objects, "a/@00000001")
    (_, *_, right), wrong = store._wrapping._keys[0].split(":"), evil.arn.split(":")[-1]
    overwrite(objects, "a/@00000001", record.replace(wrong.encode(), right.encode()))
    with pytest.raises(RecordUnusable):
        store.get("a")


def test_an_alias_that_moved_on(aws: LocalAws, open_store: OpenStore, key: Key) -> None:
    by_alias = open_store("alias/secrets")
    assert by_alias.put("a", b"one", now=NOW).key == key.arn
    new = aws.key()
    new.alias("alias/secrets")
    with pytest.raises(RecordUnusable):
        by_alias.get("a")
    both = open_store("alias/secrets", key.arn)
    assert both.get("a").value == b"one"
    assert both.put("a", b"two", now=NOW).key == new.arn


def test_a_store_needs_a_key(objects: ObjectStore, store: SecretStore) -> None:
    for keys in ([], ["alias"], ["arn:aws:kms:eu-west-1:1:key/x"]):
        with pytest.raises(ConfigError):
            SecretStore(objects, store._wrapping._kms, keys, "s3://bucket/prefix")


# -- tampering -------------------------------------------------------------------------------------


def test_no_copy_opens_elsewhere(store: SecretStore, objects: ObjectStore) -> None:
    """L5: the original opens the administrator's password under the guest's name."""
    store.put("admin", b"A", now=NOW)
    store.put("admin", b"B", now=NOW)
    store.put("guest", b"g", now=NOW)
    overwrite(objects, "guest/@00000001", raw(objects, "admin/@00000001"))
    with pytest.raises(RecordUnusable, match="it is admin version 1"):
        store.get("guest")
    overwrite(objects, "admin/@00000003", raw(objects, "admin/@00000001"))
    with pytest.raises(RecordUnusable, match="it is admin version 1"):
        store.get("admin")
    # Nor with a head that says what it should.
    record = raw(objects, "admin/@00000001").replace(b'"name":"admin"', b'"name":"guest"')
    overwrite(objects, "guest/@00000001", record)
    with pytest.raises(RecordUnusable):
        store.get("guest")


def test_another_store_is_another(store: SecretStore, open_store: OpenStore) -> None:
    store.put("a", b"x", now=NOW)
    other = open_store(place="s3://bucket/other")
    with pytest.raises(RecordUnusable, match="sealed for the store s3://bucket/prefix") as caught:
        other.get("a")
    assert "--store-name s3://bucket/prefix" in caught.value.remedy


def test_no_changed_byte_goes_unseen(store: SecretStore, objects: ObjectStore) -> None:
    store.put("a", b"value", now=NOW)
    good = raw(objects, "a/@00000001")
    head = loads_head(good)
    places = [0, 5, len(head.signed) - 2, len(head.signed) + 3, head.length - 1, head.length]
    places += [head.length + 5, len(good) - 1, *range(20, len(good) - 30, 37)]
    for at in places:
        changed = bytearray(good)
        changed[at] ^= 4
        overwrite(objects, "a/@00000001", bytes(changed))
        with pytest.raises((RecordUnusable, WrongKey)):
            store.get("a")
    for cut in (b"", good[:50], good[: head.length], good[:-1], good + b"x", good + good):
        overwrite(objects, "a/@00000001", cut)
        with pytest.raises((RecordUnusable, WrongKey)):
            store.get("a")


def test_nothing_of_a_cut_value_comes_out(store: SecretStore, objects: ObjectStore) -> None:
    store.put("a", bytes(3 * FRAME), now=NOW)
    good = raw(objects, "a/@00000001")
    overwrite(objects, "a/@00000001", good[: -FRAME - 16])
    into = io.BytesIO()
    with pytest.raises(RecordUnusable):
        store.copy("a", into)
    assert into.getvalue() == b""


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.binary(max_size=300))
def test_any_bytes_come_back(store: SecretStore, value: bytes) -> None:
    store.put("a", value, now=NOW)
    assert store.get("a").value == value


# -- rewrapping ------------------------------------------------------------------------------------


def test_rewrap(
    aws: LocalAws, open_store: OpenStore, store: SecretStore, key: Key, objects: ObjectStore
) -> None:
    store.put("a", bytes(FRAME + 5), now=NOW)
    store.put("a", b"two", now=NOW)
    store.delete("a", now=NOW)
    sealed = [raw(objects, each) for each in objects.keys("")]
    new = aws.key()
    both = open_store(new.arn, key.arn)
    done: list[int] = []
    changed = both.rewrap("a", progress=done.append)
    assert [(each.version, each.key) for each in changed] == [
        (1, new.arn),
        (2, new.arn),
        (3, new.arn),
    ]
    assert done == [1, 2, 3]
    assert list(both.rewrap("a")) == []
    key.state = "Disabled"
    only = open_store(new.arn)
    assert only.get("a", 1).value == bytes(FRAME + 5)
    assert only.get("a", 2).value == b"two"
    assert [each.deleted for each in only.history("a")] == [False, False, True]
    # The frames are the same.
    rewrapped = [raw(objects, each) for each in objects.keys("")]
    for old, fresh in zip(sealed, rewrapped, strict=True):
        assert old[loads_head(old).length :] == fresh[loads_head(fresh).length :]


def test_rewrap_opens_what_it_rewraps(
    aws: LocalAws, open_store: OpenStore, store: SecretStore, key: Key, objects: ObjectStore
) -> None:
    store.put("a", b"value", now=NOW)
    record = bytearray(raw(objects, "a/@00000001"))
    record[-1] ^= 1
    overwrite(objects, "a/@00000001", bytes(record))
    with pytest.raises(RecordUnusable):
        open_store(aws.key().arn, key.arn).rewrap("a")
    assert raw(objects, "a/@00000001") == bytes(record)


def test_rewrap_against_another_writer(
    aws: LocalAws,
    open_store: OpenStore,
    store: SecretStore,
    key: Key,
    objects: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.put("a", b"value", now=NOW)
    first, second = open_store(aws.key().arn, key.arn), open_store(aws.key().arn, key.arn)
    replace = objects.replace

    def late(at: str, body: BinaryIO, tag: str) -> None:
        monkeypatch.setattr(objects, "replace", replace, raising=False)
        second.rewrap("a")
        replace(at, body, tag)

    monkeypatch.setattr(objects, "replace", late, raising=False)
    with pytest.raises(VersionConflict):
        first.rewrap("a")
    assert second.get("a").value == b"value"


def test_nothing_secret_is_shown(store: SecretStore) -> None:
    store.put("a", b"planted-secret", now=NOW)
    assert "planted" not in repr(store.get("a"))
