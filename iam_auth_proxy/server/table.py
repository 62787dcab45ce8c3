"""The one table of the server's settings: names, readers, variables, help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.server import readers, token_readers
from iam_auth_proxy.server.access import parse_rules
from iam_auth_proxy.server.public import parse_public


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. ``variables``: the environment's names for it, the first found counts.

    :ivar narrows: set and empty is a mistake: whoever set it meant to keep somebody out.
    :ivar confidant: Confidant's names for it. They are plain words, so they count only beside
        :data:`.settings.AUDIENCE`.
    """

    name: str
    read: Callable[[object], object]
    help: str
    original: tuple[str, ...] = ()
    secret: bool = False
    narrows: bool = False
    confidant: tuple[str, ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        """``IAM_AUTH_<NAME>`` and then the original's and Confidant's names."""
        return ("IAM_AUTH_" + self.name.upper(), *self.original, *self.confidant)


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
        "keyring",
        readers.read_ring,
        "instead of secret_key: the stored key ring that signs, s3://BUCKET/PREFIX/NAME or "
        "file:/DIR/NAME",
    ),
    Setting(
        "keyring_kms_keys",
        token_readers.read_keys,
        "keys that open the key ring: ARNs, ids or aliases",
        narrows=True,
    ),
    Setting("keyring_poll", readers.read_poll, "how often the store is looked at for a new ring"),
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
    Setting(
        "token_audience",
        token_readers.read_audience,
        "what service tokens for this app say in `to`",
        confidant=("AUTH_CONTEXT",),
    ),
    Setting(
        "service_keys",
        token_readers.read_keys,
        "keys that services' tokens are sealed under: ARNs, ids or aliases",
        confidant=("AUTH_KEY",),
    ),
    Setting(
        "user_keys",
        token_readers.read_keys,
        "the same of users' tokens",
        confidant=("USER_AUTH_KEY",),
    ),
    Setting(
        "scoped_keys",
        token_readers.read_scoped_keys,
        "keys of services in other accounts, as JSON: key to account",
        confidant=("SCOPED_AUTH_KEYS",),
    ),
    Setting(
        "token_types",
        token_readers.read_types,
        "who may come with a token: user, service; absent: whoever there are keys for",
        narrows=True,
        confidant=("KMS_AUTH_USER_TYPES",),
    ),
    Setting(
        "token_min_version",
        token_readers.read_version,
        "lowest version of tokens",
        confidant=("KMS_MINIMUM_TOKEN_VERSION",),
    ),
    Setting(
        "token_max_version",
        token_readers.read_version,
        "highest version of tokens",
        confidant=("KMS_MAXIMUM_TOKEN_VERSION",),
    ),
    Setting(
        "token_max_lifetime",
        token_readers.read_lifetime,
        "longest window of a token; a bare number is minutes",
        confidant=("AUTH_TOKEN_MAX_LIFETIME",),
    ),
    Setting("token_leeway", token_readers.read_leeway, "how far the clocks of callers may be off"),
    Setting(
        "token_context",
        token_readers.read_context,
        "further encryption context of tokens, as JSON",
        narrows=True,
    ),
    Setting(
        "token_cache_size",
        token_readers.read_size,
        "how many tokens are remembered",
        confidant=("KMS_AUTH_TOKEN_CACHE_SIZE",),
    ),
)
