"""What is remembered of tokens: bounded, and safe to use from any thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from iam_auth_proxy.aws.renewal import PATIENCE
from iam_auth_proxy.errors import AwsUnavailable, IamAuthError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """The values used last.

    :param capacity: how many; 0 remembers nothing.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value, which is the last used from now on."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        """Remember it, in place of the one that was not used for longest."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._capacity:
                self._values.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forget it."""
        with self._lock:
            self._values.pop(key, None)


class _Flight(Generic[V]):
    __slots__ = ("done", "error", "value")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.value: V | None = None
        self.error: IamAuthError | None = None


class Flights(Generic[K, V]):
    """One call for all who want the same at once.

    :param patience: seconds that a thread waits for another's call.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._under_way: dict[K, _Flight[V]] = {}
        self._lock = threading.Lock()

    def share(self, key: K, call: Callable[[], V]) -> V:
        """The call's result, or that of another thread's which is under way.

        :raises IamAuthError: what the call raised, in every thread.
        :raises AwsUnavailable: another thread's call takes too long, or went wrong otherwise.
        """
        with self._lock:
            flight = self._under_way.get(key)
            mine = flight is None
            if flight is None:
                flight = self._under_way[key] = _Flight()
        if mine:
            return self._fly(key, flight, call)
        if not flight.done.wait(self._patience):
            raise AwsUnavailable("another thread waits for the same answer of AWS")
        if flight.error is not None:
            raise flight.error
        if flight.value is None:
            raise AwsUnavailable("the thread that asked AWS came to no answer")
        return flight.value

    def _fly(self, key: K, flight: _Flight[V], call: Callable[[], V]) -> V:
        try:
            flight.value = call()
            return flight.value
        except IamAuthError as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                del self._under_way[key]
            flight.done.set()
