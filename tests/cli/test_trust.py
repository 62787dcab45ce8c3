"""``iam-auth-proxy trust``: says what it did, asks nothing, and can be undone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from iam_auth_proxy.cli.running import Running, Told
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.rules import Accepted, Pin
from iam_auth_proxy.proxy.decisions.trustfile import TrustFile
from tests.cli.conftest import Home

APP = "http://grafana.internal"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER = KEY.replace("1234abcd", "ffffffff")
TOKEN = ["--token-to", "confidant", "--token-key", "alias/authnz"]


def undo(words: str) -> list[str]:
    """The command that the words end with, as a shell reads it."""
    return shlex.split(words.rpartition("Undo: iam-auth-proxy ")[2])


def listed(home: Home) -> dict[str, dict[str, object]]:
    data, _ = home.run("trust", "list", "--json")
    return {each["origin"]: each for each in json.loads(data)}


def test_nobody_is_trusted_by_default(home: Home) -> None:
    data, words = home.run("trust", "list")
    assert data == ""
    assert "trust add" in words
    assert home.run("trust", "list", "--json")[0] == "[]\n"


class Answers(Running):
    """A proxy that runs, and has these apps."""

    def __init__(self, *apps: Mapping[str, Any]) -> None:
        super().__init__(Path("/nowhere"))
        self._apps = [{"profile": "", "via": "", **app} for app in apps]

    def ask(self, path: str, asked: Mapping[str, object] | None = None) -> dict[str, Any]:
        assert (path, asked) == ("/status", None)
        return {"apps": self._apps}


def test_what_holds_in_the_running_proxy_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flags are in no file."""
    home.run("trust", "add", APP)
    home.run("trust", "add", "http://*.corp.internal")
    both = ["session-credentials", "signed-identity"]
    proxy = Answers(
        {"origin": APP, "proofs": both},
        {"origin": "http://*.corp.internal", "proofs": []},
        {"origin": "http://flag.internal", "proofs": both[1:], "profile": "ops", "via": "bastion"},
    )
    monkeypatch.setattr("iam_auth_proxy.cli.trust.find", lambda bind, named: proxy)
    data, words = home.run("trust", "list")
    assert words == ""
    written, other, *alone = (line.split("  ") for line in data.splitlines())
    assert (written[0], other[0]) == (APP, "http://*.corp.internal")
    place = "the running proxy alone; see: iam-auth-proxy status"
    assert [[cell.strip() for cell in row if cell] for row in alone] == [
        [APP, "signed-identity or session-credentials", place],
        ["http://flag.internal", "signed-identity, profile ops, via bastion", place],
    ]
    assert list(listed(home)) == [APP, "http://*.corp.internal"], "JSON has what is written"


