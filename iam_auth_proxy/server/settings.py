"""The server's settings: one table for ``Gate(...)``, for ``IAM_AUTH_*`` and for the seed's names.

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
from iam_auth_proxy.server import readers
from iam_auth_proxy.server.access import Allowed, parse_rules
from iam_auth_proxy.server.front import Network
from iam_auth_proxy.server.public import PublicPaths, parse_public
from iam_auth_proxy.server.replay import MEMORY


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings in force. Durations are seconds, instants seconds since the epoch.

    :ivar kms_key: any of KMS's four spellings; resolved to a key ARN when first needed.
    :ivar secret_key: signs the cookies, and derives the salts where ``salt`` is empty.
    :ivar accounts: who may sign in; the first is the realm of the challenge. Empty: the account
        that the server itself runs in.
    :ivar origins: what browsers call this app. Empty: taken from each request (the seed's way), and
        only legacy sign-ins are possible.
    :ivar proofs: what is taken at ``POST /auth``; never empty.
    :ivar legacy: whether session credentials are taken at ``GET /auth``.
    :ivar replay: where used proofs are remembered; see :func:`replay.check_place`.
    """

    kms_key: KeyReference
    secret_key: str = field(repr=False)
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


# -- the table -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. ``variables``: the environment's names for it, the first found counts.

    :ivar narrows: set and empty is a mistake: whoever set it meant to keep somebody out.
    """

    name: str
    read: Callable[[object], object]
    help: str
    seed: tuple[str, ...] = ()
    secret: bool = False
    narrows: bool = False

    @property
    def variables(self) -> tuple[str, ...]:
        """``IAM_AUTH_<NAME>`` and then the seed's names."""
        return ("IAM_AUTH_" + self.name.upper(), *self.seed)


SETTINGS: Final = (
    Setting(
        "kms_key",
        readers.read_key,
        "key that proofs are sealed for: ARN, id or alias",
        ("KMS_KEY_ID",),
    ),
    # SECRET_KEY is also Flask's and Django's own name, so ours comes first.
    Setting(
        "secret_key", readers.read_secret, "signs the session cookies", ("SECRET_KEY",), secret=True
    ),
    Setting(
        "salt",
        readers.matching(r"[\x20-\x7e]{1,1024}", "must be 1 to 1024 printable ASCII characters"),
        "fixed salt of the encryption context; absent: one that rotates by the clock",
        ("KMS_SALT",),
    ),
    Setting(
        "accounts",
        readers.read_accounts,
        "accounts whose identities may sign in",
        ("AWS_ACCOUNT_ID",),
    ),
    Setting(
        "origins",
        readers.read_origins,
        "what browsers call this app, such as http://app.internal",
        narrows=True,
    ),
    Setting(
        "proofs",
        readers.read_proofs,
        f"what is taken as a proof at POST /auth: {' and '.join(ProofKind)}",
        narrows=True,
    ),
    Setting(
        "legacy",
        readers.read_boolean,
        "take session credentials at GET /auth, as the Go proxy does",
    ),
    Setting(
        "replay",
        readers.read_place,
        "where used proofs and ended sessions are remembered: memory, or file:PATH for several "
        "workers of one host",
    ),
    Setting("public", parse_public, "paths that need no one: /healthz, or /static/* for a tree"),
    Setting(
        "allow", parse_rules, "who may in: rules such as user:alice, or a function", narrows=True
    ),
    Setting("max_session", readers.read_duration, "longest life of a session"),
    Setting("idle", readers.read_duration, "a session unused for that long ends"),
    Setting(
        "sessions_issued_after",
        readers.read_instant,
        "sessions begun before this instant are over",
        narrows=True,
    ),
    Setting(
        "cookie_name",
        readers.read_cookie_name,
        "name of the session cookie",
    ),
    Setting(
        "path",
        readers.read_path,
        "where the gate's own pages live",
    ),
    Setting(
        "help_url",
        readers.matching(
            r"https?://[\x21\x23-\x3b\x3d\x3f-\x7e]{1,2000}", "must be an http(s) URL"
        ),
        "where people without the proxy find help",
    ),
    Setting("trusted_proxies", readers.read_networks, "addresses whose X-Forwarded-* count"),
    Setting(
        "region",
        readers.matching(
            r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2}", "not an AWS region such as eu-west-1"
        ),
        "region of a key that is not given by its ARN",
        ("AWS_REGION", "AWS_DEFAULT_REGION"),
    ),
)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


def load(
    values: Mapping[str, object],
    environ: Mapping[str, str] | None = None,
    *,
    warn: Callable[[str], None] = lambda text: None,
) -> Settings:
    """The settings from the arguments and, where given, an environment.

    With an environment the seed's behaviour is the default: every proof is taken, ``legacy`` is on
    and ``origins`` may be absent. Without one ``origins`` have to be said, and a signed identity is
    all that is taken.

    :param warn: told of variables that begin as ours do and are no setting.
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
        _behave_as_the_seed(found)
        for text in _mistyped(environ):
            warn(text)
    _check_whole(found, environ, problems)
    if problems:
        raise ConfigError(problems)
    return Settings(**found)  # type: ignore[arg-type]  # each value came from its setting's reader


def _behave_as_the_seed(found: dict[str, object]) -> None:
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
    for variable in setting.variables:
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
    found: dict[str, object], environ: Mapping[str, str] | None, problems: list[Problem]
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
    if missing("secret_key"):
        problems.append(Problem(place("secret_key"), f"is needed. Make one with: {SECRET_COMMAND}"))
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
