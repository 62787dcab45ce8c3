"""The record of calls, and faults made on purpose."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from iam_auth_proxy.local_aws.wire import Json

_PARAMETERS = frozenset(
    {
        "DurationSeconds",
        "ExternalId",
        "KeyId",
        "MinimumSessionTokenSize",
        "Name",
        "RoleArn",
        "RoleSessionName",
        "SerialNumber",
        "TableName",
        "UserName",
    }
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was answered; no secret is in it.

    :param principal: the caller's ARN, empty where it was not authenticated.
    :param status: the HTTP status; 0 where the connection was dropped.
    :param context: the KMS encryption context, which CloudTrail shows in plain text too.
    :param parameters: those that are no secrets (durations, names, key ids).
    :param code: the AWS error code, empty for a success.
    """

    service: str
    action: str
    principal: str = ""
    account: str = ""
    status: int = 0
    context: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    region: str = ""
    access_key_id: str = ""
    code: str = ""


def public_parameters(parameters: Mapping[str, Json]) -> dict[str, str]:
    """The parameters that may be recorded: listed by name, whatever else an operation takes."""
    return {name: str(value) for name, value in parameters.items() if name in _PARAMETERS}


def encryption_context(parameters: Mapping[str, Json]) -> dict[str, str]:
    """The encryption context of a KMS call, empty if there is none."""
    context = parameters.get("EncryptionContext")
    if not isinstance(context, Mapping):
        return {}
    return {name: str(value) for name, value in context.items()}


@dataclass(slots=True)
class Fault:
    """Something that goes wrong on purpose; see :meth:`.embedded.LocalAws.fault`.

    ``left`` counts down to 0; ``None`` never ends. ``hits`` counts up.
    """

    service: str
    action: str
    code: str | None
    status: int | None
    message: str
    delay: float
    drop: bool
    truncate: bool
    left: int | None
    when: Callable[[Call], bool]
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    hits: int = 0

    def concerns(self, call: Call) -> bool:
        """Whether this fault is for this call, and not used up."""
        return (
            self.left != 0
            and self.service in {"*", call.service}
            and self.action in {"*", call.action}
            and self.when(call)
        )


class Faults:
    """The faults that wait for a call; the oldest that fits is used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._waiting.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()

    def take(self, call: Call) -> Fault | None:
        """The fault for this call, counted as used."""
        with self._lock:
            for fault in self._waiting:
                if fault.concerns(call):
                    fault.hits += 1
                    fault.left = None if fault.left is None else fault.left - 1
                    return fault
        return None


class Record:
    """All calls in the order of their answers. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def list(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def clear(self) -> None:
        with self._lock:
            self._calls.clear()
