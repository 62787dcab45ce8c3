"""``trust.toml``: whom the person trusts by command or by the confirm page, and what was pinned.

It stands beside ``config.toml`` and is written by machine; the same file in ``/etc/iam-auth-proxy``
is the operator's, and is only read. ::

    [[app]]                                  # the person's word: the keys of config.toml
    origin = "http://grafana.internal"
    proofs = ["signed-identity"]

    [[pin]]                                  # what was seen; it trusts nobody by itself
    origin = "http://grafana.internal"
    key = "arn:aws:kms:eu-west-1:111122223333:key/..."
    accepted = "page"                        # "command" or "page"; absent: at first use
    proof = "signed-identity"                # the strongest that it ever took
    path = "/auth"
    route = "bastion"                        # of a plain-http origin: how it was reached

A change is made under a lock, in what the file holds by then: a temporary file, fsync, rename. So
two writers both get their way, and a crash leaves the old file or the new one. Keys that this
version does not know are kept. A file that is damaged is reported by its line and never written
over: without its pins any key would be the first one.
"""

from __future__ import annotations

import copy
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from iam_auth_proxy.config import (
    APP_KEYS,
    DIRECT,
    HTTPS,
    App,
    Document,
    Settings,
    TrustRule,
    check_aliases,
    parse_trust,
    read_apps,
    read_toml,
)
from iam_auth_proxy.config.sources import near
from iam_auth_proxy.config.toml import dumps
from iam_auth_proxy.config.values import parse_route
from iam_auth_proxy.errors import ConfigError, Malformed, NotTrusted, Problem
from iam_auth_proxy.files import locked, replace_file
from iam_auth_proxy.names import Origin, parse_key_arn, parse_origin
from iam_auth_proxy.protocol.handoff import check_auth_path
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.rules import STRENGTH, Accepted, Pin
from iam_auth_proxy.proxy.decisions.trust import Stored, Trust
from iam_auth_proxy.relay.via import parse_via

MAX_PINS: Final = 2000
"""A page can ask for any number of names under a wildcard; those beyond are not written."""

_HEADER: Final = (
    "# Written by iam-auth-proxy trust, and by the proxy. What you write here is kept, but for\n"
    "# comments; config.toml beside it is yours alone.\n\n"
)
_PIN_KEYS: Final = ("origin", "key", "accepted", "proof", "path", "route")

Tables = dict[str, Any]


