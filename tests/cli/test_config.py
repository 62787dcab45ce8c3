"""``iam-auth-proxy config``: each value, where it came from, and all that is wrong."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from tests.cli.conftest import Home


def test_each_value_and_where_it_came_from(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.system_config.write_text('log_level = "debug"\n')
    home.config.write_text(
        'region = "eu-west-1"\ntrust = ["http://a.test", "http://b.test"]\n'
        '[via.bastion]\nsocks = "127.0.0.1:8081"\n'
    )
    monkeypatch.setenv("IAM_AUTH_PROXY_PROFILE", "dev")
    data, words = home.run("config", "show", "--bind", ":9090", "--json")
    assert words == ""
    shown = json.loads(data)
    assert shown["bind"] == {"value": ":9090", "from": ["--bind"]}
    assert shown["profile"] == {"value": "dev", "from": ["IAM_AUTH_PROXY_PROFILE"]}
    assert shown["region"] == {"value": "eu-west-1", "from": [f"{home.config}:1"]}
    assert shown["log-level"] == {"value": "debug", "from": [f"{home.system_config}:1"]}
    assert shown["sign-in"] == {"value": "auto", "from": ["default"]}
    assert shown["trust"]["value"] == ["http://a.test", "http://b.test"]
    assert shown["via.bastion"] == {"value": "127.0.0.1:8081", "from": [f"{home.config}:3"]}
    data, _ = home.run("config", "show")
    assert f"region                    eu-west-1  ({home.config}:1)\n" in data


def test_no_secret_is_shown(home: Home) -> None:
    serial = "arn:aws:iam::111122223333:mfa/ann"
    flags = ["--mfa-serial-number", serial, "--mfa-token-code", "123456"]
    for args in ([], ["--json"]):
        data, _ = home.run("config", "show", *args, *flags)
        assert "123456" not in data
        assert "(set, not shown)" in data
        assert serial in data


def test_all_is_well(home: Home) -> None:
    home.config.write_text('[[app]]\norigin = "http://a.test"\n')
    home.trust.write_text('[[app]]\norigin = "http://b.test"\n')
    _, words = home.run("config", "check")
    assert f"All is well: {home.config}; trusted apps: 2." in words
    assert json.loads(home.run("config", "check", "--json")[0])["ok"] is True


def test_what_is_wrong(home: Home) -> None:
    home.config.write_text('regoin = "x"\n[[app]]\norigin = "http://a.test"\nproofs = ["x"]\n')
    _, words = home.run("config", "check", status=2)
    assert f"{home.config}:1: regoin is not an option; did you mean region?" in words
    assert f"{home.config}:4: 'x' is not one of signed-identity" in words
    data, _ = home.run("config", "check", "--json", status=2)
    assert len(json.loads(data)["problems"]) == 2


def test_what_only_a_start_would_find(home: Home) -> None:
    home.trust.write_text("[[app]]\n")
    home.config.write_text('[via.b]\nsocks = "ann@127.0.0.1:1"\npassword_file = "/nowhere"\n')
    _, words = home.run("config", "check", status=2)
    assert f"{home.trust}:1: an [[app]] needs origin" in words
    assert f"{home.config}:1: /nowhere: cannot be read" in words


def test_the_password_of_an_upstream_proxy_is_missed_with_the_rest(home: Home) -> None:
    for command in (["run"], ["config", "check"]):
        args = [*command, "--socks-proxy", "ann@127.0.0.1:1", "--log-level", "x"]
        _, words = home.run(*args, status=2)
        assert "--socks-proxy: a user needs a password" in words
        assert "--log-level: 'x' is not one of" in words
    home.run("config", "show", "--socks-proxy", "ann@127.0.0.1:1")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--client-auth", "/nonexist"], "--client-auth: /nonexist"),
        (["--bind", "0.0.0.0:0", "--client-auth", "/nonexist"], "--client-auth: /nonexist"),
        (["--bind", "unix:/nonexist/x"], "--bind: 'unix:/nonexist/x': /nonexist is not a folder"),
        (["--bind", "192.0.2.1:0", "--client-auth", "/nonexist"], "--bind: '192.0.2.1:0': Cannot"),
    ],
)
def test_what_run_would_refuse(home: Home, args: list[str], said: str) -> None:
    _, words = home.run("config", "check", *args, status=2)
    assert said in words


def test_a_duration_of_no_session(home: Home) -> None:
    said = "Warning: --session-duration: has no effect without --assume-role-arn"
    assert said in home.run("config", "check", "--session-duration", "1h")[1]


def test_a_policy_that_is_no_object(home: Home) -> None:
    args = ["--assume-role-arn", "arn:aws:iam::111122223333:role/r", "--assume-role-policy", "[]"]
    assert "a policy is a JSON object" in home.run("config", "check", *args, status=2)[1]


def test_a_bind_that_can_be_had_or_is_in_use(home: Home, tmp_path: Path) -> None:
    home.run("config", "check", "--bind", f"unix:{tmp_path}/s")
    assert list(tmp_path.glob("s")) == []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        home.run("config", "check", "--bind", f"127.0.0.1:{taken.getsockname()[1]}")


def test_profiles_that_nobody_has(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(os.environ["AWS_CONFIG_FILE"]).write_text("[profile production]\nregion = eu-west-1\n")
    said = "'producton': there is no such AWS profile; did you mean production?"
    _, words = home.run("config", "check", "--profile", "producton", status=2)
    assert f"--profile: {said}" in words
    home.run("config", "check", "--profile", "production")
    monkeypatch.setenv("AWS_PROFILE", "producton")
    assert f"AWS_PROFILE: {said}" in home.run("config", "check", status=2)[1]
    home.run("config", "check", "--profile", "production")
    monkeypatch.delenv("AWS_PROFILE")
    _, words = home.run("trust", "add", "http://a.test", "--profile", "producton")
    assert "There is no AWS profile 'producton' yet." in words
    assert f"{home.trust}:4: {said}" in home.run("config", "check", status=2)[1]
    _, words = home.run("trust", "add", "http://a.test", "--profile", "production")
    assert "no AWS profile" not in words


def test_files_that_others_can_write(home: Home) -> None:
    home.config.write_text("")
    home.config.chmod(0o664)
    _, words = home.run("config", "check")
    assert f"Warning: {home.config}: others can write it" in words
    assert f"chmod go-w {home.config}" in words
    home.config.chmod(0o644)
    assert "Warning" not in home.run("config", "check")[1]


def test_apps_to_which_nobody_is_signed_in(home: Home) -> None:
    home.trust.write_text(
        '[[app]]\norigin = "https://a.test"\n[[app]]\norigin = "https://b.test"\n'
        'https = "intercept"\n[[app]]\norigin = "https://c.test"\nhttps = "alias"\n'
    )
    _, words = home.run("config", "check")
    assert "Run: iam-auth-proxy trust add https://a.test --https alias" in words
    assert "Run: iam-auth-proxy ca add b.test" in words
    assert "c.test" not in words
    assert len(json.loads(home.run("config", "check", "--json")[0])["warnings"]) == 2


def test_the_paths(home: Home) -> None:
    assert home.run("config", "path") == (f"{home.config}\n", "")
    paths = json.loads(home.run("config", "path", "--json")[0])
    assert paths["trust"] == str(home.trust)
    assert home.run("config", "path", "--config", "/x/y.toml")[0] == "/x/y.toml\n"
