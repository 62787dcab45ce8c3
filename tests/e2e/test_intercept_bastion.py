"""The same browser, and the same app, through a real ``ssh -D`` that the proxy runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests.e2e import test_intercept_chromium as directly
from tests.e2e.conftest import Stack
from tests.e2e.test_intercept_chromium import (
    APP,
    Scene,
    curl,
    staged,
    test_a_browser_signs_in_and_works,
    test_a_form_post,
    test_a_host_that_is_not_listed_shows_its_own_certificate,
    test_a_web_socket,
    test_fetch,
    work,
)
from tests.support.bastion import Bastion

# Those run here too, with the scene of this file.
__all__ = [
    "test_a_browser_signs_in_and_works",
    "test_a_form_post",
    "test_a_host_that_is_not_listed_shows_its_own_certificate",
    "test_a_web_socket",
    "test_fetch",
    "work",
]

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def bastion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bastion]:
    found = Bastion(tmp_path_factory.mktemp("bastion"))
    yield found
    found.stop()


@pytest.fixture(scope="module")
def scene(
    stack: Stack, bastion: Bastion, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    with staged(stack, tmp_path_factory, *bastion.flags()) as scene:
        scene.proxy.wait_for("the ssh tunnel is up")
        yield scene


def test_a_hundred_megabytes(work: Page) -> None:
    directly.test_a_hundred_megabytes(work, "")


def test_and_by_no_other_way(scene: Scene, bastion: Bastion) -> None:
    """The last of this file: it takes the bastion away."""
    bastion.stop()
    scene.proxy.wait_for("the ssh tunnel is down")
    down = curl(scene, "--http1.1", f"{APP}/check", authority=scene.ours)
    assert "The ssh tunnel to the app is down." in down.stdout
    assert "Connection refused" in down.stdout
