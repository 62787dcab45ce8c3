"""The commands by name, each imported when somebody asks for it.

The daemon starts a tenth sooner for not importing the commands that it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module

import click


class Catalogue(MutableMapping[str, click.Command]):
    """What click calls a group's ``commands``.

    :param places: name -> ``module:attribute``, of commands in modules of their own.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)
        self._commands: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._commands:
            module, _, attribute = self._places[name].partition(":")
            command = getattr(import_module(module), attribute)
            assert isinstance(command, click.Command)
            self._commands[name] = command
        return self._commands[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        known = self._commands.pop(name, None) or self._places.get(name)
        self._places.pop(name, None)
        if known is None:
            raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter({**self._places, **self._commands})

    def __len__(self) -> int:
        return len({**self._places, **self._commands})

    def __contains__(self, name: object) -> bool:
        """Whether there is such a command; imports nothing."""
        return name in self._commands or name in self._places
