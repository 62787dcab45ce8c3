"""Which origins, and which keys."""

from __future__ import annotations

import pytest

from iam_auth_proxy.config import parse_trust
from iam_auth_proxy.errors import NotTrusted, WrongKey
from iam_auth_proxy.names import parse_key_reference, parse_origin
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.trust import Trust

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
