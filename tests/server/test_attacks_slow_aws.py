"""An AWS that does not answer must not take the app's own threads with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from iam_auth_proxy.server import Gate, mount
from iam_auth_proxy.server.wsgi import IamAuth
from iam_auth_proxy.testing import signed_in
from tests.server.conftest import ANN, FakeAws, GateMaker
from tests.server.test_wsgi import Inner, call


class Silent(FakeAws):
    """``came`` is released by every call; none comes back before ``go_on``."""

    def __init__(self) -> None:
        super().__init__()
        self.came, self.go_on = threading.Semaphore(0), threading.Event()

    def _call(self, name: str) -> None:
        self.came.release()
        self.go_on.wait(30)


@pytest.fixture
def silent() -> Iterator[Silent]:
    aws = Silent()
    yield aws
    aws.go_on.set()


def test_sign_ins_hold_so_many_threads_of_a_wsgi_server_and_no_more(
    make_gate: GateMaker, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount, "WSGI_PATIENCE", 0.01)
    gate = Gate(make_gate().settings, kms=silent, sts=silent)
    app: Any = IamAuth(Inner(), gate=gate)
    statuses: list[str] = []

    def sign_in() -> None:
        statuses.append(call(app, "/auth", QUERY_STRING="token=QUFB&return_url=/")[0])

    threads = [threading.Thread(target=sign_in) for _ in range(mount.WSGI_THREADS)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert silent.came.acquire(timeout=10)
    status, headers, _ = call(app, "/auth", QUERY_STRING="token=QUFB&return_url=/")
    assert (status, headers["Iam-Auth-Error"]) == ("503 Service Unavailable", "aws-unavailable")
    assert "Retry-After" in headers
    assert call(app, "/", HTTP_COOKIE=str(signed_in(gate, ANN)))[0] == "204 No Content"
    silent.go_on.set()
    for thread in threads:
        thread.join(10)
    assert statuses == ["403 Forbidden"] * len(threads)
    assert call(app, "/auth", QUERY_STRING="token=QUFB&return_url=/")[0] == "403 Forbidden"
