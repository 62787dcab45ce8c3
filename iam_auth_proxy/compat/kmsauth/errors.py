"""The original's four errors, which have nothing in common but that they are exceptions.

Each has what it came from as its ``__cause__``: an error of :mod:`iam_auth_proxy.errors`, which
says more than these may.
"""

from __future__ import annotations


class ServiceConnectionError(Exception):
    """AWS did not answer."""


class ConfigurationError(Exception):
    """An argument of a generator or a validator does not do."""


class TokenValidationError(Exception):
    """A token was not accepted."""


class TokenGenerationError(Exception):
    """A token was not made."""
