"""What people see when the gate answers itself: HTML, text or JSON, as they accept.

The page for those who came without the proxy is the most-seen page of the product. No page has a
script or loads anything; every value in it is escaped, and the policy allows one style sheet, by
its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from dataclasses import dataclass
from html import escape
from typing import Final

from iam_auth_proxy.errors import IamAuthError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.accept import HTML, JSON, TEXT, form

PROXY_ADDRESS: Final = "127.0.0.1:8080"
SIGN_IN_NEEDED: Final = "sign-in-needed"

_MAX_SHOWN_TARGET = 200


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, with a command or something to copy where there is one."""

    text: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """What is to be said; how it looks is up to the reader.

    :ivar code: for programs and for asking others; ``Iam-Auth-Error`` where it is an error.
    :ivar notes: after the steps; these have no order.
    :ivar links: (label, URL or path).
    :ivar action: (label, path) of a button that POSTs.
    """

    title: str
    code: str
    lead: str
    facts: tuple[tuple[str, str], ...] = ()
    steps: tuple[Step, ...] = ()
    notes: tuple[Step, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    action: tuple[str, str] | None = None


def render(page: Page, accept: str) -> tuple[tuple[tuple[str, str], ...], bytes]:
    """Header fields and body."""
    kind = form(accept)
    text = {HTML: _as_html, JSON: _as_json, TEXT: _as_text}[kind](page)
    return (
        ("Content-Type", kind if kind == JSON else f"{kind}; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", _POLICY),
        # Under no-referrer a browser's own POST has "Origin: null" (Fetch, section 3.1), which a
        # logout refuses.
        ("Referrer-Policy", "same-origin" if page.action else "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
    ), text.encode("utf-8", "replace")


# -- the pages -------------------------------------------------------------------------------------


def sign_in_needed(
    origin: Origin, account: str, target: str, help_url: str, *, weakest: bool = False
) -> Page:
    """For whoever has no session and, since it got here, no proxy that signs in.

    :param weakest: whether session credentials are all that is taken: the proxy proves that much
        only where the person said so.
    """
    path = target if len(target) <= _MAX_SHOWN_TARGET else "/"
    url = shlex.quote(f"{origin}{path}")
    where = shlex.quote(str(origin)) + (" --proof session-credentials" if weakest else "")
    # No `pip install` command: the package of that name on an index may be somebody else's.
    whence = "the help for this app says how" if help_url else "ask the app's owner where it is"
    install = Step(f"Install iam-auth-proxy, once: {whence}.")
    opened = Step(
        "Open this page in a browser that goes through it.", f"iam-auth-proxy browser {url}"
    )
    trust = f"iam-auth-proxy trust add {where}"
    running = "Is it running already? Then this page was opened past it: "
    if origin.scheme == "https":
        # Inside a tunnel nobody can be signed in, so that the app is opened under an alias.
        trust += " --https alias"
        notes = [Step(f"{running}open it by its alias, which iam-auth-proxy status shows.")]
    else:
        notes = [
            Step("In a terminal, instead of a browser:", f"iam-auth-proxy exec -- curl {url}"),
            Step(
                f"{running}your own browser's automatic proxy configuration is "
                f"http://{PROXY_ADDRESS}/proxy.pac."
            ),
        ]
    steps = (install, Step("Say that you trust this app, once.", trust), opened)
    return Page(
        title="Sign in with your AWS identity",
        code=SIGN_IN_NEEDED,
        lead=(
            "This app knows you by the identity you already have in AWS: there is no password to "
            "enter here. A small program on your machine, iam-auth-proxy, proves who you are."
        ),
        steps=steps,
        notes=tuple(notes),
        links=(("Help for this app", help_url),) if help_url else (),
        facts=(("App", str(origin)), ("AWS account", account)),
    )


def problem(
    error: IamAuthError, help_url: str = "", *, again: str = "", sign_out: str = ""
) -> Page:
    """For a refusal or a failure: what happened, the one thing to do, the code.

    :param again: the path to begin a sign-in again from, where that helps.
    :param sign_out: path of the logout, where that is a way on.
    """
    links = (("Open the page", again), ("Help for this app", help_url))
    return Page(
        title=error.public.rstrip("."),
        code=error.code,
        lead=error.remedy or "If you think that this is wrong, show the code to the app's owner.",
        links=tuple((label, url) for label, url in links if url),
        action=("Sign out", sign_out) if sign_out else None,
    )


def signed_out() -> Page:
    """After a logout."""
    return Page(
        title="You are signed out",
        code="signed-out",
        lead="Opening the app signs you in again with your AWS identity.",
        links=(("Open the app", "/"),),
    )


def sign_out(path: str) -> Page:
    """For a GET of the logout: nothing changes by a GET, so it takes a button."""
    return Page(
        title="Sign out?",
        code="method",
        lead="You will be signed out of this app in this browser.",
        action=("Sign out", path),
    )


def wrong_method(allow: str) -> Page:
    """For a method that one of the gate's own pages does not know."""
    return Page("This address does not take that", "method", f"It takes {allow}.")


# -- the forms -------------------------------------------------------------------------------------

_STYLE: Final = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b1f27;--soft:#5a6372;--line:#e2e6ec;
--code:#f1f3f7;--accent:#0b6bcb;--mark:#e8f1fc}
@media(prefers-color-scheme:dark){:root{--bg:#0f1217;--card:#171b22;--ink:#e8ebf0;--soft:#a0a9b8;
--line:#2a303b;--code:#0f1319;--accent:#6db3ff;--mark:#16263a}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:2rem 1rem;
background:var(--bg);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{width:100%;max-width:40rem;background:var(--card);border:1px solid var(--line);
border-radius:16px;padding:clamp(1.5rem,5vw,2.75rem);
box-shadow:0 1px 2px #0000000d,0 12px 32px #0000000f}
.key{display:block;width:48px;height:48px;padding:11px;border-radius:13px;background:var(--mark);
color:var(--accent)}
h1{font-size:1.625rem;line-height:1.25;letter-spacing:-.015em;margin:1.1rem 0 .5rem;
text-wrap:balance}
p{margin:.5rem 0;color:var(--soft)}
dl{display:grid;grid-template-columns:auto 1fr;gap:.25rem 1rem;margin:1.25rem 0;font-size:.9375rem}
dt{color:var(--soft)}
dd{margin:0;font-weight:600;overflow-wrap:anywhere}
ol{list-style:none;counter-reset:n;margin:1.5rem 0;padding:0}
li{counter-increment:n;position:relative;padding:0 0 1.1rem 2.5rem}
li::before{content:counter(n);position:absolute;left:0;top:.05rem;width:1.6rem;height:1.6rem;
border-radius:50%;background:var(--mark);color:var(--accent);font-size:.8125rem;font-weight:650;
display:grid;place-items:center}
code{font:.875rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
li code,p code{display:block;margin:.4rem 0 0;padding:.6rem .8rem;color:var(--ink);
background:var(--code);border:1px solid var(--line);
border-radius:9px;white-space:pre-wrap;overflow-wrap:anywhere;user-select:all}
a{color:var(--accent);text-underline-offset:.15em}
button{margin-top:1rem;font:inherit;font-weight:600;padding:.6rem 1.2rem;border:0;
border-radius:9px;background:var(--accent);color:var(--card);cursor:pointer}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
footer{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;justify-content:space-between;
margin-top:1.5rem;padding-top:1rem;border-top:1px solid var(--line);font-size:.875rem;
color:var(--soft)}
footer span{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem}
""".replace("\n", "")

_KEY: Final = (
    '<svg class="key" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" '
    'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><circle cx="7.5" cy="15.5" '
    'r="4.5"/><path d="m10.7 12.3 9.8-9.8M16 7l3.5 3.5M19.5 3.5 22 6"/></svg>'
)

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)


def _as_html(page: Page) -> str:
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(page.title)}</title><style>{_STYLE}</style></head><body><main>",
        f"{_KEY}<h1>{escape(page.title)}</h1><p>{escape(page.lead)}</p>",
    ]
    if page.facts:
        rows = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in page.facts)
        parts.append(f"<dl>{''.join(rows)}</dl>")
    if page.steps:
        steps = "".join(f"<li>{_step_html(step)}</li>" for step in page.steps)
        parts.append(f"<ol>{steps}</ol>")
    parts += [f"<p>{_step_html(note)}</p>" for note in page.notes]
    if page.action:
        label, path = page.action
        parts.append(
            f'<form method="post" action="{escape(path)}"><button>{escape(label)}</button></form>'
        )
    links = "".join(f'<a href="{escape(url)}">{escape(label)}</a>' for label, url in page.links)
    parts.append(f"<footer><span>{links}</span><code>{escape(page.code)}</code></footer>")
    parts.append("</main></body></html>\n")
    return "".join(parts)


def _step_html(step: Step) -> str:
    command = f"<code>{escape(step.command)}</code>" if step.command else ""
    return escape(step.text) + command


def _as_text(page: Page) -> str:
    lines = [page.title, "", page.lead, ""]
    if page.facts:
        width = max(len(name) for name, _ in page.facts)
        lines += [*(f"  {name:<{width}}  {value}" for name, value in page.facts), ""]
    for number, step in enumerate(page.steps, 1):
        lines.append(f"  {number}. {step.text}")
        lines += [f"     {step.command}"] if step.command else []
    lines += [""] if page.steps else []
    for note in page.notes:
        lines += [note.text, *([f"     {note.command}"] if note.command else []), ""]
    if page.action:
        lines += [f"To do it: POST {page.action[1]}", ""]
    lines += [f"{label}: {url}" for label, url in page.links]
    lines.append(f"[{page.code}]")
    return "\n".join(lines) + "\n"


def _as_json(page: Page) -> str:
    value = {
        "error": page.code,
        "title": page.title,
        "detail": page.lead,
        "facts": dict(page.facts),
        "steps": [{"text": step.text, "command": step.command} for step in page.steps],
        "notes": [{"text": note.text, "command": note.command} for note in page.notes],
        "links": dict(page.links),
    }
    return json.dumps({key: item for key, item in value.items() if item}) + "\n"
