"""``iam-auth-proxy config``: each value, where it came from, and all that is wrong."""

from __future__ import annotations

import json

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
