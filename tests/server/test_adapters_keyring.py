"""What the adapters do about a key ring: read it off the event loop, and at the start of an app."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from iam_auth_proxy.errors import AwsUnavailable
from iam_auth_proxy.protocol.keyring import KeyRing, KeyVersion
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.asgi import IamAuth
from iam_auth_proxy.testing import signed_in
from tests.server.apps import FRAMEWORKS
from tests.server.conftest import ANN, GateMaker
from tests.server.originalproxy import Answer, Browser
from tests.server.test_asgi import Inner, run
from tests.server.test_rings import PROMPTLY, Stored

OLD, NEW = KeyVersion.of(b"old"), KeyVersion.of(b"new")
BEFORE = KeyRing(primary=OLD)
AFTER = KeyRing(primary=NEW, also_accepted=(OLD,))


def gate_on(make_gate: GateMaker, stored: Stored) -> Gate:
    return make_gate(secret_key=None, keyring="s3://bucket/prefix/ring", rings=stored)


def cookie(gate: Gate) -> dict[str, str]:
    found = signed_in(gate, ANN)
    return {found.name: found.value}


@pytest.mark.parametrize("framework", ["aiohttp", "fastapi"])
def test_others_are_served_while_the_ring_is_read(make_gate: GateMaker, framework: str) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slowly() -> None:
        begun.set()
        may_end.wait(PROMPTLY)

    stored = Stored(ring=BEFORE, there=AFTER, before_reading=slowly)
    gate = gate_on(make_gate, stored)
    known, unknown = cookie(gate), cookie(gate_on(make_gate, Stored(ring=AFTER)))
    make_app, serve = FRAMEWORKS[framework]
    answers: list[Answer] = []
    with serve(make_app(gate)) as port:
        who_waits = threading.Thread(
            target=lambda: answers.append(Browser(port, cookies=unknown).get("/"))
        )
        who_waits.start()
        try:
            assert begun.wait(PROMPTLY)
            assert Browser(port, cookies=known).get("/").text == ANN
            assert not answers
        finally:
            may_end.set()
            who_waits.join(PROMPTLY)
        assert answers[0].text == ANN
        assert stored.reads == 1


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_ring_that_is_not_there_yet(make_gate: GateMaker, framework: str) -> None:
    stored = Stored()
    make_app, serve = FRAMEWORKS[framework]
    gate = gate_on(make_gate, stored)
    with serve(make_app(gate)) as port:
        answer = Browser(port).get("/")
        assert (answer.status, answer.all("Iam-Auth-Error")) == (503, ["store-unavailable"])
        assert answer.all("Retry-After")
        stored.ring = BEFORE
        assert Browser(port).get("/").status == 401
        assert Browser(port, cookies=cookie(gate)).get("/").text == ANN


async def test_an_app_without_its_ring_does_not_start(make_gate: GateMaker, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o700)
    gate = make_gate(secret_key=None, keyring=f"file:{tmp_path}/store/ring")
    try:
        (failed,) = await run(IamAuth(Inner(), gate=gate), {"type": "lifespan"})
        assert failed["type"] == "lifespan.startup.failed"
        assert f"there is no key ring file:{tmp_path}/store/ring" in failed["message"]
        assert f"iam-auth-proxy keyring new file:{tmp_path}/store/ring" in failed["message"]
    finally:
        gate.close()


async def test_an_app_starts_where_aws_is_silent(
    make_gate: GateMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*args: Any, **more: Any) -> Any:
        raise AwsUnavailable("KMS does not answer")

    monkeypatch.setattr("iam_auth_proxy.keys.rotation.open_ring", silent)
    gate = make_gate(secret_key=None, keyring="s3://bucket/prefix/ring")
    inner, scope = Inner(), {"type": "lifespan"}
    try:
        await run(IamAuth(inner, gate=gate), scope)
        assert inner.scope is scope
    finally:
        gate.close()
