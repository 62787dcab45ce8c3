"""The Condition element of a policy: operators and keys, evaluated against a request's context.

An operator or key that is not listed here raises :class:`.errors.NotEmulated` when the policy is
read. None is ever skipped.

Source: IAM User Guide, "IAM JSON policy elements: Condition operators" and "AWS global condition
context keys"; KMS Developer Guide, "AWS KMS condition keys".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from iam_auth_proxy.local_aws.errors import NotEmulated, PolicyError

KEYS: Final = frozenset(
    {
        "aws:currenttime",
        "aws:epochtime",
        "aws:multifactorauthage",
        "aws:multifactorauthpresent",
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principaltype",
        "aws:requestedregion",
        "aws:securetransport",
        "aws:sourceip",
        "aws:tokenissuetime",
        "aws:userid",
        "aws:username",
        "kms:calleraccount",
        "kms:encryptionalgorithm",
        "kms:encryptioncontextkeys",
        "kms:requestalias",
        "kms:viaservice",  # never present: nothing here calls KMS on somebody's behalf
        "sts:externalid",
        "sts:rolesessionname",
    }
)
"""Condition keys that the embedded AWS sets (or knows to be absent), in lower case."""

_CONTEXT_PREFIX: Final = "kms:encryptioncontext:"

Context = Mapping[str, tuple[str, ...]]
"""Condition keys of one request, in lower case, each with its values. Absent keys are absent."""

_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def check_key(name: str) -> str:
    """A condition key or policy variable in lower case.

    :raises NotEmulated: a key that the embedded AWS does not set.
    """
    lower = name.lower()
    if lower not in KEYS and not lower.startswith(_CONTEXT_PREFIX):
        raise NotEmulated(f"condition key {name}")
    return lower


# -- patterns --------------------------------------------------------------------------------------


def check_variables(text: str) -> str:
    """``text`` itself, if every ``${...}`` in it names a known key.

    :raises NotEmulated: an unknown variable, or one with a default value.
    """
    for name in _VARIABLE.findall(text):
        if name not in {"*", "?", "$"}:
            check_key(name)
    return text


def matches(pattern: str, value: str, context: Context, *, ignore_case: bool = False) -> bool:
    """Whether ``value`` fits ``pattern`` with ``*``, ``?`` and ``${variables}``.

    What a variable stands for is compared literally; an absent or many-valued one fits nothing.
    """
    filled: list[str] = []
    for name in _VARIABLE.findall(pattern):
        if name in {"*", "?", "$"}:
            filled.append(name)
            continue
        values = context.get(name.lower(), ())
        if len(values) != 1:
            return False
        filled.append(values[0])
    return _compile(pattern, tuple(filled), ignore_case).fullmatch(value) is not None


@lru_cache(maxsize=1024)
def _compile(pattern: str, filled: tuple[str, ...], ignore_case: bool) -> re.Pattern[str]:
    parts = _VARIABLE.split(pattern)
    expression = ""
    for index, part in enumerate(parts):
        if index % 2:
            expression += re.escape(filled[index // 2])
        else:
            expression += re.escape(part).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(expression, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def fill(text: str, context: Context) -> str | None:
    """``text`` with its variables replaced; ``None`` where one is absent."""
    missing = False

    def value(match: re.Match[str]) -> str:
        nonlocal missing
        if match[1] in {"*", "?", "$"}:
            return match[1]
        values = context.get(match[1].lower(), ())
        missing = missing or len(values) != 1
        return values[0] if values else ""

    filled = _VARIABLE.sub(value, text)
    return None if missing else filled


# -- operators -------------------------------------------------------------------------------------

Test = Callable[[str, str, Context], bool]
"""(what the policy says, what the request has, context) -> whether they agree."""


def _exact(fold: Callable[[str], str]) -> Test:
    def test(wanted: str, value: str, context: Context) -> bool:
        filled = fill(wanted, context)
        return filled is not None and fold(filled) == fold(value)

    return test


def _like(wanted: str, value: str, context: Context) -> bool:
    return matches(wanted, value, context)


def _arn(wanted: str, value: str, context: Context) -> bool:
    # Each of the six parts is compared by itself: a "*" does not reach over a colon.
    ours, theirs = wanted.split(":", 5), value.split(":", 5)
    return len(ours) == len(theirs) == 6 and all(
        matches(pattern, part, context) for pattern, part in zip(ours, theirs, strict=True)
    )


def _compared(
    read: Callable[[str], float], agrees: Callable[[float, float], bool]
) -> Callable[[str, str, Context], bool]:
    def test(wanted: str, value: str, context: Context) -> bool:
        try:
            return agrees(read(value), read(wanted))
        except ValueError:
            return False

    return test


def _date(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        return float(text)
    parsed = datetime.fromisoformat(text)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _bool(wanted: str, value: str, context: Context) -> bool:
    return wanted.lower() == value.lower()


def _ip(wanted: str, value: str, context: Context) -> bool:
    return ipaddress.ip_address(value) in ipaddress.ip_network(wanted)


_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "Equals": lambda value, wanted: value == wanted,
    "LessThan": lambda value, wanted: value < wanted,
    "LessThanEquals": lambda value, wanted: value <= wanted,
    "GreaterThan": lambda value, wanted: value > wanted,
    "GreaterThanEquals": lambda value, wanted: value >= wanted,
}

_TESTS: Final[Mapping[str, Test]] = {
    "StringEquals": _exact(str),
    "StringEqualsIgnoreCase": _exact(str.casefold),
    "StringLike": _like,
    "ArnEquals": _arn,
    "ArnLike": _arn,
    "Bool": _bool,
    "IpAddress": _ip,
    **{f"Numeric{name}": _compared(float, agrees) for name, agrees in _COMPARISONS.items()},
    **{f"Date{name}": _compared(_date, agrees) for name, agrees in _COMPARISONS.items()},
}

_NEGATED: Final[Mapping[str, str]] = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
    "NotIpAddress": "IpAddress",
}

_CHECKS: Final[Mapping[str, Callable[[str], object]]] = {
    "Numeric": float,
    "Date": _date,
    "IpAddress": ipaddress.ip_network,
    "NotIpAddress": ipaddress.ip_network,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One line of a Condition block: ``{operator: {key: values}}``."""

    operator: str  # without its prefix and suffix, never a negated one
    negated: bool
    if_exists: bool
    quantifier: str  # "", "ForAllValues" or "ForAnyValue"
    key: str
    values: tuple[str, ...]

    def holds(self, context: Context) -> bool:
        """Whether the request fulfils it."""
        present = context.get(self.key)
        if self.operator == "Null":
            return any((present is None) == (value.lower() == "true") for value in self.values)
        if not present:
            # An absent key makes a condition false; true for ...IfExists and ForAllValues, and
            # for negated operators without a quantifier.
            if self.quantifier:
                return self.if_exists or self.quantifier == "ForAllValues"
            return self.if_exists or self.negated
        results = (self._agrees(value, context) != self.negated for value in present)
        return any(results) if self.quantifier == "ForAnyValue" else all(results)

    def _agrees(self, value: str, context: Context) -> bool:
        return any(_TESTS[self.operator](wanted, value, context) for wanted in self.values)


