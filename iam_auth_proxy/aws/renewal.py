"""What goes stale: values that expire, and logins that are not good any more. No boto3 in it.

Expiry is looked at when a value is used, by the wall clock given: timers do not run while a laptop
sleeps. A session of boto3 that has gone stale stays so for as long as it is held: it does not look
again for what ``aws sso login`` or an editor did meanwhile. So nothing here is held for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from iam_auth_proxy.errors import AwsUnavailable, IamAuthError, LoginNeeded, MfaNeeded

T = TypeVar("T")

FOREVER: Final = float("inf")

PATIENCE: Final = 20.0
"""Seconds that a thread waits for another that is asking AWS for the same thing."""

_LAST_USE: Final = 30.0
"""Seconds before its end at which a value is not used any more: a call takes a while, too."""


@dataclass(frozen=True, slots=True)
class Held(Generic[T]):
    """A value and its end, in seconds since the epoch; ``key`` is what it was fetched for."""

    value: T = field(repr=False)
    expires: float
    key: Hashable = None


class Renewed(Generic[T]):
    """Holds a value until it expires. Safe to use from any thread.

    :param ahead: seconds before its end at which it is renewed; until the end a renewal that fails
        leaves the old value in use, and other threads do not wait for it.
    :param patience: seconds that a thread waits for another that is fetching.
    """

    def __init__(self, *, ahead: float = 0.0, patience: float = PATIENCE) -> None:
        self._ahead = ahead
        self._patience = patience
        self._lock = threading.Lock()
        self._held: Held[T] | None = None
        self._fetches = 0
        self._failure: IamAuthError | None = None

    def get(self, now: float, fetch: Callable[[], tuple[T, float]], key: Hashable = None) -> T:
        """The value for ``key``, fetched if there is none that lasts.

        :param fetch: gives the value and its end; its errors come through, to every thread that
            waited for it.
        :raises AwsUnavailable: another thread's fetch takes too long.
        """
        held = self._usable(now, key)
        if held is not None and now < held.expires - self._ahead:
            return held.value
        seen = self._fetches
        if not self._acquire(may_wait=held is None):
            if held is not None:
                return held.value
            raise AwsUnavailable("another thread waits for the same answer of AWS")
        try:
            return self._fetch(now, fetch, key, seen)
        except IamAuthError:
            if held is not None:
                return held.value
            raise
        finally:
            self._lock.release()

    @property
    def held(self) -> Held[T] | None:
        """What was fetched last, whether it lasts or not."""
        return self._held

    def replace(self, fetch: Callable[[], tuple[T, float]], key: Hashable = None) -> T:
        """The value, fetched whatever is held.

        :raises AwsUnavailable: another thread's fetch takes too long.
        """
        if not self._acquire(may_wait=True):
            raise AwsUnavailable("another thread waits for the same answer of AWS")
        try:
            return self._store(fetch, key)
        finally:
            self._lock.release()

    def _acquire(self, *, may_wait: bool) -> bool:
        return self._lock.acquire(timeout=self._patience if may_wait else 0)

    def _usable(self, now: float, key: Hashable) -> Held[T] | None:
        held = self._held
        if held is None or held.key != key or now >= held.expires - _LAST_USE:
            return None
        return held

    def _fetch(
        self, now: float, fetch: Callable[[], tuple[T, float]], key: Hashable, seen: int
    ) -> T:
        if self._fetches != seen:  # somebody fetched while we waited
            held = self._usable(now, key)
            if held is not None:
                return held.value
            if self._failure is not None:
                raise self._failure
        return self._store(fetch, key)

    def _store(self, fetch: Callable[[], tuple[T, float]], key: Hashable) -> T:
        self._failure = None
        try:
            value, expires = fetch()
        except IamAuthError as error:
            self._failure = error
            raise
        finally:
            self._fetches += 1
        self._held = Held(value, expires, key)
        return value


class _HasRemedy(Protocol):
    @property
    def remedy(self) -> str: ...


L = TypeVar("L", bound=_HasRemedy)
R = TypeVar("R")


class Logins(Generic[L]):
    """Holds one login, made when it is needed and made anew when it turns out to be stale.

    Safe to use from any thread; several threads that find the same login stale make one new one.
    """

    def __init__(self, make: Callable[[], L]) -> None:
        self._make = make
        self._held: L | None = None
        self._lock = threading.Lock()

    def current(self) -> L:
        """The login in use, made now if there is none."""
        return self._current()[0]

    @property
    def held(self) -> L | None:
        """The login in use, if there is one."""
        return self._held

    def forget(self) -> None:
        """The next use makes a new one."""
        self._held = None

    def use(self, call: Callable[[L], R]) -> R:
        """``call(login)``; once more with a new login where a held one turns out to be stale.

        :raises LoginNeeded: with a new login, too; its remedy is the login's.
        """
        login, is_new = self._current()
        try:
            return call(login)
        except MfaNeeded:
            raise  # a new login would not know the code either
        except LoginNeeded as error:
            if is_new:
                raise _explained(error, login) from error.__cause__
        self._drop(login)
        login, _ = self._current()
        try:
            return call(login)
        except MfaNeeded:
            raise
        except LoginNeeded as error:
            raise _explained(error, login) from error.__cause__

    def _current(self) -> tuple[L, bool]:
        held = self._held
        if held is not None:
            return held, False
        with self._lock:
            if self._held is not None:
                return self._held, False
            self._held = self._make()
            return self._held, True

    def _drop(self, login: L) -> None:
        with self._lock:
            if self._held is login:
                self._held = None


def _explained(error: LoginNeeded, login: _HasRemedy) -> LoginNeeded:
    if error.remedy == LoginNeeded.remedy_default:
        error.remedy = login.remedy
    return error
