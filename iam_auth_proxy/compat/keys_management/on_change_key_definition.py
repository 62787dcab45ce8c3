"""What a callback is told of the key that changed, and may say of it."""

from __future__ import annotations

from iam_auth_proxy.compat.keys_management.secret_key import (
    BaseSecretKeyDefinition,
    InitError,
    KeysStore,
    SecretKeyFlow,
    SecretKeyPair,
    SecretKeyState,
    SecretKeyUseCase,
    SecretKeyValue,
)


class OnChangeKeyDefinition(SecretKeyState):
    """A definition to read, and its state to change.

    :raises OnChangeKeyDefinitionInitError: it is given something else.
    """

    def __init__(self, original_key_definition: BaseSecretKeyDefinition) -> None:
        if not isinstance(original_key_definition, BaseSecretKeyDefinition):
            raise OnChangeKeyDefinitionInitError(original_key_definition)
        self.__definition = original_key_definition
        self.__state = original_key_definition.get_key_state()

    @property
    def name(self) -> str:
        return self.__definition.name

    @property
    def keys_store(self) -> KeysStore:
        return self.__definition.keys_store

    def is_stateless(self) -> bool:
        return self.__definition.is_stateless()

    def is_stated(self) -> bool:
        return self.__definition.is_stated()

    @property
    def use_case(self) -> SecretKeyUseCase:
        return self.__definition.use_case

    def is_keep_in_cache(self) -> bool:
        return self.__definition.is_keep_in_cache()

    def get_last_flow(self) -> SecretKeyFlow | None:
        return self.__state.get_last_flow()

    def set_last_flow(self, last_use: SecretKeyFlow) -> None:
        self.__state.set_last_flow(last_use)

    def get_previous_keys(self) -> SecretKeyValue | SecretKeyPair | None:
        return self.__state.get_previous_keys()

    def set_previous_keys(self, keys: object) -> None:
        self.__state.set_previous_keys(keys)

    def clean_state(self) -> None:
        self.__state.clean_state()


class OnChangeKeyDefinitionInitError(InitError):
    """Made of something that is no definition."""

    def __init__(self, original_key_definition: object) -> None:
        kind = type(original_key_definition)
        super().__init__("OnChangeKeyDefinition", f"original_key_definition type is {kind}")
