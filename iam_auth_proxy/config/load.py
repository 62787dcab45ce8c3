"""Reading the sources in their order, and saying everything that is wrong at once."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from iam_auth_proxy.config.options import ENV_PREFIX, OPTIONS, Option
from iam_auth_proxy.config.values import Bind, TrustRule, parse_bind, parse_duration, parse_trust
from iam_auth_proxy.errors import ConfigError, Malformed, Problem

SYSTEM_FILE: Final = Path("/etc/iam-auth-proxy/config.toml")

_BY_NAME = {option.name: option for option in OPTIONS}
_BY_KEY = {option.key: option for option in OPTIONS if option.key}
_APP_KEYS = ("origin", "kms_keys")


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration in force. ``trust`` holds flags, environment and files together."""

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
    connect_to: tuple[str, ...]
    allow_targets: tuple[str, ...]
    cacert: str
    trust: tuple[TrustRule, ...]
    files: tuple[Path, ...] = ()


# -- reading ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Layer:
    """The texts that one source gives: option name -> [(place, text)]."""

    values: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    apps: list[tuple[str, dict[str, object]]] = field(default_factory=list)


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
) -> Settings:
    """The settings from all sources.

    :param flags: option name -> text, or texts where it repeats; absent where not given.
    :param files: the user's file first, the system's last; a missing one is skipped.
    :param required: one of ``files`` that was named by a flag, so that its absence is a problem.
    :param checks: further grammars by option name, of rooms that this module cannot import.
    :raises ConfigError: with every problem.
    """
    problems: list[Problem] = []
    layers = [_from_flags(flags), _from_environ(environ, problems)]
    read: list[Path] = []
    for path in files:
        layer = _from_file(path, problems, required=path == required)
        if layer is not None:
            layers.append(layer)
            read.append(path)
    chosen: dict[str, list[tuple[str, str]]] = {}
    for option in OPTIONS:
        given = [layer.values[option.name] for layer in layers if option.name in layer.values]
        # Repeated options add up over the sources; the first source wins for the others.
        found = [pair for texts in given for pair in texts] if option.repeat else (given or [[]])[0]
        _check(option, found, problems, (checks or {}).get(option.name))
        chosen[option.name] = found
    rules = _trust(chosen["trust"], [app for layer in layers for app in layer.apps], problems)
    policy = _policy(chosen["assume-role-policy"], problems)
    _cross_check(chosen, problems)
    if problems:
        raise ConfigError(problems)

    def one(name: str) -> str:
        return chosen[name][0][1] if chosen[name] else _BY_NAME[name].default

    def many(name: str) -> tuple[str, ...]:
        return tuple(text for _, text in chosen[name])

    return Settings(
        bind=parse_bind(one("bind")),
        profile=one("profile"),
        region=one("region"),
        sign_in=one("sign-in"),
        log_level=one("log-level"),
        log_format=one("log-format"),
        assume_role_arn=one("assume-role-arn"),
        assume_role_external_id=one("assume-role-external-id"),
        assume_role_session_name=one("assume-role-session-name"),
        assume_role_policy=policy,
        session_duration=parse_duration(one("session-duration")),
        mfa_serial_number=one("mfa-serial-number"),
        mfa_token_code=one("mfa-token-code"),
        socks_proxy=one("socks-proxy"),
        connect_to=many("connect-to"),
        allow_targets=many("allow-target"),
        cacert=one("cacert"),
        trust=rules,
        files=tuple(read),
    )


def _from_flags(flags: Mapping[str, str | Sequence[str]]) -> _Layer:
    layer = _Layer()
    for name, given in flags.items():
        texts = [given] if isinstance(given, str) else given
        layer.values[name] = [(f"--{name}", text) for text in texts]
    return layer


def _from_environ(environ: Mapping[str, str], problems: list[Problem]) -> _Layer:
    layer = _Layer()
    known = {option.variable: option for option in OPTIONS}
    # Read elsewhere: the password by relay/dial.py, the file's path by cli.py.
    others = {
        ENV_PREFIX + "SOCKS_PASSWORD",
        ENV_PREFIX + "SOCKS_PASSWORD_FILE",
        ENV_PREFIX + "CONFIG",
    }
    for variable, text in sorted(environ.items()):
        option = known.get(variable)
        if option is not None and text:
            texts = text.split() if option.repeat else [text]
            layer.values[option.name] = [(variable, part) for part in texts]
        elif option is None and variable.startswith(ENV_PREFIX) and variable not in others:
            problems.append(Problem(variable, "is not an option" + _near(variable, known)))
    return layer


