"""The pages on the proxy's own address, through the relay as every request comes."""

from __future__ import annotations

import re

import pytest

from iam_auth_proxy.config.values import parse_alias_of, parse_trust
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.pages.status import Status, exposition
from tests.proxy.conftest import Answer, exchange
from tests.proxy.pages.conftest import Own

PAGES = ["/", "/healthz", "/metrics"]
GUARDS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def guarded(answer: Answer) -> None:
    for name, value in GUARDS.items():
        assert answer.all(name) == [value], name
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]
    assert not answer.all("Set-Cookie")


async def test_under_no_name_at_all(own: Own) -> None:
    """HTTP/1.0 without Host: ours is the answer, and not that of the library behind."""
    answer = Answer.parse(await exchange(own.port, b"GET / HTTP/1.0\r\n\r\n"))
    assert (answer.status, answer.text) == (400, "The request has no Host.")


@pytest.mark.parametrize("target", PAGES)
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST"])
async def test_under_the_proxys_own_address(own: Own, target: str, name: str) -> None:
    answer = await own.ask(target, f"{name}:{own.port}")
    assert answer.status == 200
    guarded(answer)
    assert "script" not in answer.text.lower()


async def test_the_home_page_says_what_to_do(own: Own) -> None:
    answer = await own.ask("/")
    assert answer.one("Content-Type") == "text/html; charset=utf-8"
    assert "http://grafana.internal" in answer.text
    assert f"http://{own.host}/proxy.pac" in answer.text
    assert f"curl -x {own.host} http://grafana.internal/" in answer.text
    assert "iam-auth-proxy browser http://grafana.internal/" in answer.text
    own.trust = Trust([])
    assert "None yet" in (await own.ask("/")).text


async def test_the_home_page_says_where_an_alias_is(own: Own) -> None:
    own.trust = Trust([parse_alias_of("wiki=https://wiki.test")])
    own.aliases = {"https://wiki.test": "http://wiki.localhost:8080"}
    text = (await own.ask("/")).text
    assert "Open it as <code>http://wiki.localhost:8080/</code>" in text
    assert "curl http://wiki.localhost:8080/</pre>" in text


async def test_the_home_page_opens_no_app_that_is_tunnelled(own: Own) -> None:
    """Nobody is signed in inside a tunnel."""
    own.trust = Trust([parse_trust("https://a.test"), parse_trust("http://b.test")])
    text = (await own.ask("/")).text
    assert "iam-auth-proxy browser http://b.test/" in text
    assert f"curl -x {own.host} http://b.test/" in text


async def test_a_name_that_is_nobodys_says_how_it_is_given(own: Own) -> None:
    answer = await own.ask("/", f"nobody.localhost:{own.port}")
    assert (answer.status, "nobody" in answer.text) == (421, False)
    assert "iam-auth-proxy trust add https://wiki.internal --alias wiki" in answer.text
    guarded(answer)


@pytest.mark.parametrize("target", [*PAGES, "/missing"])
@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("evil.test", "DNS rebinding: any name can be pointed at loopback"),
        ("evil.test:{port}", "with the port"),
        ("127.0.0.1", "without the port"),
        ("127.0.0.1:{other}", "another port"),
        ("localhost:{other}", "another port"),
        ("localhost.evil.test:{port}", "a name that begins like ours"),
        ("127.0.0.1.evil.test:{port}", "a name that begins like ours"),
        ("x.localhost:{port}", "an alias of nobody"),
        ("[::ffff:127.0.0.1]:{port}", "the mapped address"),
        ("[::1]:{port}", "an address we do not listen on"),
        ("0.0.0.0:{port}", "reaches us, and is not ours"),
        ("127.1:{port}", "another spelling"),
        ("localhost.:{port}", "with the root's dot"),
    ],
)
async def test_under_no_other_name(own: Own, target: str, host: str, why: str) -> None:
    answer = await own.ask(target, host.format(port=own.port, other=own.port ^ 1))
    assert answer.status in (400, 421), why
    assert "grafana" not in answer.text
    if answer.status == 421:
        guarded(answer)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost", "0.0.0.0"])
