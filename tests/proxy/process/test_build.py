"""The parts as they are built from settings, and changed by a reload."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from iam_auth_proxy import config
from iam_auth_proxy.config import TrustRule
from iam_auth_proxy.errors import AwsUnavailable, ConfigError, MfaNeeded
from iam_auth_proxy.local_aws import Keys, allow, trust
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.trustfile import TrustFile
from iam_auth_proxy.proxy.process.build import Parts
from tests.proxy.conftest import APP, Answer, Client, Person, exchange
from tests.support.legacy_app import LegacyApp
from tests.support.processes import free_port
from tests.support.upstreams import Socks5

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def settings(**flags: object) -> config.Settings:
    flags = {"proof": ["signed-identity", "session-credentials"], **flags}
    return config.load({name.replace("_", "-"): flags[name] for name in flags}, {}, [])  # type: ignore[arg-type]  # a test's shorthand


async def no_own_pages() -> socket.socket:
    raise OSError("none here")


class Built:
    """Parts on a port."""

    def __init__(self, parts: Parts, port: int) -> None:
        self.parts = parts
        self.port = port

    def client(self, agent: str = "tests/1") -> Client:
        return Client(self.port, agent)


@asynccontextmanager
async def built(
    given: config.Settings,
    environ: dict[str, str] | None = None,
    listener: socket.socket | None = None,
) -> AsyncIterator[Built]:
    listener = listener or socket.create_server(("127.0.0.1", 0))
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        parts = Parts(given, environ or {}, [listener], no_own_pages, None)
        stack.push_async_callback(parts.close)
        server = await asyncio.get_running_loop().create_server(
            parts.relay.connection, sock=listener
        )
        stack.callback(server.close)
        yield Built(parts, listener.getsockname()[1])
    relay = parts.relay
    assert (relay.clients, relay.origins, parts.signins.in_progress) == (0, 0, 0)


def mapped(app: LegacyApp, host: str = "legacy.test") -> str:
    return f"{host}:80:127.0.0.1:{app.port}"


async def test_a_whole_sign_in(person: Person, legacy: LegacyApp) -> None:
    async with built(settings(trust=[APP], connect_to=[mapped(legacy)])) as proxy:
        assert (await proxy.client().open(f"{APP}/a")).status == 200
        identity = await proxy.parts.caller(30.0)
        assert identity.arn == person.keys.arn
        assert person.calls().count("GetCallerIdentity") == 1
        status = proxy.parts.status("127.0.0.1:1")
    assert status.origins == (APP,)
    assert status.counters["signins_completed"] == 1
    assert status.gauges["signins_in_progress"] == 0
    assert status.gauges["client_connections"] == 0


@pytest.mark.parametrize("allowed", [[], ["127.0.0.1", "localhost"]])
async def test_never_to_itself(person: Person, allowed: list[str]) -> None:
    async with built(settings(allow_target=allowed)) as proxy:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            request = f"GET http://{host}:{proxy.port}/ HTTP/1.1\r\nHost: x\r\n\r\n"
            answer = Answer.parse(await _closed(proxy.port, request))
            assert answer.status == 403, answer.text


@pytest.mark.parametrize("method", ["GET", "CONNECT"])
@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks4"])
async def test_nor_through_itself(person: Person, scheme: str, method: str) -> None:
    """An upstream proxy that is this one would be asked again by each connection to it."""
    port = free_port()
    listener = socket.create_server(("127.0.0.1", port))
    via = f"{scheme}://localhost:{port}"
    async with built(settings(socks_proxy=via), listener=listener) as proxy:
        target = "app.internal:80" if method == "CONNECT" else "http://app.internal/"
        request = f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n"
        answer = Answer.parse(await _closed(proxy.port, request))
        assert (answer.status, "proxy itself" in answer.text) == (403, True)
        assert proxy.parts.relay.counters.accepted == 1


# As a page would write them: the instance metadata of the bastion, in forms that lead there.
METADATA = [
    *("169.254.169.254", "169.254.169.254:80", "169.254.170.2", "[fd00:ec2::254]", "[fe80::1]"),
    *("100.100.100.200", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]"),
    *("[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a9fe:a9fe]", "[2002:a9fe:a9fe::]"),
    *("2852039166", "0xa9fea9fe", "169.254.43518", "0251.0376.0251.0376", "169.254.169.254."),
    *("metadata.google.internal", "METADATA.google.INTERNAL.", "metadata", "instance-data"),
    *("localhost", "app.localhost", "127.0.0.1", "[::1]", "0.0.0.0"),
    *("rebound.example", "169.254.169.254.nip.example"),
]


@pytest.mark.parametrize("method", ["GET", "CONNECT"])
@pytest.mark.parametrize("host", METADATA)
async def test_the_bastions_own_services_are_out_of_reach(host: str, method: str) -> None:
    """A page asks for them, and the far end would connect to any name: it is never asked."""
    async with Socks5(refuse_with=1) as upstream:
        flag = f"socks5h://127.0.0.1:{upstream.port}"
        async with built(settings(socks_proxy=flag)) as proxy:
            target = f"http://{host}/latest/meta-data/"
            if method == "CONNECT":  # to port 80, which is a WebSocket's over plain http
                target = host if host.endswith(":80") else f"{host}:80"
            request = f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n"
            answer = Answer.parse(await _closed(proxy.port, request))
        assert answer.status in (400, 403), answer.text
        assert upstream.asked == []
        async with built(settings(socks_proxy=flag)) as proxy:  # and this one is asked for
            await _closed(proxy.port, "GET http://app.internal/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert upstream.asked == [("app.internal", 80)]


async def _closed(port: int, request: str) -> bytes:
    head, _, _ = request.partition("\r\n\r\n")
    return await exchange(port, f"{head}\r\nConnection: close\r\n\r\n".encode())


# -- a reload --------------------------------------------------------------------------------------


async def test_trust_comes_and_goes(person: Person, legacy: LegacyApp) -> None:
    via = [mapped(legacy)]
    async with built(settings(connect_to=via)) as proxy:
        assert (await proxy.client().open(f"{APP}/a")).status == 403
        proxy.parts.apply(settings(connect_to=via, trust=[APP]))
        assert (await proxy.client().open(f"{APP}/a")).status == 200
        proxy.parts.apply(settings(connect_to=via))
        assert (await proxy.client().open(f"{APP}/a")).status == 403


async def test_pins_stay(person: Person) -> None:
    fields = [
        ("WWW-Authenticate", f'IAM realm="{person.aws.account}"'),
        ("Iam-Auth-Kms-Key-Id", person.key.arn),
        ("Iam-Auth-Kms-Encryption-Context", "eyJzYWx0IjoicyJ9"),
    ]
    with LegacyApp(person.aws, person.server, person.key.arn, challenge=fields) as app:
        given = settings(trust=[APP], connect_to=[mapped(app)])
        async with built(given) as proxy:
            first = await proxy.client().send(f"{APP}/a")
            assert first.status == 302
            proxy.parts.apply(given)
            fields[1] = ("Iam-Auth-Kms-Key-Id", person.aws.key().arn)
            answer = await proxy.client().send(f"{APP}/a")
            assert answer.status == 403
            assert "[key-changed]" in answer.text


async def test_the_dialled_address_and_the_mode(person: Person, legacy: LegacyApp) -> None:
    nobody = f"legacy.test:80:127.0.0.1:{free_port()}"
    async with built(settings(trust=[APP], connect_to=[nobody])) as proxy:
        assert (await proxy.client().open(f"{APP}/a")).status == 502
        proxy.parts.apply(settings(trust=[APP], connect_to=[mapped(legacy)], sign_in="redirect"))
        first = await proxy.client().send(f"{APP}/a")
        assert first.one("Location").startswith("//legacy.test/auth?token=")


async def test_socks(person: Person, legacy: LegacyApp) -> None:
    """Also for the hand-over, which is the proxy's own request."""
    async with Socks5(names={"legacy.test": ("127.0.0.1", legacy.port)}) as tunnel:
        given = settings(trust=[APP], socks_proxy=f"127.0.0.1:{tunnel.port}")
        async with built(settings(trust=[APP])) as proxy:
            assert (await proxy.client().open(f"{APP}/a")).status in (502, 504)
            proxy.parts.apply(given)
            assert (await proxy.client().open(f"{APP}/a")).status == 200
    assert set(tunnel.asked) == {("legacy.test", 80)}


