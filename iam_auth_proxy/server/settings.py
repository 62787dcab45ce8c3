"""The server's settings, read by the one table of ``table``: for ``Gate(...)``, for ``IAM_AUTH_*``
and for the original's names.

Every setting is read from the arguments of :class:`~iam_auth_proxy.server.Gate`, else from the
environment (``Gate.from_env()`` only), else it has its default. A variable ``NAME`` may also be
given as ``NAME_FILE``, the path of a file that holds the value. All problems are reported at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from iam_auth_proxy.errors import ConfigError, Malformed, Problem
from iam_auth_proxy.names import KeyReference, Origin
from iam_auth_proxy.protocol.keyring import SECRET_COMMAND
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.protocol.service_token import CallerType
from iam_auth_proxy.server.access import Allowed
from iam_auth_proxy.server.front import Network
from iam_auth_proxy.server.public import PublicPaths
from iam_auth_proxy.server.replay import MEMORY
from iam_auth_proxy.server.table import SETTINGS, Setting
from iam_auth_proxy.tokens.accepts import Accepts

__all__ = ["SETTINGS", "Setting", "Settings", "load", "read_variable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings in force. Durations are seconds, instants seconds since the epoch.

    :ivar kms_key: any of KMS's four spellings; resolved to a key ARN when first needed.
    :ivar secret_key: signs the cookies, and derives the salts where ``salt`` is empty.
    :ivar keyring: the place of the stored ring that does so instead; one of the two is empty.
    :ivar keyring_kms_keys: what opens it. Empty: ``kms_key``.
    :ivar keyring_poll: never less often than the ring's own policy says. None: as that says.
    :ivar accounts: who may sign in; the first is the realm of the challenge. Empty: the account
        that the server itself runs in.
    :ivar origins: what browsers call this app. Empty: taken from each request, as in the original,
        and only legacy sign-ins are possible.
    :ivar proofs: what is taken at ``POST /auth``; never empty.
    :ivar legacy: whether session credentials are taken at ``GET /auth``.
    :ivar replay: where used proofs are remembered; see :func:`replay.check_place`.
    :ivar service_keys: keys of service tokens; with ``user_keys`` and ``scoped_keys`` empty, no
        such token is looked at. For this and what follows see :class:`.tokens.accepts.Accepts`.
    """

    kms_key: KeyReference
    secret_key: str = field(default="", repr=False)
    keyring: str = ""
    keyring_kms_keys: tuple[KeyReference, ...] = ()
    keyring_poll: float | None = None
    salt: str = ""
    accounts: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()
    proofs: frozenset[ProofKind] = frozenset({ProofKind.SIGNED_IDENTITY})
    legacy: bool = False
    replay: str = MEMORY
    public: PublicPaths = field(default_factory=PublicPaths)
    allow: Allowed = field(default_factory=Allowed)
    max_session: float = 12 * 3600.0
    idle: float = 3600.0
    sessions_issued_after: float = 0.0
    cookie_name: str = "iam-auth"
    path: str = "/auth"
    help_url: str = ""
    trusted_proxies: tuple[Network | str, ...] = ()
    region: str = ""
    token_audience: str = ""
    service_keys: tuple[KeyReference, ...] = ()
    user_keys: tuple[KeyReference, ...] = ()
    scoped_keys: tuple[tuple[KeyReference, str], ...] = ()
    token_types: frozenset[CallerType] = frozenset()
    token_min_version: int = 2
    token_max_version: int = 2
    token_max_lifetime: float = 3600.0
    token_leeway: float = 30.0
    token_context: Mapping[str, str] = field(default_factory=dict, hash=False)
    token_cache_size: int = 4096

    def accepts(self) -> Accepts | None:
        """Which service tokens are accepted; None: none, and they are not looked at.

        :raises ConfigError: the settings do not go together.
        """
        if not (self.service_keys or self.user_keys or self.scoped_keys):
            return None
        return Accepts(**{to: getattr(self, name) for name, to in _ACCEPTS.items()})


# -- reading them ----------------------------------------------------------------------------------

AUDIENCE: Final = ("IAM_AUTH_TOKEN_AUDIENCE", "AUTH_CONTEXT")
"""The variables of which one has to be there for Confidant's other names to be read."""

