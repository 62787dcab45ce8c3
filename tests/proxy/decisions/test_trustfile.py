"""``trust.toml``: what is kept, how it is written, and what happens to a damaged one."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import stat
import threading
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iam_auth_proxy import files
from iam_auth_proxy.config import ServiceTokenRule, load, parse_trust
from iam_auth_proxy.errors import ConfigError, NotTrusted
from iam_auth_proxy.names import Origin, parse_origin
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions import trustfile
from iam_auth_proxy.proxy.decisions.rules import Accepted, Pin
from iam_auth_proxy.proxy.decisions.trust import Stored
from iam_auth_proxy.proxy.decisions.trustfile import TrustFile, trust_of
from tests.support import vectors

APP = parse_origin("http://app.test")
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER = KEY.replace("1234abcd", "ffffffff")
WHOLE = Pin(KEY, Accepted.PAGE, ProofKind.SIGNED_IDENTITY, "/auth", "socks5h://127.0.0.1:8081")


@pytest.fixture
def store(tmp_path: Path) -> TrustFile:
    return TrustFile(tmp_path / "new" / "trust.toml")


def problems(store: TrustFile) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as raised:
        store.load()
    return [(problem.place, problem.text) for problem in raised.value.problems]


def write(store: TrustFile, text: str | bytes) -> Path:
    store.path.parent.mkdir(exist_ok=True)
    store.path.write_bytes(text.encode() if isinstance(text, str) else text)
    return store.path


# -- what is kept ----------------------------------------------------------------------------------


def test_another_service_token(store: TrustFile) -> None:
    """It is said as a whole: what was allowed to the one before is not to the next."""
    rule = parse_trust("http://app.test")
    first = ServiceTokenRule("confidant", "alias/a", "user", "ann", allow_http=True)
    second = ServiceTokenRule("other", "alias/b", allow_http=True)
    for each in (first, second):
        store.add(replace(rule, service_token=each))
        store.add(replace(rule, profile="ops"))
        assert store.load().rules[0].service_token == each


def test_what_could_not_be_read_again_is_not_written(store: TrustFile) -> None:
    """Each said alone is well; what they come to is not, and the file stays as it was."""
    app = parse_trust("https://app.test")
    store.add(replace(app, https="alias", alias="wiki"))
    before = store.path.read_bytes()
    other = parse_trust("https://other.test")
    with pytest.raises(ConfigError) as caught:
        store.add(replace(other, https="alias", alias="wiki"))
    assert "the alias wiki is https://app.test's" in str(caught.value)
    assert store.path.read_bytes() == before
    assert [str(rule) for rule in store.load().rules] == ["https://app.test"]


def test_no_file_trusts_nobody(store: TrustFile) -> None:
    assert store.load() == Stored()
    assert store.stamp() is None


def test_an_app_and_its_pin(store: TrustFile) -> None:
    rule = replace(
        parse_trust("http://app.test", [KEY]),
        profile="ops",
        proofs=("signed-identity", "session-credentials"),
        via="bastion",
        allow_from=(parse_origin("https://portal.test"),),
        service_token=ServiceTokenRule("confidant", "alias/authnz", "user", allow_http=True),
        source="store",
    )
    store.add(rule)
    stored = store.pin(APP, lambda pin: WHOLE)
    assert stored == store.load() == Stored((rule,), {APP: WHOLE})
    assert stored.rules[0].place == f"{store.path}:4"
    assert tomllib.loads(store.path.read_text())["pin"] == [
        {
            "origin": "http://app.test",
            "key": KEY,
            "accepted": "page",
            "proof": "signed-identity",
            "path": "/auth",
            "route": "socks5h://127.0.0.1:8081",
        }
    ]


BASTIONS = json.loads((vectors.FOLDER / "config.json").read_text("utf-8"))["bastion"]["accepted"]


@pytest.mark.parametrize("host", BASTIONS)
def test_a_bastion_is_a_route_that_can_be_read_again(store: TrustFile, host: str) -> None:
    through = replace(WHOLE, route=f"ssh://{host}")
    store.pin(APP, lambda pin: through)
    assert store.load().pins[APP] == through


def test_a_name_that_two_apps_want_is_told(store: TrustFile) -> None:
    app = '[[app]]\norigin = "https://{}.internal"\nhttps = "alias"\nalias = "wiki"\n'
    write(store, app.format("a") + app.format("b"))
    [(place, text)] = problems(store)
    assert place == f"{store.path}:5"
    assert "the alias wiki is https://a.internal's" in text


def test_adding_again_says_more(store: TrustFile) -> None:
    store.add(parse_trust("http://app.test", [KEY]))
    store.pin(APP, lambda pin: WHOLE)
    stored = store.add(replace(parse_trust("HTTP://APP.test:80/", [OTHER]), profile="dev"))
    [rule] = stored.rules
    assert (rule.keys, rule.profile, rule.proofs) == ((KEY, OTHER), "dev", ())
    # The person's word anew: path and route are forgotten, the key and the strongest proof are not.
    assert stored.pins[APP] == replace(WHOLE, path="", route="")
    stored = store.add(replace(parse_trust("http://app.test"), proofs=("session-credentials",)))
    assert stored.rules[0].proofs == ("session-credentials",)
    assert stored.pins[APP].proof is None
    assert stored.pins[APP].key == KEY


def test_removing_takes_the_pin_along(store: TrustFile) -> None:
    other = parse_origin("http://a.corp.example")
    for text in ("http://app.test", "http://*.corp.example", "http://b.corp.example"):
        store.add(parse_trust(text))
    for origin in (APP, other, parse_origin("http://b.corp.example")):
        store.pin(origin, lambda pin: WHOLE)
    assert store.remove(parse_trust("http://app.test"))
    assert not store.remove(parse_trust("http://app.test"))
    assert store.remove(parse_trust("http://*.corp.example"))
    assert [str(rule) for rule in store.load().rules] == ["http://b.corp.example"]
    assert [str(origin) for origin in store.load().pins] == ["http://b.corp.example"]


def test_the_page_grants_the_signed_identity_only(store: TrustFile) -> None:
    stored = store.grant(APP, lambda pin: WHOLE)
    assert [(str(rule), rule.proofs) for rule in stored.rules] == [
        ("http://app.test", ("signed-identity",))
    ]
    store.add(replace(parse_trust("http://app.test"), proofs=("session-credentials",)))
    stored = store.grant(APP, lambda pin: WHOLE)
    assert stored.rules[0].proofs == ("session-credentials",)  # the person's own word stays


def test_a_typed_key(store: TrustFile) -> None:
    stored = store.accept_key(APP, KEY)
    assert stored.pins[APP] == Pin(KEY, Accepted.COMMAND)
    assert stored.rules == ()


def test_unknown_keys_and_tables_are_kept(store: TrustFile) -> None:
    further = {"since": "2026-11-22", "notes": [{"by": "ann"}]}
    write(
        store,
        "version = 2\n[future]\nanswer = 42\n"
        '[[app]]\norigin = "http://app.test"\nsince = "2026-11-22"\nnotes = [{ by = "ann" }]\n'
        '[[pin]]\norigin = "http://app.test"\nseen = 1\n',
    )
    store.add(replace(parse_trust("http://app.test"), profile="ops"))
    store.pin(APP, lambda pin: WHOLE)
    tables = tomllib.loads(store.path.read_text())
    assert tables["version"] == 2
    assert tables["future"] == {"answer": 42}
    assert tables["app"] == [{"origin": "http://app.test", **further, "profile": "ops"}]
    assert tables["pin"][0]["seen"] == 1


def test_no_change_writes_nothing(store: TrustFile) -> None:
    store.add(parse_trust("http://app.test"))
    before = store.stamp()
    store.add(parse_trust("http://app.test"))
    store.pin(APP, lambda pin: pin)
    assert store.stamp() == before


def test_pins_are_bounded(store: TrustFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trustfile, "MAX_PINS", 2)
    for name in "ab":
        store.pin(parse_origin(f"http://{name}.test"), lambda pin: WHOLE)
    with pytest.raises(ConfigError, match="2 pins"):
        store.pin(APP, lambda pin: WHOLE)
    store.pin(parse_origin("http://a.test"), lambda pin: replace(pin, path="/x"))
    assert len(store.load().pins) == 2


def test_the_operators_is_never_written(store: TrustFile) -> None:
    operators = TrustFile(store.path, source="system")
    with pytest.raises(NotTrusted):
        operators.add(parse_trust("http://app.test"))
    write(store, '[[app]]\norigin = "http://app.test"\n')
    assert operators.load().rules[0].source == "system"


# -- how it is written -----------------------------------------------------------------------------


def test_for_your_eyes_only(store: TrustFile) -> None:
    before = os.umask(0)
    try:
        store.add(parse_trust("http://app.test"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in store.path.parent.iterdir())
    store.path.chmod(0o644)
    store.add(parse_trust("http://b.test"))
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_on_the_way_leaves_the_old_file(
    store: TrustFile, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(parse_trust("http://app.test"))
    before = store.path.read_bytes()

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, step, fail)
        with pytest.raises(OSError, match="No space"):
            store.add(parse_trust("http://b.test"))
    assert store.path.read_bytes() == before
    assert sorted(path.name for path in store.path.parent.iterdir()) == [
        ".trust.toml.lock",
        "trust.toml",
    ]


def _die_before_the_rename(path: Path) -> None:
    files.os.replace = lambda *args: os._exit(9)  # type: ignore[assignment]  # no cleaning up
    TrustFile(path).add(parse_trust("http://b.test"))


def test_a_crash_between_the_temporary_file_and_the_rename(store: TrustFile) -> None:
    store.add(parse_trust("http://app.test"))
    child = multiprocessing.get_context("spawn").Process(
        target=_die_before_the_rename, args=(store.path,)
    )
    child.start()
    child.join(30)
    assert child.exitcode == 9
    assert (store.path.parent / ".trust.toml.new").exists()
    assert [str(rule) for rule in store.load().rules] == ["http://app.test"]
    store.add(parse_trust("http://c.test"))  # its lock ended with it, what it left is swept
    assert [str(rule) for rule in store.load().rules] == ["http://app.test", "http://c.test"]
    assert not (store.path.parent / ".trust.toml.new").exists()


def _add_many(path: Path, name: str) -> None:
    for number in range(6):
        TrustFile(path).add(parse_trust(f"http://{name}{number}.test"))


def test_two_writers_both_get_their_way(store: TrustFile) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_add_many, args=(store.path, name)) for name in "ab"]
    threads = [threading.Thread(target=_add_many, args=(store.path, name)) for name in "cd"]
    for each in (*children, *threads):
        each.start()
    for each in (*children, *threads):
        each.join(60)
    assert all(child.exitcode == 0 for child in children)
    found = {str(rule) for rule in store.load().rules}
    assert found == {f"http://{name}{number}.test" for name in "abcd" for number in range(6)}


def test_a_lock_that_is_held_is_not_waited_for_for_ever(
    store: TrustFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_WAIT", 0.05)
    store.add(parse_trust("http://app.test"))
    with (
        files.locked(store.path.with_name(".trust.toml.lock")),
        pytest.raises(ConfigError, match="locked"),
    ):
        store.add(parse_trust("http://b.test"))


def test_a_link_stays_one(store: TrustFile, tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "new").mkdir()
    store.path.symlink_to(tmp_path / "dotfiles" / "trust.toml")
    store.add(parse_trust("http://app.test"))
    assert store.path.is_symlink()
    assert "app.test" in (tmp_path / "dotfiles" / "trust.toml").read_text()


# -- a damaged one ---------------------------------------------------------------------------------

BROKEN: list[tuple[str | bytes, int | None, str]] = [
    ('[[app]]\norigin = "http://app.test"\nkms_keys = ["', 3, "is not TOML"),
    (b"\xff", None, "is not UTF-8"),
    ('[[app]]\norigin = "app.test"\n', 1, "an origin is http://HOST"),
    ("[[app]]\n", 1, "an [[app]] needs origin"),
    ('app = "x"\n', 1, "write each app as [[app]]"),
    ('[app]\norigin = "http://app.test"\n', 1, "write each app as [[app]]"),
    ('[[app]]\norigin = "http://app.test"\nkms_key = ["x"]\n', 3, "did you mean kms_keys?"),
    ('[[app]]\norigin = "http://app.test"\nproofs = ["all"]\n', 3, "not one of signed-identity"),
    ('[[app]]\norigin = "http://app.test"\nproofs = 7\n', 3, "must be a list of proofs"),
    ('[[app]]\norigin = "http://app.test"\nvia = "../x"\n', 3, "a route's name"),
    ('[[app]]\norigin = "http://*.a.test"\nproofs = ["session-credentials"]\n', 3, "a wildcard"),
    ('[[pin]]\nkey = "x"\n', 2, "not a KMS key ARN"),
    ('[[pin]]\norigin = "x"\n', 2, "a [[pin]] needs its origin"),
    ('[[pin]]\norigin = "http://app.test"\naccepted = "yes"\n', 3, "not one of first-use"),
    ('[[pin]]\norigin = "http://app.test"\nproof = "none"\n', 3, "not one of signed-identity"),
    ('[[pin]]\norigin = "http://app.test"\npath = "//evil"\n', 3, "must be a path"),
    ('[[pin]]\norigin = "http://app.test"\nroute = "a b"\n', 3, "a route's name"),
    ('[[pin]]\norigin = "http://app.test"\nkey = 1\n', 3, "key must be a string"),
    (
        '[[pin]]\norigin = "http://app.test"\n[[pin]]\norigin = "http://app.test"\n',
        3,
        "has two pins",
    ),
]


@pytest.mark.parametrize(("text", "line", "said"), BROKEN, ids=[str(row[2]) for row in BROKEN])
def test_a_damaged_file(store: TrustFile, text: str | bytes, line: int | None, said: str) -> None:
    path = write(store, text)
    found = problems(store)
    assert any(said in problem for _, problem in found), found
    assert found[0][0] == (f"{path}:{line}" if line else str(path))
    before = path.read_bytes()
    for change in (
        lambda: store.add(parse_trust("http://b.test")),
        lambda: store.pin(APP, lambda pin: WHOLE),
        lambda: store.grant(APP, lambda pin: WHOLE),
        lambda: store.remove(parse_trust("http://app.test")),
        lambda: store.accept_key(APP, KEY),
    ):
        with pytest.raises(ConfigError):
            change()
    assert path.read_bytes() == before


def test_all_problems_at_once(store: TrustFile) -> None:
    write(store, '[[app]]\norigin = "x"\n[[app]]\n[[pin]]\norigin = "y"\n')
    assert len(problems(store)) == 3


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o664, 0o602])
def test_one_that_others_can_write_is_nobodys_word(store: TrustFile, mode: int) -> None:
    path = write(store, '[[app]]\norigin = "http://app.test"\n')
    path.chmod(mode)
    [(_, text)] = problems(store)
    assert f"chmod 600 {store.path}" in text
    path.chmod(0o644)
    assert len(store.load().rules) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_one_of_another_user_is_not_ours(store: TrustFile, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(store, "")
    os.chown(path, 12345, 12345)
    assert [text for _, text in problems(store)] == ["belongs to another user"]


@given(st.binary(max_size=80))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_store_or_a_config_error(store: TrustFile, data: bytes) -> None:
    write(store, data)
    with contextlib.suppress(ConfigError):
        store.load()


JSONISH = st.recursive(
    st.one_of(st.text(max_size=8), st.integers(0, 9), st.booleans()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["origin", "key", "kms_keys", "proof", "proofs", "path", "route", "via", "accepted", "x"]
)


@given(st.lists(st.tuples(st.sampled_from(["app", "pin"]), st.dictionaries(KEYS, JSONISH))))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_entries_are_a_store_or_a_config_error(
    store: TrustFile, entries: list[tuple[str, dict[str, Any]]]
) -> None:
    from iam_auth_proxy.config.toml import dumps

    try:
        text = dumps({name: [e for n, e in entries if n == name] for name in ("app", "pin")})
    except UnicodeEncodeError:
        return
    write(store, text.encode("utf-8", "replace"))
    with contextlib.suppress(ConfigError):
        store.load()


# -- beside the configuration ----------------------------------------------------------------------


def test_the_operators_comes_before_the_persons(tmp_path: Path) -> None:
    system, user = tmp_path / "etc" / "config.toml", tmp_path / "home" / "config.toml"
    for path, profile in ((system, "theirs"), (user, "mine")):
        path.parent.mkdir()
        entry = {"origin": "http://app.test", "profile": profile}
        pairs = "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())
        path.with_name("trust.toml").write_text(f"[[app]]\n{pairs}\n")
    settings = load({}, {}, [user, system], system=[system])
    assert settings.trust_files == (system.with_name("trust.toml"), user.with_name("trust.toml"))
    app = trust_of(settings).app(APP)
    assert app is not None
    assert app.profile == "theirs"


def test_without_a_file_of_the_persons_nothing_is_written_down() -> None:
    assert load({}, {}, []).trust_files == ()
    assert not trust_of(load({"trust": ["http://app.test"]}, {}, []))._stores


def test_an_origin_is_read_as_it_is_written() -> None:
    assert str(Origin("http", "app.test", 80)) == "http://app.test"