def _from_file(path: Path, problems: list[Problem], *, required: bool) -> _Layer | None:
    try:
        source = path.read_text("utf-8")
    except FileNotFoundError:
        if required:
            problems.append(Problem(str(path), "no such file"))
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        problems.append(Problem(str(path), str(reason)))
        return None
    try:
        document = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(str(path), f"is not TOML: {error}"))
        return None
    layer = _Layer()
    lines = _Lines(path, source)
    apps = document.pop("app", [])
    for key, value in _flatten(document):
        place = lines.place(key)
        option = _BY_KEY.get(key)
        if option is None:
            problems.append(Problem(place, f"{key} is not an option" + _near(key, _BY_KEY)))
            continue
        given: list[object] = value if option.repeat and isinstance(value, list) else [value]
        texts = [text for text in given if isinstance(text, str)]
        if len(texts) < len(given):
            what = "a list of strings" if option.repeat else "a string"
            problems.append(Problem(place, f"{key} must be {what}"))
        elif any(texts):
            layer.values[option.name] = [(place, text) for text in texts]
    if not isinstance(apps, list) or not all(isinstance(app, dict) for app in apps):
        problems.append(Problem(lines.place("app"), "write each app as [[app]]"))
    else:
        layer.apps = [(lines.app_place(index), app) for index, app in enumerate(apps)]
    return layer


def _flatten(table: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            pairs += _flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, value))
    return pairs


class _Lines:
    """Where a key stands in a TOML file: tomllib does not tell. Good enough to point at."""

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._keys: dict[str, int] = {}
        self._apps: list[int] = []
        table = ""
        for number, line in enumerate(source.splitlines(), 1):
            text = line.strip()
            if text.startswith("[[app]]"):
                self._apps.append(number)
                table = "app."
            elif text.startswith("["):
                table = text.strip("[]").strip() + "."
            elif "=" in text and not text.startswith("#"):
                self._keys.setdefault(table + text.partition("=")[0].strip().strip("\"'"), number)

    def place(self, key: str) -> str:
        line = self._keys.get(key)
        return f"{self._path}:{line}" if line else str(self._path)

    def app_place(self, index: int) -> str:
        return f"{self._path}:{self._apps[index]}" if index < len(self._apps) else str(self._path)


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _check(
    option: Option,
    found: list[tuple[str, str]],
    problems: list[Problem],
    extra: Callable[[str], object] | None,
) -> None:
    for place, text in found:
        shown = "the value" if option.secret else repr(text)
        if option.choices and text not in option.choices:
            allowed = ", ".join(option.choices)
            problems.append(Problem(place, f"{shown} is not one of {allowed}"))
            continue
        for grammar in (option.parse, extra):
            if grammar is None:
                continue
            try:
                grammar(text)
            except Malformed as error:
                problems.append(Problem(place, f"{shown}: {error}"))


def _trust(
    texts: list[tuple[str, str]],
    apps: list[tuple[str, dict[str, object]]],
    problems: list[Problem],
) -> tuple[TrustRule, ...]:
    rules: list[TrustRule] = []
    for place, text in texts:
        try:
            rules.append(_placed(parse_trust(text), place))
        except Malformed:
            continue  # reported by _check
    for place, app in apps:
        for key in app:
            if key not in _APP_KEYS:
                problems.append(Problem(place, f"{key} is not an option" + _near(key, _APP_KEYS)))
        origin, keys = app.get("origin"), app.get("kms_keys", [])
        if not isinstance(origin, str):
            problems.append(Problem(place, 'an [[app]] needs origin = "http://HOST"'))
        elif not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            problems.append(Problem(place, "kms_keys must be a list of key ARNs"))
        else:
            try:
                rules.append(_placed(parse_trust(origin, keys), place))
            except Malformed as error:
                problems.append(Problem(place, f"{origin!r}: {error}"))
    return tuple(rules)


def _placed(rule: TrustRule, place: str) -> TrustRule:
    return TrustRule(rule.scheme, rule.host, rule.port, rule.keys, rule.wildcard, place)


def _policy(found: list[tuple[str, str]], problems: list[Problem]) -> str:
    """The session policy: the text itself where it is JSON, else the file's that it names."""
    if not found:
        return ""
    place, text = found[0]
    if text.lstrip().startswith("{"):
        return text
    try:
        return Path(text).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(place, f"neither JSON nor a readable file: {error}"))
        return ""


def _cross_check(chosen: Mapping[str, list[tuple[str, str]]], problems: list[Problem]) -> None:
    """What no option can see alone."""
    if not chosen["assume-role-arn"]:
        for name in ("assume-role-external-id", "assume-role-session-name", "assume-role-policy"):
            for place, _ in chosen[name][:1]:
                problems.append(Problem(place, "needs --assume-role-arn"))
    if chosen["mfa-token-code"] and not chosen["mfa-serial-number"]:
        place = chosen["mfa-token-code"][0][0]
        problems.append(Problem(place, "needs --mfa-serial-number"))
    for place, text in chosen["cacert"][:1]:
        if not Path(text).expanduser().is_file():
            problems.append(Problem(place, f"{text!r}: no such file"))