class TrustFile:
    """One ``trust.toml``.

    :param source: "store" for the person's, "system" for the operator's, which is never written.
    """

    def __init__(self, path: Path, *, source: str = "store") -> None:
        self.path = path
        self._source = source

    # -- reading -----------------------------------------------------------------------------------

    def stamp(self) -> object:
        """Changes when the file does. A rename makes a new inode, so no clock is needed."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def load(self) -> Stored:
        """What it holds; nothing where there is no file.

        :raises ConfigError: with every problem, each by its line.
        """
        return self._read()[1]

    def _read(self) -> tuple[Tables, Stored]:
        """The tables as they are, and what they mean."""
        problems: list[Problem] = []
        self._check_owner(problems)
        document = read_toml(self.path, problems)
        tables, stored = {}, Stored()
        if document is not None:
            tables = copy.deepcopy(document.tables)
            stored = self._stored(document, problems)
        if problems:
            raise ConfigError(problems)
        return tables, stored

    def _check_owner(self, problems: list[Problem]) -> None:
        """Reports a file that others can write: it would not be the person's word."""
        try:
            found = self.path.stat()
        except OSError:
            return
        if not hasattr(os, "geteuid"):  # Windows
            return
        if found.st_uid not in (0, os.geteuid()):
            problems.append(Problem(str(self.path), "belongs to another user"))
        elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            text = f"others can write it. Look at what it says, then: chmod 600 {self.path}"
            problems.append(Problem(str(self.path), text))

    def _stored(self, document: Document, problems: list[Problem]) -> Stored:
        apps = [self._known(app) for app in document.apps("app", problems)]
        rules = read_apps(apps, self._source, problems)
        check_aliases(rules, problems)
        pins: dict[Origin, Pin] = {}
        for app in document.apps("pin", problems):
            found = _read_pin(app, problems)
            if found is None:
                continue
            if found[0] in pins:
                problems.append(Problem(app.place, f"{found[0]} has two pins"))
            pins[found[0]] = found[1]
        return Stored(rules, pins)

    def _known(self, app: App) -> App:
        """Without the keys of another version: they are kept in the file, and mean nothing here.

        But one that looks misspelt is a problem: ``kms_key`` would leave an app without its keys.
        """
        if self._source != "store":  # people write it
            return app
        kept = {
            key: each for key, each in app.table.items() if key in APP_KEYS or near(key, APP_KEYS)
        }
        return replace(app, table=kept)

    # -- writing -----------------------------------------------------------------------------------

    def pin(self, origin: Origin, change: Callable[[Pin], Pin]) -> Stored:
        """Writes what ``change`` makes of the origin's pin as it is in the file by now.

        :raises ConfigError: the file is damaged, or locked; it stays as it is.
        :raises OSError: it cannot be written.
        """
        return self._edit(lambda tables, stored: _set_pin(tables, stored, origin, change))

    def grant(self, origin: Origin, change: Callable[[Pin], Pin]) -> Stored:
        """As :meth:`pin`, and trusts the origin for the signed identity unless it is listed."""

        def granted(tables: Tables, stored: Stored) -> None:
            exact = TrustRule(origin.scheme, origin.host, origin.port)
            if not any(_is(rule, exact) for rule in stored.rules):
                entry = {"origin": str(origin), "proofs": [str(STRENGTH[0])]}
                tables.setdefault("app", []).append(entry)
            _set_pin(tables, stored, origin, change)

        return self._edit(granted)

    def add(self, rule: TrustRule) -> Stored:
        """Trusts an origin or a wildcard, or says more about it: what ``rule`` leaves empty stays.

        It is the person's word anew, so the path and the route are forgotten, and where it says
        which proofs, the strongest one that was seen. The pinned key is not: another key takes
        :meth:`accept_key`.

        :raises ConfigError: the file is damaged, or locked. OSError: it cannot be written.
        """

        def added(tables: Tables, stored: Stored) -> None:
            apps = tables.setdefault("app", [])
            entry = next((each for each in apps if _is(parse_trust(each["origin"]), rule)), None)
            if entry is None:
                entry = {"origin": str(rule)}
                apps.append(entry)
            if rule.https not in ("", HTTPS[0]):
                entry.pop("alias", None)  # a name that is no longer used
            if rule.service_token is not None:
                entry.pop("allow_http", None)  # it was about the one before
            entry |= _said(rule, entry)
            if not rule.wildcard:
                origin = Origin(rule.scheme, rule.host, rule.port)
                _set_pin(tables, stored, origin, lambda pin: _anew(pin, rule))

        return self._edit(added)

    def remove(self, rule: TrustRule) -> bool:
        """Takes an origin's entry and pin out; whether there was an entry.

        :raises ConfigError: the file is damaged, or locked. OSError: it cannot be written.
        """
        found = False

        def removed(tables: Tables, stored: Stored) -> None:
            nonlocal found
            apps = tables.get("app", [])
            kept = [each for each in apps if not _is(parse_trust(each["origin"]), rule)]
            found = len(kept) < len(apps)
            tables["app"] = kept
            others = [each for each in stored.rules if not each.wildcard and not _is(each, rule)]
            tables["pin"] = [
                pin
                for pin in tables.get("pin", [])
                if not _covers(rule, pin) or any(_covers(other, pin) for other in others)
            ]

        self._edit(removed)
        return found

    def accept_key(self, origin: Origin, arn: str) -> Stored:
        """Pins a key that the person typed, in place of the one before.

        :raises ConfigError: the file is damaged, or locked. OSError: it cannot be written.
        """
        typed = Accepted.COMMAND
        return self.pin(origin, lambda pin: replace(pin, key=arn, accepted=typed))

    def _edit(self, change: Callable[[Tables, Stored], None]) -> Stored:
        if self._source != "store":
            raise NotTrusted(f"{self.path} is the operator's, and is not written")
        # A link that leads elsewhere, as people keep their dotfiles, stays one.
        target = Path(os.path.realpath(self.path))
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(target.with_name(f".{target.name}.lock")):
            before, stored = self._read()
            tables = copy.deepcopy(before)
            change(tables, stored)
            kept = {key: each for key, each in tables.items() if each != []}
            if kept != before:
                text = _text(kept, target)
                self._check(kept, text)
                replace_file(target, text)
            return self.load()

    def _check(self, tables: Tables, text: str) -> None:
        """Whether it can be read again: what is said anew may not go with what was said before.

        :raises ConfigError: it cannot.
        """
        problems: list[Problem] = []
        self._stored(Document(self.path, copy.deepcopy(tables), text), problems)
        if problems:
            raise ConfigError(problems)


# -- entries and pins ------------------------------------------------------------------------------


