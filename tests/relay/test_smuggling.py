"""The hostile corpus, over real sockets: what is refused reaches nobody."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "smuggling.json").read_text())
GET = b"GET http://app.test:%d/ HTTP/1.1\r\nHost: app.test\r\n\r\n"


def text(case: dict, key: str, port: int) -> bytes:
    piece, times = case.get("repeat", ["", 0])
    return (
        (case[key] + piece * times + case.get("then", ""))
        .replace("%PORT%", str(port))
        .encode("latin-1")
    )


def cases(kind: str):
    return pytest.mark.parametrize("case", VECTORS[kind], ids=lambda case: case["name"])


@cases("refused")
async def test_a_refused_request_reaches_nobody(rig, case):
    await rig.start()
    app = await rig.answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    peer = await rig.peer()
    # What comes behind a refused request is not looked at either.
    peer.send(text(case, "send", app.port) + (b"" if "then" in case else GET % app.port))
    answer = await peer.rest()
    assert answer.startswith(b"HTTP/1.1 %d " % case["status"]), answer[:100]
    assert len(re.findall(rb"^HTTP/1.1 ", answer, re.MULTILINE)) == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert app.connections == 0
    assert rig.dialer.dials == 0
    assert rig.steering.exchanges == []
    assert rig.relay.counters.refused == {case["status"]: 1}


@cases("accepted")
async def test_an_accepted_request_arrives_as_it_should(rig, case):
    await rig.start()
    app = await rig.answering(b"HTTP/1.1 204 No Content\r\n\r\n")
    peer = await rig.peer()
    peer.send(text(case, "send", app.port))
    assert (await peer.head()).startswith(b"HTTP/1.1 204 ")
    forwarded = case["forwarded"].replace("%PORT%", str(app.port)).encode("latin-1")
    await rig.until(lambda: len(app.received) >= len(forwarded))
    assert bytes(app.received) == forwarded


@cases("answers_refused")
async def test_a_refused_answer_is_a_502(rig, case):
    await rig.start()
    app = await rig.answering(text(case, "answer", 0))
    peer = await rig.peer()
    peer.send(GET % app.port)
    head, body = await peer.answer()
    while head.startswith(b"HTTP/1.1 1"):
        head, body = await peer.answer()
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"\r\nProxy-Status: iam-auth-proxy; error=%b\r\n" % case["error"].encode() in head
    assert body == case["error"].encode()
    assert rig.relay.origins == 0
    assert rig.relay.counters.failed == {case["error"]: 1}


@cases("answers_accepted")
async def test_an_accepted_answer_arrives_as_it_should(rig, case):
    await rig.start()
    app = await rig.answering(text(case, "answer", 0))
    peer = await rig.peer()
    client = case["client"].encode("latin-1")
    for _ in range(2):
        peer.send(GET % app.port)
        assert await peer.exactly(len(client)) == client
    assert app.connections == (1 if case["reused"] else 2)


@pytest.mark.parametrize("size", [1, 7])
@cases("accepted")
async def test_how_the_bytes_are_cut_makes_no_difference(rig, case, size):
    await rig.start()
    app = await rig.answering(b"HTTP/1.1 204 No Content\r\n\r\n")
    peer = await rig.peer()
    data = text(case, "send", app.port)
    for at in range(0, len(data), size):
        peer.send(data[at : at + size])
        await asyncio.sleep(0)
    forwarded = case["forwarded"].replace("%PORT%", str(app.port)).encode("latin-1")
    await rig.until(lambda: len(app.received) >= len(forwarded))
    assert bytes(app.received) == forwarded


def test_every_case_says_why():
    for kind in ("refused", "accepted", "answers_refused"):
        assert all(re.search(r"\w", case["why"]) for case in VECTORS[kind])
