"""The configuration in force: the sources in their order, and all that is wrong at once."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from iam_auth_proxy.config.apps import (
    SSH,
    ViaSettings,
    check_aliases,
    read_apps,
    read_vias,
)
from iam_auth_proxy.config.options import OPTIONS, Option
from iam_auth_proxy.config.service_token import unread
from iam_auth_proxy.config.sources import (
    Layer,
    Placed,
    from_environ,
    from_file,
    from_flags,
    near,
)
from iam_auth_proxy.config.values import (
    MAX_ROLE_SESSION,
    Bind,
    TrustRule,
    parse_alias_of,
    parse_bind,
    parse_intercept,
    parse_session_duration,
    parse_size,
    parse_switch,
    parse_trust,
    shown,
)
from iam_auth_proxy.errors import ConfigError, Malformed, Problem

SYSTEM_FILE: Final = Path("/etc/iam-auth-proxy/config.toml")
TRUST_FILE: Final = "trust.toml"
"""Beside ``config.toml``: what is trusted by command and by the confirm page, and the pins."""

_BY_NAME = {option.name: option for option in OPTIONS}
# Of a session policy, in characters (STS API reference, AssumeRole).
_MAX_POLICY = 2048


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration in force. ``trust`` holds flags, environment and ``config.toml`` together.

    What ``trust.toml`` holds is read by its own owner,
    :mod:`iam_auth_proxy.proxy.decisions.trustfile`, which follows its changes.

    :ivar alias_port: where each alias has an address of its own; 0: nowhere.
    :ivar session_duration: seconds.
    :ivar assume_role_policy: the JSON text itself, also where a path was given.
    :ivar ssh_bastion: ``[USER@]HOST``; empty: apps are not reached through one unless they say so.
    :ivar ssh: the command of that bastion, and its first options.
    :ivar cacert: a path, ``~`` expanded; empty where none was given.
    :ivar proofs: what may be proved to an app that does not say otherwise: of
        :data:`~iam_auth_proxy.config.values.PROOFS`.
    :ivar key_accounts: accounts whose keys are pinned at first use as those of the caller's own.
    :ivar login_role_arn: the role that stands in for identities that have no session credentials.
    :ivar replay_body: bytes of a request's body that are kept so that it can be sent again.
    :ivar client_auth: the path of the file that says who may use the proxy; empty: no such file.
    :ivar allow_other_users: whether other users of this machine may use the proxy.
    :ivar vias: the routes by name.
    :ivar chosen: option name -> the texts in force and their places; what is absent is a default.
    :ivar files: the files that were read, the user's first.
    :ivar trust_files: where ``trust.toml`` may be: the operator's, then the person's.
    :ivar warnings: what does not stop the proxy and should be known.
    :ivar quiet: say nothing but warnings and errors; ``log_level`` is ``warning`` then, unless it
        was given.
    """

    bind: Bind
    profile: str
    region: str
    sign_in: str
    log_level: str
    log_format: str
    assume_role_arn: str
    assume_role_external_id: str
    assume_role_session_name: str
    assume_role_policy: str
    session_duration: float
    mfa_serial_number: str
    mfa_token_code: str = field(repr=False)
    socks_proxy: str
    ssh_bastion: str
    ssh: tuple[str, ...]
    connect_to: tuple[str, ...]
    allow_targets: tuple[str, ...]
    cacert: str
    trust: tuple[TrustRule, ...]
    alias_port: int
    proofs: tuple[str, ...]
    key_accounts: tuple[str, ...]
    login_role_arn: str
    replay_body: int
    client_auth: str
    allow_other_users: bool
    vias: Mapping[str, ViaSettings]
    files: tuple[Path, ...] = ()
    trust_files: tuple[Path, ...] = ()
    quiet: bool = False
    warnings: tuple[Problem, ...] = ()
    chosen: Mapping[str, tuple[Placed, ...]] = field(default_factory=dict, repr=False)


def trust_files(files: Sequence[Path], system: Sequence[Path]) -> tuple[Path, ...]:
    """The ``trust.toml`` beside each of the files, the operator's first, the person's last.

    :returns: nothing where no file is the person's: then nothing is written down.
    """
    if all(path in system for path in files):
        return ()
    ordered = sorted(files, key=lambda path: path not in system)
    return tuple(path.with_name(TRUST_FILE) for path in ordered)


def user_file() -> Path:
    """Where a person's ``config.toml`` lives on this system."""
    from platformdirs import user_config_path

    return user_config_path("iam-auth-proxy") / "config.toml"


