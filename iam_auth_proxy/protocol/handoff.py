"""The /auth request (steps 8 to 10), and the one rule for return_url.

::

    /auth?token=BASE64&return_url=%2Fprivate%3Fx%3D1

Both values are percent-encoded but for RFC 3986's unreserved characters: no form decoder, strict or
lax, reads that differently. The Go original writes the same with the parameters in alphabetical
order (url.Values.Encode), which differs for a space alone (``+``), and neither value holds one.

A bound hand-over (section 3) is a form that the proxy itself posts, in the same encoding::

    POST /auth
    token=e1.KEY.SEALED&return_url=%2Fprivate%3Fx%3D1&nonce=...&proof=signed-identity
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.protocol import envelope
from iam_auth_proxy.protocol.envelope import Envelope
from iam_auth_proxy.protocol.nonce import check_nonce
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.protocol.strict import decode_base64, encode_base64

AUTH_PATH: Final = "/auth"
"""Where the original's servers take tokens."""

MAX_RETURN_URL: Final = 2048
"""Characters."""

MAX_TOKEN: Final = 6144
"""Bytes of ciphertext: KMS API reference, Decrypt, CiphertextBlob."""

FORM_TYPE: Final = "application/x-www-form-urlencoded"
"""The Content-Type of a bound hand-over."""

MAX_FORM: Final = 32 * 1024
"""Bytes: an envelope at its limit, whose characters nobody needs to encode, and a return_url with
each of its own encoded, fit."""

SIGNED_OUT_FIELD: Final = "Iam-Auth-Signed-Out"
"""``1`` on the answer to a logout: the proxy then signs in again only for somebody who asks."""

EXPIRES_FIELD: Final = "Iam-Auth-Expires-In"
"""On the answer to a hand-over: the seconds of the session's absolute life, so that a proxy can
renew it ahead. Additive; whoever does not know it loses nothing."""

# Base64 and, of the whole, percent-encoding at its worst.
_MAX_TOKEN_TEXT = (MAX_TOKEN + 2) // 3 * 4
_MAX_QUERY = 3 * (_MAX_TOKEN_TEXT + MAX_RETURN_URL) + len("token=&return_url=")
_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Handoff:
    """What a browser carries from the proxy to the app.

    :param token: KMS's ciphertext over the proof.
    :param return_url: where the app sends the browser then; :func:`check_return_url` holds.
    """

    token: bytes = field(repr=False)
    return_url: str


def write(auth_path: str, handoff: Handoff) -> str:
    """``AUTH_PATH?token=...&return_url=...``, a request target in origin-form.

    :raises Malformed: the other end would refuse it: an empty or overlong token, or a return_url
        that :func:`check_return_url` refuses.
    """
    if not 0 < len(handoff.token) <= MAX_TOKEN:
        raise Malformed("the token is empty or too long")
    return_url = check_return_url(handoff.return_url, auth_path=auth_path)
    token = quote(encode_base64(handoff.token), safe="")
    return f"{auth_path}?token={token}&return_url={quote(return_url, safe='')}"


def parse(query: str, *, auth_path: str = AUTH_PATH) -> Handoff:
    """The query of a request to the auth path, without its ``?``.

    Exactly one ``token`` and one ``return_url``, in any order, and nothing else.

    :raises Malformed: otherwise.
    """
    if len(query) > _MAX_QUERY:
        raise Malformed("the query is too long")
    fields = _fields(query, ("token", "return_url"), "the query")
    return Handoff(
        _token(fields["token"]), check_return_url(fields["return_url"], auth_path=auth_path)
    )


@dataclass(frozen=True, slots=True)
class BoundHandoff:
    """What the proxy posts to the app for a bound sign-in.

    :param token: the proof, sealed.
    :param return_url: where the app sends the browser then; :func:`check_return_url` holds.
    :param nonce: of the challenge that this answers.
    :param proof: of which kind it is; the encryption context says the same.
    """

    token: Envelope = field(repr=False)
    return_url: str
    nonce: str
    proof: ProofKind


def write_form(handoff: BoundHandoff, *, auth_path: str = AUTH_PATH) -> bytes:
    """The body of ``POST auth_path``, of type :data:`FORM_TYPE`.

    :raises Malformed: the other end would refuse it.
    """
    values = {
        "token": handoff.token.dumps(),
        "return_url": check_return_url(handoff.return_url, auth_path=auth_path),
        "nonce": check_nonce(handoff.nonce),
        "proof": handoff.proof.value,
    }
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in values.items()).encode()


def parse_form(body: bytes, *, auth_path: str = AUTH_PATH) -> BoundHandoff:
    """What :func:`write_form` writes: its four fields once each, in any order, nothing else.

    :raises Malformed: otherwise, or over :data:`MAX_FORM` bytes.
    """
    if len(body) > MAX_FORM:
        raise Malformed(f"the form is over {MAX_FORM} bytes")
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError as error:
        raise Malformed("the form is not ASCII") from error
    fields = _fields(text, ("token", "return_url", "nonce", "proof"), "the form")
    try:
        proof = ProofKind(fields["proof"])
    except ValueError as error:
        raise Malformed("the form's proof is of no known kind") from error
    return BoundHandoff(
        token=envelope.loads(fields["token"]),
        return_url=check_return_url(fields["return_url"], auth_path=auth_path),
        nonce=check_nonce(fields["nonce"]),
        proof=proof,
    )