def test_a_list_does_not_fail_for_a_proxy(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def several(bind: object, named: bool) -> Running:
        raise Told("several proxies run: a, b", "Say which, for example: --bind a", "several")

    home.run("trust", "add", APP)
    monkeypatch.setattr("iam_auth_proxy.cli.trust.find", several)
    data, words = home.run("trust", "list")
    assert data.startswith(APP)
    assert "besides is not shown: several proxies run: a, b. Say which" in words


def test_add_says_what_it_did_and_how_to_undo_it(home: Home) -> None:
    data, words = home.run("trust", "add", APP + "/")
    assert data == ""
    assert f"Trusted: {APP}. Written to {home.trust}." in words
    assert listed(home)[APP] == {
        "origin": APP,
        "proofs": ["signed-identity"],
        "place": f"{home.trust}:4",
    }
    _, words = home.run(*undo(words))
    assert listed(home) == {}
    home.run(*undo(words))
    assert list(listed(home)) == [APP]


def test_all_that_can_be_said(home: Home) -> None:
    home.config.write_text('[via.bastion]\nsocks = "127.0.0.1:8081"\n')
    said = ["--profile", "ops", "--kms-key", KEY, "--kms-key", OTHER, "--via", "bastion"]
    said += ["--proof", "signed-identity", "--proof", "session-credentials"]
    said += ["--allow-from", "https://portal.internal"]
    home.run("trust", "add", APP, *said)
    before = listed(home)[APP]
    assert before == {
        "origin": APP,
        "profile": "ops",
        "proofs": ["signed-identity", "session-credentials"],
        "kms_keys": [KEY, OTHER],
        "via": "bastion",
        "allow_from": ["https://portal.internal"],
        "place": f"{home.trust}:4",
    }
    data, _ = home.run("trust", "show", APP)
    assert f"kms_keys      {KEY}\n              {OTHER}\n" in data
    _, words = home.run("trust", "remove", APP)
    home.run(*undo(words))
    assert listed(home)[APP] == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["app"], "iam-auth-proxy: 'app': an origin is http://HOST"),
        (
            [f"{APP}/path"],
            "iam-auth-proxy: 'http://grafana.internal/path': an origin is http://HOST[:PORT] ",
        ),
        (["http://*.co.uk"], "a wildcard needs a domain of your own"),
        ([APP, "--kms-key", "alias/x"], "  --kms-key: 'alias/x': not a KMS key ARN"),
        ([APP, "--proof", "all"], "--proof: 'all' is not one of signed-identity"),
        ([APP, "--via", "bastion"], "--via: http://grafana.internal: there is no [via.bastion]"),
        ([APP, "--allow-from", "x"], "--allow-from: 'x': an origin is"),
        (["http://*.corp.internal", "--proof", "session-credentials"], "a wildcard never gives"),
        ([APP, "--alias", "wiki"], "--https: http://grafana.internal is not an https:// origin"),
        (["https://a.test", "--https", "tunel"], "did you mean tunnel?"),
        (["https://a.test", "--alias", "a.b"], "--alias: 'a.b': an alias is one label"),
        ([APP, "--token-to", "c"], "needs its audience and its key"),
        ([APP, "--allow-http"], "needs its audience and its key"),
        ([APP, *TOKEN], "--token-to: http://grafana.internal is not encrypted"),
        ([APP, *TOKEN, "--token-type", "x", "--allow-http"], "not one of user, service"),
        (["https://*.corp.internal", *TOKEN], "a wildcard gets no service token"),
    ],
)
def test_what_cannot_be_trusted(home: Home, args: list[str], said: str) -> None:
    _, words = home.run("trust", "add", *args, status=2)
    assert said in words
    assert not home.trust.exists()


