"""What can go wrong inside the embedded AWS. Wire formats of these are in :mod:`.wire`."""

from __future__ import annotations

from enum import Enum, auto


class NotEmulated(NotImplementedError):
    """AWS has this, the embedded AWS does not: an operation, a parameter, a policy element.

    Raised to whoever sets it up in Python; answered with status 501 over HTTP. Never ignored,
    since a test that passes because a condition was not understood proves nothing.
    """


class PolicyError(ValueError):
    """A policy document that AWS would refuse as malformed."""


class ServiceError(Exception):
    """An error of a service, with AWS's code, HTTP status and message."""

    def __init__(self, code: str, status: int, message: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.status = status
        self.message = message


class Denial(Enum):
    """Why a request was turned away before its operation ran. Each service spells it its way."""

    MISSING = auto()
    """No signature at all."""
    INCOMPLETE = auto()
    """A signature that cannot be read: missing, doubled or malformed parts."""
    UNKNOWN_KEY = auto()
    """The access key is unknown, inactive or deleted."""
    BAD_TOKEN = auto()
    """The session token is missing, foreign, or there without need."""
    SIGNATURE = auto()
    """The signature is not the one the secret key makes."""
    SKEWED = auto()
    """The signature's time is too far from ours."""
    EXPIRED = auto()
    """The session has ended."""
    NOT_AUTHORIZED = auto()
    """Authenticated, and no policy allows it."""


class AuthError(Exception):
    """A request that was turned away; ``message`` is AWS's text, empty for its default."""

    def __init__(self, denial: Denial, message: str = "") -> None:
        super().__init__(f"{denial.name}: {message}")
        self.denial = denial
        self.message = message