async def test_not_through_the_proxy_itself(own: Own, host: str) -> None:
    answer = await own.ask(f"http://{host}:{own.port}/metrics", f"{host}:{own.port}")
    assert answer.status in (400, 403), answer.text
    assert "iam_auth_proxy" not in answer.text


async def test_another_host_never_reaches_an_app(own: Own) -> None:
    """Origin-form is the proxy's own pages', whatever Host says (protocol.md 2)."""
    answer = await own.ask("/", "app.test")
    assert answer.status == 421
    assert own.relay.counters.dialled == 1, "its own pages, in process"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("target", PAGES)
async def test_nothing_can_be_changed(own: Own, method: str, target: str) -> None:
    answer = await own.ask(target, method=method, extra="Content-Length: 0\r\n")
    assert answer.status == 405
    assert set(answer.one("Allow").split(",")) == {"GET", "HEAD"}
    guarded(answer)


async def test_what_is_not_there(own: Own) -> None:
    for target in ("/missing", "/static/../etc/passwd", "//", "/%2e%2e/", "/metrics/"):
        answer = await own.ask(target)
        assert answer.status == 404, target
        guarded(answer)


@pytest.mark.parametrize(
    "extra",
    ["Content-Length: 9\r\n", "Expect: 100-continue\r\nContent-Length: 1\r\n", "Cookie: \x80\r\n"],
)
async def test_odd_requests_get_an_answer(own: Own, extra: str) -> None:
    text = f"GET /metrics HTTP/1.1\r\nHost: {own.host}\r\nConnection: close\r\n{extra}\r\nabcdefghi"
    raw = await exchange(own.port, text.encode("latin-1"))
    assert b"500" not in raw.split(b"\r\n", 1)[0]
    assert b"Traceback" not in raw


async def test_head(own: Own) -> None:
    answer = await own.ask("/", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    guarded(answer)


# -- /metrics --------------------------------------------------------------------------------------

# Prometheus' text format 0.0.4: comments, and samples of one label at most here.
_TYPE = re.compile(r"# TYPE ([a-z_]+) (counter|gauge)")
_SAMPLE = re.compile(r'([a-z_]+)(?:\{reason="([A-Za-z0-9_]+)"\})? ([0-9]+)')


def samples(text: str) -> dict[tuple[str, str], int]:
    """Every line is of the format, and every sample follows its TYPE."""
    assert text.endswith("\n")
    found: dict[tuple[str, str], int] = {}
    typed = kind = ""
    for line in text.splitlines():
        match = _TYPE.fullmatch(line)
        if match:
            typed, kind = match.groups()
            assert typed.endswith("_total") is (kind == "counter")
            continue
        if line.startswith("# HELP "):
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample is not None, line
        assert sample[1] == typed
        assert (sample[1], sample[2] or "") not in found
        found[sample[1], sample[2] or ""] = int(sample[3])
    return found


async def test_metrics_count(own: Own) -> None:
    before = samples((await own.ask("/metrics")).text)
    await own.ask("http://no-such-name.invalid/", "x")
    await exchange(own.port, b"BREW / HTTP/1.1\r\n\r\n")
    answer = await own.ask("/metrics")
    assert answer.one("Content-Type").startswith("text/plain")
    after = samples(answer.text)
    requests = ("iam_auth_proxy_requests_total", "")
    assert after[requests] == before[requests] + 2
    assert after["iam_auth_proxy_refused_total", "501"] == 1
    assert sum(n for (name, _), n in after.items() if name == "iam_auth_proxy_failed_total") == 1
    assert after["iam_auth_proxy_client_connections", ""] == 1


def test_the_exposition_of_nothing() -> None:
    assert samples(exposition(Status("", (), {}, {"tasks": 3}))) == {
        ("iam_auth_proxy_tasks", ""): 3
    }