def load(
    flags: Mapping[str, str | Sequence[str]],
    environ: Mapping[str, str],
    files: Sequence[Path],
    *,
    required: Path | None = None,
    checks: Mapping[str, Callable[[str], object]] | None = None,
    check_via: Callable[[ViaSettings], object] | None = None,
    system: Sequence[Path] = (SYSTEM_FILE,),
) -> Settings:
    """The settings from all sources.

    :param flags: option name -> text, or texts where it repeats; absent where not given.
    :param files: the user's file first, the system's last; a missing one is skipped.
    :param required: one of ``files`` that was named by a flag, so that its absence is a problem.
    :param system: those of ``files`` that are the operator's.
    :param checks: further grammars by option name, of packages that this module cannot import; one
        raises Malformed, or ConfigError where it looks further than at the text.
    :param check_via: the same of a whole route.
    :raises ConfigError: with every problem.
    """
    problems: list[Problem] = []
    checks = checks or {}
    layers, read = _read(flags, environ, files, required, system, problems)
    chosen = _choose(layers, checks, problems)
    routes = [via for layer in layers for via in layer.vias]
    rules = _trust(layers, [via.name for via in routes], problems)
    vias = read_vias(routes, problems, check_via)
    check_aliases(rules, problems)
    policy = _policy(chosen["assume-role-policy"], problems)
    cacert = _cacert(chosen["cacert"], problems)
    _cross_check(chosen, problems)
    if problems:
        raise ConfigError(problems)
    one, many = partial(_one, chosen), partial(_many, chosen)
    quiet = parse_switch(one("quiet"))
    level = "warning" if quiet and not chosen["log-level"] else one("log-level")
    return Settings(
        bind=parse_bind(one("bind")),
        profile=one("profile"),
        region=one("region"),
        sign_in=one("sign-in"),
        log_level=level,
        log_format=one("log-format"),
        assume_role_arn=one("assume-role-arn"),
        assume_role_external_id=one("assume-role-external-id"),
        assume_role_session_name=one("assume-role-session-name"),
        assume_role_policy=policy,
        session_duration=parse_session_duration(one("session-duration")),
        mfa_serial_number=one("mfa-serial-number"),
        mfa_token_code=one("mfa-token-code"),
        socks_proxy=one("socks-proxy"),
        ssh_bastion=one("ssh-bastion"),
        ssh=tuple(os.path.expanduser(text) for _, text in chosen["ssh"]) or SSH,
        connect_to=many("connect-to"),
        allow_targets=many("allow-target"),
        cacert=cacert,
        trust=rules,
        alias_port=int(one("alias-port") or 0),
        proofs=many("proof"),
        key_accounts=many("key-account"),
        login_role_arn=one("login-role-arn"),
        replay_body=parse_size(one("replay-body")),
        client_auth=os.path.expanduser(one("client-auth")),
        allow_other_users=parse_switch(one("allow-other-users")),
        vias=vias,
        files=tuple(read),
        trust_files=trust_files(files, system),
        quiet=quiet,
        warnings=(
            *(warning for path in read for warning in _exposed(path)),
            *unread(rules),
            *_idle(chosen),
        ),
        chosen={name: tuple(found) for name, found in chosen.items() if found},
    )


def _read(
    flags: Mapping[str, str | Sequence[str]],
    environ: Mapping[str, str],
    files: Sequence[Path],
    required: Path | None,
    system: Sequence[Path],
    problems: list[Problem],
) -> tuple[list[Layer], list[Path]]:
    """The sources, the one that comes first in front, and the files that there were."""
    layers = [from_flags(flags), from_environ(environ, problems)]
    read: list[Path] = []
    for path in files:
        source = "system" if path in system else "user"
        layer = from_file(path, problems, required=path == required, source=source)
        if layer is not None:
            layers.append(layer)
            read.append(path)
    return layers, read


def _choose(
    layers: Sequence[Layer],
    checks: Mapping[str, Callable[[str], object]],
    problems: list[Problem],
) -> dict[str, list[Placed]]:
    """Option name -> the texts in force and their places; empty where no source has the option."""
    chosen: dict[str, list[Placed]] = {}
    for option in OPTIONS:
        given = [layer.values[option.name] for layer in layers if option.name in layer.values]
        # Most lists add up over the sources; of the others the first source counts.
        adds_up = option.repeat and not option.replaces
        found = [pair for texts in given for pair in texts] if adds_up else (given or [[]])[0]
        _check(option, found, problems, checks.get(option.name))
        chosen[option.name] = found
    return chosen


def _one(chosen: Mapping[str, list[Placed]], name: str) -> str:
    """The text of an option that is given once, or its default."""
    option = _BY_NAME[name]
    text = chosen[name][0][1] if chosen[name] else option.default
    return option.synonyms.get(text, text)


def _many(chosen: Mapping[str, list[Placed]], name: str) -> tuple[str, ...]:
    """The texts of an option that repeats, each once, or its default."""
    default = _BY_NAME[name].default
    return tuple(dict.fromkeys(text for _, text in chosen[name])) or ((default,) if default else ())


def _check(
    option: Option,
    found: list[Placed],
    problems: list[Problem],
    extra: Callable[[str], object] | None,
) -> None:
    for place, text in found:
        quoted = "the value" if option.secret else shown(text)
        if option.choices and text not in option.choices and text not in option.synonyms:
            guess = near(text, option.choices)
            allowed = ", ".join(option.choices)
            problems.append(Problem(place, f"{quoted} is not one of {allowed}{guess}"))
            continue
        for grammar in (option.parse, extra):
            if grammar is None:
                continue
            try:
                grammar(text)
            except Malformed as error:
                remedy = f". {error.remedy}" if error.remedy else ""
                problems.append(Problem(place, f"{quoted}: {error}{remedy}"))
                break
            except ConfigError as error:
                problems += error.problems


