"""The page that puts a question to the person, and takes the answer.

It is reached by a redirect from an app, so any site can have it shown. What guards it: the id in
its address is a secret of 128 bits; the answer is a form post whose Origin is this page's own and
which brings a token that is good once; nothing can frame it, and no opener keeps hold of it; what
says yes appears after a second, and takes no click before the pointer was on the page for one, so
that a double click meant for another page, or for a window in front of this one, does not meet it;
and the focus is on no. A GET changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from iam_auth_proxy.errors import IamAuthError
from iam_auth_proxy.proxy.decisions.questions import CHOICES, PATH, Choice, Question, Questions
from iam_auth_proxy.proxy.pages.template import template

log = logging.getLogger(__name__)

_MAX_FORM: Final = 1024
_MAX_FIELDS: Final = 8


# The ARN of an AWS profile's identity; empty where it cannot be told.
Identify = Callable[[str], Awaitable[str]]


def routes(questions: Questions, identify: Identify) -> Iterable[web.RouteDef]:
    """The routes of the pages.

    :param identify: says whom the app would see. It may ask AWS about ourselves, once: nothing of
        the site that asks goes along, and it learns nothing of the answer.
    """

    async def show(request: web.Request) -> web.Response:
        visible = request.headers.get("Sec-Fetch-Dest", "document") == "document"
        question = questions.find(request.match_info["id"], show=visible)
        if question is None:
            return _gone()
        if not visible:
            raise web.HTTPForbidden(text="iam-auth-proxy: open this in a window of its own.\n")
        identity = question.identity or await identify(question.profile)
        shown = {"question": question, "identity": identity, **_shown(question)}
        return _page(200, "confirm.html", _policy(question), **shown)

    async def answer(request: web.Request) -> web.Response:
        _check_origin(request)
        form = await _form(request)
        try:
            found = questions.answer(request.match_info["id"], form["token"], form["choice"])
        except IamAuthError as error:
            log.warning("an answer could not be carried out: %s", error)
            return _page(409, "answered.html", title=error.public, text=error.remedy)
        except OSError as error:
            log.error("an answer could not be saved: %s", error)
            text = "The proxy's log says why. Go back, and say yes until the proxy ends."
            return _page(409, "answered.html", title="Your answer could not be saved", text=text)
        if found is None:
            return _gone()
        question, choice = found
        log.info("answered", extra={"origin": str(question.origin), "choice": str(choice)})
        if choice is Choice.NO:
            return _page(
                200,
                "answered.html",
                title=f"Nothing was sent to {question.origin}",
                text="It will not be asked again for a few minutes. You can close this page.",
            )
        raise web.HTTPSeeOther(question.way_back)

    return [web.get(PATH + "{id}", show), web.post(PATH + "{id}", answer)]


def _check_origin(request: web.Request) -> None:
    """Only a form of this very page; Host has passed the allow-list already.

    :raises web.HTTPForbidden: otherwise, and where no Origin is given.
    """
    own = f"http://{request.headers['Host'].lower()}"
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if request.headers.getall("Origin", []) != [own] or site != "same-origin":
        raise web.HTTPForbidden(text="iam-auth-proxy: this did not come from the page itself.\n")


async def _form(request: web.Request) -> dict[str, str]:
    coded = "Content-Encoding" in request.headers  # what unpacks to more, or not at all
    if coded or request.content_type != "application/x-www-form-urlencoded":
        raise web.HTTPUnsupportedMediaType
    if (request.content_length or 0) > _MAX_FORM:
        raise web.HTTPRequestEntityTooLarge(_MAX_FORM, request.content_length or 0)
    body = await request.read()
    if len(body) > _MAX_FORM:
        raise web.HTTPRequestEntityTooLarge(_MAX_FORM, len(body))
    try:
        fields = dict(parse_qsl(body.decode("ascii"), max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise web.HTTPBadRequest(text="iam-auth-proxy: this is no form of that page.\n") from None
    return {name: fields.get(name, "") for name in ("token", "choice")}


def _gone() -> web.Response:
    return _page(
        410,
        "answered.html",
        title="This question is no longer open",
        text="Open the app's page again. You are asked anew where that is still needed.",
    )


def _shown(question: Question) -> dict[str, object]:
    return {
        "choices": CHOICES[question.kind],
        "encrypted": question.origin.scheme == "https",
    }


def _policy(question: Question) -> str:
    """The form goes to us, and from us to the app: browsers hold the redirect to this as well."""
    back = "/".join(question.way_back.split("/", 3)[:3])
    return (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; "
        f"form-action 'self' {back}"
    )


def _page(status: int, name: str, policy: str = "", **values: object) -> web.Response:
    text = template(name).render(**values)
    # With no-referrer a browser would not say the form's Origin.
    headers = {"Referrer-Policy": "same-origin"}
    if policy:
        headers["Content-Security-Policy"] = policy
    return web.Response(status=status, text=text, content_type="text/html", headers=headers)
