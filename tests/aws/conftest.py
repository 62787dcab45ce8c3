"""What the tests of AWS access share: profiles on disk, all of them of the embedded AWS."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from iam_auth_proxy.local_aws import Keys, LocalAws

Profiles = Callable[..., None]


@pytest.fixture
def aws(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> LocalAws:
    """An embedded AWS that this process's boto3 finds by the standard configuration."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", local_aws.url)
    # How long it waits between attempts is botocore's business.
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    return local_aws


@pytest.fixture
def profile() -> Profiles:
    """Adds a profile to the configuration file: ``profile("dev", keys, region="eu-west-1")``."""
    file = Path(os.environ["AWS_CONFIG_FILE"])

    def add(name: str, keys: Keys | None = None, **settings: str) -> None:
        section = "default" if name == "default" else f"profile {name}"
        lines = [f"[{section}]"]
        lines += [f"{key} = {value}" for key, value in (keys.boto3 if keys else {}).items()]
        lines += [f"{key} = {value}" for key, value in settings.items()]
        with file.open("a") as config:
            config.write("\n".join([*lines, "", ""]))

    return add
