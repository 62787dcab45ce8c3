"""``client_cert`` and ``client_key`` of an ``[[app]]``: what the proxy shows an app on https. ::

    client_cert = "~/certs/me.pem"       # with its chain
    client_key = "~/certs/me.key"        # absent: in the same file

The files are looked at when the configuration is read, and read when a connection is made: one that
is renewed needs no reload.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from iam_auth_proxy.config.sources import App
from iam_auth_proxy.config.values import HTTPS, ClientCertificate, TrustRule, shown
from iam_auth_proxy.errors import Problem

KEYS: Final = ("client_cert", "client_key")


def read_client_certificate(
    app: App, rule: TrustRule | None, problems: list[Problem]
) -> ClientCertificate | None:
    """What an app says of a client certificate; None where nothing, or something wrong.

    A certificate says who one is. So it is not for a wildcard, under which others may have names.

    :param rule: the app's origin; None: that is wrong already.
    """
    before = len(problems)
    paths = []
    for key in KEYS:
        value = app.table.get(key, "")
        if not isinstance(value, str) or "\0" in value:
            problems.append(Problem(app.place_of(key), f"{key} must be the path of a PEM file"))
            value = ""
        paths.append(os.path.expanduser(value))
    certificate, key = paths
    if not certificate and key:
        text = "client_key is the key of a client_cert, and there is none"
        problems.append(Problem(app.place_of("client_key"), text))
    place = app.place_of("client_cert")
    if certificate and rule is not None:
        if rule.scheme != "https":
            problems.append(Problem(place, f"{rule} is not an https:// origin"))
        elif rule.wildcard:
            text = "a wildcard is shown no certificate: list such an app by its own name"
            problems.append(Problem(place, text))
        elif app.table.get("https") == HTTPS[2]:
            text = f'{rule}: the TLS of a tunnel is the client\'s own. Say https = "{HTTPS[0]}"'
            problems.append(Problem(place, text))
    if not certificate or len(problems) > before:
        return None
    found = ClientCertificate(certificate, key or certificate)
    _check_files(found, place, app.place_of("client_key" if key else "client_cert"), problems)
    return found if len(problems) == before else None


def _check_files(
    found: ClientCertificate, place: str, key_place: str, problems: list[Problem]
) -> None:
    import ssl  # the commands that read no such file do without

    for path, where in ((found.certificate, place), (found.key, key_place)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            problems.append(Problem(where, f"{shown(path)}: {error.strerror}"))
            return
    exposed = _exposed(found.key)
    if exposed:
        problems.append(Problem(key_place, exposed))
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
            found.certificate, found.key, _no_passphrase
        )
    except _Encrypted:
        text = f"{shown(found.key)}: is encrypted, and nobody could type its passphrase"
        problems.append(Problem(key_place, text))
    except (OSError, ValueError) as error:
        same = "it" if found.key == found.certificate else shown(found.key)
        text = f"{shown(found.certificate)}: {same} is not its key, or not PEM"
        said = getattr(error, "reason", None)
        problems.append(Problem(place, f"{text} ({said})" if said else text))


def _exposed(path: str) -> str:
    """What is wrong with who may read a key; empty: nothing. Its owner's group may, of root's."""
    if os.name != "posix":
        return ""
    found = os.stat(path)
    allowed = stat.S_IRGRP if found.st_uid == 0 else 0
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~allowed:
        return f"others can read or write the key. Run: chmod go-rwx {path}"
    return ""


class _Encrypted(ValueError):
    pass


def _no_passphrase() -> str:
    """OpenSSL would ask on the terminal."""
    raise _Encrypted
