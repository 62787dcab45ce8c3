"""Which hosts' TLS is ended here, and with whose certificates."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from iam_auth_proxy import config
from iam_auth_proxy.config import TrustRule
from iam_auth_proxy.config.values import parse_alias_of, parse_intercept, parse_trust
from iam_auth_proxy.errors import Malformed, PathError
from iam_auth_proxy.names import Origin, parse_origin
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.https.ca import Authorities, default_folder
from iam_auth_proxy.proxy.https.intercept import Interception
from iam_auth_proxy.proxy.listeners.listen import bind_tcp
from iam_auth_proxy.proxy.process.running import running
from iam_auth_proxy.proxy.signin.signins import SignIns
from iam_auth_proxy.proxy.steering import Steering
from iam_auth_proxy.relay.hello import Hello

NOW = 1_800_000_000.0
APP = Origin("https", "app.test", 443)
HELLO = Hello("app.test", (b"http/1.1",), 0x0304, "x")


@pytest.fixture
def authorities(tmp_path: Path) -> Authorities:
    found = Authorities(tmp_path / "ca")
    found.add("app.test", NOW)
    return found


async def test_a_certificate_is_made_once_and_off_the_loop(authorities: Authorities) -> None:
    interception = Interception(authorities, lambda: NOW)
    has = interception.of(APP)
    assert has is not None
    first = await has.context(HELLO)
    assert isinstance(first, ssl.SSLContext)
    interception.close()  # no thread is asked any more
    assert await has.context(HELLO) is first
    below = interception.of(Origin("https", "deep.app.test", 8443))
    assert below is not None
    with pytest.raises(PathError, match="shutting down"):
        await below.context(HELLO)


async def test_without_a_ca_it_is_said_once(
    authorities: Authorities, caplog: pytest.LogCaptureFixture
) -> None:
    interception = Interception(authorities, lambda: NOW)
    other = Origin("https", "other.test", 443)
    for _ in range(3):
        assert interception.of(other) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.endswith("Run: iam-auth-proxy ca add other.test")
    authorities.add("other.test", NOW)  # what is added counts at once
    assert interception.of(other) is not None
    authorities.remove("other.test")
    assert interception.of(other) is None
    assert len(caplog.records) == 2


def test_hosts_without_end_are_not_remembered(
    authorities: Authorities, caplog: pytest.LogCaptureFixture
) -> None:
    interception = Interception(authorities, lambda: NOW)
    for number in range(1000):
        interception.of(Origin("https", f"x{number}.test", 443))
    assert len(interception._warned) <= 256


def test_what_is_missing_is_said_at_start(
    authorities: Authorities, caplog: pytest.LogCaptureFixture
) -> None:
    rules = [parse_trust("https://tunnelled.test"), parse_trust("http://plain.test")]
    rules += [parse_intercept("app.test"), parse_intercept("*.corp.test")]
    Interception(authorities, lambda: NOW).look_at(rules)
    assert [record.message.rpartition(" ")[2] for record in caplog.records] == ["corp.test"]


async def test_a_ca_that_cannot_be_used_is_an_error_with_a_remedy(authorities: Authorities) -> None:
    authorities.file("app.test").write_text("nonsense")
    has = Interception(authorities, lambda: NOW).of(APP)
    assert has is not None
    with pytest.raises(PathError, match=r"no certificate for app\.test") as caught:
        await has.context(HELLO)
    assert caught.value.remedy == "Make it anew: iam-auth-proxy ca remove app.test"


async def test_a_leaf_that_is_due_is_made_anew(authorities: Authorities) -> None:
    now = [NOW]
    has = Interception(authorities, lambda: now[0]).of(APP)
    assert has is not None
    first = await has.context(HELLO)
    now[0] += 6.5 * 86_400
    assert await has.context(HELLO) is not first
    many = await asyncio.gather(*(has.context(HELLO) for _ in range(20)))
    assert len(set(map(id, many))) == 1


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("app.test", TrustRule("https", "app.test", 443, https="intercept")),
        ("https://APP.test", TrustRule("https", "app.test", 443, https="intercept")),
        ("app.test:8443", TrustRule("https", "app.test", 8443, https="intercept")),
        (
            "*.corp.example",
            TrustRule("https", "corp.example", 443, wildcard=True, https="intercept"),
        ),
    ],
)
def test_what_is_listed(text: str, rule: TrustRule) -> None:
    assert parse_intercept(text) == rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "*.com",
        "http://app.test",
        "app.test=arn:aws:kms:eu-west-1:111122223333:key/x",
        "app.test/path",
        "wiki",
        "localhost",
        "127.0.0.1",
        "[::1]",
        "co.uk",
        "*.github.io",
    ],
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(Malformed):
        parse_intercept(text)


def steering(trust: Trust, interception: Interception | None) -> Steering:
    """With nothing but trust: more is not asked about a tunnel."""
    sessions = SimpleNamespace(held=SimpleNamespace(origins={}), kept=SimpleNamespace(origins={}))
    parts = SimpleNamespace(trust=trust, sessions=sessions)
    return Steering(cast(SignIns, parts), monotonic=lambda: 0.0, interception=interception)


@pytest.mark.parametrize(
    ("origin", "ended"),
    [
        ("https://app.test", True),
        ("https://app.test:8443", False),
        ("https://deep.app.test", False),
        ("http://app.test", False),
        ("https://tunnelled.app.test", False),
        ("https://alias.app.test", False),
        ("https://trusted.app.test", False),
        ("https://one.below.app.test", True),
        ("https://below.app.test", False),
        ("https://other.test", False),
    ],
)
def test_hosts_that_are_listed_and_no_others(
    authorities: Authorities, origin: str, ended: bool
) -> None:
    rules = [parse_intercept("app.test"), parse_intercept("*.below.app.test")]
    rules += [parse_intercept("other.test")]  # which no CA speaks for
    rules.append(replace(parse_trust("https://tunnelled.app.test"), https="tunnel"))
    rules.append(parse_alias_of("wiki=https://alias.app.test"))
    rules.append(parse_trust("https://trusted.app.test"))
    trust, target = Trust(rules), parse_origin(origin)
    found = steering(trust, Interception(authorities, lambda: NOW)).ends_tls(target)
    assert (found is not None) is ended
    assert steering(trust, None).ends_tls(target) is None


async def test_what_is_taken_off_the_list_is_read_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    made = Authorities(default_folder()).add("app.test", time.time())
    (tmp_path / "config.toml").write_text("")

    def settings(**flags: list[str]) -> config.Settings:
        return config.load(dict(flags), {}, [tmp_path / "config.toml"])

    listener = bind_tcp("127.0.0.1", 0)
    port = listener.getsockname()[1]
    async with running(settings(intercept=["app.test"]), {}, [listener], None) as parts:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"CONNECT app.test:443 HTTP/1.1\r\nHost: app.test:443\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(
            ssl.create_default_context(cadata=made.root_pem), server_hostname="app.test"
        )
        parts.apply(settings(intercept=["app.test"], trust=["http://other.test"]))
        writer.write(b"OPTIONS * HTTP/1.1\r\nHost: app.test\r\nMax-Forwards: 0\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
        parts.apply(settings())
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