RING_COMMAND: Final = "iam-auth-proxy keyring new s3://BUCKET/PREFIX/NAME --kms-key ARN"
IMPORT_COMMAND: Final = (
    "iam-auth-proxy keyring import {} --from-env SECRET_KEY,KMS_SALT --kms-key ARN"
)

# Settings, and what they are to the verifier of service tokens.
_ACCEPTS: Final = {
    "token_audience": "to",
    "service_keys": "service_keys",
    "user_keys": "user_keys",
    "scoped_keys": "scoped_keys",
    "token_types": "types",
    "token_min_version": "min_version",
    "token_max_version": "max_version",
    "token_max_lifetime": "max_lifetime",
    "token_leeway": "leeway",
    "token_context": "extra",
}
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


def load(
    values: Mapping[str, object],
    environ: Mapping[str, str] | None = None,
    *,
    warn: Callable[[str], None] = lambda text: None,
    rings: bool = False,
) -> Settings:
    """The settings from the arguments and, where given, an environment.

    With an environment the defaults are the original's behaviour: every proof is accepted,
    ``legacy`` is on and ``origins`` may be absent. Without one ``origins`` is required, and only
    the signed identity is accepted.

    :param warn: told of variables that begin as ours do and are no setting.
    :param rings: the key ring is there already, so that neither a secret key nor a place of one is
        asked for, and a secret key is a mistake.
    :raises ConfigError: with every problem.
    :raises TypeError: an argument that is no setting.
    """
    unknown = sorted(set(values) - set(_BY_NAME))
    if unknown:
        near = difflib.get_close_matches(unknown[0], _BY_NAME, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise TypeError(f"unknown setting {unknown[0]!r}{hint}")
    problems: list[Problem] = []
    found: dict[str, object] = {}
    for setting in SETTINGS:
        place, raw = _find(setting, values, environ, problems)
        if raw is None:
            continue
        try:
            found[setting.name] = setting.read(raw)
        except Malformed as error:
            problems.append(Problem(place, str(error)))
    if environ is not None:
        _behave_as_the_original(found)
        for text in _mistyped(environ):
            warn(text)
    _check_whole(found, environ, problems, rings)
    if problems:
        raise ConfigError(problems)
    return Settings(**found)  # type: ignore[arg-type]  # each value came from its setting's reader


def _behave_as_the_original(found: dict[str, object]) -> None:
    """The defaults where the settings come from an environment."""
    # Whoever names the proofs and leaves session credentials out does not want them by GET either.
    proofs = found.setdefault("proofs", frozenset(ProofKind))
    assert isinstance(proofs, frozenset)
    found.setdefault("legacy", ProofKind.SESSION_CREDENTIALS in proofs)


def _find(
    setting: Setting,
    values: Mapping[str, object],
    environ: Mapping[str, str] | None,
    problems: list[Problem],
) -> tuple[str, object | None]:
    """Where the setting is given, and what is written there; None where it is not given."""
    if values.get(setting.name) is not None:
        return setting.name + "=", values[setting.name]
    if environ is None:
        return "", None
    named = any(name + suffix in environ for name in AUDIENCE for suffix in ("", "_FILE"))
    for variable in setting.variables:
        if variable in setting.confidant and not named:
            continue
        place, text = read_variable(environ, variable, problems)
        if place:
            return place, text
        if setting.narrows and variable in environ:
            problems.append(Problem(variable, "is empty; unset it, or say what it should be"))
            return variable, None
    return "", None


def read_variable(
    environ: Mapping[str, str], name: str, problems: list[Problem]
) -> tuple[str, str | None]:
    """``NAME``, or what is in the file that ``NAME_FILE`` names: (the one that is set, the text).

    :param problems: gets one where both are set, or the file cannot be read; the text is then None.
    """
    text, path = environ.get(name), environ.get(name + "_FILE")
    if text and path:
        problems.append(Problem(name, f"{name}_FILE is set too; set one of them"))
        return name, None
    if not path:
        return (name, text) if text else ("", None)
    return name + "_FILE", _read_file(name + "_FILE", path, problems)


def _read_file(place: str, path: str, problems: list[Problem]) -> str | None:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(place, f"cannot be read: {error}"))
        return None
    # One newline at the end is the editor's, not the value's.
    return text.removesuffix("\n").removesuffix("\r")


