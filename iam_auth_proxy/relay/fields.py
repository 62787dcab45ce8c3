"""Field lines: which ones rules speak of, and how they are read and written. Pure.

Whole heads are read in two ways. A usual one, as nearly all are, is recognised by one regular
expression, which is made of the parts below: its field lines are not even divided into names and
values, but pass on as they came. Any other is read by llhttp (through httptools), field by field.
The first way takes nothing that the second does not take, and for the same
(``tests/relay/test_fields.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

# Field lines in order; case and bytes of names and values are kept.
Headers = Sequence[tuple[bytes, bytes]]

# Said about one connection, not about the message; TE and Upgrade are re-made where they go on.
HOP_BY_HOP: Final = frozenset(
    b"connection proxy-connection keep-alive te upgrade http2-settings proxy-authorization "
    b"proxy-authenticate proxy-authentication-info".split()
)
# These, and the end-to-end fields that a rule of ``message`` or of ``response`` looks at.
OF_REQUESTS: Final = HOP_BY_HOP.union(
    b"host content-length transfer-encoding expect authorization cdn-loop max-forwards".split()
)
OF_ANSWERS: Final = HOP_BY_HOP.union(b"content-length transfer-encoding www-authenticate".split())
_NOTED: Final = OF_REQUESTS | OF_ANSWERS
# Fields that no rule speaks of, as nearly everybody spells them: not looked at twice.
_COMMON: Final = frozenset(
    b"Accept Accept-Encoding Accept-Language Accept-Ranges Age Cache-Control Content-Encoding "
    b"Content-Language Content-Security-Policy Content-Type Cookie DNT Date ETag Expires "
    b"If-Modified-Since If-None-Match Last-Modified Link Location Origin Pragma Priority Range "
    b"Referer Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User Server Set-Cookie "
    b"Strict-Transport-Security Upgrade-Insecure-Requests User-Agent Vary X-Content-Type-Options "
    b"X-Frame-Options X-Requested-With cache-control content-type date server set-cookie".split()
)
OWS: Final = b" \t"
_END: Final = b"\r\n"


# -- one by one ------------------------------------------------------------------------------------


class Head(Protocol):
    """What requests and answers share; the functions below are methods of both."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]: ...

    @headers.setter
    def headers(self, headers: list[tuple[bytes, bytes]]) -> None: ...

    noted: dict[bytes, list[bytes]]
    complete: bool


def note_field(self: Head, name: bytes, value: bytes) -> None:
    """httptools' callback: keeps end-to-end fields, notes those that rules speak of."""
    if name not in _COMMON:
        lower = name.lower()
        if lower in _NOTED:
            noted = self.noted
            if lower in noted:
                noted[lower].append(value)
            else:
                noted[lower] = [value]
            if lower in HOP_BY_HOP:
                return
    self.headers.append((name, value))


def note_end(self: Head) -> None:
    """httptools' callback: the head is whole."""
    self.complete = True


# -- all at once -----------------------------------------------------------------------------------

# RFC 9110 sections 5.1 and 5.5. There is one way to read a line, or none: nothing that matched is
# ever given back (``++``, ``*+``). Around groups that capture, Python 3.11 cannot do that.
NAME: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
# White space behind it is no part of the value, but nginx takes a tab for one.
COLON: Final = rb": *+(?!\t)"


def lines_without(names: Iterable[bytes], common: bytes) -> bytes:
    """A pattern for field lines, if there are any, that have none of these lower-case names.

    :param common: names that they may have, which are tried first, as they are usually spelled.
    """
    # First letters and rests apart, so that most lines are told by their first letter. Some more
    # names are kept out by that (``Most`` besides ``Host``), and their heads read field by field.
    letters = b"".join(sorted({name[:1] + name[:1].upper() for name in names}))
    rests = b"|".join(sorted({re.escape(name[1:]) for name in names}))
    first = b"|".join(re.escape(name) for name in common.split())
    name = rb"(?:(?:%b)|(?![%b](?i:%b):)%b)" % (first, letters, rests, NAME)
    return rb"(?:%b%b%b\r\n)*+" % (name, COLON, VALUE)


def in_any_order(one: bytes, other: bytes, others: bytes) -> bytes:
    """A pattern for either, both or neither of two lines, with ``others`` behind each."""
    return rb"(?:%b%b(?:%b%b)?|%b%b(?:%b%b)?)?" % (
        *(one, others, other, others),
        *(other, others, one, others),
    )


def lines_but(head: bytes, start: int, match: re.Match[bytes], groups: Iterable[int]) -> bytes:
    """The field lines of a head from ``start``, but for what one of these groups matched."""
    for group in groups:
        begin, end = match.span(group)
        if end > 0:
            return head[start:begin] + head[end : -len(_END)]
    return head[start : -len(_END)]


# -- as they are passed on -------------------------------------------------------------------------


def divide(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Field lines, each with its end, by name and value."""
    fields = []
    for line in lines.split(_END)[:-1]:
        name, _, value = line.partition(b":")
        fields.append((name, value.lstrip(OWS)))
    return fields


def join(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Field lines, each with its end."""
    return b"".join([b"%b: %b\r\n" % field for field in headers])
