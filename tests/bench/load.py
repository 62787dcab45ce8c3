"""Requests per second, and the latency that is added: small answers over keep-alive connections."""

from __future__ import annotations

import http.client
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tests.bench import wrk
from tests.bench.contestants import ANSWER, Contestant, Field
from tests.bench.figures import Figure, against, in_all
from tests.bench.machine import BenchError, cpu_seconds, on_core
from tests.bench.rows import (
    DIRECT,
    LATENCY_NGINX,
    LATENCY_PROXY_PY,
    RATE_DIRECT,
    RATE_PROXY_PY,
)
from tests.bench.settings import Settings, say

PATH = "/small"


def rate(field: Field, settings: Settings) -> list[Figure]:
    """32 connections in a closed loop."""
    samples: dict[str, list[float]] = defaultdict(list)
    everybody = (field.nginx, field.direct, field.ours, field.proxy_py)
    for who, load in _alternate(field, settings, everybody, connections=32):
        samples[who.name].append(load.rate)
        note = f"{who.name}: {load.rate:,.0f} requests/s, p99 {load.p99:,.0f} us"
        say(note + (f", {load.cpu:.1f} us CPU each" if load.cpu else ""))
    return [in_all(RATE_PROXY_PY, samples), in_all(RATE_DIRECT, samples)]


def latency(field: Field, settings: Settings) -> list[Figure]:
    """One connection in a closed loop: the median, less that of the direct path just before.

    wrk counts whole microseconds, which is fine enough: 20 or so direct, 100 to 400 added.
    """
    added: dict[str, list[float]] = defaultdict(list)
    direct = 0.0
    everybody = (field.direct, field.nginx, field.ours, field.proxy_py)
    for who, load in _alternate(field, settings, everybody, connections=1):
        if who.name == DIRECT:
            direct = load.p50
            say(f"{who.name}: {direct:.0f} us")
        else:
            added[who.name].append(load.p50 - direct)
            say(f"{who.name}: +{added[who.name][-1]:.0f} us")
    return [against(LATENCY_NGINX, added), against(LATENCY_PROXY_PY, added)]


def _alternate(
    field: Field, settings: Settings, everybody: Sequence[Contestant], *, connections: int
) -> Iterator[tuple[Contestant, wrk.Load]]:
    """Each in turn for a second, in the same order each time, after one in which all get warm.

    What a machine gives changes within seconds, where others share it; who is compared comes one
    right after the other.
    """

    def load(who: Contestant) -> wrk.Load:
        host = f"127.0.0.1:{field.origin}"
        target = who.target(field.origin, PATH)
        try:
            before = cpu_seconds(who.pid) if who.pid else 0.0
            with on_core(field.load_core):
                load = wrk.run(who.port, target, host, connections=connections, seconds=1)
            if not who.pid:
                return load
            cpu = cpu_seconds(who.pid) - before
            return replace(load, cpu=1e6 * cpu / load.requests)
        except BenchError as error:
            raise BenchError(f"{who.name}: {error}") from error

    for who in everybody:
        _check(field, who)
        load(who)
    for _ in range(settings.alternations * settings.seconds):
        for who in everybody:
            yield who, load(who)


def _check(field: Field, who: Contestant) -> None:
    """One request, looked at whole: wrk takes a redirect or an empty answer for a good one."""
    connection = http.client.HTTPConnection("127.0.0.1", who.port, timeout=10)
    try:
        host = f"127.0.0.1:{field.origin}"
        connection.putrequest("GET", who.target(field.origin, PATH), skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        if (answer.status, len(answer.read())) != (200, ANSWER):
            raise BenchError(f"{who.name}: not the answer of the origin: {answer.status}")
    finally:
        connection.close()