def _check_whole(
    found: dict[str, object],
    environ: Mapping[str, str] | None,
    problems: list[Problem],
    rings: bool,
) -> None:
    """What can only be seen when all settings are known."""
    broken = {problem.place.removesuffix("=").removesuffix("_FILE") for problem in problems}

    def missing(name: str) -> bool:
        setting = _BY_NAME[name]
        return name not in found and not broken & {name, *setting.variables}

    def place(name: str) -> str:
        return name + "=" if environ is None else " or ".join(_BY_NAME[name].variables)

    if missing("kms_key"):
        problems.append(Problem(place("kms_key"), "is needed: the KMS key that proofs are for"))
    _check_keys(found, problems, missing, place, rings)
    if missing("origins"):
        without = "is needed: what browsers call this app"
        if environ is None:
            problems.append(Problem(place("origins"), without))
        elif not found.get("legacy") and not broken & {"legacy", "IAM_AUTH_LEGACY"}:
            text = f"{without}. Without it legacy sign-ins are the only ones, and they are off"
            problems.append(Problem(place("origins"), text))
    defaults = {item.name: item.default for item in fields(Settings)}
    idle, longest = (found.get(name, defaults[name]) for name in ("idle", "max_session"))
    if isinstance(idle, float) and isinstance(longest, float) and idle > longest:
        if "idle" in found:
            problems.append(Problem(place("idle"), "is longer than max_session"))
        else:
            found["idle"] = longest
    _check_tokens(found, problems, place)


def _check_keys(
    found: Mapping[str, object],
    problems: list[Problem],
    missing: Callable[[str], bool],
    place: Callable[[str], str],
    rings: bool,
) -> None:
    """Exactly one of a secret key and a key ring."""
    if rings and "secret_key" in found:
        text = "is set, and a key ring is given with rings=; leave one of them out"
        problems.append(Problem(place("secret_key"), text))
        return
    if missing("secret_key") and missing("keyring") and not rings:
        text = (
            f"is needed, or {place('keyring')}. Make one with: {SECRET_COMMAND} (or a key ring, "
            f"which rotates, with: {RING_COMMAND})"
        )
        problems.append(Problem(place("secret_key"), text))
    if "secret_key" in found and "keyring" in found:
        text = (
            f"{place('secret_key')} is set too; set one of them. To move to the ring and log "
            f"nobody out: {IMPORT_COMMAND.format(found['keyring'])}"
        )
        problems.append(Problem(place("keyring"), text))
    for name in ("keyring_kms_keys", "keyring_poll"):
        if name in found and missing("keyring"):
            problems.append(Problem(place(name), f"says nothing without {place('keyring')}"))


def _check_tokens(
    found: Mapping[str, object], problems: list[Problem], place: Callable[[str], str]
) -> None:
    """Whether the settings of service tokens go together, where each by itself is good."""
    given = {to: found[name] for name, to in _ACCEPTS.items() if name in found}
    keyed = any(given.get(name) for name in ("service_keys", "user_keys", "scoped_keys"))
    if not keyed or problems:
        return
    if "to" not in given:
        problems.append(Problem(place("token_audience"), "is needed with keys of service tokens"))
        return
    try:
        Accepts(**given)  # type: ignore[arg-type]  # each value came from its setting's reader
    except ConfigError as error:
        names = {to: name for name, to in _ACCEPTS.items()}
        problems += [Problem(place(names[each.place]), each.text) for each in error.problems]


# What Kubernetes sets in every pod beside a service called iam-auth or iam-auth-something.
_KUBERNETES = re.compile(
    r"IAM_AUTH_(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?)?)",
    re.ASCII,
)


def _mistyped(environ: Mapping[str, str]) -> Iterable[str]:
    known = [
        name + suffix
        for setting in SETTINGS
        for name in setting.variables
        for suffix in ("", "_FILE")
    ]
    for variable in sorted(environ):
        ours = variable.startswith("IAM_AUTH_") and not variable.startswith("IAM_AUTH_PROXY_")
        if ours and variable not in known and not _KUBERNETES.fullmatch(variable):
            near = difflib.get_close_matches(variable, known, 1, cutoff=0.8)
            yield f"{variable} is not a setting" + (f"; did you mean {near[0]}?" if near else "")
