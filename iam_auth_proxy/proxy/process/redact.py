"""A safety net under the log: what looks like a secret is masked, whoever logged it.

This is defence in depth and no licence. Secrets have types with a hidden repr, and nothing logs a
token, a cookie, a key or the query of /auth on purpose; a pattern cannot know every secret, and it
is better that it masks a harmless word than that it lets a key through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MASK: Final = "***"

# A record is cut before the patterns run, so that nobody can make them run long.
LONGEST: Final = 8192

_HEADER_NAMES = (
    r"(?:proxy-)?authorization|(?:set-)?cookie2?|x-amz-security-token|x-auth-token"
    r"|iam-auth-nonce"
)
# Names of form fields, JSON keys, variables and keyword arguments that hold a secret. The bounds
# keep the patterns linear on any text.
_FIELD_NAMES = (
    r"[a-z0-9_.-]{0,40}(?:token|ticket|password|passwd|passphrase|signature|credential)(?:_?code)?"
    r"|[a-z0-9_.-]{0,40}secret[a-z0-9_-]{0,40}|nonce|plaintext|kms_salt"
)
_NAMED = re.compile(rf"(?:{_HEADER_NAMES}|{_FIELD_NAMES})", re.IGNORECASE)

_RULES: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    # A private key, to its end or the text's.
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL),
        MASK,
    ),
    # The query of the sign-in path, whole: token, ticket, return_url.
    (re.compile(r"(/auth\?)[^\s\"'<>]+"), rf"\1{MASK}"),
    # A header with its value in quotes, as a dict or a list of pairs prints, or in JSON.
    (
        re.compile(
            rf"\b((?:{_HEADER_NAMES})b?[\"']\s*[:,=]\s*)b?(?:\"[^\"]*\"?|'[^']*'?)", re.IGNORECASE
        ),
        rf"\1'{MASK}'",
    ),
    # A header as a line: to the end of the line, for a cookie has spaces.
    (re.compile(rf"\b((?:{_HEADER_NAMES})\s*[:=]\s*)[^\r\n\"']+", re.IGNORECASE), rf"\1{MASK}"),
    # A named field, in quotes ("SecretAccessKey": "x") or not (token=x).
    (
        re.compile(
            rf"\b((?:{_FIELD_NAMES})b?[\"']?\s*[:,=]\s*)b?"
            r"(?:\"[^\"]*\"?|'[^']*'?)",
            re.IGNORECASE,
        ),
        rf"\1'{MASK}'",
    ),
    (re.compile(rf"\b((?:{_FIELD_NAMES})=)[^\s&;,\"'<>()]+", re.IGNORECASE), rf"\1{MASK}"),
    # After a colon there may be prose ("stale token: the app ..."): long words alone.
    (re.compile(rf"\b((?:{_FIELD_NAMES}):\s?)[^\s&;,\"'<>()]{{12,}}", re.IGNORECASE), rf"\1{MASK}"),
    # Our own session cookie, wherever it stands.
    (re.compile(r"((?:__Host-)?iam[-_]auth[a-z0-9_-]*=)[^\s;,\"']+"), rf"\1{MASK}"),
    # Credentials by their scheme, without the field's name.
    (re.compile(r"\b(Basic|Bearer|Negotiate|NTLM) +[A-Za-z0-9+/=._~-]{6,}"), rf"\1 {MASK}"),
    # user:password@ of a URL.
    (re.compile(r"(://[^\s/:@\"']*:)[^\s/@\"']+@"), rf"\1{MASK}@"),
    # "token", then base64 with anything small between them.
    (re.compile(r"(?i)\b(token)(\W{1,4})[a-z0-9+/_-]{16,}={0,2}"), rf"\1\2{MASK}"),
    # Long base64: session tokens, ciphertexts, envelopes.
    (re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{100,}={0,2}"), MASK),
    # A secret access key: 40 characters of base64, of which some are of each kind. Digests in
    # hexadecimal, which are as long, have no capitals.
    (
        re.compile(
            r"(?<![A-Za-z0-9+/_-])(?=[A-Z0-9+/]{0,39}[a-z])(?=[a-z0-9+/]{0,39}[A-Z])"
            r"(?=[A-Za-z+/]{0,39}[0-9])"
            r"[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/=_-])"
        ),
        MASK,
    ),
    # Any word right after an access key's id: "AKIA… wJalr…", "AKIA…:wJalr…".
    (re.compile(r"\b((?:AKIA|ASIA)[A-Z0-9]{12,}\W{1,4})[A-Za-z0-9+/=]{30,}"), rf"\1{MASK}"),
)


# Every rule needs one of these words, or a run of characters as long as these. Most texts have
# neither, and a sign-in waits for its log lines.
_WORDS: Final = (
    "token", "ticket", "password", "passwd", "passphrase", "signature", "credential", "secret",
    "nonce", "plaintext", "kms_salt", "auth", "cookie", "basic", "bearer", "negotiate", "ntlm",
    "akia", "asia", "begin", "@",
)  # fmt: skip
_LONG = re.compile(r"[A-Za-z0-9+/]{40}|[A-Za-z0-9+/_-]{100}")


def redact(text: str) -> str:
    """``text``, cut at 8 KiB, with everything masked that looks like a secret."""
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    folded = text.casefold()  # as re.IGNORECASE compares
    if not any(word in folded for word in _WORDS) and not _LONG.search(text):
        return text
    return _mask(text)


def _mask(text: str) -> str:
    for pattern, mask in _RULES:
        text = pattern.sub(mask, text)
    return text


def redact_field(name: str, value: object) -> object:
    """A structured field's value: masked whole where its name says so, else by what it holds.

    Containers are walked; what is no JSON type becomes its redacted ``str``.
    """
    if value is None or isinstance(value, bool | int | float):
        return MASK if _NAMED.fullmatch(name) and value is not None else value
    if _NAMED.fullmatch(name):
        return MASK
    if isinstance(value, Mapping):
        return {redact(str(key)): redact_field(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_field("", each) for each in value]
    return redact(str(value))