# -- both ------------------------------------------------------------------------------------------


def _fields(text: str, names: tuple[str, ...], what: str) -> dict[str, str]:
    """The values of exactly these fields, each there once, in any order."""
    fields: dict[str, str] = {}
    for pair in text.split("&", len(names)):
        name, separator, value = pair.partition("=")
        if not separator or name not in names:
            raise Malformed(f"{what} is not {'=...&'.join(names)}=...")
        if name in fields:
            raise Malformed(f"{name} is repeated")
        fields[name] = _unquote(value, name)
    if len(fields) != len(names):
        raise Malformed(f"{what} needs {', '.join(names[:-1])} and {names[-1]}")
    return fields


def _unquote(value: str, name: str) -> str:
    if not value.isascii() or _BROKEN_PERCENT.search(value):
        raise Malformed(f"{name} is not percent-encoded")
    if "+" in value:
        # To a form decoder it is a space, which belongs into neither; to others it is a plus.
        raise Malformed(f"{name} has a '+' that is not written as %2B")
    try:
        return unquote_to_bytes(value).decode("ascii")
    except UnicodeDecodeError as error:
        raise Malformed(f"{name} is not ASCII") from error


def _token(text: str) -> bytes:
    if not 0 < len(text) <= _MAX_TOKEN_TEXT:
        raise Malformed("the token is empty or too long")
    return decode_base64(text, "the token")


# -- the path of the sign-in -----------------------------------------------------------------------

_AUTH_PATH = re.compile(r"(?:/[A-Za-z0-9_-]{1,64}){1,8}", re.ASCII)


def check_auth_path(text: str) -> str:
    """``text``, unchanged, if it may be where an app takes sign-ins, such as ``/auth``.

    One to eight segments of letters, digits, ``-`` and ``_``: a path on this origin and no other in
    every reader's eyes, so that it is compared as text.

    :raises Malformed: otherwise; the message follows the name of the setting or field.
    """
    if not _AUTH_PATH.fullmatch(text):
        raise Malformed("must be a path such as /auth")
    return text


# -- return_url ------------------------------------------------------------------------------------
# What a browser does with a Location (WHATWG URL, relative state): it drops TAB, CR and LF wherever
# they are, reads "\" as "/" before the query, takes what follows "//" as a host, and resolves "."
# and "..", also where they are written %2e. It does not decode anything else. Apps and the servers
# before them do decode, and many merge slashes and redirect to what comes out; so a path that
# begins with two slashes after one of those steps is refused as well.

# The characters that browsers send without encoding them, "\" aside.
_PATH = r"/[!$%&'()*+,\-./0-9:;=@A-Z\[\]^_a-z|~]*"
_QUERY = r"[!$%&'()*+,\-./0-9:;=?@A-Z\[\]^_`a-z{|}~]*"
_RETURN_URL = re.compile(rf"(?P<path>{_PATH})(?:\?{_QUERY})?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MAX_ENCODINGS = 2


def check_return_url(text: str, *, auth_path: str = AUTH_PATH) -> str:
    """``text``, unchanged, if it is a path on this origin that a browser may be sent to.

    It is put into ``Location`` as it is: nothing is normalised, so nothing can differ between what
    was checked and what is sent. A fragment never gets here (browsers do not send it), so it is
    lost over a sign-in. Paths that are not UTF-8 once decoded are refused; the query, which cannot
    change where a browser goes, is free within the characters of a URL.

    :param auth_path: the app's own; it and everything below it is refused in every spelling.
    :raises Malformed: with the reason.
    """
    if len(text) > MAX_RETURN_URL:
        raise Malformed(f"return_url is over {MAX_RETURN_URL} characters")
    if not text.startswith("/"):
        raise Malformed("return_url is not a path on this site")
    match = _RETURN_URL.fullmatch(text)
    if match is None:
        raise Malformed("return_url has a character that is not sent in a path or query")
    path = match["path"]
    if _BROKEN_PERCENT.search(path):
        raise Malformed("return_url has a '%' without two hexadecimal digits in its path")
    for _ in range(_MAX_ENCODINGS + 1):
        _check_path(path, auth_path)
        decoded = _decode(path)
        if decoded == path:
            return text
        path = decoded
    raise Malformed(f"the path of return_url is encoded over {_MAX_ENCODINGS} times")


def _decode(path: str) -> str:
    try:
        return unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("the path of return_url is not UTF-8") from error


def _check_path(path: str, auth_path: str) -> None:
    """Checks a path as it is at one level of percent-decoding."""
    if _CONTROL.search(path):
        raise Malformed("return_url has a control character in its path")
    # Some servers cut parameters off a segment (";x") before they look at it.
    segments = path.replace("\\", "/").split("/")[1:]
    names = [segment.partition(";")[0].strip() for segment in segments]
    if len(names) > 1 and not names[0]:
        raise Malformed("return_url begins with two slashes")
    if "." in names or ".." in names:
        raise Malformed("return_url has a '.' or '..' in its path")
    merged = "/" + "/".join(name for name in names if name).casefold()
    auth = auth_path.casefold()
    if merged == auth or merged.startswith(auth + "/"):
        raise Malformed("return_url is the sign-in itself")
