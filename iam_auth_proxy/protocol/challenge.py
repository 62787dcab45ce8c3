"""The 401's header fields: what an app asks for (step 3).

::

    WWW-Authenticate: IAM realm="123456789012"
    Iam-Auth-Kms-Key-Id: arn:aws:kms:eu-west-1:123456789012:key/...
    Iam-Auth-Kms-Encryption-Context: base64 of {"salt": "..."}

and, of a server that knows the extension ("bound", section 3), which others do not see::

    Iam-Auth-Proofs: signed-identity, session-credentials
    Iam-Auth-Nonce: [A-Za-z0-9._-]{22,512}
    Iam-Auth-Path: /auth

The path may be absent. Proofs and nonce go together; one without the other is refused and never
read as the original's challenge, or whoever can drop a field could weaken the sign-in.

**Which 401 is ours.** One that has an ``IAM`` challenge in WWW-Authenticate *and* at least one of
the Iam-Auth fields. Any other goes through untouched: another scheme, or a scheme of the same
name that means something else.

**Several schemes.** An app may offer others besides (RFC 9110 section 11.6.1), in one field or in
several; they are skipped with their parameters, and quoted strings are read as such, so the words
``IAM realm=`` inside another scheme's realm are no challenge. The original proxy is narrower: it
answers only a 401 with exactly one WWW-Authenticate field, so that is what :func:`write` makes.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from iam_auth_proxy.errors import BadChallenge, Malformed
from iam_auth_proxy.names import (
    KeyReference,
    is_account_id,
    parse_key_arn,
    parse_key_reference,
)
from iam_auth_proxy.protocol.envelope import RESERVED_PREFIX
from iam_auth_proxy.protocol.handoff import AUTH_PATH, check_auth_path
from iam_auth_proxy.protocol.nonce import check_nonce
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.protocol.strict import decode_base64, encode_base64, loads_object

KEY_FIELD: Final = "Iam-Auth-Kms-Key-Id"
CONTEXT_FIELD: Final = "Iam-Auth-Kms-Encryption-Context"
PROOFS_FIELD: Final = "Iam-Auth-Proofs"
NONCE_FIELD: Final = "Iam-Auth-Nonce"
PATH_FIELD: Final = "Iam-Auth-Path"

MAX_PROOFS: Final = 16
"""How many kinds of proof a challenge may name, unknown ones too."""

MAX_PAIRS: Final = 16
MAX_CONTEXT: Final = 4096
"""Bytes of the context's JSON, as it came and as we write it. KMS documents no limit here."""

