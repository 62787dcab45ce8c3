"""The pure rules of trust: tests/vectors/trust_*.json, and who comes first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from iam_auth_proxy.config import ServiceTokenRule, TrustRule, parse_trust
from iam_auth_proxy.config.values import PROOFS
from iam_auth_proxy.errors import BadChallenge, KeyChanged, WeakProof, WrongKey
from iam_auth_proxy.names import parse_key_reference, parse_origin
from iam_auth_proxy.protocol.challenge import Bound, Challenge
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions import rules
from iam_auth_proxy.proxy.decisions.rules import Accepted, AppTrust, Pin, merge, via_of
from tests.support import vectors

APP = parse_origin("http://app.test")
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER = KEY.replace("1234abcd", "ffffffff")
FOREIGN = KEY.replace("111122223333", "999988887777")
SIGNED, SESSION = ProofKind.SIGNED_IDENTITY, ProofKind.SESSION_CREDENTIALS


def test_the_configurations_words_are_the_wires() -> None:
    assert tuple(ProofKind) == PROOFS == rules.STRENGTH


# -- keys ------------------------------------------------------------------------------------------


def app_of(case: dict[str, Any]) -> AppTrust:
    pin = Pin(case["pin"], Accepted(case["accepted"]))
    return AppTrust(APP, keys=tuple(case["keys"]), pin=pin, managed=case["managed"])


@pytest.mark.parametrize("case", vectors.accepted("trust_keys"))
def test_keys_that_may_be_used(case: dict[str, Any]) -> None:
    kind = ProofKind(case["kind"])
    rules.check(app_of(case), case["key"], kind, case["accounts"])
    rules.check_reference(app_of(case), parse_key_reference(case["key"]), kind, case["accounts"])


@pytest.mark.parametrize(("case", "error"), vectors.refused("trust_keys"))
def test_keys_that_may_not(case: dict[str, Any], error: str) -> None:
    kind = ProofKind(case["kind"])
    for check in (
        lambda: rules.check(app_of(case), case["key"], kind, case["accounts"]),
        lambda: rules.check_reference(
            app_of(case), parse_key_reference(case["key"]), kind, case["accounts"]
        ),
    ):
        with pytest.raises(WrongKey, match=error) as raised:
            check()
        assert raised.value.remedy


@pytest.mark.parametrize(
    ("app", "new", "kind", "same_account", "question"),
    [
        (AppTrust(APP, pin=Pin(KEY)), OTHER, SIGNED, True, True),
        (AppTrust(APP, pin=Pin(KEY)), FOREIGN, SIGNED, False, False),
        # A page never gives session credentials, not even to the same account.
        (AppTrust(APP, pin=Pin(KEY)), OTHER, SESSION, True, False),
        (AppTrust(APP, keys=(FOREIGN, KEY)), OTHER, SIGNED, True, True),
        (AppTrust(APP, keys=(KEY,), managed=True, place="/etc/x:1"), OTHER, SIGNED, True, False),
        (AppTrust(APP, keys=(KEY,), flagged=True, place="--trust"), FOREIGN, SIGNED, False, False),
    ],
)
def test_a_question_or_an_alarm(
    app: AppTrust, new: str, kind: ProofKind, same_account: bool, question: bool
) -> None:
    with pytest.raises(KeyChanged) as raised:
        rules.check(app, new, kind, ["111122223333"])
    changed = raised.value
    assert (changed.old, changed.new) == (KEY, new)
    assert (changed.same_account, changed.question) == (same_account, question)
    assert ("another AWS account" in changed.public) is not same_account
    if app.managed:
        assert "/etc/x:1" in changed.remedy
    elif app.flagged:
        said = f"correct --trust, which trusts the app: http://app.test={new}"
        assert changed.remedy.endswith(said), "no command knows of it"
    else:
        assert changed.remedy.endswith(f"iam-auth-proxy trust accept-key http://app.test {new}")


def test_an_alias_is_looked_at_when_kms_has_resolved_it() -> None:
    app, alias = AppTrust(APP), parse_key_reference("alias/app")
    rules.check_reference(app, alias, SESSION, ["111122223333"])
    foreign = parse_key_reference("arn:aws:kms:eu-west-1:999988887777:alias/app")
    with pytest.raises(WrongKey):
        rules.check_reference(app, foreign, SESSION, ["111122223333"])
    named = replace(app, keys=(FOREIGN,))
    rules.check_reference(named, foreign, SESSION, ["111122223333"])
    with pytest.raises(BadChallenge):
        rules.check_reference(app, alias, SIGNED, ["111122223333"])


# -- proofs ----------------------------------------------------------------------------------------


def chosen(case: dict[str, Any]) -> ProofKind:
    offered = case["offered"]
    bound = Bound(frozenset(map(ProofKind, offered)), "n" * 22) if offered else None
    challenge = Challenge("111122223333", parse_key_reference(KEY), {"a": "b"}, bound)
    before = ProofKind(case["before"]) if case["before"] else None
    allowed = frozenset(map(ProofKind, case["allowed"]))
    return rules.choose(AppTrust(APP, proofs=allowed, pin=Pin(proof=before)), challenge)


@pytest.mark.parametrize("case", vectors.accepted("trust_proofs"))
def test_the_proof_that_is_given(case: dict[str, Any]) -> None:
    assert chosen(case) == case["chosen"]


@pytest.mark.parametrize(("case", "error"), vectors.refused("trust_proofs"))
def test_no_proof_is_given(case: dict[str, Any], error: str) -> None:
    with pytest.raises(WeakProof, match=error) as raised:
        chosen(case)
    assert "iam-auth-proxy trust add http://app.test --proof signed-identity" in raised.value.remedy


@pytest.mark.parametrize(
    ("offered", "setting"),
    [(None, "IAM_AUTH_ORIGINS."), (["session-credentials"], "IAM_AUTH_PROOFS.")],
)
def test_an_app_that_may_be_set_up_incompletely(offered: list[str] | None, setting: str) -> None:
    case = {"offered": offered, "allowed": ["signed-identity"], "before": None}
    with pytest.raises(WeakProof) as raised:
        chosen(case)
    owner, _, person = raised.value.remedy.partition(" If it is an original server")
    assert owner.endswith(setting)
    assert "trust add" not in owner
    assert person.endswith(rules.add_command(APP, proofs=rules.STRENGTH))


# -- who comes first -------------------------------------------------------------------------------


def rule(text: str, source: str, **said: Any) -> TrustRule:
    return replace(parse_trust(text, said.pop("keys", ())), source=source, **said)


def test_key_by_key_the_operators_word_first() -> None:
    portal, other = parse_origin("https://portal.test"), parse_origin("https://other.test")
    [(merged, managed)] = merge(
        [
            rule("http://app.test", "store", proofs=("session-credentials",), via="later"),
            rule("http://app.test", "user", profile="mine", via="mine", allow_from=(portal,)),
            rule("http://app.test", "system", profile="theirs", allow_from=(other,), place="etc"),
        ]
    )
    assert not managed
    assert merged.place == "etc"
    assert merged.profile == "theirs"
    assert merged.via == "mine"
    assert merged.proofs == ("session-credentials",)
    assert merged.allow_from == (other,)


def test_keys_of_the_person_add_up_and_the_operators_are_all() -> None:
    person = [
        rule("http://app.test", "flag", keys=[KEY]),
        rule("http://app.test", "user"),
        rule("http://app.test", "store", keys=[OTHER, KEY]),
    ]
    [(merged, managed)] = merge(person)
    assert (merged.keys, managed) == ((KEY, OTHER), False)
    [(merged, managed)] = merge([*person, rule("http://app.test", "system")])
    assert (merged.keys, managed) == ((KEY, OTHER), False)
    [(merged, managed)] = merge([*person, rule("http://app.test", "system", keys=[FOREIGN])])
    assert (merged.keys, managed) == ((FOREIGN,), True)


def test_a_service_token_is_said_as_a_whole() -> None:
    """That it may go without encryption is said of this one, and of no other."""
    ours = ServiceTokenRule("app", "alias/a", allow_http=True)
    theirs = ServiceTokenRule("app", "alias/b")
    [(merged, _)] = merge(
        [
            rule("http://app.test", "user", service_token=ours),
            rule("http://app.test", "system", service_token=theirs),
            rule("http://app.test", "flag"),
        ]
    )
    assert merged.service_token == theirs


def test_the_most_specific_first() -> None:
    texts = ["http://*.a.test", "http://*.b.a.test", "http://c.b.a.test", "http://c.b.a.test:81"]
    order = [str(each) for each, _ in merge(parse_trust(text) for text in texts)]
    assert order[2:] == ["http://*.b.a.test", "http://*.a.test"]
    assert set(order[:2]) == {"http://c.b.a.test", "http://c.b.a.test:81"}


@pytest.mark.parametrize(
    ("origin", "via"),
    [
        ("http://app.test", "one"),
        # A route is the host's: what a browser tries first must not go around it.
        ("https://app.test", "one"),
        ("http://app.test:8080", "eight"),
        ("https://app.test:80", "one"),
        ("http://x.corp.test", "corp"),
        ("http://y.corp.test", "corp"),
        ("http://z.corp.test", "direct"),
        ("https://deep.x.corp.test:444", "corp"),
        ("http://corp.test", ""),
        ("http://other.test", ""),
    ],
)
def test_the_route_of_a_host(origin: str, via: str) -> None:
    found = [
        rule("http://app.test", "user", via="one"),
        rule("http://app.test:8080", "user", via="eight"),
        rule("http://*.corp.test", "user", via="corp"),
        rule("http://y.corp.test", "user"),
        rule("http://z.corp.test", "user", via="direct"),
        rule("http://other.test", "user"),
    ]
    assert via_of([each for each, _ in merge(found)], parse_origin(origin)) == via