@pytest.mark.parametrize("variable", ["", "_FILE"])
async def test_the_tunnels_password(
    person: Person, legacy: LegacyApp, tmp_path: Path, variable: str
) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse\n")
    name = f"IAM_AUTH_PROXY_SOCKS_PASSWORD{variable}"
    environ = {name: str(file) if variable else "correct horse"}
    names = {"legacy.test": ("127.0.0.1", legacy.port)}
    async with Socks5(names=names, credentials=("ann", "correct horse")) as tunnel:
        given = settings(trust=[APP], socks_proxy=f"ann@127.0.0.1:{tunnel.port}")
        async with built(given, environ) as proxy:
            assert (await proxy.client().open(f"{APP}/a")).status == 200
        with pytest.raises(ConfigError, match="needs a password"):
            async with built(given):
                pass  # pragma: no cover


async def test_a_password_that_cannot_be_read(tmp_path: Path) -> None:
    given = settings(socks_proxy="ann@127.0.0.1:1")
    environ = {"IAM_AUTH_PROXY_SOCKS_PASSWORD_FILE": str(tmp_path / "missing")}
    with pytest.raises(ConfigError) as caught:
        async with built(given, environ):
            pass  # pragma: no cover
    assert caught.value.problems[0].place == "IAM_AUTH_PROXY_SOCKS_PASSWORD_FILE"


