"""Paths that need no one.

A rule is an exact path (``/healthz``), or a tree: ``/static/*`` is everything below ``/static/``.
Only plain paths can be public: where a server and the framework behind it may read a path in two
ways (escapes, ``..``, ``//``, backslashes, parameters after ``;``), the path is not public,
whatever the rules say. Nothing but the path decides; no header does.

Of an app below a mount point (WSGI's SCRIPT_NAME, ASGI's root_path) the whole path and the part
below have to be public, ``/tool/healthz`` and ``/healthz``: servers let requests say where one ends
and the other begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.server.facts import RequestFacts

# Segments of unreserved characters (RFC 3986 section 2.3), none empty but the last, none of dots.
_PLAIN = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*/?", re.ASCII)


def is_plain(path: str) -> bool:
    """Whether everybody reads this path the same way."""
    return path.startswith("/") and _PLAIN.fullmatch(path) is not None


@dataclass(frozen=True, slots=True)
class PublicPaths:
    """Which paths are public: ``exact`` ones, and those below ``trees`` (each ends with ``/``)."""

    exact: frozenset[str] = frozenset()
    trees: tuple[str, ...] = ()

    def __contains__(self, path: str) -> bool:
        if path not in self.exact and not path.startswith(self.trees):
            return False
        return is_plain(path)

    def covers(self, facts: RequestFacts) -> bool:
        """Whether a request is for a public path, however it is read."""
        # A router may decode escapes differently, and find another page behind a public path.
        if "%" in facts.target.partition("?")[0]:
            return False
        # With a mount point split off, both readings of the path have to be public: in several
        # servers a header of the request, which anybody can send, says where to split.
        routed = facts.path if facts.routed is None else facts.routed
        return facts.path in self and routed in self


def parse_public(value: object) -> PublicPaths:
    """The rules, as a list, or a text with commas or white space between them.

    :raises Malformed: a rule that is not a plain path, or one with ``*`` anywhere but at its end
        after a slash.
    """
    rules = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else value
    if not isinstance(rules, Iterable):
        raise Malformed("must be a list of paths")
    exact, trees = set[str](), list[str]()
    for rule in rules:
        if not isinstance(rule, str):
            raise Malformed("must be a list of paths")
        path = rule.removesuffix("*") if rule.endswith("/*") else rule
        if not rule or not is_plain(path):
            raise Malformed(f"{rule!r} is not a path such as /healthz or a tree such as /static/*")
        if path == rule:
            exact.add(rule)
        else:
            trees.append(path)
    return PublicPaths(frozenset(exact), tuple(trees))
