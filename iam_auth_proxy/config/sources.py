"""The three sources of configuration, each read into the same shape: texts and their places."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from iam_auth_proxy.config.options import ENV_PREFIX, OPTIONS
from iam_auth_proxy.errors import Problem

_BY_KEY = {option.key: option for option in OPTIONS if option.key}
_BY_VARIABLE = {option.variable: option for option in OPTIONS}
# Flags that the commands of secrets alone have.
_OF_SECRETS = ("STORE", "STORE_NAME", "KMS_KEY")
# Read elsewhere: the password by relay/dial.py, the file's path by cli.py.
_OTHER_VARIABLES = frozenset(
    ENV_PREFIX + name for name in ("SOCKS_PASSWORD", "SOCKS_PASSWORD_FILE", "CONFIG", *_OF_SECRETS)
)

# (place, text): a flag, a variable or file:line, and what was written there.
Placed = tuple[str, str]


@dataclass(frozen=True, slots=True)
class App:
    """One ``[[app]]`` of a file: its table, and where it and each of its keys stand."""

    place: str
    table: Mapping[str, object]
    places: Mapping[str, str]

    def place_of(self, key: str) -> str:
        """Where ``key`` stands; the app's own place where that is not known."""
        return self.places.get(key, self.place)


@dataclass(frozen=True, slots=True)
class Table:
    """A named table of a file, such as ``[via.bastion]``, and where it and its keys stand."""

    name: str
    place: str
    values: Mapping[str, object]
    places: Mapping[str, str]

    def place_of(self, key: str) -> str:
        """Where ``key`` stands; the table's own place where that is not known."""
        return self.places.get(key, self.place)


@dataclass(slots=True)
class Layer:
    """What one source gives: option name -> its texts. An empty text is as if not given.

    :ivar source: one of :data:`~iam_auth_proxy.config.values.SOURCES`.
    """

    source: str
    values: dict[str, list[Placed]] = field(default_factory=dict)
    apps: list[App] = field(default_factory=list)
    vias: list[Table] = field(default_factory=list)

    def put(self, name: str, place: str, texts: Iterable[str]) -> None:
        """Keep what is not empty."""
        placed = [(place, text) for text in texts if text]
        if placed:
            self.values[name] = placed


def from_flags(flags: Mapping[str, str | Sequence[str]]) -> Layer:
    """Flags as the command line gave them: option name -> text, or texts where it repeats."""
    layer = Layer("flag")
    for name, given in flags.items():
        layer.put(name, f"--{name}", [given] if isinstance(given, str) else given)
    return layer


def from_environ(environ: Mapping[str, str], problems: list[Problem]) -> Layer:
    """``IAM_AUTH_PROXY_*``; an option that repeats is split at white space."""
    layer = Layer("environment")
    for variable, text in sorted(environ.items()):
        option = _BY_VARIABLE.get(variable)
        if option is not None:
            layer.put(option.name, variable, text.split() if option.repeat else [text])
        elif variable.startswith(ENV_PREFIX) and variable not in _OTHER_VARIABLES:
            # The prefix, common to all, would make any two of them look alike.
            known = [name.removeprefix(ENV_PREFIX) for name in _BY_VARIABLE]
            guess = near(variable.removeprefix(ENV_PREFIX), known, prefix=ENV_PREFIX)
            problems.append(Problem(variable, "is not an option" + guess))
    return layer


def from_file(
    path: Path, problems: list[Problem], *, required: bool, source: str = "user"
) -> Layer | None:
    """A ``config.toml``; None where it does not exist or cannot be used."""
    document = read_toml(path, problems, required=required)
    if document is None:
        return None
    layer = Layer(source, apps=document.apps("app", problems))
    vias = document.tables.pop("via", {})
    if isinstance(vias, dict) and all(isinstance(via, dict) for via in vias.values()):
        layer.vias = [document.table("via", name, via) for name, via in vias.items()]
    else:
        problems.append(Problem(document.place("via"), "write each route as [via.NAME]"))
    for key, value in _flatten(document.tables):
        _take(layer, document.place(key), key, value, problems)
    return layer