_QUOTED_AT_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class Bound:
    """What a challenge of the extension says besides.

    :param proofs: the kinds that the server takes and that we know; at least one.
    :param nonce: for this one sign-in.
    :param path: where the hand-over is posted to.
    :raises BadChallenge: no proof, a nonce or path outside its grammar.
    """

    proofs: frozenset[ProofKind]
    nonce: str
    path: str = AUTH_PATH

    def __post_init__(self) -> None:
        if not self.proofs:
            raise BadChallenge(f"{PROOFS_FIELD} names no kind of proof that is known here")
        try:
            check_nonce(self.nonce)
        except Malformed as error:
            raise BadChallenge(f"{NONCE_FIELD}: {error}") from error
        try:
            check_auth_path(self.path)
        except Malformed as error:
            raise BadChallenge(f"{PATH_FIELD} {error}") from error


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the app asks for.

    :param realm: the AWS account that the caller must belong to, 12 digits.
    :param key: the KMS key that the proof is sealed for.
    :param context: the KMS encryption context to seal it with; kept as a read-only copy.
    :param bound: of the extension; None for the original's challenge. Its key is always a key ARN.
    :raises BadChallenge: a realm, key or context outside the rules.
    """

    realm: str
    key: KeyReference
    context: Mapping[str, str] = field(hash=False)
    bound: Bound | None = None

    def __post_init__(self) -> None:
        if not is_account_id(self.realm):
            raise BadChallenge("the realm is not an AWS account id of 12 digits")
        object.__setattr__(self, "context", MappingProxyType(dict(self.context)))
        _check_context(self.context)
        if len(_context_json(self.context)) > MAX_CONTEXT:
            raise BadChallenge(f"the encryption context is over {MAX_CONTEXT} bytes")
        if self.bound is not None:
            try:
                parse_key_arn(str(self.key))
            except Malformed as error:
                raise BadChallenge(
                    f"{KEY_FIELD}: {error}; a bound challenge names its key by ARN"
                ) from error


def parse(headers: Sequence[tuple[bytes, bytes]]) -> Challenge | None:
    """The challenge in a 401's header fields; None where it is none of ours.

    :raises BadChallenge: it is ours, and a field is missing, repeated or outside its grammar.
    """
    keys = _values(headers, KEY_FIELD)
    contexts = _values(headers, CONTEXT_FIELD)
    bound = [_values(headers, name) for name in (PROOFS_FIELD, NONCE_FIELD, PATH_FIELD)]
    if not any((keys, contexts, *bound)):
        return None
    realms = [realm for value in _values(headers, "WWW-Authenticate") for realm in _realms(value)]
    if not realms:
        return None
    if len(realms) > 1:
        raise BadChallenge("WWW-Authenticate has several IAM challenges")
    try:
        return Challenge(
            realm=_realm(realms[0]),
            key=_key(_only(keys, KEY_FIELD)),
            context=_context(_only(contexts, CONTEXT_FIELD)),
            bound=_bound(*bound) if any(bound) else None,
        )
    except Malformed as error:
        raise BadChallenge(str(error)) from error


def write(challenge: Challenge) -> list[tuple[str, str]]:
    """The three fields, spelled as in the original's example server, and those of the extension."""
    fields = [
        ("WWW-Authenticate", f'IAM realm="{challenge.realm}"'),
        (KEY_FIELD, str(challenge.key)),
        (CONTEXT_FIELD, encode_base64(_context_json(challenge.context))),
    ]
    if challenge.bound is not None:
        proofs = ", ".join(kind for kind in ProofKind if kind in challenge.bound.proofs)
        fields += [(PROOFS_FIELD, proofs), (NONCE_FIELD, challenge.bound.nonce)]
        if challenge.bound.path != AUTH_PATH:
            fields.append((PATH_FIELD, challenge.bound.path))
    return fields


# -- fields ----------------------------------------------------------------------------------------


def _values(headers: Sequence[tuple[bytes, bytes]], name: str) -> list[str]:
    wanted = name.lower().encode("ascii")
    return [value.decode("latin-1").strip(" \t") for key, value in headers if key.lower() == wanted]


def _only(values: list[str], name: str) -> str:
    if not values:
        raise BadChallenge(f"{name} is missing")
    if len(values) > 1:
        raise BadChallenge(f"{name} is repeated")
    return values[0]


def _key(text: str) -> KeyReference:
    try:
        return parse_key_reference(text)
    except Malformed as error:
        raise BadChallenge(f"{KEY_FIELD}: {error}", sent=_quoted(text)) from error


def _quoted(value: str) -> str:
    """What an app sent, for the log: visible ASCII, and not endless."""
    return ascii(value if len(value) <= _QUOTED_AT_MOST else value[:_QUOTED_AT_MOST] + "...")


def _bound(proofs: list[str], nonces: list[str], paths: list[str]) -> Bound:
    return Bound(
        proofs=_proofs(_only(proofs, PROOFS_FIELD)),
        nonce=_only(nonces, NONCE_FIELD),
        path=_only(paths, PATH_FIELD) if paths else AUTH_PATH,
    )


_PROOF = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_KNOWN = frozenset(ProofKind)


def _proofs(text: str) -> frozenset[ProofKind]:
    """The known ones of a set of names; a later server may take more than we know."""
    names = [name.strip(" \t") for name in text.split(",", MAX_PROOFS)]
    if len(names) > MAX_PROOFS:
        raise BadChallenge(f"{PROOFS_FIELD} names over {MAX_PROOFS} kinds")
    if not all(map(_PROOF.fullmatch, names)):
        raise BadChallenge(f"{PROOFS_FIELD} is not a list of names, separated by commas")
    if len(set(names)) != len(names):
        raise BadChallenge(f"{PROOFS_FIELD} names one kind several times")
    return frozenset(kind for kind in _KNOWN if kind in names)


