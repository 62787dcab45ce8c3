"""Where definitions are kept; the names are the original's."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator

from iam_auth_proxy.compat.keys_management.secret_key import SecretKeyDefinition


class KeysDefnitions:
    """Definitions by their names. Whoever brings others overrides the first three."""

    def get(self, key_name: str) -> SecretKeyDefinition | None:
        """The definition; None: there is none."""
        raise NotImplementedError

    def set(self, key_name: str, definition: SecretKeyDefinition) -> None:
        """Keep one."""
        raise NotImplementedError

    def get_all_names(self) -> Iterable[str]:
        """The names of all."""
        raise NotImplementedError

    def get_all_definitions(self) -> Iterable[SecretKeyDefinition]:
        """All of them."""
        return [self[name] for name in self]

    def items(self) -> Iterable[tuple[str, SecretKeyDefinition]]:
        """All of them, with their names."""
        return [(name, self[name]) for name in self]

    def __iter__(self) -> Iterator[str]:
        return iter(self.get_all_names())

    def __contains__(self, key_name: object) -> bool:
        return isinstance(key_name, str) and self.get(key_name) is not None

    def __getitem__(self, key_name: str) -> SecretKeyDefinition:
        found = self.get(key_name)
        if found is None:
            raise KeyError(key_name)
        return found

    def __setitem__(self, key_name: str, definition: SecretKeyDefinition) -> None:
        self.set(key_name, definition)


class DefaultKeysDefnitions(KeysDefnitions):
    """In memory."""

    def __init__(self) -> None:
        self._found: dict[str, SecretKeyDefinition] = {}

    def get(self, key_name: str) -> SecretKeyDefinition | None:
        return self._found.get(key_name)

    def set(self, key_name: str, definition: SecretKeyDefinition) -> None:
        self._found[key_name] = definition

    def get_all_names(self) -> Iterable[str]:
        return list(self._found)

    def items(self) -> ItemsView[str, SecretKeyDefinition]:
        return self._found.copy().items()
