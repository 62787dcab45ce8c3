"""``service_token`` of an ``[[app]]``: the token (kmsauth) that the proxy adds to its requests. ::

    service_token = { to = "confidant-production", kms_key = "alias/authnz" }
    allow_http = true          # for an app that is not on https

``type`` and ``from`` may stand beside them; without, they are what the identity is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from iam_auth_proxy.config.sources import App, near
from iam_auth_proxy.config.values import HTTPS, ServiceTokenRule, TrustRule, shown
from iam_auth_proxy.errors import Malformed, Problem
from iam_auth_proxy.names import check_audience, check_caller_name, parse_key_reference

TYPES: Final = ("user", "service")

KEYS: Final = ("to", "kms_key", "type", "from")


def read_service_token(
    app: App, rule: TrustRule | None, problems: list[Problem]
) -> ServiceTokenRule | None:
    """What an app says of service tokens; None where nothing, or something wrong.

    A token is whoever it is from to whoever reads it. So it is not for a wildcard, under which
    others may have names, and goes without encryption only where somebody said so.

    :param rule: the app's origin; None: that is wrong already.
    """
    before = len(problems)
    place = app.place_of("service_token")
    said = app.table.get("allow_http", False)
    open_to_all = said is True
    if not isinstance(said, bool):
        problems.append(Problem(app.place_of("allow_http"), "allow_http must be true or false"))
    if "service_token" not in app.table:
        if open_to_all:
            text = "allow_http is about a service_token, and there is none"
            problems.append(Problem(app.place_of("allow_http"), text))
        return None
    texts = _texts(app.table["service_token"], place, problems)
    if rule is not None and rule.wildcard:
        text = "a wildcard gets no service token: list such an app by its own name"
        problems.append(Problem(place, text))
    elif rule is not None and rule.scheme == "http" and not open_to_all:
        text = (
            f"{rule} is not encrypted: whoever is on the way can take the token, and use it. "
            "To send it all the same: allow_http = true (--allow-http)"
        )
        problems.append(Problem(place, text))
    if len(problems) > before:
        return None
    assert texts is not None
    return ServiceTokenRule(
        texts["to"], texts["kms_key"], texts["type"], texts["from"], open_to_all
    )


def _texts(value: object, place: str, problems: list[Problem]) -> dict[str, str] | None:
    if not isinstance(value, dict):
        text = 'service_token must be like { to = "AUDIENCE", kms_key = "alias/NAME" }'
        problems.append(Problem(place, text))
        return None
    for key in value:
        if key not in KEYS:
            text = f"service_token.{key} is not an option{near(key, KEYS)}"
            problems.append(Problem(place, text))
    grammars: dict[str, Callable[[str], object]] = {
        "to": check_audience,
        "kms_key": parse_key_reference,
        "type": _type,
        "from": check_caller_name,
    }
    texts: dict[str, str] = {}
    for key, grammar in grammars.items():
        found = value.get(key, "")
        if not isinstance(found, str):
            problems.append(Problem(place, f"service_token.{key} must be a string"))
            found = ""
        elif not found and key in KEYS[:2]:
            what = {"to": "what the app calls itself", "kms_key": "a KMS key"}[key]
            problems.append(Problem(place, f"service_token needs {key}: {what}"))
        elif found:
            try:
                grammar(found)
            except Malformed as error:
                text = f"service_token.{key}: {shown(found)}: {error}"
                problems.append(Problem(place, text))
        texts[key] = found
    return texts


def _type(text: str) -> str:
    if text not in TYPES:
        raise Malformed(f"not one of {', '.join(TYPES)}{near(text, TYPES)}")
    return text


def unread(rules: Iterable[TrustRule]) -> list[Problem]:
    """The apps whose service token is never added, since the proxy does not read their requests.

    Not an error: how an app is reached may stand elsewhere, in ``trust.toml`` for example.
    """
    found = [*rules]
    read = {str(rule) for rule in found if rule.is_read}
    return [
        Problem(rule.place, UNREAD.format(rule=rule))
        for rule in found
        if rule.service_token is not None and str(rule) not in read
    ]


UNREAD: Final = (
    "{rule}: its requests go through a tunnel, so no service token is added to them. "
    f"Run: iam-auth-proxy trust add {{rule}} --https {HTTPS[0]}"
)
