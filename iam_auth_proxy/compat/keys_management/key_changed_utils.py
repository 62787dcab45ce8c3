"""Callbacks, and what becomes of their errors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from iam_auth_proxy.compat.keys_management.errors import (
    KeyChangedError,
    OnKeyChangedCallbackErrorStrategy,
)
from iam_auth_proxy.compat.keys_management.on_change_key_definition import OnChangeKeyDefinition
from iam_auth_proxy.compat.keys_management.secret_key import BaseSecretKeyDefinition

log = logging.getLogger("iam_auth_proxy.compat.keys_management")

KeyChangedCallback: TypeAlias = Callable[[Any, Any, OnChangeKeyDefinition], object]


class CallbackStatus(Enum):
    """How far a callback has come."""

    PENDING = 0
    IN_PROGRESS = 1
    FAILED = 2
    SUCCEEDED = 3


@dataclass(slots=True)
class _Run:
    callback: KeyChangedCallback
    status: CallbackStatus = CallbackStatus.PENDING
    error: Exception | None = field(default=None, repr=False)


class KeyChangedContext:
    """One change of a key. An error that is raised of it has this as its second argument."""

    def __init__(
        self, definition: BaseSecretKeyDefinition, old_keys: object, new_keys: object
    ) -> None:
        self._name = definition.name
        self._strategy = definition.on_key_changed_callback_error_strategy
        self._arguments = (old_keys, new_keys, OnChangeKeyDefinition(definition))
        self._runs = {name: _Run(each) for name, each in definition.on_change_callbacks.items()}

    def __getitem__(self, callback_name: str) -> dict[str, Any]:
        run = self._runs[callback_name]
        found = {"name": callback_name, "callback": run.callback, "status": run.status}
        return found if run.error is None else {**found, "error": run.error}

    def run_callbacks(self) -> None:
        """In the order of their registration; nothing is locked meanwhile.

        :raises KeyChangedError: one failed, and the strategy is to raise.
        """
        strategies = OnKeyChangedCallbackErrorStrategy
        failed: Exception | None = None
        for name, run in self._runs.items():
            log.info('Going to execute the callback "%s"', name)
            run.status = CallbackStatus.IN_PROGRESS
            try:
                run.callback(*self._arguments)
            except Exception as error:  # noqa: BLE001  # whatever an app's callback raises
                run.status, run.error = CallbackStatus.FAILED, error
                failed = failed or error
                log.error('The callback "%s" of "%s" failed: %s', name, self._name, error)
                if self._strategy in (strategies.RAISE_IMMEDIATELY, strategies.HALT):
                    break
            else:
                run.status = CallbackStatus.SUCCEEDED
        raising = (strategies.RAISE_IMMEDIATELY, strategies.SKIP_AND_RAISE)
        if failed is not None and self._strategy in raising:
            raise KeyChangedError(self._name, self) from failed
