"""Builds the proxy's parts from its settings, and changes them when the settings change."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Final, TypeVar

from iam_auth_proxy.aws.base import CallerIdentity, Principal, Principals
from iam_auth_proxy.aws.credentials import AwsPrincipals, CredentialSettings
from iam_auth_proxy.aws.offload import Offload
from iam_auth_proxy.aws.profiles import profiles_for
from iam_auth_proxy.config import DIRECT, Settings
from iam_auth_proxy.errors import IamAuthError
from iam_auth_proxy.names import Origin, parse_key_arn
from iam_auth_proxy.proxy.decisions.decide import SignInMode
from iam_auth_proxy.proxy.decisions.inforce import Reach
from iam_auth_proxy.proxy.decisions.questions import Choice, Question, Questions
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.decisions.trustfile import trust_of
from iam_auth_proxy.proxy.https.aliases import address_of, app_of, url_of
from iam_auth_proxy.proxy.https.ca import ORGANISATION, Authorities, default_folder
from iam_auth_proxy.proxy.https.intercept import Interception
from iam_auth_proxy.proxy.listeners.descriptors import available, fitting
from iam_auth_proxy.proxy.listeners.entrance import Entrances
from iam_auth_proxy.proxy.listeners.listen import own_hosts, reachable
from iam_auth_proxy.proxy.pages.status import Count, Status
from iam_auth_proxy.proxy.process.whoami import Whoami, whoami
from iam_auth_proxy.proxy.signin.prover import AskMfa
from iam_auth_proxy.proxy.signin.signins import SignIns
from iam_auth_proxy.proxy.steering import Steering
from iam_auth_proxy.proxy.upstream.bastion import Bastions
from iam_auth_proxy.proxy.upstream.vias import Vias
from iam_auth_proxy.relay.addresses import (
    AddressPolicy,
    IPAddress,
    cannot_be_public,
    parse_target,
)
from iam_auth_proxy.relay.dial import TcpDialer, is_own_address
from iam_auth_proxy.relay.exchange import Fetched, RequestHead
from iam_auth_proxy.relay.limits import Limits
from iam_auth_proxy.relay.relay import Relay
from iam_auth_proxy.relay.tls import ClientTls
from iam_auth_proxy.relay.via import Via, parse_connect_to

log = logging.getLogger(__name__)

AWS_THREADS: Final = 8
SOON: Final = 3.0
"""Seconds that a page waits for what it could do without."""
MAX_REACHES: Final = 64
"""Hosts besides the listed ones that browsers send here: those that a command opened."""

_P = TypeVar("_P", bound=asyncio.BaseProtocol)

DialOwn = Callable[[], Awaitable[socket.socket]]


class Parts:
    """The proxy, but for its listeners.

    :ivar entrances: who may come in by which listener.
    :ivar hosts: the values of Host under which the proxy's own pages may be asked for.
    :ivar alias_port: where each alias has an address of its own; 0: nowhere.
    :ivar on_trust_change: called when other apps are listed, by whatever thread came to see it.
    :param listeners: the sockets that the proxy listens on, whose addresses it never dials.
    :param dial_own: connects to the proxy's own pages, in process.
    :param ask_mfa: asks the person for an MFA code; None where nobody can be asked.
    :raises ConfigError: the settings name what cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        listeners: Sequence[socket.socket],
        dial_own: DialOwn,
        ask_mfa: AskMfa | None,
    ) -> None:
        self._environ = environ
        self.entrances = Entrances(settings)
        self.hosts: set[str] = set()
        self._listeners: set[tuple[IPAddress, int]] = set()
        self._reaches: dict[Origin, Reach] = {}
        self.add_listeners(listeners)
        trust = trust_of(settings)
        self._credentials = _credentials(settings)
        self._off_loop = Offload(AWS_THREADS)
        self.bastions = Bastions(environ)
        dialer, vias = self._dialer(settings, trust)
        self._vias = vias
        self._route = _Route(dialer)
        self.signins = SignIns(
            principals=AwsPrincipals(self._credentials, environ, _key_region(settings)),
            trust=trust,
            off_loop=self._off_loop,
            fetch=self._fetch,
            ask_mfa=ask_mfa,
            clock=time.time,
            monotonic=time.monotonic,
            profiles_for=profiles_for,
        )
        self._own_address = reachable(listeners)
        self.alias_port = settings.alias_port
        self.on_trust_change: Callable[[], None] = lambda: None
        self.questions = Questions(self._answered)
        self._interception = Interception(Authorities(default_folder()), time.time)
        self._interception.look_at(settings.trust)
        self.steering = Steering(
            self.signins,
            mode=SignInMode(settings.sign_in),
            monotonic=time.monotonic,
            questions=self.questions,
            own_address=self._own_address,
            hosts=self.hosts,
            alias_port=settings.alias_port,
            interception=self._interception,
        )
        limits = fitting(Limits(), available())
        self.relay = Relay(dialer=self._route, steering=self.steering, limits=limits, own=dial_own)
        self.relay.keep_bodies(settings.replay_body)
        trust.on_change = self._trust_changed

    def apply(self, settings: Settings) -> None:
        """Other settings from now on; exchanges under way end as they began.

        :raises ConfigError: and nothing has changed.
        """
        trust = trust_of(settings, self.signins.trust)
        dialer, vias = self._dialer(settings, trust)
        change_users = self.entrances.prepare(settings)
        self.signins.reconfigure(self._principals(settings), trust)
        trust.on_change = self._trust_changed
        self.steering.mode = SignInMode(settings.sign_in)
        self._route.dialer = dialer
        self._vias = vias
        self.start_bastions()
        self.relay.keep_bodies(settings.replay_body)
        self._interception.look_at(settings.trust)
        ended = self.relay.end_clients(change_users())
        if ended:
            log.info("connections ended with a password", extra={"connections": ended})
        self._trust_changed()

    def add_listeners(self, listeners: Iterable[socket.socket]) -> None:
        """From now on these are ourselves: not dialled, and places of our own pages."""
        for listener in listeners:
            self.never_dial(listener)
            self.hosts.update(own_hosts([listener]))

    def never_dial(self, listener: socket.socket) -> None:
        """Adds a listener of our own: never dialled, and without our own pages."""
        self._listeners.update(_endpoints(listener))

    def forget_listeners(self, listeners: Iterable[socket.socket]) -> None:
        """Forgets listeners of our own, which have to be open still."""
        for listener in listeners:
            self._listeners.difference_update(_endpoints(listener))
            self.hosts.difference_update(own_hosts([listener]))

    def reaches(self) -> tuple[Reach, ...]:
        """What browsers are to send here, as it is now."""
        self.signins.trust.refresh()
        return (*self.signins.trust.routes(), *self._reaches.values())

    def reach(self, origin: Origin) -> None:
        """From now on browsers send this origin's host here, too, where the person is asked.

        It is the person's own word, of a command: else a first contact would go past the proxy.
        """
        self._reaches.pop(origin, None)
        self._reaches[origin] = Reach(origin.scheme, origin.host, origin.port)
        while len(self._reaches) > MAX_REACHES:
            del self._reaches[next(iter(self._reaches))]

    def _trust_changed(self) -> None:
        """Another route may lead to a host, and another profile be used, than a page shows."""
        self.relay.retire_connections()
        self.relay.close_unlisted()
        self.questions.forget()
        self.on_trust_change()

    def _answered(self, question: Question, choice: Choice) -> None:
        self.steering.answered(question, choice)

    async def close(self) -> None:
        """Ends what was built."""
        await self.signins.close()
        await self.relay.close()
        await self.bastions.close()
        self.entrances.close()
        self._off_loop.close()
        self._interception.close()

    async def caller(self, deadline: float, profile: str = "") -> CallerIdentity:
        """Who signs in; asks AWS unless it is known."""
        identity = self.signins.principals.of(profile).identity
        return await self._off_loop(identity, time.time(), deadline=deadline)

    async def identify(self, profile: str) -> str:
        """The ARN that a question shows; empty where AWS does not say it soon."""
        try:
            return (await self.caller(SOON, profile)).arn
        except IamAuthError as error:
            log.info("a question shows no identity: %s", error)
            return ""

    async def whoami(self, origin: Origin | None, deadline: float) -> Whoami:
        """Which identity an app would see.

        :raises IamAuthError: as :func:`~iam_auth_proxy.proxy.process.whoami.whoami`.
        """
        signins = self.signins
        given = (signins.principals, signins.trust, origin, time.time(), self._own_address)
        return await self._off_loop(whoami, *given, deadline=deadline)

    async def enter_mfa(self, code: str, deadline: float) -> None:
        """Begins the MFA session of who signs in by default.

        :raises MfaRefused: wrong serial or code.
        """
        enter = self.signins.principals.of().enter_mfa
        await self._off_loop(enter, code, deadline=deadline)

    def status(self, address: str) -> Status:
        """What the proxy's own pages show."""
        counters: dict[str, Count] = {**self.relay.counters.snapshot()}
        counters["signins_completed"] = self.signins.completed
        counters["signins_refused"] = self.signins.refused
        counters["signins_unavailable"] = self.signins.unavailable
        counters["challenges_refused"] = self.steering.challenges_refused
        counters["signins_rejected"] = self.signins.rejected
        counters["signins_renewed"] = self.signins.renewed
        counters["tokens_made"] = self.signins.tokens.made
        counters["tokens_failed"] = self.signins.tokens.failed
        tunnels = self.bastions.states()
        counters["ssh_starts"] = sum(each.starts for each in tunnels)
        gauges = {
            "client_connections": self.relay.clients,
            "origin_connections": self.relay.origins,
            "signins_in_progress": self.signins.in_progress,
            "sessions_held": len(self.signins.held),
            "ssh_tunnels_up": sum(each.state == "up" for each in tunnels),
            "tasks": len(asyncio.all_tasks()),
        }
        origins = tuple(str(rule) for rule in self.signins.trust.rules)
        aliases = {str(app): self.alias_of(app) for app in self.signins.trust.aliases.values()}
        return Status(address, origins, counters, gauges, aliases)

    def alias_of(self, origin: Origin) -> str:
        """The URL of an app on https under its name of ``.localhost``; empty: it has none."""
        app = self.signins.trust.listed(origin)
        return "" if app is None else url_of(app.alias, self._own_address)

    def alias_address_of(self, origin: Origin) -> str:
        """The URL of an alias at its own loopback address (``--alias-port``)."""
        app = self.signins.trust.listed(origin)
        if app is None or not app.alias or not self.alias_port:
            return ""
        return str(Origin("http", address_of(app.alias), self.alias_port))

    def app_of(self, origin: Origin) -> Origin:
        """The app that is known by this origin, where it is an alias; otherwise the origin."""
        return app_of(origin, self.signins.trust, self._own_address, self.alias_port)

    def _principals(self, settings: Settings) -> Principals:
        """Who signs in after a reload: what AWS's own files say is read anew.

        Where nothing changed, a session that took an MFA code is kept; and no code is used twice.
        """
        before, after = self._credentials, _credentials(settings)
        if before == after and after.mfa_serial:
            return self.signins.principals
        self._credentials = after
        if before.mfa_code == after.mfa_code:
            after = replace(after, mfa_code="")
        return AwsPrincipals(after, self._environ, _key_region(settings))

    async def _fetch(
        self,
        origin: Origin,
        request: RequestHead,
        body: bytes,
        *,
        limit: int,
        deadline: float,
        identified: bool,
    ) -> Fetched:
        return await self.relay.fetch(
            origin, request, body, limit=limit, deadline=deadline, identified=identified
        )

    def start_bastions(self) -> None:
        """From now on those of the settings in force: the default one at once, others when needed.

        Somebody who names one for everything is there to answer what it asks, and waits for it.
        """
        self.bastions.keep(self._vias.bastions)
        if self._vias.bastion is not None:
            self._vias.bastion.start()

    def _dialer(self, settings: Settings, trust: Trust) -> tuple[TcpDialer, Vias]:
        policy = AddressPolicy(
            [parse_target(text) for text in settings.allow_targets],
            listeners=self._listeners,
            is_own=is_own_address,
        )
        vias = Vias(settings, self._environ, self.bastions)

        def inside(origin: Origin) -> bool:
            host = origin.host
            asked = any(each.host == host for each in self._reaches)
            return asked or cannot_be_public(host) or trust.lists_host(host)

        def via_for(origin: Origin) -> Via | None:
            trust.refresh()  # a route that was added a moment ago counts for the next request
            return vias.of(origin, trust.via(origin), inside=inside)

        dialer = TcpDialer(
            policy,
            via_for=via_for,
            connect_to=[parse_connect_to(text) for text in settings.connect_to],
            tls=ClientTls(settings.cacert, never_by=ORGANISATION),
            identity_for=lambda origin: trust.clients.get(origin),
            trusted=lambda origin: trust.trusts(origin) or trust.via(origin) not in ("", DIRECT),
        )
        return dialer, vias


