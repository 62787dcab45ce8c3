"""The proxy's own pages behind a real relay."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from ipaddress import ip_address

import pytest

from iam_auth_proxy.config.values import parse_trust
from iam_auth_proxy.proxy.decisions.questions import Choice, Question, Questions
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.listeners.listen import own_hosts
from iam_auth_proxy.proxy.pages.own import application
from iam_auth_proxy.proxy.pages.status import Status
from iam_auth_proxy.proxy.process.running import OwnPages
from iam_auth_proxy.relay.addresses import AddressPolicy
from iam_auth_proxy.relay.dial import TcpDialer
from iam_auth_proxy.relay.relay import Relay
from tests.proxy.conftest import Answer, exchange
from tests.relay.conftest import OpenSteering


class Own:
    """A relay with own pages on a port, which would dial nothing but what it may."""

    def __init__(self) -> None:
        self.trust = Trust([parse_trust("http://grafana.internal")])
        self.aliases: dict[str, str] = {}
        self.identity = ""
        self.asked: list[str] = []
        self.answers: list[tuple[Question, Choice]] = []

    async def start(self, stack: AsyncExitStack) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        pages = OwnPages()
        policy = AddressPolicy(listeners=[(ip_address("127.0.0.1"), self.port)])
        self.relay = Relay(dialer=TcpDialer(policy), steering=OpenSteering(), own=pages.dial)
        stack.push_async_callback(self.relay.close)
        self.questions = Questions(lambda question, choice: self.answers.append((question, choice)))
        hosts = own_hosts([listener])
        served = application(self.status, self.trust.routes, self.questions, self.identify, hosts)
        pages.serve(stack, lambda: served)
        server = await asyncio.get_running_loop().create_server(
            self.relay.connection, sock=listener
        )
        stack.callback(server.close)

    async def identify(self, profile: str) -> str:
        self.asked.append(profile)
        return self.identity

    def status(self) -> Status:
        origins = tuple(str(rule) for rule in self.trust.rules)
        gauges = {"client_connections": self.relay.clients}
        counters = {**self.relay.counters.snapshot()}
        return Status(self.host, origins, counters, gauges, self.aliases)

    async def ask(
        self,
        target: str,
        host: str | None = None,
        method: str = "GET",
        extra: str = "",
        body: str = "",
    ) -> Answer:
        host = self.host if host is None else host
        head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{extra}\r\n"
        return Answer.parse(await exchange(self.port, (head + body).encode("latin-1")))


@pytest.fixture
async def own() -> AsyncIterator[Own]:
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        own = Own()
        await own.start(stack)
        yield own
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    left.discard(asyncio.current_task())
    assert not left, left