def test_what_an_app_on_https_needs_besides(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    _, words = home.run("trust", "add", "https://wiki.corp.test")
    assert (
        "not read. Run:\n  iam-auth-proxy trust add https://wiki.corp.test --https alias\n" in words
    )
    _, words = home.run("trust", "add", "https://wiki.corp.test", "--https", "tunnel")
    assert "not read" not in words, "it was said"
    _, words = home.run("trust", "add", "https://wiki.corp.test", "--https", "intercept")
    assert "Run:\n  iam-auth-proxy ca add wiki.corp.test\n" in words
    home.run("ca", "add", "corp.test")
    _, words = home.run("trust", "add", "https://wiki.corp.test", "--https", "intercept")
    assert "Make it" not in words
    assert "tunnel" not in words


def test_who_is_no_app_of_ours(home: Home) -> None:
    """No site has asked for anything."""
    for command in (["show"], ["accept-key"]):
        more = [KEY] if command == ["accept-key"] else []
        _, words = home.run("trust", *command, APP, *more, status=4)
        assert words.startswith(
            f"iam-auth-proxy: {APP} is not trusted.\nRun: iam-auth-proxy trust add"
        )
    _, words = home.run("trust", "remove", APP, status=4)
    assert words.splitlines()[0] == f"iam-auth-proxy: {APP} was not trusted."


def test_a_service_token(home: Home) -> None:
    said = [*TOKEN, "--token-type", "user", "--token-from", "ann", "--allow-http"]
    _, words = home.run("trust", "add", APP, *said)
    whole = "to confidant, key alias/authnz, from user ann, unencrypted too"
    assert f"service token ({whole})" in words
    before = listed(home)[APP]
    assert before["service_token"] == {
        "to": "confidant",
        "kms_key": "alias/authnz",
        "type": "user",
        "from": "ann",
        "allow_http": True,
    }
    assert f"service_token {whole}\n" in home.run("trust", "show", APP)[0]
    home.run("trust", "add", APP, "--profile", "ops")
    assert listed(home)[APP] == {**before, "profile": "ops"}
    _, words = home.run("trust", "remove", APP)
    home.run(*undo(words))
    assert listed(home)[APP] == {**before, "profile": "ops"}


def test_a_service_token_that_a_tunnel_keeps_out(home: Home) -> None:
    _, words = home.run("trust", "add", "https://c.internal", *TOKEN)
    command = "iam-auth-proxy trust add https://c.internal --https alias"
    assert f"no service token is added to them. Run: {command}." in words
    _, words = home.run("trust", "add", "https://c.internal", "--https", "alias")
    assert "tunnel" not in words


def test_a_service_token_that_another_entry_says_otherwise(home: Home) -> None:
    entry = 'origin = "https://c.internal"\nhttps = "alias"\n'
    token = 'service_token = { to = "other", kms_key = "alias/b" }\n'
    home.config.write_text(f"[[app]]\n{entry}{token}")
    _, words = home.run("trust", "add", "https://c.internal", *TOKEN, status=1)
    assert f"But {home.config}:1 comes first for service_token" in words


def test_an_app_on_https_and_its_alias(home: Home) -> None:
    wiki = "https://wiki.internal"
    _, words = home.run("trust", "add", wiki, "--https", "alias")
    assert "as http://wiki.localhost" in words
    assert "Open it as http://wiki.localhost:8080/ while the proxy runs." in words
    assert listed(home)[wiki]["https"] == "alias"
    assert listed(home)[wiki]["alias"] == "wiki"
    home.run("trust", "add", wiki, "--alias", "docs")
    before = listed(home)[wiki]
    assert before["alias"] == "docs"
    _, words = home.run("trust", "remove", wiki)
    home.run(*undo(words))
    assert listed(home)[wiki] == before
    _, words = home.run("trust", "add", "https://docs.internal", "--https", "alias", status=2)
    assert "https://docs.internal: the alias docs is https://wiki.internal's." in words
    assert "https://docs.internal" not in listed(home)
    home.run("trust", "add", wiki, "--https", "tunnel")
    assert listed(home)[wiki]["https"] == "tunnel"
    assert "alias" not in listed(home)[wiki]
    home.run("trust", "add", "https://docs.internal", "--https", "alias")


def test_what_another_entry_says_first_is_told(home: Home) -> None:
    home.config.write_text(f'[[app]]\norigin = "{APP}"\nproofs = ["signed-identity"]\n')
    _, words = home.run("trust", "add", APP, "--proof", "session-credentials", status=1)
    assert f"But {home.config}:1 comes first for proofs: change it there." in words
    home.system_config.write_text(f'[[app]]\norigin = "{APP}"\nkms_keys = ["{KEY}"]\n')
    _, words = home.run("trust", "add", APP, "--kms-key", OTHER, status=1)
    assert f"But {home.system_config}:1 comes first for kms_keys" in words


def test_remove_tells_where_else_it_is_trusted(home: Home) -> None:
    home.config.write_text(f'[[app]]\norigin = "{APP}"\n')
    _, words = home.run("trust", "remove", APP, status=1)
    assert f"{APP} is still trusted: {home.config}:1. Take it out there." in words
    home.config.write_text("")
    home.run("trust", "add", "http://*.grafana.internal")
    home.run("trust", "add", "http://a.grafana.internal")
    _, words = home.run("trust", "remove", "http://a.grafana.internal", status=1)
    assert "is covered by http://*.grafana.internal, and so still trusted" in words
    _, words = home.run("trust", "remove", APP, status=4)
    assert "was not trusted" in words


def test_show_knows_who_covers_it_and_what_was_pinned(home: Home) -> None:
    home.run("trust", "add", "http://*.corp.internal")
    origin = parse_origin("http://a.corp.internal")
    pin = Pin(KEY, Accepted.FIRST_USE, ProofKind.SIGNED_IDENTITY, "/auth", "direct")
    TrustFile(home.trust).pin(origin, lambda _: pin)
    shown = json.loads(home.run("trust", "show", str(origin), "--json")[0])
    assert shown == {
        "origin": str(origin),
        "covered_by": "http://*.corp.internal",
        "proofs": ["signed-identity"],
        "place": f"{home.trust}:4",
        "pinned_key": KEY,
        "pinned_by": "first-use",
        "pinned_proof": "signed-identity",
        "pinned_path": "/auth",
        "pinned_route": "direct",
    }
    _, words = home.run("trust", "show", APP, status=4)
    assert f"trust add {APP}" in words
    assert "http://*.corp.internal" in home.run("trust", "show", "http://*.corp.internal")[0]


def test_accept_key_replaces_what_was_pinned(home: Home) -> None:
    home.run("trust", "add", APP)
    TrustFile(home.trust).pin(parse_origin(APP), lambda _: Pin(KEY))
    _, words = home.run("trust", "accept-key", APP, OTHER)
    assert f"No longer accepted: {KEY}." in words
    assert listed(home)[APP]["pinned_key"] == OTHER
    assert listed(home)[APP]["pinned_by"] == "command"
    home.run(*undo(words))
    assert listed(home)[APP]["pinned_key"] == KEY


def test_accept_key_is_for_trusted_apps_and_their_owners(home: Home) -> None:
    _, words = home.run("trust", "accept-key", APP, KEY, status=4)
    assert f"trust add {APP} --kms-key {KEY}" in words
    _, words = home.run("trust", "accept-key", APP, "alias/x", status=2)
    assert "not a KMS key ARN" in words
    _, words = home.run("trust", "accept-key", "http://*.corp.internal", KEY, status=2)
    home.system_trust.write_text(f'[[app]]\norigin = "{APP}"\nkms_keys = ["{KEY}"]\n')
    _, words = home.run("trust", "accept-key", APP, OTHER, status=4)
    assert "operator lists the keys" in words
    assert not home.trust.exists()


def test_a_listed_key_stays_beside_the_accepted_one(home: Home) -> None:
    home.config.write_text(f'[[app]]\norigin = "{APP}"\nkms_keys = ["{KEY}"]\n')
    _, words = home.run("trust", "accept-key", APP, OTHER)
    assert f"Accepted besides: {KEY}" in words


def test_an_app_of_this_machine_wants_more(home: Home) -> None:
    said = "unless it runs with --allow-target localhost"
    assert said in home.run("trust", "add", "http://localhost:3000")[1]
    home.config.write_text('allow_targets = ["localhost:3000"]\n')
    assert said not in home.run("trust", "add", "http://localhost:3000")[1]


def test_a_damaged_store_is_told_by_its_line(home: Home) -> None:
    home.trust.write_text('[[app]]\norigin = "x"\n')
    for args in (["list"], ["show", APP], ["add", APP], ["remove", APP], ["accept-key", APP, KEY]):
        _, words = home.run("trust", *args, status=2)
        assert f"{home.trust}:1: 'x': an origin is" in words
    assert home.trust.read_text() == '[[app]]\norigin = "x"\n'


def test_a_mistyped_command_is_answered_with_the_nearest(home: Home) -> None:
    _, words = home.run("trust", "remvoe", APP, status=2)
    assert "Did you mean: iam-auth-proxy trust remove" in words
    _, words = home.run("trust", "add", status=2)
    assert "ORIGIN is missing" in words
