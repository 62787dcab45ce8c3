"""The page where a request stops: what happened, the one thing to do, and a code.

It is served under the app's origin, whose scripts can read it. So: autoescape; a policy that allows
no script, no frame and no request; no CORS headers, never stored; only values that passed their
grammar; and the remedy, which may name a profile or a path, only for origins that are trusted.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from iam_auth_proxy.protocol.accept import HTML, JSON, TEXT, form
from iam_auth_proxy.proxy.pages.template import template
from iam_auth_proxy.relay.exchange import Reply

_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
_GUARDS = (
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Vary", b"Accept"),
)
_CLOSED = (*_GUARDS, (b"Content-Security-Policy", _POLICY), (b"Referrer-Policy", b"no-referrer"))
# A page with a link: a click on it is a request of this very origin, and says so. It is nobody's
# but the person's, since nothing frames the page and no opener keeps hold of it.
_LINKED = (
    *_GUARDS,
    (b"Content-Security-Policy", _POLICY + b" allow-same-origin"),
    (b"Referrer-Policy", b"same-origin"),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
)

# The tail of a remedy that is to be typed, so that a page can set it as code.
_COMMAND = re.compile(
    r"(?P<words>.*?:)\s+(?P<command>(?:(?:aws|iam-auth-proxy|timedatectl|--trust)\b|ssh ).*)"
)


@dataclass(frozen=True, slots=True)
class Stop:
    """What a stop page says.

    :ivar happened: one sentence that anybody may read.
    :ivar remedy: the one thing to do; empty where there is none, or where it may not be shown.
    :ivar code: for looking up and for programs.
    :ivar policy: the IAM policy that would help, as JSON; shown where the remedy is.
    :ivar link: a URL of this very origin that a page shows, to be clicked on.
    """

    status: int
    happened: str
    code: str
    remedy: str = ""
    origin: str = ""
    policy: str = ""
    link: str = ""

    def reply(self, accept: bytes, *, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
        """The page as HTML, JSON or text, as ``Accept`` asks."""
        media = form(accept.decode("latin-1"))
        body = {HTML: self._html, JSON: self._json, TEXT: self._text}[media]()
        content = (b"Content-Type", media.encode("ascii") + b"; charset=utf-8")
        guards = _LINKED if self.link else _CLOSED
        return Reply(self.status, [content, *guards, *headers], body.encode("utf-8"))

    def _text(self) -> str:
        lines = [self.happened, *([self.remedy] if self.remedy else [])]
        policy = f"{self.policy}\n" if self.policy else ""
        return "iam-auth-proxy: " + "\n  ".join(lines) + f"   [{self.code}]\n{policy}"

    def _json(self) -> str:
        document: dict[str, object] = {
            "error": self.code,
            "message": self.happened,
            "remedy": self.remedy,
        }
        if self.policy:
            document["policy"] = json.loads(self.policy)
        return json.dumps(document, ensure_ascii=True) + "\n"

    def _html(self) -> str:
        match = _COMMAND.fullmatch(self.remedy)
        words, command = (match["words"], match["command"]) if match else (self.remedy, "")
        return template("stop.html").render(stop=self, words=words, command=command)
