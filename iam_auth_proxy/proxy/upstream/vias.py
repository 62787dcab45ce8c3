"""The upstream proxies by name, with their passwords, which come from files or the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from iam_auth_proxy.config import DIRECT, Settings, ViaSettings
from iam_auth_proxy.errors import ConfigError, Malformed, Problem
from iam_auth_proxy.names import Origin
from iam_auth_proxy.proxy.upstream.bastion import LOOPBACK, Bastion, Bastions
from iam_auth_proxy.relay import failures
from iam_auth_proxy.relay.via import Via, parse_via

_PASSWORD: Final = "IAM_AUTH_PROXY_SOCKS_PASSWORD"  # noqa: S105  # the name of a variable


class Vias:
    """``[via.NAME]``, and the default route of ``--socks-proxy`` or ``--ssh-bastion``.

    :ivar bastion: the tunnel that is the default route, for apps; None: there is none.
    :ivar bastions: all of them.
    :raises ConfigError: a password is missing, cannot be read, or does not fit.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str], bastions: Bastions) -> None:
        self._default = default_via(settings.socks_proxy, environ)
        self.bastion: Bastion | None = None
        self.bastions: list[Bastion] = []
        if settings.ssh_bastion:
            self.bastion = bastions.of(settings.ssh_bastion, settings.ssh)
            self.bastions.append(self.bastion)
        self._named: dict[str, Via] = {}
        for via in settings.vias.values():
            if via.ssh_bastion:
                bastion = bastions.of(via.ssh_bastion, via.ssh)
                self.bastions.append(bastion)
                self._named[via.name] = _through(bastion)
                continue
            self._named[via.name] = named_via(via)

    def of(self, origin: Origin, name: str, *, inside: Callable[[Origin], bool]) -> Via | None:
        """The upstream proxy of an origin; None: it is reached directly.

        :param name: its route, ``direct``, or empty: the default one.
        :param inside: whether an origin belongs behind the bastion; asked for the default one.
        :raises PathError: nobody defined that route, and it is not gone around.
        """
        if name == DIRECT:
            return None
        if not name and self.bastion is not None:
            return _through(self.bastion) if inside(origin) else None
        if not name:
            return self._default
        if name not in self._named:
            raise failures.no_route(origin.host, name)
        return self._named[name]


def _through(bastion: Bastion) -> Via:
    return Via("socks5h", LOOPBACK, 0, tunnel=bastion)


def named_via(via: ViaSettings) -> Via:
    """A route's upstream proxy, with its password.

    :raises ConfigError: see :class:`Vias`.
    """
    return _with_password(
        parse_via(via.socks),
        place=via.place,
        file=os.path.expanduser(via.password_file),
        remedy=f"add password_file to [via.{via.name}]",
    )


def default_via(text: str, environ: Mapping[str, str]) -> Via | None:
    """``--socks-proxy`` with its password; None where there is none.

    :raises ConfigError: see :class:`Vias`.
    """
    if not text:
        return None
    password = environ.get(_PASSWORD, "")
    file = environ.get(f"{_PASSWORD}_FILE", "")
    return _with_password(
        parse_via(text),
        place="--socks-proxy",
        password=password,
        file="" if password else file,
        password_place=_PASSWORD if password or not file else f"{_PASSWORD}_FILE",
        remedy=f"set {_PASSWORD}",
    )


def _with_password(
    via: Via,
    *,
    place: str,
    remedy: str,
    password: str = "",
    file: str = "",
    password_place: str = "",
) -> Via:
    where = password_place or place
    try:
        if file:
            password = Path(file).read_text("utf-8").rstrip("\r\n")
        # The variable may be there for another proxy; a file was named for this one.
        if password and (via.user or (file and not password_place)):
            via = via.with_password(password)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(where, f"{file}: cannot be read: {error}")]) from error
    except Malformed as error:
        raise ConfigError([Problem(where, str(error))]) from error
    if via.needs_password:
        raise ConfigError([Problem(place, f"a user needs a password: {remedy}")])
    return via
