"""``[[app]]``: what a file says of one app, and ``[via.NAME]``: a route by its name.

The same keys stand in ``config.toml``, which people write, and in ``trust.toml``, which
``iam-auth-proxy trust`` and the confirm page write.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from iam_auth_proxy.config.client_certificate import read_client_certificate
from iam_auth_proxy.config.service_token import read_service_token
from iam_auth_proxy.config.sources import App, Table, near
from iam_auth_proxy.config.values import (
    DIRECT,
    HTTPS,
    PROOFS,
    TrustRule,
    check_named_by_ca,
    parse_alias,
    parse_bastion,
    parse_profile,
    parse_route,
    parse_trust,
    shown,
)
from iam_auth_proxy.errors import ConfigError, Malformed, Problem
from iam_auth_proxy.names import Origin, parse_key_arn, parse_origin

APP_KEYS: Final = (
    "origin",
    "profile",
    "kms_keys",
    "via",
    "proofs",
    "allow_from",
    "https",
    "alias",
    "service_token",
    "allow_http",
    "client_cert",
    "client_key",
)
_VIA_KEYS: Final = ("socks", "password_file", "ssh_bastion", "ssh")
SSH: Final = ("ssh",)
"""The command of a bastion, unless another is named."""


@dataclass(frozen=True, slots=True)
class ViaSettings:
    """``[via.NAME]``: an upstream proxy that apps are reached through.

    :ivar socks: ``[SCHEME://][USER@]HOST:PORT``, as ``--socks-proxy`` takes it.
    :ivar password_file: the file that holds its password; empty where none is needed.
    :ivar ssh_bastion: in place of ``socks``: ``[USER@]HOST``, through which ``ssh`` makes one.
    :ivar ssh: that command, and its first options.
    :ivar place: where it was written.
    """

    name: str
    socks: str
    password_file: str = ""
    ssh_bastion: str = ""
    ssh: tuple[str, ...] = SSH
    place: str = field(default="", compare=False)


def read_apps(
    apps: Iterable[App],
    source: str,
    problems: list[Problem],
    *,
    vias: Collection[str] | None = None,
) -> tuple[TrustRule, ...]:
    """The rules of one file; an origin stands there once, or two entries could contradict another.

    :param source: as :func:`read_app`, as for ``vias``.
    """
    rules: list[TrustRule] = []
    places: dict[str, str] = {}
    for app in apps:
        rule = read_app(app, source, problems, vias=vias)
        if rule is not None:
            rules.append(rule)
        name = _name(app)
        first = places.setdefault(name, app.place) if name else app.place
        if first != app.place:
            text = f"{name} is listed at {first} already: make one [[app]] of both"
            problems.append(Problem(app.place, text))
    return tuple(rules)


def _name(app: App) -> str:
    """The origin in its one spelling; empty where it is none."""
    origin = app.table.get("origin")
    try:
        return str(parse_trust(origin)) if isinstance(origin, str) else ""
    except Malformed:
        return ""


def read_app(
    app: App,
    source: str,
    problems: list[Problem],
    *,
    vias: Collection[str] | None = None,
) -> TrustRule | None:
    """The rule that an ``[[app]]`` is; None where something is wrong with it, which is reported.

    :param source: "system", "user" or "store".
    :param vias: the names of the routes that there are; None: they are not looked at. An app whose
        route nobody defined must not be reached directly instead.
    """
    before = len(problems)
    for key in app.table:
        if key not in APP_KEYS:
            text = f"{key} is not an option" + near(key, APP_KEYS)
            problems.append(Problem(app.place_of(key), text))
    origin = app.table.get("origin")
    if not isinstance(origin, str):
        problems.append(Problem(app.place_of("origin"), 'an [[app]] needs origin = "http://HOST"'))
        return None
    rule = _origin_and_keys(app, origin, problems)
    proofs = _texts(app, "proofs", "a list of proofs", problems)
    profile = _text(app, "profile", parse_profile, problems)
    via = _text(app, "via", parse_route, problems)
    if vias is not None and via not in ("", DIRECT, *vias):
        text = f"{_name(app) or shown(origin)}: there is no [via.{via}]{near(via, vias)}"
        problems.append(Problem(app.place_of("via"), text))
    allowed = _origins(app, problems)
    https, alias = _https(app, rule, problems)
    service_token = read_service_token(app, rule, problems)
    client = read_client_certificate(app, rule, problems)
    for proof in proofs:
        if proof not in PROOFS:
            text = f"{shown(proof)} is not one of {', '.join(PROOFS)}" + near(proof, PROOFS)
            problems.append(Problem(app.place_of("proofs"), text))
    if rule is not None and rule.wildcard and PROOFS[1] in proofs:
        text = "a wildcard never gives session credentials: list such an app by its own name"
        problems.append(Problem(app.place_of("proofs"), text))
    if rule is None or len(problems) > before:
        return None
    return replace(
        rule,
        place=app.place,
        source=source,
        profile=profile,
        proofs=tuple(dict.fromkeys(proofs)),
        via=via,
        allow_from=allowed,
        https=https,
        alias=alias,
        service_token=service_token,
        client=client,
    )


def _origin_and_keys(app: App, origin: str, problems: list[Problem]) -> TrustRule | None:
    keys = app.table.get("kms_keys", [])
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        problems.append(Problem(app.place_of("kms_keys"), "kms_keys must be a list of key ARNs"))
        return None
    before = len(problems)
    for key in keys:
        try:
            parse_key_arn(key)
        except Malformed as error:
            problems.append(Problem(app.place_of("kms_keys"), f"{shown(key)}: {error}"))
    try:
        return parse_trust(origin, keys if len(problems) == before else ())
    except Malformed as error:
        problems.append(Problem(app.place, f"{shown(origin)}: {error}"))
    return None


def _https(app: App, rule: TrustRule | None, problems: list[Problem]) -> tuple[str, str]:
    """``https`` and ``alias``: how an app on https is reached."""
    https = _text(app, "https", _way, problems)
    alias = _text(app, "alias", parse_alias, problems)
    if rule is None or not (https or alias):
        return https, alias
    place = app.place_of("https" if https else "alias")
    if rule.scheme != "https":
        problems.append(Problem(place, f"{rule} is not an https:// origin"))
    elif alias and https != HTTPS[0]:
        text = 'an alias needs https = "alias" beside it'
        problems.append(Problem(app.place_of("alias"), text))
    elif https == HTTPS[0] and rule.wildcard:
        problems.append(Problem(place, "an alias is of one app: list it by its own name"))
    elif https == HTTPS[0] and not alias and not _can_name(rule):
        problems.append(Problem(place, 'this host needs a name: alias = "NAME"'))
    elif https == HTTPS[1]:
        try:
            check_named_by_ca(rule)
        except Malformed as error:
            problems.append(Problem(place, str(error)))
    return https, alias


def _way(text: str) -> str:
    if text not in HTTPS:
        raise Malformed(f"not one of {', '.join(HTTPS)}{near(text, HTTPS)}")
    return text


def _can_name(rule: TrustRule) -> bool:
    """Whether the first label of its host can be its alias."""
    if Origin(rule.scheme, rule.host, rule.port).is_address:
        return False
    try:
        parse_alias(rule.host.partition(".")[0])
    except Malformed:
        return False
    return True


def check_aliases(rules: Iterable[TrustRule], problems: list[Problem]) -> None:
    """Reports a name that two apps want: it is one's alone."""
    taken: dict[str, TrustRule] = {}
    for rule in rules:
        name = rule.alias_name
        if name and str(taken.setdefault(name, rule)) != str(rule):
            text = f"{rule}: the alias {name} is {taken[name]}'s. Give one of them another"
            problems.append(Problem(rule.place, text))


def _text(app: App, key: str, parse: Callable[[str], str], problems: list[Problem]) -> str:
    value = app.table.get(key, "")
    if not isinstance(value, str):
        problems.append(Problem(app.place_of(key), f"{key} must be a string"))
        return ""
    try:
        return parse(value) if value else ""
    except Malformed as error:
        problems.append(Problem(app.place_of(key), f"{shown(value)}: {error}"))
    return ""


def _texts(app: App, key: str, what: str, problems: list[Problem]) -> list[str]:
    value = app.table.get(key, [])
    texts = value if isinstance(value, list) else [value]
    found = [text for text in texts if isinstance(text, str)]
    if len(found) < len(texts):
        problems.append(Problem(app.place_of(key), f"{key} must be {what}"))
    return found


def _origins(app: App, problems: list[Problem]) -> tuple[Origin, ...]:
    found = []
    for text in _texts(app, "allow_from", "a list of origins", problems):
        try:
            found.append(parse_origin(text.removesuffix("/")))
        except Malformed as error:
            problems.append(Problem(app.place_of("allow_from"), f"{shown(text)}: {error}"))
    return tuple(dict.fromkeys(found))


def read_vias(
    tables: Iterable[Table],
    problems: list[Problem],
    check: Callable[[ViaSettings], object] | None = None,
) -> dict[str, ViaSettings]:
    """The routes by name. Of two with one name the first counts, which is the more specific file's.

    :param check: of packages that this module cannot import; raises Malformed where ``socks`` is no
        such address, or ConfigError.
    """
    found: dict[str, ViaSettings] = {}
    for table in tables:
        via = _via(table, problems, check)
        if via is not None:
            found.setdefault(via.name, via)
    return found


def _via(
    table: Table, problems: list[Problem], check: Callable[[ViaSettings], object] | None
) -> ViaSettings | None:
    before = len(problems)
    try:
        if parse_route(table.name) == DIRECT:
            raise Malformed(f"{DIRECT!r} is what an app says that takes no route")
    except Malformed as error:
        problems.append(Problem(table.place, f"{shown(table.name)}: {error}"))
    for key in table.values:
        if key not in _VIA_KEYS:
            name = f"via.{table.name}.{key}"
            text = f"{name} is not an option" + near(key, _VIA_KEYS, prefix=f"via.{table.name}.")
            problems.append(Problem(table.place_of(key), text))
    socks, file, bastion = (_string(table, key, problems) for key in _VIA_KEYS[:3])
    command = _command(table, problems)
    if not (socks or bastion) and len(problems) == before:
        text = 'a route needs socks = "HOST:PORT" or ssh_bastion = "HOST"'
        problems.append(Problem(table.place, text))
    elif bastion and (socks or file):
        place = table.place_of("socks" if socks else "password_file")
        problems.append(Problem(place, "say either ssh_bastion, or socks and its password_file"))
    elif "ssh" in table.values and not bastion and len(problems) == before:
        text = "ssh is the command of an ssh_bastion, and there is none"
        problems.append(Problem(table.place_of("ssh"), text))
    via = ViaSettings(table.name, socks, file, bastion, command, table.place)
    try:
        if bastion:
            parse_bastion(bastion)
        elif socks and check is not None:
            check(via)
    except Malformed as error:
        remedy = f". {error.remedy}" if error.remedy else ""
        key = "ssh_bastion" if bastion else "socks"
        problems.append(Problem(table.place_of(key), f"{shown(bastion or socks)}: {error}{remedy}"))
    except ConfigError as error:
        problems += error.problems
    return via if len(problems) == before else None


def _command(table: Table, problems: list[Problem]) -> tuple[str, ...]:
    words = table.values.get("ssh", list(SSH))
    if not isinstance(words, list) or not words or not all(isinstance(each, str) for each in words):
        text = 'ssh must be a list of words, such as ["ssh", "-F", "FILE"]'
        problems.append(Problem(table.place_of("ssh"), text))
        return SSH
    return tuple(os.path.expanduser(word) for word in words)


def _string(table: Table, key: str, problems: list[Problem]) -> str:
    value = table.values.get(key, "")
    if isinstance(value, str):
        return value
    problems.append(Problem(table.place_of(key), f"{key} must be a string"))
    return ""
