"""What the proxy says of itself, as a value and as metrics. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# A count, or counts by HTTP status or by error token.
Count = int | Mapping[int, int] | Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Status:
    """What the pages show. No identity and no secret: any local user may be looking.

    :ivar origins: the trusted ones, as written in the rules.
    :ivar counters: name -> count since the start, or label -> count.
    :ivar gauges: name -> how many there are now.
    :ivar aliases: origin -> where a browser opens it, for the apps that have such a name.
    """

    address: str
    origins: tuple[str, ...]
    counters: Mapping[str, Count]
    gauges: Mapping[str, int]
    aliases: Mapping[str, str] = field(default_factory=dict)


def exposition(status: Status) -> str:
    """The counters and gauges in Prometheus' text format, version 0.0.4."""
    lines: list[str] = []
    for name, value in sorted(status.counters.items()):
        full = f"iam_auth_proxy_{name}_total"
        lines.append(f"# TYPE {full} counter")
        if isinstance(value, Mapping):
            lines += [f'{full}{{reason="{label}"}} {count}' for label, count in value.items()]
        else:
            lines.append(f"{full} {value}")
    for name, number in sorted(status.gauges.items()):
        full = f"iam_auth_proxy_{name}"
        lines += [f"# TYPE {full} gauge", f"{full} {number}"]
    return "\n".join(lines) + "\n"
