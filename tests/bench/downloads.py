"""Large answers: counted, chunked, and through CONNECT; what they cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tests.bench.chunked_origin import SIZE
from tests.bench.contestants import Contestant, Field
from tests.bench.figures import Figure, against
from tests.bench.machine import MB, BenchError, cpu_seconds, on_core
from tests.bench.receive import download
from tests.bench.rows import CHUNKED, CONNECT, CPU, DOWNLOAD, Row
from tests.bench.settings import Settings, say

_GIB = 1024**3

# proxy.py is not here: it does not end a download of this size within minutes.


def counted(field: Field, settings: Settings) -> list[Figure]:
    """nginx sends a file with Content-Length."""
    return [_compare(DOWNLOAD, field, settings, field.origin)]


def chunked(field: Field, settings: Settings) -> list[Figure]:
    """An origin writes prepared chunks."""
    return [_compare(CHUNKED, field, settings, field.chunked_origin)]


def connect(field: Field, settings: Settings) -> list[Figure]:
    """The file through a blind tunnel; and the CPU of it, beside the least that it can be."""
    rates: dict[str, list[float]] = defaultdict(list)
    costs: dict[str, list[float]] = defaultdict(list)
    everybody = (field.direct, field.ours, field.reference)
    for who in _rounds(field, settings, everybody, field.origin, tunnel=True):
        before = cpu_seconds(who.pid) if who.pid else 0.0
        seconds = _sample(field, settings, who, field.origin, tunnel=True)
        rates[who.name].append(SIZE * settings.downloads / MB / seconds)
        note = f"{who.name}: {rates[who.name][-1]:,.0f} MB/s through CONNECT"
        if who.pid:
            cpu = cpu_seconds(who.pid) - before
            costs[who.name].append(1000 * cpu * _GIB / (SIZE * settings.downloads))
            note += f", {costs[who.name][-1]:.0f} ms CPU per GiB"
        say(note)
    return [against(CONNECT, rates), against(CPU, costs)]


def _compare(row: Row, field: Field, settings: Settings, origin: int) -> Figure:
    rates: dict[str, list[float]] = defaultdict(list)
    for who in _rounds(field, settings, (field.direct, field.ours), origin):
        seconds = _sample(field, settings, who, origin)
        rates[who.name].append(SIZE * settings.downloads / MB / seconds)
        say(f"{who.name}: {rates[who.name][-1]:,.0f} MB/s {row.key}")
    return against(row, rates)


def _rounds(
    field: Field,
    settings: Settings,
    everybody: Sequence[Contestant],
    origin: int,
    *,
    tunnel: bool = False,
) -> list[Contestant]:
    """Whose turn it is, after each has had one download that does not count."""
    for who in everybody:
        _once(field, who, origin, tunnel=tunnel)
    return list(everybody) * settings.alternations


def _sample(
    field: Field, settings: Settings, who: Contestant, origin: int, *, tunnel: bool = False
) -> float:
    return sum(_once(field, who, origin, tunnel=tunnel) for _ in range(settings.downloads))


def _once(field: Field, who: Contestant, origin: int, *, tunnel: bool) -> float:
    """Seconds. Nobody is in between on the direct path, which goes to the origin itself."""
    host = f"127.0.0.1:{origin}"
    tunnel = tunnel and who.forward
    port = who.port if who.forward else origin
    target = "/blob" if tunnel else who.target(origin, "/blob")
    try:
        with on_core(field.load_core):
            return download(port, target, host, size=SIZE, tunnel=tunnel)
    except BenchError as error:
        raise BenchError(f"{who.name}: {error}") from error