_LISTING: Final = (
    ("trust", parse_trust),
    ("alias", parse_alias_of),
    ("intercept", parse_intercept),
)


def _trust(
    layers: Sequence[Layer], routes: Sequence[str], problems: list[Problem]
) -> tuple[TrustRule, ...]:
    rules: list[TrustRule] = []
    for layer in layers:
        for name, parse in _LISTING:
            for place, text in layer.values.get(name, []):
                try:
                    rules.append(replace(parse(text), place=place, source=layer.source))
                except Malformed:
                    continue  # reported by _check
    for layer in layers:
        rules += read_apps(layer.apps, layer.source, problems, vias=routes)
    return tuple(rules)


def _exposed(path: Path) -> list[Problem]:
    """Whoever can write the configuration decides whom the person's identity is shown to."""
    found = path.stat()
    if hasattr(os, "geteuid") and found.st_uid not in (0, os.geteuid()):
        return [Problem(str(path), "belongs to another user, who can say whom you trust")]
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        text = f"others can write it, and so say whom you trust. Run: chmod go-w {path}"
        return [Problem(str(path), text)]
    return []


def _policy(found: list[Placed], problems: list[Problem]) -> str:
    """The session policy: the text itself where it is JSON, else the file's that it names."""
    if not found:
        return ""
    place, text = found[0]
    if not text.lstrip().startswith(("{", "[")):
        raw = _bytes_of(place, text, problems)
        if raw is None:
            return ""
        text = raw.decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        problems.append(Problem(place, f"is neither JSON nor the path of such a file: {error}"))
        return ""
    if not isinstance(document, dict):
        problems.append(Problem(place, "a policy is a JSON object"))
    elif len(text) > _MAX_POLICY:
        problems.append(Problem(place, f"AWS takes {_MAX_POLICY:,} characters of session policy"))
    return text


def _cacert(found: list[Placed], problems: list[Problem]) -> str:
    if not found:
        return ""
    place, text = found[0]
    raw = _bytes_of(place, text, problems)
    if raw is not None and b"-----BEGIN CERTIFICATE-----" not in raw:
        problems.append(Problem(place, f"{shown(text)}: holds no PEM certificate"))
    return os.path.expanduser(text)


def _bytes_of(place: str, text: str, problems: list[Problem]) -> bytes | None:
    try:
        return Path(os.path.expanduser(text)).read_bytes()
    except OSError as error:
        problems.append(Problem(place, f"{shown(text)}: {error.strerror}"))
    except ValueError:  # a NUL, which a TOML file can spell
        problems.append(Problem(place, f"{shown(text)}: is not a path"))
    return None


def _cross_check(chosen: Mapping[str, list[Placed]], problems: list[Problem]) -> None:
    """What no option can see alone."""
    if not chosen["assume-role-arn"]:
        for name in ("assume-role-external-id", "assume-role-session-name", "assume-role-policy"):
            for place, _ in chosen[name][:1]:
                problems.append(Problem(place, "needs --assume-role-arn"))
    elif chosen["session-duration"]:
        place, text = chosen["session-duration"][0]
        try:
            if parse_session_duration(text) > MAX_ROLE_SESSION:
                problems.append(Problem(place, f"{text!r}: a role's session lasts at most 12h"))
        except Malformed:
            pass  # reported by _check
    if chosen["bind"] and not chosen["client-auth"]:
        place, text = chosen["bind"][0]
        problems += _reachable(place, text)
    if chosen["ssh-bastion"] and chosen["socks-proxy"]:
        place = chosen["ssh-bastion"][0][0]
        problems.append(Problem(place, "has a SOCKS proxy of its own: leave --socks-proxy out"))
    if chosen["ssh"] and not chosen["ssh-bastion"]:
        problems.append(Problem(chosen["ssh"][0][0], "needs --ssh-bastion"))
    if chosen["mfa-token-code"] and not chosen["mfa-serial-number"]:
        place = chosen["mfa-token-code"][0][0]
        problems.append(Problem(place, "needs --mfa-serial-number"))


def _idle(chosen: Mapping[str, list[Placed]]) -> list[Problem]:
    """What was said and has no effect."""
    if chosen["assume-role-arn"] or chosen["mfa-serial-number"]:
        return []
    text = "has no effect without --assume-role-arn or --mfa-serial-number"
    return [Problem(place, text) for place, _ in chosen["session-duration"][:1]]


def _reachable(place: str, text: str) -> list[Problem]:
    """Whoever reaches the proxy acts as the person; others need a password."""
    try:
        bind = parse_bind(text)
    except Malformed:
        return []  # reported by _check
    if bind.is_local:
        return []
    problem = (
        f"{text}: other machines reach that, and whoever does acts as you. Bind to "
        f"127.0.0.1:{bind.port or 8080}, which is loopback only, or add --client-auth FILE"
    )
    return [Problem(place, problem)]
