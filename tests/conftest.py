"""Fixtures for every test: a clean environment, and the embedded AWS."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from iam_auth_proxy.local_aws import LocalAws

# The same examples in every run, so that a red run means the change and not the dice; and no
# deadline for one, since busy cores decide that. --hypothesis-profile=search looks further.
settings.register_profile("same", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("search", deadline=None, max_examples=20_000)
settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start real components come first: they take long.

    Where several processes take the files in turns, none has nothing to do at the end.
    (pytest sorts what it is asked for on the command line itself.)
    """
    long = {item.path for item in items if item.get_closest_marker("e2e")}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Neither property tests nor those that start real components count as coverage.

    A line is covered by a test that says what it is for; and being traced takes half of their time.
    (pytest-cov's own mark for it does nothing in the processes of pytest-xdist.)
    """
    by_dice = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    if not by_dice and not item.get_closest_marker("e2e"):
        return (yield)
    tracing = sys.gettrace()
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracing)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts into the background so, and children inherit it: no Ctrl-C of the
    # tests would arrive.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Modules and thousands of tests stay to the end: no search for garbage looks through them.

    A test that calls ``gc.collect()`` otherwise takes half a second, twenty times what it should.
    What tests load on their way, such as boto3's descriptions, is looked through less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(7_000, 10, 20)


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a folder for each test. (pytest's own are numbered, which reads all that are there.)"""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, homes: Path) -> None:
    """No test sees the AWS credentials, profiles or proxies of whoever runs it, or leaves loopback.

    ``AWS_*`` and ``IAM_AUTH_PROXY_*`` are removed, the instance metadata service is off and the
    configuration files are empty.
    """
    for name in list(os.environ):
        upper = name.upper()
        if upper.startswith(("AWS_", "IAM_AUTH_", "LOCAL_AWS_")) or upper.endswith("_PROXY"):
            monkeypatch.delenv(name)
    files = Path(tempfile.mkdtemp(dir=homes))
    for name, file in (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "creds")):
        (files / file).touch()
        monkeypatch.setenv(name, str(files / file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(files))  # neither trust nor pins of theirs
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(files))
    monkeypatch.setenv("XDG_DATA_HOME", str(files))  # nor a CA, nor a browser's profile


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command sets up the log of its process; it does not stay so for the next test."""
    root, own = logging.getLogger(), logging.getLogger("iam_auth_proxy")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], root.level = before[0], before[1]
    own.setLevel(before[2])
    logging.captureWarnings(False)


@pytest.fixture
def local_aws() -> Iterator[LocalAws]:
    """A fresh embedded AWS: account 111122223333, region eu-west-1, the real clock."""
    with LocalAws() as aws:
        yield aws
