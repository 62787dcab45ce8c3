"""A stored key ring as JSON: one object, every member present, none besides.

::

    {"format": "iam-auth-keyring/1",
     "policy": {"rotate_every": 2592000, "max_session": 43200, "poll": 30, "skew": 60, "read": 10,
                "outage": 3600},
     "versions": [{"id": "…", "material": "BASE64" or null, "created": …, "activates": … or null,
                   "retires": … or null, "destroys": … or null, "disabled": … or null}],
     "salts": [{"salt": "…", "until": …}]}

It lies in a secret store, which seals it and knows its number: see ``record``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.protocol.lifecycle import Policy, Version
from iam_auth_proxy.protocol.stored_ring import MAX_SALTS, MAX_VERSIONS, Salt, StoredRing
from iam_auth_proxy.protocol.strict import decode_base64, encode_base64, loads_object

FORMAT: Final = "iam-auth-keyring/1"
MAX_RECORD: Final = 1 << 18
"""Bytes."""

_POLICY = {each.name: (int,) for each in fields(Policy)}
_TIME = (int, type(None))
_VERSION = {
    "id": (str,), "material": (str, type(None)), "created": (int,), "activates": _TIME,
    "retires": _TIME, "destroys": _TIME, "disabled": _TIME,
}  # fmt: skip
_SALT = {"salt": (str,), "until": (int,)}
_RING = {"format": (str,), "policy": (dict,), "versions": (list,), "salts": (list,)}


def dumps(stored: StoredRing) -> bytes:
    """What :func:`loads` reads. It holds every material: only a sealed store may see it."""
    versions = []
    for version in stored.versions:
        material = None if version.material is None else encode_base64(version.material)
        versions.append(asdict(version) | {"material": material})
    ring = {
        "format": FORMAT,
        "policy": asdict(stored.policy),
        "versions": versions,
        "salts": [asdict(each) for each in stored.salts],
    }
    return json.dumps(ring, separators=(",", ":")).encode()


def loads(data: bytes) -> StoredRing:
    """A record.

    :raises Malformed: it is none, or not a good one; never with anything of the material.
    """
    ring = loads_object(data, "the key ring", at_most=MAX_RECORD)
    if ring.get("format") != FORMAT:
        raise Malformed(f"the key ring is not of the format {FORMAT}")
    _check(ring, _RING, "the key ring")
    if len(ring["versions"]) > MAX_VERSIONS or len(ring["salts"]) > MAX_SALTS:
        raise Malformed("the key ring has too many versions or salts")
    _check(ring["policy"], _POLICY, "the policy of the key ring")
    return StoredRing(
        policy=Policy(**ring["policy"]),
        versions=tuple(_version(each) for each in ring["versions"]),
        salts=tuple(_salt(each) for each in ring["salts"]),
    )


def _version(given: object) -> Version:
    found = _check(given, _VERSION, "a version of the key ring")
    if found["material"] is not None:
        found["material"] = decode_base64(found["material"], "a version's material")
    return Version(**found)


def _salt(given: object) -> Salt:
    return Salt(**_check(given, _SALT, "a salt of the key ring"))


def _check(given: object, members: Mapping[str, tuple[type, ...]], what: str) -> dict[str, Any]:
    """The members, which are all there, none besides, and of their types.

    :raises Malformed: otherwise.
    """
    if not isinstance(given, dict) or given.keys() != members.keys():
        raise Malformed(f"{what} has other members than it should")
    for name, types in members.items():
        # bool is an int to isinstance.
        if type(given[name]) not in types:
            raise Malformed(f"{what} has {name!r} of another type than it should be")
    return given
