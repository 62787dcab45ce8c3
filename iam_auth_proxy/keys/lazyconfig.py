"""lazycred's configuration: inline, else a file ``.lazycred``, else the environment.

One source counts as a whole, as in the original, and it is read anew each time. A ``.lazycred``
says where secrets go and which key seals them, so it is taken from its owner alone: folders are
searched upwards only for as long as they are the user's own and nobody else's to write to, and a
file that somebody else wrote, or could write, is an error rather than a configuration. (The
original takes the first one on the way to the root: a file planted in ``/tmp`` chooses bucket and
key for whatever runs below it.)
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from iam_auth_proxy.errors import ConfigError, Malformed, Problem
from iam_auth_proxy.files import is_ours, read_own
from iam_auth_proxy.names import parse_key_reference

FILE: Final = ".lazycred"
VARIABLES: Final = {
    "s3_path": "LAZYCRED_S3_PATH",
    "key_alias": "LAZYCRED_KEY_ALIAS",
    "region": "AWS_DEFAULT_REGION",
}
_MAX: Final = 65_536

# Strings, and a comma that only blanks part from the end of its object or list.
_TRAILING = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)


@dataclass(frozen=True, slots=True)
class LazyConfig:
    """What lazycred needs to know.

    :ivar s3_path: bucket, and after a ``/`` what is put in front of every name.
    :ivar key: KMS key in any of its spellings (an alias as ``alias/NAME``).
    :ivar source: where this was found, for people.
    """

    s3_path: str
    key: str
    region: str
    source: str


def find(
    inline: Mapping[str, Any] | None = None,
    *,
    cwd: Path | None = None,
    home: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> LazyConfig:
    """The configuration: ``inline``, the nearest file, the one in ``home``, or the environment.

    :raises ConfigError: what was found lacks something or is not to be trusted, or nothing was.
    """
    if inline is not None:
        return _read(inline, "set_config")
    for folder in _folders(cwd or Path.cwd(), home or Path.home()):
        text = read_own(folder / FILE, _MAX)
        if text is not None:
            return _read(_loads(text, str(folder / FILE)), str(folder / FILE))
    values = {name: environ.get(variable, "") for name, variable in VARIABLES.items()}
    return _read(values, "the environment", VARIABLES)


def _folders(cwd: Path, home: Path) -> Iterator[Path]:
    """The working folder and those above it that are the user's own; then home."""
    here = cwd.resolve()
    for folder in (here, *here.parents):
        facts = folder.stat()
        if not is_ours(facts) or (os.name == "posix" and facts.st_mode & stat.S_IWOTH):
            break
        yield folder
    yield home


def _loads(text: str, place: str) -> Mapping[str, Any]:
    """JSON; commas before a closing bracket are let through, as the original's own sample has one.

    :raises ConfigError: otherwise.
    """
    try:
        value = json.loads(_TRAILING.sub(lambda match: match[1] or "", text))
    except (ValueError, RecursionError) as error:
        raise _problem(place, f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _problem(place, "it is not a JSON object")
    return value


def _read(
    values: Mapping[str, Any], source: str, spelled: Mapping[str, str] | None = None
) -> LazyConfig:
    names = spelled or {name: name for name in VARIABLES}
    missing = [
        Problem(source, f"{names[name]} is missing, or not a text")
        for name in VARIABLES
        if not isinstance(values.get(name), str) or not values[name]
    ]
    if missing:
        raise ConfigError(missing)
    alias = values["key_alias"]
    key = alias if alias.startswith(("alias/", "arn:")) else f"alias/{alias}"
    try:
        parse_key_reference(key)
    except Malformed as error:
        raise _problem(source, f"{names['key_alias']}: {error}") from error
    return LazyConfig(values["s3_path"], key, values["region"], source)


def _problem(place: str, text: str) -> ConfigError:
    return ConfigError([Problem(place, text)])