def _endpoints(listener: socket.socket) -> set[tuple[IPAddress, int]]:
    name = listener.getsockname()
    return {(ip_address(name[0]), name[1])} if isinstance(name, tuple) else set()


def whoami_of(settings: Settings, environ: Mapping[str, str], origin: Origin | None) -> Whoami:
    """The same where no proxy runs. Blocks.

    :raises IamAuthError: as :func:`~iam_auth_proxy.proxy.process.whoami.whoami`.
    """
    principals = AwsPrincipals(_credentials(settings), environ, _key_region(settings))
    bind, trust = settings.bind, trust_of(settings)
    place = f":{bind.port}" if bind.port else ""
    if origin is not None:
        origin = app_of(origin, trust, place, settings.alias_port)
    return whoami(principals, trust, origin, time.time(), place)


def principal_of(settings: Settings, environ: Mapping[str, str], key_region: str) -> Principal:
    """Who signs in by default, where no proxy runs. Asks AWS nothing yet.

    :param key_region: where STS is asked if nothing else says a region.
    """
    return AwsPrincipals(_credentials(settings), environ, key_region).of()


class _Route:
    """The dialer in force: a reload puts another in its place."""

    def __init__(self, dialer: TcpDialer) -> None:
        self.dialer = dialer

    async def connect(
        self, origin: Origin, protocol_factory: Callable[[], _P]
    ) -> tuple[asyncio.Transport, _P]:
        """See :class:`~iam_auth_proxy.relay.exchange.Dialer`."""
        return await self.dialer.connect(origin, protocol_factory)

    async def secure(
        self, origin: Origin, protocol_factory: Callable[[], _P], *, identified: bool = False
    ) -> tuple[asyncio.Transport, _P]:
        """See :class:`~iam_auth_proxy.relay.exchange.Dialer`."""
        return await self.dialer.secure(origin, protocol_factory, identified=identified)

    def tls_only(self, origin: Origin) -> bool:
        """See :class:`~iam_auth_proxy.relay.exchange.Dialer`."""
        return self.dialer.tls_only(origin)


def _key_region(settings: Settings) -> str:
    """Where STS is asked if nothing else says a region: that of the first key that is named."""
    keys = (key for rule in settings.trust for key in rule.keys)
    return next((parse_key_arn(key).region for key in keys), "")


def _credentials(settings: Settings) -> CredentialSettings:
    return CredentialSettings(
        profile=settings.profile,
        region=settings.region,
        assume_role_arn=settings.assume_role_arn,
        external_id=settings.assume_role_external_id,
        session_name=settings.assume_role_session_name,
        policy=settings.assume_role_policy,
        duration_seconds=int(settings.session_duration),
        mfa_serial=settings.mfa_serial_number,
        mfa_code=settings.mfa_token_code,
        further_authorities=settings.cacert,
        login_role_arn=settings.login_role_arn,
    )