def read_toml(path: Path, problems: list[Problem], *, required: bool = False) -> Document | None:
    """A TOML file and where its keys stand; None where it does not exist or is none."""
    try:
        source = path.read_bytes().decode("utf-8-sig")
        import tomllib  # many a start finds no file

        return Document(path, tomllib.loads(source), source)
    except FileNotFoundError:
        if required:
            problems.append(Problem(str(path), "no such file"))
    except OSError as error:
        problems.append(Problem(str(path), str(error.strerror)))
    except UnicodeDecodeError:
        problems.append(Problem(str(path), "is not UTF-8"))
    except tomllib.TOMLDecodeError as error:
        # tomllib tells the line in words alone before Python 3.14.
        found = re.search(r" \(at line ([0-9]+), column [0-9]+\)$", str(error))
        line = found[1] if found else str(len(source.splitlines()) or 1)  # "at end of document"
        place = f"{path}:{line}"
        problems.append(Problem(place, f"is not TOML: {error}"))
    except ValueError as error:  # tomllib lets Python's own through, of a number without end
        problems.append(Problem(str(path), f"cannot be read: {error}"))
    except RecursionError:
        problems.append(Problem(str(path), "is nested too deeply"))
    return None


def _take(layer: Layer, place: str, key: str, value: object, problems: list[Problem]) -> None:
    option = _BY_KEY.get(key)
    if option is None:
        problems.append(Problem(place, f"{key} is not an option" + _near_key(key)))
        return
    if option.switch and isinstance(value, bool):
        value = "true" if value else "false"
    given: list[object] = value if option.repeat and isinstance(value, list) else [value]
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        what = "true or false" if option.switch else "a string"
        problems.append(
            Problem(place, f"{key} must be {'a list of strings' if option.repeat else what}")
        )
        return
    layer.put(option.name, place, texts)


def _near_key(key: str) -> str:
    """The nearest key; within a known table its last part counts, or all of them look alike."""
    table, _, leaf = key.rpartition(".")
    siblings = [each.rpartition(".")[2] for each in _BY_KEY if each.rpartition(".")[0] == table]
    if table and siblings:
        return near(leaf, siblings, prefix=f"{table}.")
    head = key.partition(".")[0]
    for name, written in (("app", "[[app]]"), ("via", "[via.NAME]")):
        if near(head, [name]):
            return f"; did you mean {written}?"
    return near(key, _BY_KEY)


def _flatten(table: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            pairs += _flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, value))
    return pairs


_TABLE = re.compile(r"(\[\[?)\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"([A-Za-z0-9_.\"' -]+?)\s*=")


class Document:
    """A TOML file: its tables, and where a key stands.

    tomllib does not tell the lines, so they are found by a look at the text that is good enough to
    point at.

    :ivar tables: what tomllib made of it; readers take out what they know.
    """

    def __init__(self, path: Path, tables: dict[str, object], source: str) -> None:
        self.tables = tables
        self._path = path
        self._keys: dict[str, int] = {}
        # Of each [[array]]: the line of each element, and of each of its keys.
        self._elements: dict[str, list[tuple[int, dict[str, int]]]] = {}
        table, keys = "", self._keys
        for number, line in enumerate(source.splitlines(), 1):
            text = line.strip()
            if header := _TABLE.match(text):
                name = _plain(header[2])
                table, keys = name + ".", self._keys
                keys.setdefault(name, number)
                if header[1] == "[[":
                    table, keys = "", {}
                    self._elements.setdefault(name, []).append((number, keys))
            elif key := _KEY.match(text):
                keys.setdefault(table + _plain(key[1]), number)

    def place(self, key: str) -> str:
        """``file:line`` of the key, else of the table that holds it, else the file."""
        while key:
            if key in self._keys:
                return f"{self._path}:{self._keys[key]}"
            key = key.rpartition(".")[0]
        return str(self._path)

    def apps(self, name: str, problems: list[Problem]) -> list[App]:
        """The elements of ``[[name]]``, taken out of the tables."""
        elements = self.tables.pop(name, [])
        if isinstance(elements, list) and all(isinstance(each, dict) for each in elements):
            return [self._app(name, index, each) for index, each in enumerate(elements)]
        problems.append(Problem(self.place(name), f"write each {name} as [[{name}]]"))
        return []

    def _app(self, name: str, index: int, table: Mapping[str, object]) -> App:
        """The ``index``-th; written in another form than ``[[name]]``, it is placed at the file."""
        found = self._elements.get(name, [])
        number, keys = found[index] if index < len(found) else (0, {})
        place = f"{self._path}:{number}" if number else str(self._path)
        return App(place, table, {key: f"{self._path}:{line}" for key, line in keys.items()})

    def table(self, parent: str, name: str, values: Mapping[str, object]) -> Table:
        """The table ``[parent.name]`` with the places of its keys."""
        whole = f"{parent}.{name}"
        return Table(
            name, self.place(whole), values, {key: self.place(f"{whole}.{key}") for key in values}
        )


def _plain(key: str) -> str:
    """A key as tomllib names it: without quotes, and without white space around its dots."""
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


def near(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """``; did you mean NAME?`` for the known name that is nearest, or nothing."""
    import difflib

    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
