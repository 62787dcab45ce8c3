"""The interface ``KeysManagement``, and its implementation."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from iam_auth_proxy.compat.keys_management.concurrency import EnvironemtType, SynchronizerFactory
from iam_auth_proxy.compat.keys_management.consts import EARLIER, KEY, STATE
from iam_auth_proxy.compat.keys_management.dependecies import CryptoTool, StateRepoInterface
from iam_auth_proxy.compat.keys_management.errors import (
    FetchAndSetStateFromRepoError,
    GetKeyError,
    InvalidKeyStateError,
    KeyChangedError,
    KeyIsNotDefinedError,
    KeysManagementError,
    OnKeyChangedCallbackErrorStrategy,
)
from iam_auth_proxy.compat.keys_management.key_changed_utils import (
    KeyChangedCallback,
    KeyChangedContext,
)
from iam_auth_proxy.compat.keys_management.key_definitions import (
    DefaultKeysDefnitions,
    KeysDefnitions,
)
from iam_auth_proxy.compat.keys_management.secret_key import (
    InvalidFlowNameError,
    KeysStore,
    SecretKeyDefinition,
    SecretKeyFlow,
    SecretKeyPair,
    SecretKeyUseCase,
    SecretKeyValue,
    StrOrBytes,
)

log = logging.getLogger("iam_auth_proxy.compat.keys_management")

_NO_PORTS = "KeysManagementImpl has no state_repo and crypto_tool"


class KeysManagement:
    """What an app uses. Keys as arguments are text, bytes, or two of them."""

    def define_key(
        self,
        name: str,
        keys_store: KeysStore,
        use_case: SecretKeyUseCase,
        stateless: bool | None = None,
        keep_in_cache: bool | None = None,
        on_key_changed_callback_error_strategy: OnKeyChangedCallbackErrorStrategy | None = None,
    ) -> KeysManagement:
        raise NotImplementedError

    def get_key(self, key_name: str, flow: SecretKeyFlow | str | None = None) -> StrOrBytes:
        raise NotImplementedError

    def get_forward_path_key(self, key_name: str) -> StrOrBytes:
        """What encrypts."""
        return self.get_key(key_name, SecretKeyFlow.FORWARD_PATH)

    def get_encrypt_key(self, key_name: str) -> StrOrBytes:
        """The same."""
        return self.get_forward_path_key(key_name)

    def get_back_path_key(self, key_name: str) -> StrOrBytes:
        """What decrypts what was encrypted last."""
        return self.get_key(key_name, SecretKeyFlow.BACK_PATH)

    def get_decrypt_key(self, key_name: str) -> StrOrBytes:
        """The same."""
        return self.get_back_path_key(key_name)

    def key_changed(self, key_name: str, old_keys: object = None, new_keys: object = None) -> None:
        raise NotImplementedError

    def register_on_change(
        self, key_name: str, on_change_func: KeyChangedCallback, callback_name: str | None = None
    ) -> None:
        raise NotImplementedError

    def save_states(self) -> None:
        raise NotImplementedError

    def save_state(self, key_name: str) -> None:
        raise NotImplementedError

    def get_single_management(self, key_name: str) -> SingleKeyManagement:
        """The same for one key."""
        return SingleKeyManagement(key_name, self)


class SingleKeyManagement:
    """:class:`KeysManagement` of one key."""

    def __init__(self, name: str, keys_management: KeysManagement) -> None:
        self._name = name
        self._keys_management = keys_management

    def get_key(self, flow: SecretKeyFlow | str | None = None) -> StrOrBytes:
        return self._keys_management.get_key(self._name, flow)

    def get_forward_path_key(self) -> StrOrBytes:
        return self._keys_management.get_forward_path_key(self._name)

    def get_encrypt_key(self) -> StrOrBytes:
        return self._keys_management.get_encrypt_key(self._name)

    def get_back_path_key(self) -> StrOrBytes:
        return self._keys_management.get_back_path_key(self._name)

    def get_decrypt_key(self) -> StrOrBytes:
        return self._keys_management.get_decrypt_key(self._name)

    def key_changed(self, old_keys: object = None, new_keys: object = None) -> None:
        self._keys_management.key_changed(self._name, old_keys, new_keys)

    def register_on_change(
        self, on_change_func: KeyChangedCallback, callback_id: str | None = None
    ) -> None:
        self._keys_management.register_on_change(self._name, on_change_func, callback_id)

    def save_state(self) -> None:
        self._keys_management.save_state(self._name)


class KeysManagementImpl(KeysManagement):
    """Safe to use from any thread, and from callbacks.

    :param state_repo: where the states of stated keys are kept; with ``crypto_tool`` needed when
        one is first read or saved.
    :param environemt_type: accepted, as ``synchronizer_factory`` is, and without effect.
    """

    def __init__(
        self,
        state_repo: StateRepoInterface | None = None,
        crypto_tool: CryptoTool | None = None,
        keys_definitions: KeysDefnitions | None = None,
        environemt_type: EnvironemtType = EnvironemtType.SINGLE,
        synchronizer_factory: SynchronizerFactory | None = None,
    ) -> None:
        self._state_repo = state_repo
        self._crypto_tool = crypto_tool
        self._keys_definitions = (
            DefaultKeysDefnitions() if keys_definitions is None else keys_definitions
        )

    def define_key(
        self,
        name: str,
        keys_store: KeysStore,
        use_case: SecretKeyUseCase,
        stateless: bool | None = None,
        keep_in_cache: bool | None = None,
        on_key_changed_callback_error_strategy: OnKeyChangedCallbackErrorStrategy | None = None,
    ) -> KeysManagementImpl:
        """Define a key, or define it anew: its callbacks stay.

        :param keys_store: gives the key of now: one, or two (forward, back). If it has a method
            ``back_path_keys``, that gives all that may have encrypted something, see
            :class:`.states.RingKeys`.
        :param stateless: whether nothing is saved of it; None: nothing is.
        :param keep_in_cache: whether a key is remembered once it decrypted; None: it is.
        :param on_key_changed_callback_error_strategy: None: every callback is run, and then raised.
        :raises SecretKeyDefinitionInitError: one of them does not do.
        """
        strategy = on_key_changed_callback_error_strategy
        if strategy is None:
            strategy = OnKeyChangedCallbackErrorStrategy.SKIP_AND_RAISE
        definition = SecretKeyDefinition(
            name,
            keys_store,
            use_case=use_case,
            stateless=True if stateless is None else stateless,
            keep_in_cache=True if keep_in_cache is None else keep_in_cache,
            on_key_changed_callback_error_strategy=strategy,
        )
        if name in self._keys_definitions:
            definition.succeed(self._keys_definitions[name])
        self._keys_definitions[name] = definition
        log.info('Defining the key "%s"', name)
        return self

    # -- keys --------------------------------------------------------------------------------------

    def get_key(self, key_name: str, flow: SecretKeyFlow | str | None = None) -> StrOrBytes:
        """A key for a flow; without one, for the flow that follows upon the last.

        :raises GetKeyError: there is none; what its store or repository raised is the cause.
        """
        log.debug('requested to get key of "%s"', key_name)
        try:
            definition = self._definition(key_name)
            with definition.lock:
                chosen = self._next_flow(definition) if flow is None else SecretKeyFlow.get(flow)
                found = self._key_for(definition, chosen)
                definition.set_last_flow(chosen)
                done = chosen is SecretKeyFlow.BACK_PATH and not definition.is_keep_in_cache()
                if done or chosen is SecretKeyFlow.DEFAULT:
                    definition.clean_previous_keys()
            return found.get_value()
        except GetKeyError:
            raise
        except Exception as error:
            # The words of a store's own errors may hold anything.
            said = str(error) if isinstance(error, KeysManagementError) else type(error).__name__
            raise GetKeyError(key_name, said) from error

    def get_back_path_keys(self, key_name: str) -> list[StrOrBytes]:
        """Every key that may decrypt something: what was encrypted under an earlier one, too.

        The one that was used last comes first, and the store's of now after those that were used.
        To be tried in turn; that is no use of any.

        :raises GetKeyError: as :meth:`get_key`.
        """
        try:
            definition = self._definition(key_name)
            with definition.lock:
                if definition.get_last_flow() is None and definition.is_stated():
                    self._restore(definition)
                found = [each.back_path_key.get_value() for each in definition.used]
                found.append(SecretKeyPair(definition.keys_store()).back_path_key.get_value())
            of_store = getattr(type(definition.keys_store), "back_path_keys", None)
            if of_store is not None:
                found += of_store(definition.keys_store)
            return list(dict.fromkeys(found))
        except Exception as error:
            said = str(error) if isinstance(error, KeysManagementError) else type(error).__name__
            raise GetKeyError(key_name, said) from error

    def _definition(self, key_name: str) -> SecretKeyDefinition:
        if key_name not in self._keys_definitions:
            raise KeyIsNotDefinedError(key_name)
        return self._keys_definitions[key_name]

    def _next_flow(self, definition: SecretKeyDefinition) -> SecretKeyFlow:
        if definition.use_case is not SecretKeyUseCase.ROUND_TRIP:
            return SecretKeyFlow.DEFAULT
        if definition.get_last_flow() is None and definition.is_stated():
            self._restore(definition)
        if definition.get_last_flow() is SecretKeyFlow.FORWARD_PATH:
            return SecretKeyFlow.BACK_PATH
        return SecretKeyFlow.FORWARD_PATH

    def _key_for(self, definition: SecretKeyDefinition, flow: SecretKeyFlow) -> SecretKeyValue:
        if definition.use_case is not SecretKeyUseCase.ROUND_TRIP:
            if flow is not SecretKeyFlow.DEFAULT:
                reason = "flow is not SecretKeyFlow.DEFAULT or aliases"
                raise GetKeyError(definition.name, reason)
            return SecretKeyValue(definition.keys_store())
        if flow is SecretKeyFlow.FORWARD_PATH:
            return definition.fetch().forward_key
        unknown = not definition.has_keys() and definition.get_last_flow() is None
        if unknown and definition.is_stated():
            self._restore(definition)
        return (definition.get_previous_keys() or definition.fetch()).back_path_key

    # -- changes -----------------------------------------------------------------------------------

    def key_changed(self, key_name: str, old_keys: object = None, new_keys: object = None) -> None:
        """Run the callbacks, which are given both keys as they are, in this thread.

        :raises KeyChangedError: a callback failed and the strategy is to raise, or there is no
            such key.
        """
        log.info('the key "%s" is changed, registered callbacks will be executed', key_name)
        try:
            definition = self._definition(key_name)
        except KeyIsNotDefinedError as error:
            raise KeyChangedError(key_name) from error
        KeyChangedContext(definition, old_keys, new_keys).run_callbacks()

    def register_on_change(
        self, key_name: str, on_change_func: KeyChangedCallback, callback_name: str | None = None
    ) -> None:
        """Have something called when the key changes, in the place of what has that name.

        :raises KeyIsNotDefinedError: there is no such key.
        """
        callbacks = self._definition(key_name).on_change_callbacks
        if callback_name is None:
            number = len(callbacks) + 1
            while f"{key_name}_callback_{number}" in callbacks:
                number += 1
            callback_name = f"{key_name}_callback_{number}"
        callbacks[callback_name] = on_change_func

    # -- states ------------------------------------------------------------------------------------

    def save_state(self, key_name: str) -> None:
        """Keep what is known of a key; a key that was not used yet leaves what is kept.

        It is no use of the key.

        :raises KeyIsNotDefinedError: there is no such key.
        :raises KeysManagementError: there is nowhere to keep it.
        """
        definition = self._definition(key_name)
        if self._state_repo is None or self._crypto_tool is None:
            raise KeysManagementError(f"the state of {key_name} is not saved: {_NO_PORTS}")
        with definition.saving:
            state = self._state(definition)
            if state is not None:
                self._state_repo.write_state(key_name, self._crypto_tool.encrypt(state))

    def _state(self, definition: SecretKeyDefinition) -> dict[str, Any] | None:
        """What is to be kept of a key; None: it was not used yet."""
        with definition.lock:
            last = definition.get_last_flow()
            if last is None:
                return None
            state: dict[str, Any] = {STATE: last}
            used = list(definition.used)
            if last is SecretKeyFlow.FORWARD_PATH:
                newest = used[0] if used else SecretKeyPair(definition.keys_store())
                state[KEY] = newest.back_path_key.get_value()
            if len(used) > 1:
                others = used[1:] if KEY in state else used
                state[EARLIER] = [each.back_path_key.get_value() for each in others]
            return state

    def save_states(self) -> None:
        """Keep what is known of all stated keys."""
        for name, definition in self._keys_definitions.items():
            if definition.is_stated():
                self.save_state(name)

    def _restore(self, definition: SecretKeyDefinition) -> None:
        """Take over what was kept, if anything was.

        :raises InvalidKeyStateError: it is no state.
        :raises FetchAndSetStateFromRepoError: it cannot be read.
        """
        name = definition.name
        if self._state_repo is None or self._crypto_tool is None:
            raise FetchAndSetStateFromRepoError(name, _NO_PORTS)
        try:
            kept = self._state_repo.read_state(name)
            if kept is None:
                return
            state = self._crypto_tool.decrypt(kept)
        except Exception as error:
            raise FetchAndSetStateFromRepoError(name, type(error).__name__) from error
        if not isinstance(state, Mapping) or STATE not in state:
            raise InvalidKeyStateError(name, "it does not say the last flow")
        try:
            last = SecretKeyFlow.get(state[STATE])
            named = [state[KEY]] if KEY in state else []
            keys = [SecretKeyPair(each) for each in [*named, *state.get(EARLIER, [])]]
        except (InvalidFlowNameError, KeysManagementError, TypeError) as error:
            raise InvalidKeyStateError(name, str(error)) from error
        definition.set_last_flow(last)
        definition.restore(keys)