def _context(text: str) -> dict[str, str]:
    if len(text) > MAX_CONTEXT * 2:  # before it is decoded; base64 makes 4 of 3
        raise BadChallenge(f"{CONTEXT_FIELD} is over {MAX_CONTEXT} bytes")
    data = decode_base64(text, CONTEXT_FIELD)
    return loads_object(data, f"the JSON in {CONTEXT_FIELD}", at_most=MAX_CONTEXT)


def _context_json(context: Mapping[str, str]) -> bytes:
    return json.dumps(dict(context)).encode("ascii")


def _check_context(context: Mapping[str, str]) -> None:
    if len(context) > MAX_PAIRS:
        raise BadChallenge(f"the encryption context has over {MAX_PAIRS} pairs")
    for key, value in context.items():
        if not isinstance(value, str):
            raise BadChallenge("the encryption context has a value that is not a string")
        if not key:
            raise BadChallenge("the encryption context has an empty key")
        # Cc: C0, DEL and C1. Cs: a lone surrogate, which no encoding takes.
        if any(unicodedata.category(char) in ("Cc", "Cs") for char in key + value):
            raise BadChallenge("the encryption context has a control character")
        if key.casefold().startswith(RESERVED_PREFIX):
            raise BadChallenge(f"the encryption context has a key of ours ({RESERVED_PREFIX}...)")
    # IAM compares the names in kms:EncryptionContext:NAME without regard to case.
    if len({key.casefold() for key in context}) != len(context):
        raise BadChallenge("the encryption context has keys that differ by case only")


# -- WWW-Authenticate ------------------------------------------------------------------------------

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's token, not a secret
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PARAM = re.compile(
    rf"(?P<name>{_TOKEN})[ \t]*=[ \t]*(?P<value>{_TOKEN}|{_QUOTED})", re.ASCII | re.DOTALL
)
_SCHEME = re.compile(rf"(?P<scheme>{_TOKEN})(?: +(?P<rest>.*))?", re.ASCII | re.DOTALL)
_PIECE = re.compile(rf'[^",]+|{_QUOTED}|[",]', re.ASCII | re.DOTALL)
_REALM = re.compile(r'"([0-9]{12})"', re.ASCII)


def _realm(parameters: list[str]) -> str:
    """The account id in the parameters of one IAM challenge."""
    values = []
    for parameter in parameters:
        match = _PARAM.fullmatch(parameter)
        if match is None:
            raise BadChallenge(
                "the IAM challenge in WWW-Authenticate is not a list of parameters",
                sent=_quoted(parameter),
            )
        if match["name"].lower() == "realm":
            values.append(match["value"])
    if len(values) != 1:
        raise BadChallenge("the IAM challenge in WWW-Authenticate needs exactly one realm")
    realm = _REALM.fullmatch(values[0])
    if realm is None:
        raise BadChallenge(
            "the realm in WWW-Authenticate is not a quoted AWS account id of 12 digits",
            sent=_quoted(values[0]),
        )
    return realm[1]


def _realms(value: str) -> Iterator[list[str]]:
    """The parameters of each IAM challenge in one WWW-Authenticate field."""
    parameters: list[str] | None = None
    for element in _elements(value):
        if _PARAM.fullmatch(element):
            if parameters is not None:
                parameters.append(element)
            continue
        if parameters is not None:
            yield parameters
        match = _SCHEME.fullmatch(element)
        ours = match is not None and match["scheme"].lower() == "iam"
        parameters = [match["rest"] or ""] if match is not None and ours else None
    if parameters is not None:
        yield parameters


def _elements(value: str) -> list[str]:
    """The field split at commas outside quoted strings, without the empty elements."""
    elements = [""]
    for match in _PIECE.finditer(value):
        piece = match[0]
        if piece == '"':
            # An opening quote without an end: no reader agrees with another on what follows, and
            # going on from here would be quadratic. What was begun is kept, and is then malformed.
            elements[-1] += piece
            break
        if piece == ",":
            elements.append("")
        else:
            elements[-1] += piece
    return [stripped for element in elements if (stripped := element.strip(" \t"))]
