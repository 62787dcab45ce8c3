"""Keys as they are defined, and as they were used."""

from __future__ import annotations

import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from iam_auth_proxy.compat.keys_management.errors import OnKeyChangedCallbackErrorStrategy
from iam_auth_proxy.compat.keys_management.secret_key.errors import SecretKeyDefinitionInitError
from iam_auth_proxy.compat.keys_management.secret_key.key_state import SecretKeyState
from iam_auth_proxy.compat.keys_management.secret_key.secret_key import (
    SecretKeyPair,
    SecretKeyValue,
)
from iam_auth_proxy.compat.keys_management.secret_key.secret_key_use_case import (
    SecretKeyFlow,
    SecretKeyUseCase,
)
from iam_auth_proxy.compat.keys_management.secret_key.types import KeysStore

MAX_KEPT: Final = 16
"""Keys that are remembered of one definition."""


class BaseSecretKeyDefinition(ABC):
    """A key as it is defined.

    :raises SecretKeyDefinitionInitError: one of the properties does not do.
    """

    def __init__(self, name: str, keys_store: KeysStore, **kwargs: Any) -> None:
        self._name = name
        self._keys_store = keys_store
        self._use_case = kwargs.get("use_case", SecretKeyUseCase.ROUND_TRIP)
        self._stateless = kwargs.get("stateless", True)
        self._keep_in_cache = kwargs.get("keep_in_cache", True)
        self._on_key_changed_callback_error_strategy = kwargs.get(
            "on_key_changed_callback_error_strategy", OnKeyChangedCallbackErrorStrategy.HALT
        )
        self._on_change_callbacks: dict[str, Callable[..., object]] = {}
        self._validate_properties()

    def _validate_properties(self) -> None:
        if not isinstance(self._name, str) or not self._name:
            raise SecretKeyDefinitionInitError('"name" property is empty')
        if not callable(self._keys_store):
            raise SecretKeyDefinitionInitError('"keys_store" is not callable')
        if _needs_arguments(self._keys_store):
            raise SecretKeyDefinitionInitError('"keys_store" signature should not contains args')
        for name, value, kind, said in (
            ("use_case", self._use_case, SecretKeyUseCase, 'type of "SecretKeyUseCase"'),
            ("stateless", self._stateless, bool, "boolean"),
            ("keep_in_cache", self._keep_in_cache, bool, "boolean"),
            (
                "on_key_changed_callback_error_strategy",
                self._on_key_changed_callback_error_strategy,
                OnKeyChangedCallbackErrorStrategy,
                'type of "OnKeyChangedCallbackErrorStrategy"',
            ),
        ):
            if not isinstance(value, kind):
                raise SecretKeyDefinitionInitError(f'"{name}" property is not {said}')

    @property
    def name(self) -> str:
        return self._name

    @property
    def keys_store(self) -> KeysStore:
        return self._keys_store

    def is_stateless(self) -> bool:
        return bool(self._stateless)

    def is_stated(self) -> bool:
        return not self._stateless

    @property
    def use_case(self) -> SecretKeyUseCase:
        found: SecretKeyUseCase = self._use_case
        return found

    @property
    def on_change_callbacks(self) -> dict[str, Callable[..., object]]:
        return self._on_change_callbacks

    def is_keep_in_cache(self) -> bool:
        return bool(self._keep_in_cache)

    @abstractmethod
    def get_key_state(self) -> SecretKeyState:
        """What is known of its last use."""

    @abstractmethod
    def set_key_state(self, key_state: SecretKeyState) -> None:
        """Take over what is known elsewhere."""

    @property
    def on_key_changed_callback_error_strategy(self) -> OnKeyChangedCallbackErrorStrategy:
        found: OnKeyChangedCallbackErrorStrategy = self._on_key_changed_callback_error_strategy
        return found

    def __str__(self) -> str:
        return str(self.asdict())

    def asdict(self) -> dict[str, Any]:
        """The properties, of which none is a key."""
        return {
            "name": self._name,
            "useCase": self._use_case.name,
            "stateless": self._stateless,
            "keepInCache": self._keep_in_cache,
        }

    def __call__(self) -> Any:
        return self._keys_store()


class SecretKeyDefinition(BaseSecretKeyDefinition, SecretKeyState):
    """A key, and what is remembered of its use.

    :ivar lock: for whoever looks and then changes something; may be taken again.
    :ivar saving: for whoever keeps what is known elsewhere: what is kept last is the latest.
    """

    def __init__(self, name: str, keys_store: KeysStore, **kwargs: Any) -> None:
        super().__init__(name, keys_store, **kwargs)
        self.lock = threading.RLock()
        self.saving = threading.RLock()
        self._last_flow: SecretKeyFlow | None = None
        self._used: list[SecretKeyPair] = []

    @property
    def used(self) -> tuple[SecretKeyPair, ...]:
        """The keys that were used, the last ones first."""
        with self.lock:
            return tuple(self._used)

    def remember(self, keys: SecretKeyPair) -> None:
        """These were used last; those before them are kept."""
        with self.lock:
            others = [each for each in self._used if not each.same_as(keys)]
            self._used = [keys, *others][:MAX_KEPT]

    def restore(self, keys: list[SecretKeyPair]) -> None:
        """Put what a stored state says behind what is known already."""
        with self.lock:
            known = self._used
            new = [each for each in keys if not any(each.same_as(other) for other in known)]
            self._used = [*known, *new][:MAX_KEPT]

    def fetch(self) -> SecretKeyPair:
        """Ask the store, and remember what it says."""
        with self.lock:
            keys = SecretKeyPair(self._keys_store())
            self.remember(keys)
            return keys

    def succeed(self, earlier: SecretKeyDefinition) -> None:
        """Take the place of another definition of the same name, whose callbacks stay."""
        self._on_change_callbacks.update(earlier.on_change_callbacks)
        if earlier.use_case is self.use_case:
            self._last_flow, self._used = earlier.get_last_flow(), list(earlier.used)

    @property
    def previous_keys(self) -> SecretKeyPair | None:
        return self.get_previous_keys()

    def get_last_flow(self) -> SecretKeyFlow | None:
        return self._last_flow

    def set_last_flow(self, last_use: SecretKeyFlow | None) -> None:
        self._last_flow = last_use

    def has_keys(self) -> bool:
        """Whether any are remembered."""
        return bool(self._used)

    def get_previous_keys(self) -> SecretKeyPair | None:
        with self.lock:
            return self._used[0] if self._used else None

    def set_previous_keys(self, keys: object) -> None:
        if isinstance(keys, SecretKeyValue):
            keys = keys.get_value()
        self.remember(keys if isinstance(keys, SecretKeyPair) else SecretKeyPair(keys))

    def clean_previous_keys(self) -> None:
        """Forget the keys."""
        with self.lock:
            self._used = []

    def clean_state(self) -> None:
        self.clean_previous_keys()

    def get_key_state(self) -> SecretKeyState:
        return self

    def set_key_state(self, key_state: SecretKeyState) -> None:
        with self.lock:
            self.set_last_flow(key_state.get_last_flow())
            previous = key_state.get_previous_keys()
            if previous is not None:
                self.set_previous_keys(previous)

    def asdict(self) -> dict[str, Any]:
        return {**super().asdict(), "lastUse": str(self._last_flow)}


def _needs_arguments(store: Callable[..., object]) -> bool:
    """Whether it cannot be called without any: those with a default may be there."""
    try:
        parameters = inspect.signature(store).parameters.values()
    except (TypeError, ValueError):
        return False  # built in: it says nothing of itself
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(each.default is each.empty and each.kind not in several for each in parameters)