def read_conditions(block: object) -> tuple[Condition, ...]:
    """The lines of a Condition element; all must hold.

    :raises PolicyError: not a Condition element.
    :raises NotEmulated: an operator, key or variable that is unknown here.
    """
    if not isinstance(block, Mapping):
        raise PolicyError("Condition is not an object")
    return tuple(
        _read_line(operator, key, values)
        for operator, lines in block.items()
        for key, values in _lines(lines)
    )


def _lines(lines: object) -> list[tuple[str, object]]:
    if not isinstance(lines, Mapping):
        raise PolicyError("a condition operator holds no object")
    return list(lines.items())


def _read_line(spelled: str, key: str, raw: object) -> Condition:
    quantifier, separator, operator = spelled.rpartition(":")
    if separator and quantifier not in {"ForAllValues", "ForAnyValue"}:
        raise NotEmulated(f"condition operator {spelled}")
    if_exists = operator.endswith("IfExists") and operator != "NullIfExists"
    operator = operator.removesuffix("IfExists") if if_exists else operator
    negated = operator in _NEGATED
    plain = _NEGATED.get(operator, operator)
    if plain not in _TESTS and plain != "Null":
        raise NotEmulated(f"condition operator {spelled}")
    values = tuple(check_variables(value) for value in _values(raw))
    for kind, check in _CHECKS.items():
        if operator.startswith(kind):
            _check_all(check, values)
    return Condition(plain, negated, if_exists, quantifier, check_key(key), values)


def _values(raw: object) -> list[str]:
    values = raw if isinstance(raw, list | tuple) else [raw]
    texts = []
    for value in values:
        if isinstance(value, bool):
            texts.append("true" if value else "false")
        elif isinstance(value, str | int | float):
            texts.append(str(value))
        else:
            raise PolicyError("a condition value is not a string, number or boolean")
    return texts


def _check_all(check: Callable[[str], object], values: tuple[str, ...]) -> None:
    for value in values:
        try:
            check(value)
        except ValueError as error:
            raise PolicyError(f"{value!r} does not fit its condition operator") from error
