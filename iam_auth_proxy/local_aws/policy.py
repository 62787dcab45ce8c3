"""IAM policy documents: read strictly, then asked what they say of one request.

What is not understood is an error when the document is read (:class:`.errors.NotEmulated`), never
something that passes. Which policies count, and how their words combine, is :mod:`.authorize`.

Source: IAM User Guide, "Grammar of the IAM JSON policy language".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from iam_auth_proxy.local_aws.conditions import (
    Condition,
    Context,
    check_variables,
    matches,
    read_conditions,
)
from iam_auth_proxy.local_aws.errors import NotEmulated, PolicyError

Document = Mapping[str, object]
"""A policy as the JSON object that AWS takes."""

_ELEMENTS: Final = frozenset(
    {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Principal", "Condition"}
)
_VERSIONS: Final = ("2008-10-17", "2012-10-17")
_ACTION = re.compile(r"\*|[a-zA-Z0-9-]+:[a-zA-Z0-9*?]+", re.ASCII)
_PRINCIPAL = re.compile(
    r"\*|[0-9]{12}|arn:[a-z-]+:(?:iam::[0-9]{12}:(?:root|user/[!-~]+|role/[!-~]+)"
    r"|sts::[0-9]{12}:(?:assumed-role|federated-user)/[!-~]+)",
    re.ASCII,
)


class Kind(Enum):
    """Where a policy hangs; it decides which elements it must and must not have."""

    IDENTITY = "identity"
    RESOURCE = "resource"
    TRUST = "trust"


class Verdict(Enum):
    """What a set of policies says: nothing, yes, or no. A no wins over any yes."""

    SILENT = "silent"
    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. ``principals`` are of type AWS alone; others never call the embedded AWS."""

    allows: bool
    actions: tuple[str, ...]
    not_actions: bool
    resources: tuple[str, ...]
    not_resources: bool
    principals: tuple[str, ...]
    conditions: tuple[Condition, ...]

    def applies(self, action: str, resource: str, context: Context) -> bool:
        """Whether it speaks of this action, resource and context (whoever asks)."""
        if any(matches(p, action, {}, ignore_case=True) for p in self.actions) == self.not_actions:
            return False
        if any(matches(p, resource, context) for p in self.resources) == self.not_resources:
            return False
        return all(condition.holds(context) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that was understood whole; ``text`` is the document as it was given."""

    text: str = field(repr=False)
    statements: tuple[Statement, ...]

    @property
    def principals(self) -> frozenset[str]:
        """Every principal of type AWS that any statement names."""
        return frozenset(name for each in self.statements for name in each.principals)


NOTHING: Final = Policy('{"Version":"2012-10-17","Statement":[]}', ())
"""A policy that allows nothing."""


def read_policy(document: Document | str, kind: Kind = Kind.IDENTITY) -> Policy:
    """Read a policy document.

    :raises PolicyError: AWS would call it malformed.
    :raises NotEmulated: AWS knows it, the embedded AWS does not.
    """
    text = document if isinstance(document, str) else json.dumps(document)
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyError("not a JSON document") from error
    if not isinstance(parsed, dict) or not parsed.keys() <= {"Version", "Id", "Statement"}:
        raise PolicyError("a policy has Version, Id and Statement, and nothing else")
    version = parsed.get("Version", _VERSIONS[0])
    if version not in _VERSIONS:
        raise PolicyError(f"the version is not one of {', '.join(_VERSIONS)}")
    statements = parsed.get("Statement")
    listed = statements if isinstance(statements, list) else [statements]
    if not listed:
        raise PolicyError("the policy has no statement")
    if version == _VERSIONS[0] and "${" in text:
        raise NotEmulated("policy variables in a policy of another version than 2012-10-17")
    return Policy(text, tuple(_statement(each, kind) for each in listed))


def evaluate(policies: Iterable[Policy], action: str, resource: str, context: Context) -> Verdict:
    """What identity or session policies say of a request."""
    verdict = Verdict.SILENT
    for policy in policies:
        for statement in policy.statements:
            if statement.applies(action, resource, context):
                if not statement.allows:
                    return Verdict.DENY
                verdict = Verdict.ALLOW
    return verdict


# -- documents that people often want -------------------------------------------------------------


def allow(*actions: str, resource: str | list[str] = "*", **more: object) -> Document:
    """A document that allows ``actions``; ``more`` are further elements, such as Condition."""
    return _document("Allow", actions, Resource=resource, **more)


def deny(*actions: str, resource: str | list[str] = "*", **more: object) -> Document:
    """A document that denies ``actions``."""
    return _document("Deny", actions, Resource=resource, **more)


def trust(*principals: str, **more: object) -> Document:
    """A trust policy for a role: these principals (ARNs or account numbers) may assume it."""
    return _document("Allow", ("sts:AssumeRole",), Principal={"AWS": list(principals)}, **more)


def _document(effect: str, actions: tuple[str, ...], **more: object) -> Document:
    statement = {"Effect": effect, "Action": list(actions), **more}
    return {"Version": "2012-10-17", "Statement": [statement]}


# -- reading ---------------------------------------------------------------------------------------


def _statement(raw: object, kind: Kind) -> Statement:
    if not isinstance(raw, dict):
        raise PolicyError("a statement is not an object")
    if "NotPrincipal" in raw:
        raise NotEmulated("policy element NotPrincipal")
    unknown = raw.keys() - _ELEMENTS
    if unknown:
        raise PolicyError(f"unknown policy element {sorted(unknown)[0]}")
    if raw.get("Effect") not in ("Allow", "Deny"):
        raise PolicyError("Effect is neither Allow nor Deny")
    actions, not_actions = _either(raw, "Action")
    for pattern in actions:
        if not _ACTION.fullmatch(pattern):
            raise PolicyError(f"{pattern!r} is not an action")
    if kind is Kind.TRUST:
        if "Resource" in raw or "NotResource" in raw:
            raise PolicyError("a trust policy has no Resource")
        resources: tuple[str, ...] = ("*",)
        not_resources = False
    else:
        resources, not_resources = _either(raw, "Resource")
        for pattern in resources:
            check_variables(pattern)
    if (kind is Kind.IDENTITY) == ("Principal" in raw):
        raise PolicyError("Principal belongs into resource and trust policies, and only there")
    return Statement(
        allows=raw["Effect"] == "Allow",
        actions=actions,
        not_actions=not_actions,
        resources=resources,
        not_resources=not_resources,
        principals=_principals(raw["Principal"]) if "Principal" in raw else (),
        conditions=read_conditions(raw["Condition"]) if "Condition" in raw else (),
    )


def _either(raw: Mapping[str, object], name: str) -> tuple[tuple[str, ...], bool]:
    if (name in raw) == (f"Not{name}" in raw):
        raise PolicyError(f"a statement has one of {name} and Not{name}")
    negated = f"Not{name}" in raw
    return _strings(raw[f"Not{name}" if negated else name], name), negated


def _principals(raw: object) -> tuple[str, ...]:
    if raw == "*":
        return ("*",)
    if not isinstance(raw, dict) or not raw.keys() <= {"AWS", "Service", "Federated"}:
        raise PolicyError("Principal is neither * nor an object of AWS, Service and Federated")
    names = _strings(raw["AWS"], "Principal") if "AWS" in raw else ()
    for name in names:
        if not _PRINCIPAL.fullmatch(name):
            raise PolicyError(f"{name!r} is not a principal")
    return names


def _strings(raw: object, what: str) -> tuple[str, ...]:
    values = raw if isinstance(raw, list) else [raw]
    if not values or not all(isinstance(value, str) for value in values):
        raise PolicyError(f"{what} is not a string or a list of strings")
    return tuple(str(value) for value in values)
