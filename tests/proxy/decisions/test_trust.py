"""Which origins, and which keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from iam_auth_proxy.config import parse_trust
from iam_auth_proxy.errors import (
    BadChallenge,
    ConfigError,
    KeyChanged,
    NotTrusted,
    WeakProof,
    WrongKey,
)
from iam_auth_proxy.names import parse_key_reference, parse_origin
from iam_auth_proxy.protocol.challenge import Bound, Challenge
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.rules import Accepted, AppTrust, Pin
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.decisions.trustfile import TrustFile

SESSION = ProofKind.SESSION_CREDENTIALS
SIGNED = ProofKind.SIGNED_IDENTITY

MINE, THEIRS = "111122223333", "999988887777"


def arn(account: str, last: str = "1") -> str:
    return f"arn:aws:kms:eu-west-1:{account}:key/1234abcd-12ab-34cd-56ef-12345678900{last}"


APP = parse_origin("http://app.test")


@pytest.mark.parametrize(
    ("rule", "origin", "covered"),
    [
        ("http://app.test", "http://app.test", True),
        ("http://app.test:80", "http://app.test", True),
        ("http://APP.test/", "http://app.test", True),
        ("http://app.test", "https://app.test", False),
        ("http://app.test", "http://app.test:8080", False),
        ("http://app.test", "http://sub.app.test", False),
        ("http://app.test", "http://app.test.", False),
        ("http://app.test", "http://app.test.evil.example", False),
        (f"http://*.corp.example={arn(MINE)}", "http://app.corp.example", True),
        (f"http://*.corp.example={arn(MINE)}", "http://a.b.corp.example", True),
        (f"http://*.corp.example={arn(MINE)}", "http://corp.example", False),
        (f"http://*.corp.example={arn(MINE)}", "http://evilcorp.example", False),
        (f"http://*.corp.example={arn(MINE)}", "http://app.corp.example.", False),
        (f"http://*.corp.example={arn(MINE)}", "http://app.corp.example:81", False),
    ],
)
def test_what_a_rule_covers(rule: str, origin: str, covered: bool) -> None:
    assert Trust([parse_trust(rule)]).trusts(parse_origin(origin)) is covered


def test_nobody_is_trusted_by_default() -> None:
    trust = Trust([])
    assert not trust.trusts(APP)
    with pytest.raises(NotTrusted):
        trust.check_used(APP, arn(MINE), MINE, SESSION)
    with pytest.raises(NotTrusted):
        trust.check_key(APP, parse_key_reference("alias/app"), MINE, SESSION)


def test_a_named_key_and_no_other() -> None:
    trust = Trust([parse_trust(f"http://app.test={arn(THEIRS)}")])
    trust.check_key(APP, parse_key_reference(arn(THEIRS)), MINE, SESSION)
    trust.check_used(APP, arn(THEIRS), MINE, SESSION)
    with pytest.raises(WrongKey):
        trust.check_key(APP, parse_key_reference(arn(MINE)), MINE, SESSION)
    with pytest.raises(WrongKey):
        trust.check_used(APP, arn(THEIRS, "2"), MINE, SESSION)


def test_rules_of_one_origin_add_up() -> None:
    trust = Trust([parse_trust(f"http://app.test={arn(MINE, n)}") for n in "12"])
    trust.check_used(APP, arn(MINE, "1"), MINE, SESSION)
    trust.check_used(APP, arn(MINE, "2"), MINE, SESSION)


def test_an_exact_rule_hides_a_wildcard() -> None:
    app = parse_origin("http://a.corp.example")
    rules = [f"http://*.corp.example={arn(MINE, '1')}", f"http://a.corp.example={arn(MINE, '2')}"]
    trust = Trust([parse_trust(rule) for rule in rules])
    trust.check_used(app, arn(MINE, "2"), MINE, SESSION)
    with pytest.raises(WrongKey):
        trust.check_used(app, arn(MINE, "1"), MINE, SESSION)


def test_without_a_key_only_one_of_the_callers_account() -> None:
    trust = Trust([parse_trust("http://app.test")])
    with pytest.raises(WrongKey, match="not of the caller's account"):
        trust.check_key(APP, parse_key_reference(arn(THEIRS)), MINE, SESSION)
    with pytest.raises(WrongKey):
        trust.check_used(APP, arn(THEIRS), MINE, SESSION)
    foreign_alias = parse_key_reference(f"arn:aws:kms:eu-west-1:{THEIRS}:alias/app")
    with pytest.raises(WrongKey):
        trust.check_key(APP, foreign_alias, MINE, SESSION)
    trust.check_key(APP, parse_key_reference("alias/app"), MINE, SESSION)


def test_the_first_key_used_is_pinned_and_survives_a_reload() -> None:
    trust = Trust([parse_trust("http://app.test")])
    trust.check_key(APP, parse_key_reference(arn(MINE, "2")), MINE, SESSION)  # asking pins nothing
    trust.check_used(APP, arn(MINE, "1"), MINE, SESSION)
    with pytest.raises(WrongKey, match="; pinned: "):
        trust.check_used(APP, arn(MINE, "2"), MINE, SESSION)
    with pytest.raises(WrongKey):
        trust.check_key(APP, parse_key_reference(arn(MINE, "2")), MINE, SESSION)
    again = Trust([parse_trust("http://app.test")], before=trust)
    with pytest.raises(WrongKey):
        again.check_used(APP, arn(MINE, "2"), MINE, SESSION)
    again.check_used(APP, arn(MINE, "1"), MINE, SESSION)


# -- what is kept over restarts --------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> TrustFile:
    return TrustFile(tmp_path / "trust.toml")


def bound(*proofs: ProofKind) -> Challenge:
    key = parse_key_reference(arn(MINE))
    return Challenge(MINE, key, {"a": "b"}, Bound(frozenset(proofs), "n" * 22))


def legacy() -> Challenge:
    return Challenge(MINE, parse_key_reference(arn(MINE)), {"a": "b"})


def test_pins_hold_over_restarts(store: TrustFile) -> None:
    rules = [replace(parse_trust("http://app.test"), proofs=(SIGNED, SESSION))]
    first = Trust(rules, stores=[store])
    assert first.choose(APP, bound(SIGNED, SESSION)) is SIGNED
    assert first.choose(APP, legacy()) is SESSION
    first.check_path(APP, "/auth")
    first.check_used(APP, arn(THEIRS), MINE, SIGNED, pin=False)
    assert store.load().pins[APP] == Pin(path="/auth")
    first.check_used(APP, arn(THEIRS), MINE, SIGNED)
    again = Trust(rules, stores=[TrustFile(store.path)])
    with pytest.raises(KeyChanged):
        again.check_used(APP, arn(THEIRS, "2"), MINE, SIGNED)
    with pytest.raises(WeakProof, match="before, and now wants"):
        again.choose(APP, legacy())
    with pytest.raises(BadChallenge, match="wants its sign-ins at /user/evil"):
        again.check_path(APP, "/user/evil")
    again.check_path(APP, "/auth")
    assert again.app(APP) == replace(
        AppTrust(APP, proofs=frozenset({SIGNED, SESSION})),
        pin=Pin(arn(THEIRS), Accepted.FIRST_USE, SIGNED, "/auth", "direct"),
    )


def test_a_pin_without_a_rule_trusts_nobody(store: TrustFile) -> None:
    Trust([parse_trust("http://app.test")], stores=[store]).check_used(APP, arn(MINE), MINE, SIGNED)
    later = Trust([], stores=[store])
    assert not later.trusts(APP)
    assert later.routes() == ()
    with pytest.raises(NotTrusted) as raised:
        later.check_used(APP, arn(MINE), MINE, SIGNED)
    assert raised.value.remedy.endswith("run: iam-auth-proxy trust add http://app.test")


def test_two_processes_agree_on_the_first_key(store: TrustFile) -> None:
    one, two = (Trust([parse_trust("http://app.test")], stores=[store]) for _ in "12")
    one.check_used(APP, arn(MINE, "1"), MINE, SIGNED)
    with pytest.raises(KeyChanged):
        two.check_used(APP, arn(MINE, "2"), MINE, SIGNED)


def test_changes_are_followed_without_a_restart(store: TrustFile) -> None:
    trust = Trust([], stores=[store])
    changes: list[int] = []
    trust.on_change = lambda: changes.append(1)
    assert not trust.refresh()
    TrustFile(store.path).add(parse_trust("http://app.test"))
    assert not trust.trusts(APP)
    assert trust.refresh()
    assert trust.trusts(APP)
    trust.check_used(APP, arn(MINE), MINE, SIGNED)  # its own writing is no news
    assert not trust.refresh()
    TrustFile(store.path).remove(parse_trust("http://app.test"))
    assert trust.refresh()
    assert not trust.trusts(APP)
    assert len(changes) == 2


def test_a_store_that_is_damaged_meanwhile(
    store: TrustFile, caplog: pytest.LogCaptureFixture
) -> None:
    store.add(parse_trust("http://app.test"))
    trust = Trust([parse_trust("http://b.test")], stores=[store])
    trust.check_used(APP, arn(MINE), MINE, SIGNED)
    damaged = '[[app]]\norigin = "http://evil.test"\n[[app]]\n'
    store.path.write_text(damaged)
    assert not trust.refresh()
    assert f"{store.path}:3" in caplog.text
    assert not trust.refresh()  # said once
    assert caplog.text.count("not read again") == 1
    assert trust.trusts(APP)
    assert not trust.trusts(parse_origin("http://evil.test"))
    with pytest.raises(KeyChanged):
        trust.check_used(APP, arn(MINE, "2"), MINE, SIGNED)
    # What is seen from now on holds for this run, and the file stays as it is.
    other = parse_origin("http://b.test")
    trust.check_used(other, arn(MINE), MINE, SIGNED)
    with pytest.raises(KeyChanged):
        trust.check_used(other, arn(MINE, "2"), MINE, SIGNED)
    assert store.path.read_text() == damaged
    with pytest.raises(ConfigError):
        Trust([], stores=[store])


# -- wildcards -------------------------------------------------------------------------------------


def test_wildcards_never_give_session_credentials(store: TrustFile) -> None:
    origin = parse_origin("http://a.corp.example")
    rules = [replace(parse_trust(f"http://*.corp.example={arn(MINE)}"), proofs=(SIGNED, SESSION))]
    trust = Trust(rules, proofs=[SIGNED, SESSION], stores=[store])
    with pytest.raises(WeakProof):
        trust.choose(origin, legacy())
    assert trust.choose(origin, bound(SIGNED, SESSION)) is SIGNED
    app = trust.app(origin)
    assert app is not None
    assert app.proofs == {SIGNED}


def test_each_name_under_a_wildcard_has_a_pin_of_its_own(store: TrustFile) -> None:
    trust = Trust([parse_trust("http://*.corp.example")], stores=[store])
    one, two = parse_origin("http://a.corp.example"), parse_origin("http://b.corp.example")
    trust.check_used(one, arn(MINE, "1"), MINE, SIGNED)
    trust.check_used(two, arn(THEIRS, "2"), MINE, SIGNED)
    with pytest.raises(KeyChanged):
        trust.check_used(one, arn(THEIRS, "2"), MINE, SIGNED)


def test_key_accounts() -> None:
    trust = Trust([parse_trust("http://app.test")], key_accounts=[THEIRS])
    trust.check_used(APP, arn(THEIRS), MINE, SESSION)
    with pytest.raises(WrongKey):
        Trust([parse_trust("http://app.test")]).check_used(APP, arn(THEIRS), MINE, SESSION)


# -- the confirm page ------------------------------------------------------------------------------


def test_once_is_for_this_process(store: TrustFile) -> None:
    trust = Trust([], proofs=[SIGNED, SESSION], stores=[store])
    trust.grant(APP, key=arn(MINE), kind=SIGNED, keep=False)
    app = trust.app(APP)
    assert app is not None
    assert app.proofs == {SIGNED}
    trust.check_used(APP, arn(MINE), MINE, SIGNED)
    with pytest.raises(WeakProof):
        trust.choose(APP, legacy())
    with pytest.raises(KeyChanged):
        trust.check_used(APP, arn(MINE, "2"), MINE, SIGNED)
    assert not store.path.exists()
    assert Trust([], stores=[store], before=trust).trusts(APP)  # a reload is no restart
    assert not Trust([], stores=[store]).trusts(APP)
    trust.forget(APP)
    assert not trust.trusts(APP)


def test_always_is_written_for_the_signed_identity(store: TrustFile) -> None:
    trust = Trust([], stores=[store])
    trust.grant(APP, key=arn(THEIRS), kind=SIGNED, keep=False)
    trust.grant(APP, key=arn(THEIRS), kind=SIGNED, keep=True)
    again = Trust([], proofs=[SIGNED, SESSION], stores=[store])
    app = again.app(APP)
    assert app is not None
    assert app.proofs == {SIGNED}
    assert app.pin == Pin(arn(THEIRS), Accepted.PAGE, route="direct")
    with pytest.raises(WrongKey):
        again.check_used(APP, arn(THEIRS), MINE, SESSION)


def test_the_page_answers_a_changed_key_of_the_same_account_alone(store: TrustFile) -> None:
    trust = Trust([parse_trust("http://app.test")], stores=[store])
    trust.check_used(APP, arn(MINE, "1"), MINE, SIGNED)
    trust.grant(APP, key=arn(MINE, "2"), kind=SIGNED, keep=True)
    trust.check_used(APP, arn(MINE, "2"), MINE, SIGNED)
    assert store.load().rules == ()  # the rule is where the person wrote it
    with pytest.raises(KeyChanged):
        trust.grant(APP, key=arn(THEIRS), kind=SIGNED, keep=True)
    with pytest.raises(BadChallenge):
        trust.grant(APP, key=arn(MINE, "2"), kind=SESSION, keep=True)
    with pytest.raises(BadChallenge):
        trust.grant(APP, key="alias/app", kind=SIGNED, keep=True)


# -- routes ----------------------------------------------------------------------------------------

BASTION = "socks5h://127.0.0.1:8081"


def test_on_another_route_a_plain_origin_is_a_stranger(store: TrustFile) -> None:
    rules = [parse_trust("http://app.test"), parse_trust("https://app.test")]
    secure = parse_origin("https://app.test")
    office = Trust(rules, route=BASTION, stores=[store])
    for origin in (APP, secure):
        office.check_used(origin, arn(MINE), MINE, SIGNED)
    hotel = Trust(rules, stores=[store])
    assert not hotel.trusts(APP)
    assert hotel.trusts(secure)  # TLS says who answers
    error = hotel.untrusted(APP)
    assert "another route" in error.public
    assert "127.0.0.1:8081" in str(error)
    assert "127.0.0.1:8081" not in error.public + error.remedy
    assert error.remedy.endswith("iam-auth-proxy trust add http://app.test")
    assert Trust(rules, route=BASTION, stores=[store]).trusts(APP)
    # What the person writes about the route is not a surprise.
    assert Trust([replace(rules[0], via="b")], vias=["b"], stores=[store]).trusts(APP)
    store.add(parse_trust("http://app.test"))
    assert hotel.refresh()
    assert hotel.trusts(APP)


def test_the_page_does_not_bring_a_more_trusted_app_to_another_route(store: TrustFile) -> None:
    rules = [replace(parse_trust("http://app.test"), proofs=(SIGNED, SESSION))]
    Trust(rules, route=BASTION, stores=[store]).check_used(APP, arn(MINE), MINE, SESSION)
    hotel = Trust(rules, stores=[store])
    with pytest.raises(NotTrusted):
        hotel.grant(APP, key=arn(MINE), kind=SIGNED, keep=True)


def test_an_app_of_the_store_whose_route_nobody_defined(store: TrustFile) -> None:
    store.add(replace(parse_trust("http://app.test"), via="gone"))
    trust = Trust([], stores=[store])
    assert not trust.trusts(APP)
    assert trust.via(APP) == "gone"  # never reached directly instead
    assert trust.via(parse_origin("https://app.test")) == "gone"


def test_a_name_under_localhost_is_one_apps_alone(store: TrustFile) -> None:
    wiki, docs = parse_origin("https://wiki.internal"), parse_origin("https://docs.internal")
    given = replace(parse_trust(str(wiki)), https="alias", alias="w", source="user")
    store.add(replace(parse_trust(str(docs)), https="alias", alias="w"))
    trust = Trust([given], stores=[store])
    assert trust.aliases == {"w": wiki}
    app, other = trust.app(wiki), trust.app(docs)
    assert app is not None
    assert app.alias == "w"
    assert other is not None
    assert (other.https, other.alias) == ("alias", "")
    store.add(replace(parse_trust(str(docs)), https="alias", alias="docs"))
    trust.refresh()
    assert trust.aliases == {"w": wiki, "docs": docs}
    # The operator's word on how an app is reached comes before the person's.
    tunnel = replace(parse_trust(str(wiki)), https="tunnel", source="system")
    assert Trust([given, tunnel]).aliases == {}
