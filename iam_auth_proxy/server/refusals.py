"""Errors as answers: what the visitor reads, and what the operator does."""

from __future__ import annotations

import logging

from iam_auth_proxy.errors import (
    BadNonce,
    Expired,
    IamAuthError,
    Malformed,
    Misdirected,
    Replayed,
    StaleToken,
    StoreUnavailable,
)
from iam_auth_proxy.server import answers, pages
from iam_auth_proxy.server.facts import Reply, RequestFacts
from iam_auth_proxy.server.signing_in import OtherIdentity, SigningIn

log = logging.getLogger(__name__)


class Refusals:
    """Makes the answers of one app.

    :param logout: the path that signs out.
    """

    def __init__(self, help_url: str, logout: str, signing_in: SigningIn) -> None:
        self._help_url = help_url
        self._logout = logout
        self._signing_in = signing_in

    def answer(self, facts: RequestFacts, error: IamAuthError) -> Reply:
        """The answer, with one line in the log."""
        # Malformed requests are common noise; other refusals are worth an operator's attention. A
        # wrong name may be noise, or a setting of the operator's that shuts everybody out.
        noise = isinstance(error, Malformed) and not isinstance(error, Misdirected)
        level = logging.INFO if noise else logging.WARNING
        if isinstance(error, StoreUnavailable):
            level = logging.ERROR
        said = (_printable(text) for text in (facts.method, facts.path, facts.client or "-"))
        log.log(level, "%s %s from %s: %s [%s]", *said, _printable(str(error)), error.code)
        sign_out = self._logout if isinstance(error, OtherIdentity) else ""
        again = ""
        if isinstance(error, StaleToken | Expired | Replayed | BadNonce):
            again = self._signing_in.return_url(facts)
        page = pages.problem(error, self._help_url, again=again, sign_out=sign_out)
        return answers.refusal(facts, error, page)


def _printable(text: str) -> str:
    """What others said, for the log: a piece of it, and nothing that a terminal obeys."""
    return text[:400].encode("unicode_escape").decode("ascii")
