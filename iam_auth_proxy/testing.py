"""For the tests of apps that mount the gate: a visitor who is signed in, without AWS."""

from __future__ import annotations

import hashlib
import time
from http.cookies import SimpleCookie

from iam_auth_proxy.names import Origin, parse_origin
from iam_auth_proxy.protocol import identity as identities
from iam_auth_proxy.server import Gate


class Cookie(str):
    """``name=value``, as it stands in a request's Cookie field; and the two for cookie jars."""

    __slots__ = ("name", "value")

    def __new__(cls, name: str, value: str) -> Cookie:
        """Both parts as they are in the gate's Set-Cookie."""
        cookie = super().__new__(cls, f"{name}={value}")
        cookie.name, cookie.value = name, value
        return cookie

    name: str
    value: str


def signed_in(
    gate: Gate, arn: str, *, origin: str | Origin | None = None, now: float | None = None
) -> Cookie:
    """A session cookie of ``gate`` for the caller ``arn``, as a sign-in would have given it.

    ::

        client.get("/", headers={"Cookie": signed_in(gate, "arn:aws:iam::111122223333:user/ann")})

    :param arn: what GetCallerIdentity would say; the unique id that goes with it is made up.
    :param origin: what the client calls the app; the gate's first one if absent.
    :param now: seconds since the epoch; the present if absent.
    :raises Malformed: ``arn`` is none of GetCallerIdentity's.
    :raises ValueError: the gate has no origins, and none is given.
    :raises StoreUnavailable: the gate has a stored key ring that cannot be read. A test wants one
        of its own: ``rings=StaticRings(KeyRing.from_secret(...))``, or ``secret_key=`` instead.
    """
    if isinstance(origin, str):
        origin = parse_origin(origin)
    if origin is None:
        if not gate.settings.origins:
            raise ValueError("the gate has no origins: say which one the client uses, origin=")
        origin = gate.settings.origins[0]
    identity = identities.parse(arn, _user_id(arn))
    field = gate.new_cookie(identity, origin, time.time() if now is None else now)
    (morsel,) = SimpleCookie(field).values()
    return Cookie(morsel.key, morsel.value)


def _user_id(arn: str) -> str:
    """A UserId of the form that goes with the ARN, the same each time."""
    _, _, _, _, account, resource = (arn.split(":", 5) + [""] * 6)[:6]
    kind, _, rest = resource.partition("/")
    unique = hashlib.sha256(resource.encode("utf-8", "replace")).hexdigest()[:17].upper()
    return {
        "user": f"AIDA{unique}",
        "assumed-role": f"AROA{unique}:{rest.partition('/')[2]}",
        "federated-user": f"{account}:{rest}",
        "root": account,
    }.get(kind, "")