async def test_what_cannot_be_used_changes_nothing(person: Person, legacy: LegacyApp) -> None:
    given = settings(trust=[APP], connect_to=[mapped(legacy)])
    async with built(given) as proxy:
        with pytest.raises(ConfigError):
            proxy.parts.apply(settings(socks_proxy="ann@127.0.0.1:1"))
        assert (await proxy.client().open(f"{APP}/a")).status == 200


async def test_an_sso_login_shows_a_legacy_app_the_login_role(
    person: Person, legacy: LegacyApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = person.aws.role("login", trust("111122223333")).arn
    policies = [allow("kms:Encrypt", resource=person.key.arn), allow("sts:AssumeRole")]
    session = person.aws.sso_role("Developer", "ann@example.com", policies=policies)
    for name, value in session.env.items():
        monkeypatch.setenv(name, value)
    given = settings(trust=[APP], connect_to=[mapped(legacy)], login_role_arn=role)
    async with built(given) as proxy:
        assert (await proxy.client().open(f"{APP}/a")).status == 200
    assert "GetSessionToken" not in {call.action for call in person.aws.calls}
    assert {call.principal for call in person.aws.calls if call.action == "GetCallerIdentity"} == {
        session.arn,
        f"{role.replace(':iam:', ':sts:').replace(':role/', ':assumed-role/')}/ann@example.com",
    }


async def test_another_identity_shares_nothing(
    person: Person, legacy: LegacyApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sign-in under way is not joined by those who come after the reload."""
    given = settings(trust=[APP], connect_to=[mapped(legacy)])
    async with built(given) as proxy:
        assert (await proxy.client().send(f"{APP}/a")).status == 302
        bob = person.aws.user("bob", policies=[allow("kms:Encrypt", resource="*")])
        for name, value in bob.keys().env.items():
            monkeypatch.setenv(name, value)
        proxy.parts.apply(given)
        answer = await proxy.client().open(f"{APP}/a")
    assert answer.text == f"you are {bob.arn}"


async def test_an_mfa_session_outlives_a_reload(
    person: Person, legacy: LegacyApp, become: Callable[[Keys], None]
) -> None:
    """Its code is used up."""
    user = person.aws.user("mia", policies=[allow("kms:Encrypt", resource=person.key.arn)])
    device = user.mfa()
    become(user.keys())
    flags: dict[str, object] = {"trust": [APP], "connect_to": [mapped(legacy)]}
    flags |= {"mfa_serial_number": device.serial, "mfa_token_code": device.code()}
    async with built(settings(**flags)) as proxy:
        assert (await proxy.client().open(f"{APP}/a")).status == 200
        proxy.parts.apply(settings(**flags))
        assert (await proxy.client("b").open(f"{APP}/a")).status == 200
        proxy.parts.apply(settings(**flags, session_duration="30m"))
        with pytest.raises(MfaNeeded):
            await proxy.parts.caller(10.0)


async def test_an_outage_is_one(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    async with built(settings()) as proxy:
        with pytest.raises(AwsUnavailable):
            await proxy.parts.caller(10.0)


# -- a route of an app's own -----------------------------------------------------------------------


def routed(tmp_path: Path, toml: str) -> config.Settings:
    file = tmp_path / "config.toml"
    file.write_text(toml)
    return config.load({}, {}, [file])


async def test_each_app_by_its_own_route(tmp_path: Path) -> None:
    """And the rest of its host with it; wildcards too."""
    async with Socks5(refuse_with=1) as bastion, Socks5(refuse_with=1) as default:
        given = routed(
            tmp_path,
            f'socks_proxy = "127.0.0.1:{default.port}"\n'
            f'[via.bastion]\nsocks = "127.0.0.1:{bastion.port}"\n'
            '[[app]]\norigin = "http://one.internal"\nvia = "bastion"\n'
            '[[app]]\norigin = "http://*.corp.internal"\nvia = "bastion"\n'
            '[[app]]\norigin = "http://here.internal"\nvia = "direct"\n',
        )
        async with built(given) as proxy:
            for url in ("one.internal", "one.internal:81", "a.corp.internal", "here.internal"):
                await _closed(proxy.port, f"GET http://{url}/ HTTP/1.1\r\nHost: x\r\n\r\n")
            await _closed(proxy.port, "CONNECT one.internal:443 HTTP/1.1\r\nHost: x\r\n\r\n")
            await _closed(proxy.port, "GET http://other.internal/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert bastion.asked == [
            ("one.internal", 80),
            ("one.internal", 81),
            ("a.corp.internal", 80),
            ("one.internal", 443),
        ]
        assert default.asked == [("other.internal", 80)]


async def test_a_route_that_nobody_defined_is_not_gone_around(
    tmp_path: Path, legacy: LegacyApp
) -> None:
    given = config.load({"connect-to": [mapped(legacy)]}, {}, [tmp_path / "config.toml"])
    store = TrustFile(tmp_path / "trust.toml")
    async with built(given) as proxy:
        assert (await proxy.client().open(f"{APP}/a")).status == 403  # a stranger, but reached
    async with built(given) as proxy:
        store.add(replace(config.parse_trust(APP), via="gone"))  # followed without a restart
        answer = await proxy.client().open(f"{APP}/a")
    assert answer.status == 502
    assert "legacy.test is reached by the route [via.gone], and there is none" in answer.text


async def test_trust_that_is_added_by_command_counts_at_once(
    person: Person, legacy: LegacyApp, tmp_path: Path
) -> None:
    given = config.load({"connect-to": [mapped(legacy)]}, {}, [tmp_path / "config.toml"])
    store = TrustFile(tmp_path / "trust.toml")
    async with built(given) as proxy:
        assert (await proxy.client().open(f"{APP}/a")).status == 403
        store.add(replace(config.parse_trust(APP), proofs=("session-credentials",)))
        assert (await proxy.client().open(f"{APP}/a")).status == 200
    [pin] = store.load().pins.values()
    assert (pin.key, pin.proof, pin.route) == (person.key.arn, "session-credentials", "direct")


async def test_the_password_of_a_route(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("correct horse\n")
    toml = '[via.b]\nsocks = "ann@127.0.0.1:{}"\npassword_file = "{}"\n'
    toml += '[[app]]\norigin = "http://one.internal"\nvia = "b"\n'
    async with Socks5(credentials=("ann", "correct horse"), refuse_with=1) as bastion:
        async with built(routed(tmp_path, toml.format(bastion.port, secret))) as proxy:
            await _closed(proxy.port, "GET http://one.internal/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert bastion.asked == [("one.internal", 80)]
    for text, said in (
        (toml.format(1, tmp_path / "absent"), "absent: cannot be read"),
        (toml.format(1, ""), "add password_file to [via.b]"),
        (toml.format(1, secret).replace("ann@", ""), "a password without a user"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)) as raised:
            async with built(routed(tmp_path, text)):
                pass
        assert raised.value.problems[0].place == f"{tmp_path / 'config.toml'}:1"


async def test_how_much_of_a_body_is_kept_follows_the_settings():
    async with built(settings()) as proxy:
        room = proxy.parts.relay._shared.room
        assert (room.limits.replay_memory, room.limits.replay_file) == (8 * 2**20, 64 * 2**20)
        proxy.parts.apply(settings(replay_body="1MiB"))
        assert (room.limits.replay_memory, room.limits.replay_file) == (2**20, 2**20)


async def test_a_question_shows_what_holds(tmp_path: Path):
    """Another profile may be used after a reload than the page names."""
    file = tmp_path / "config.toml"
    given = config.load({}, {}, [file])
    asked = {
        "kind": "trust",
        "origin": parse_origin(APP),
        "realm": "111122223333",
        "key": KEY,
        "old_key": "",
        "proof": ProofKind.SIGNED_IDENTITY,
        "profile": "",
        "identity": "",
        "way_back": f"{APP}/",
    }
    async with built(given) as proxy:
        questions = proxy.parts.questions
        assert questions.ask(**asked) is not None
        proxy.parts.apply(given)
        assert not len(questions)
        assert questions.ask(**asked) is not None
        TrustFile(tmp_path / "trust.toml").add(TrustRule("http", "other.test", 80))
        proxy.parts.reaches()
        assert not len(questions)
