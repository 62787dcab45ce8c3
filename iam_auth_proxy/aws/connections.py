"""boto3's clients, shared: deadlines, retries, and whose signature goes on each call.

One :class:`Connections` holds one client per service and region; making one takes longer than a
call. The clients have no credentials of their own: each call brings those it is signed with. So a
client never outlives its credentials, one client serves every user of a server, and a call whose
credentials got lost on the way fails instead of being signed by somebody else.

Where AWS is, is botocore's own configuration (``AWS_ENDPOINT_URL_STS`` and the like).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

from iam_auth_proxy import __version__
from iam_auth_proxy.aws.authorities import bundle
from iam_auth_proxy.aws.base import AS_USUAL, ClientSettings
from iam_auth_proxy.aws.failures import NO_ANSWER, UNREADABLE, Asked, from_botocore_error, no_answer
from iam_auth_proxy.aws.identity_check import IdentityCheck

_ATTEMPTS: Final = 3


_signer: ContextVar[Credentials | None] = ContextVar("_signer", default=None)


def _sign_with(params: Mapping[str, Any], **_: object) -> None:
    """botocore's ``before-call`` event: whose credentials this one request is signed with."""
    signer = _signer.get()
    if signer is not None:
        params["context"].setdefault("signing", {})["request_credentials"] = signer


@contextmanager
def _signed_by(signer: Credentials) -> Iterator[None]:
    token = _signer.set(signer)
    try:
        yield
    finally:
        _signer.reset(token)


_warnings: ContextVar[list[logging.LogRecord] | None] = ContextVar("_warnings", default=None)


class _Refreshes(logging.Filter):
    """botocore logs a failed refresh with its traceback, and then raises it: once is enough."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        record.exc_text = None
        warnings = _warnings.get()
        if warnings is None or record.levelno < logging.WARNING:
            return True
        warnings.append(record)
        return False


for _name in ("botocore.credentials", "botocore.tokens"):
    logging.getLogger(_name).addFilter(_Refreshes())


@contextmanager
def said_once() -> Iterator[None]:
    """What botocore warns of in here is for a debug log where it is raised as well.

    It is a warning where it is not: credentials that could not be renewed and are still good.
    """
    warnings: list[logging.LogRecord] = []
    token = _warnings.set(warnings)
    raised = True
    try:
        yield
        raised = False
    finally:
        _warnings.reset(token)
        for record in warnings:
            logger = logging.getLogger(record.name)
            if raised:
                record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)


class _NothingOfOurs(logging.Filter):
    """At level DEBUG botocore logs requests and answers: what KMS opened and whose token it was.

    A server's log level is its app's to choose, so none of that is said of the calls made here. Of
    the app's own calls everything is.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return _signer.get() is None or record.levelno > logging.DEBUG


for _name in ("auth", "endpoint", "parsers"):
    logging.getLogger(f"botocore.{_name}").addFilter(_NothingOfOurs())

_loader: Any = None
"""Of the service descriptions, which take most of the time of making a first client: read once."""


def new_session(profile: str = "", further_authorities: str = "") -> botocore.session.Session:
    """A session that reads the files and the environment anew.

    It is botocore's, which is where credentials and configuration are to be had; clients are made
    of it by boto3.

    :param further_authorities: a PEM file of certificate authorities to trust besides the usual.
    :raises BotoCoreError: there is no such profile, AWS_PROFILE's too; or a file is not readable.
    """
    global _loader
    session = botocore.session.Session(profile=profile or None)
    if _loader is None:  # not on import: a profile may say where they are, and be missing
        _loader = session.get_component("data_loader")
    session.register_component("data_loader", _loader)
    if further_authorities:
        usual = session.get_config_variable("ca_bundle")
        session.set_config_variable("ca_bundle", bundle(further_authorities, usual))
    return session


class Connections:
    """The clients of one session's configuration. Safe to use from any thread.

    :ivar identities: has STS verify what others signed.
    """

    def __init__(
        self, session: botocore.session.Session, settings: ClientSettings = AS_USUAL
    ) -> None:
        self._settings = settings
        self._session = boto3.session.Session(botocore_session=session)
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()
        self.identities = IdentityCheck(session, self._lock)

    def client(self, service: str, region: str) -> Any:
        """The client of a service in a region."""
        client = self._clients.get((service, region))
        if client is None:
            with self._lock:  # sessions are not safe to share between threads
                client = self._clients.get((service, region))
                if client is None:
                    client = self._make(service, region)
                    self._clients[service, region] = client
        return client

    def _make(self, service: str, region: str) -> Any:
        make: Any = self._session.client  # its stubs know each service by a name of its own
        settings = self._settings
        client = make(
            service,
            region_name=region,
            endpoint_url=(settings.kms_endpoint if service == "kms" else "") or None,
            # Placeholders. Each call brings its own signer; one that forgot must be refused by AWS.
            aws_access_key_id="nobody",
            aws_secret_access_key="nobody",  # noqa: S106  # opens nothing
            config=Config(
                connect_timeout=settings.connect_timeout,
                read_timeout=settings.read_timeout,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                max_pool_connections=settings.connections,
                user_agent_extra=f"iam-auth-proxy/{__version__}",
            ),
        )
        client.meta.events.register(f"before-call.{service}", _sign_with)
        return client

    def call(
        self,
        service: str,
        region: str,
        operation: str,
        signer: Credentials,
        resource: str = "",
        action: str = "",
        **parameters: Any,
    ) -> Answer:
        """One call; ``operation`` is the method's name (``encrypt``).

        :param action: as IAM spells it, where that is not the operation's own name.

        :raises AwsError: AWS said no.
        :raises AwsUnavailable: AWS did not answer.
        """
        own = f"{service}:{''.join(part.title() for part in operation.split('_'))}"
        asked = Asked(action or own, resource)
        try:
            method = getattr(self.client(service, region), operation)
        except BotoCoreError as error:  # a region or setting that makes no sense
            raise from_botocore_error(error, asked) from error
        try:
            with _signed_by(signer):
                answer: Mapping[str, Any] = method(**parameters)
        except (BotoCoreError, ClientError, *NO_ANSWER, *UNREADABLE) as error:
            raise from_botocore_error(error, asked) from error
        return Answer(answer, asked)


class Answer:
    """An answer whose missing members are an outage: half an answer parses, too."""

    def __init__(self, members: Mapping[str, Any], asked: Asked) -> None:
        self._members = members
        self._asked = asked

    def __getitem__(self, name: str) -> Any:
        try:
            return self._members[name]
        except KeyError:
            raise no_answer(self._asked, f"the answer has no {name}") from None

    def get(self, name: str, absent: Any) -> Any:
        """A member that need not be there."""
        return self._members.get(name, absent)

    def part(self, name: str) -> Answer:
        """A member that has members itself."""
        return Answer(self[name], self._asked)