def _read_pin(app: App, problems: list[Problem]) -> tuple[Origin, Pin] | None:
    texts: dict[str, str] = {}
    for key in _PIN_KEYS:
        value = app.table.get(key, "")
        if not isinstance(value, str):
            problems.append(Problem(app.place_of(key), f"{key} must be a string"))
            return None
        texts[key] = value
    readers: dict[str, Callable[[str], object]] = {
        "key": parse_key_arn,
        "accepted": _member(Accepted),
        "proof": _member(ProofKind),
        "path": check_auth_path,
        "route": _read_route,
    }
    before = len(problems)
    for key, read in readers.items():
        try:
            if texts[key]:
                read(texts[key])
        except Malformed as error:
            problems.append(Problem(app.place_of(key), f"{key}: {error}"))
    try:
        origin = parse_origin(texts["origin"])
    except Malformed as error:
        problems.append(Problem(app.place_of("origin"), f"a [[pin]] needs its origin: {error}"))
        return None
    if len(problems) > before:
        return None
    accepted = Accepted(texts["accepted"] or Accepted.FIRST_USE)
    proof = ProofKind(texts["proof"]) if texts["proof"] else None
    return origin, Pin(texts["key"], accepted, proof, texts["path"], texts["route"])


def _member(kinds: type[StrEnum]) -> Callable[[str], object]:
    def read(text: str) -> object:
        if text not in list(kinds):
            raise Malformed(f"not one of {', '.join(kinds)}")
        return text

    return read


_URL = re.compile(r"(?:socks5h|socks5|socks4|http|ssh)://[\[\]A-Za-z0-9_.:@+-]{1,330}", re.ASCII)


def _read_route(text: str) -> object:
    return text if _URL.fullmatch(text) else parse_route(text)


def _set_pin(tables: Tables, stored: Stored, origin: Origin, change: Callable[[Pin], Pin]) -> None:
    before = stored.pins.get(origin, Pin())
    after = change(before)
    if after == before:
        return
    accepted = "" if after.accepted is Accepted.FIRST_USE else str(after.accepted)
    texts = (str(origin), after.key, accepted, str(after.proof or ""), after.path, after.route)
    said = {key: text for key, text in zip(_PIN_KEYS, texts, strict=True) if text}
    pins = tables.setdefault("pin", [])
    for index, entry in enumerate(pins):
        if parse_origin(entry["origin"]) == origin:
            further = {key: each for key, each in entry.items() if key not in _PIN_KEYS}
            pins[index] = said | further
            return
    if len(pins) >= MAX_PINS:
        raise ConfigError([Problem("trust.toml", f"holds {MAX_PINS:,} pins; no more are written")])
    pins.append(said)


def _anew(pin: Pin, rule: TrustRule) -> Pin:
    return replace(pin, path="", route="", proof=None if rule.proofs else pin.proof)


def _said(rule: TrustRule, entry: Mapping[str, Any]) -> Tables:
    """What a rule says, in the file's words; lists of names grow."""
    origins = [str(origin) for origin in rule.allow_from]
    said: Tables = {
        "profile": rule.profile,
        "kms_keys": list(dict.fromkeys((*entry.get("kms_keys", ()), *rule.keys))),
        "via": rule.via,
        "proofs": list(rule.proofs),
        "allow_from": list(dict.fromkeys((*entry.get("allow_from", ()), *origins))),
        "https": rule.https,
        "alias": rule.alias,
    }
    if rule.service_token is not None:
        token = rule.service_token
        texts = {"to": token.to, "kms_key": token.key, "type": token.type, "from": token.name}
        said["service_token"] = {key: text for key, text in texts.items() if text}
        said["allow_http"] = token.allow_http
    return {key: each for key, each in said.items() if each}


def _is(rule: TrustRule, other: TrustRule) -> bool:
    """Whether two rules are of the same origin, or the same wildcard."""
    return str(rule) == str(other)


def _covers(rule: TrustRule, entry: Mapping[str, Any]) -> bool:
    return rule.covers(parse_origin(entry["origin"]))


def trust_of(settings: Settings, before: Trust | None = None) -> Trust:
    """The trust that the settings and the stores beside their files make.

    :param before: the one in force until now, whose grants and pins go on.
    :raises ConfigError: a store is damaged.
    """
    *operators, own = settings.trust_files or (None,)
    stores = [TrustFile(path, source="system") for path in operators if path is not None]
    return Trust(
        settings.trust,
        proofs=settings.proofs,
        key_accounts=settings.key_accounts,
        route=_default_route(settings),
        vias=settings.vias,
        stores=[*stores, TrustFile(own)] if own is not None else (),
        before=before,
    )


def _default_route(settings: Settings) -> str:
    if settings.ssh_bastion:
        return f"ssh://{settings.ssh_bastion}"
    return str(parse_via(settings.socks_proxy)) if settings.socks_proxy else DIRECT


# -- the file --------------------------------------------------------------------------------------


def _text(tables: Tables, path: Path) -> str:
    import tomllib

    text = _HEADER + dumps(tables)
    if tomllib.loads(text) != tables:  # NaN, which a person would have to have put there
        raise ConfigError([Problem(str(path), "holds what cannot be written again as it is")])
    return text
