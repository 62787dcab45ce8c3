"""The original packages and ours, side by side: what is closed here fails there."""

from __future__ import annotations

import datetime
import importlib
import time
from collections.abc import Generator
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import botocore.session
import pytest

from tests.tokens.conftest import Stage, stage

__all__ = ["Stage", "stage"]

OURS = "iam_auth_proxy.compat."


_FAILS = "fails with "


def both(name: str) -> Any:
    """A fixture's parameters: our module, and the original, with which the test has to fail.

    A test that passes with the original shows no defect, and is an error.
    """
    return [pytest.param(OURS + name, id="ours"), pytest.param(_FAILS + name, id="original")]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, bool | None, bool | None]:
    params = pyfuncitem.callspec.params if hasattr(pyfuncitem, "callspec") else {}
    if not str(params.get("module", "")).startswith(_FAILS):
        return (yield)
    try:
        yield
    except (Exception, pytest.fail.Exception):  # noqa: BLE001  # however it fails
        return True
    pytest.fail("it passes with the original: it shows no defect")


def either(name: str) -> Any:
    """The same for what both do."""
    return [pytest.param(OURS + name, id="ours"), pytest.param(name, id="original")]


class Clock:
    """The time that kmsauth's modules see; starts now."""

    def __init__(self, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        clock = self

        class Moment(datetime.datetime):
            @classmethod
            def utcnow(cls) -> datetime.datetime:
                return datetime.datetime.fromtimestamp(clock(), datetime.UTC).replace(tzinfo=None)

        if module.__name__.startswith(OURS):
            for part in ("validator", "generator"):
                inner = importlib.import_module(f"{module.__name__}.{part}")
                ticking = SimpleNamespace(time=self, monotonic=self)
                monkeypatch.setattr(inner, "time", ticking)
        else:
            mine = SimpleNamespace(datetime=Moment, timedelta=datetime.timedelta)
            monkeypatch.setattr(module, "datetime", mine)

    def __call__(self) -> float:
        return time.time() + self.ahead


_session = boto3.session.Session
_loader = botocore.session.Session().get_component("data_loader")


@pytest.fixture(autouse=True)
def descriptions_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 reads what KMS is anew for every session: most of the time of these tests."""

    def session(**given: Any) -> Any:
        inner = given.setdefault("botocore_session", botocore.session.Session())
        inner.register_component("data_loader", _loader)
        return _session(**given)

    monkeypatch.setattr(boto3.session, "Session", session)


@pytest.fixture
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module under test; its clients of boto3 are nobody else's."""
    found = importlib.import_module(request.param.removeprefix(_FAILS))
    if request.param.endswith("kmsauth"):
        monkeypatch.setattr(found.services, "CLIENT_CACHE", {})
    return found


@pytest.fixture
def clock(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(module, monkeypatch)
