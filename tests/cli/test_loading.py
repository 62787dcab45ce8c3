"""Loading modules leaves the collector as it was."""

from __future__ import annotations

import gc

import pytest

from iam_auth_proxy.cli.loading import loading


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_off_for_as_long_and_then_as_before(enabled):
    if not enabled:
        gc.disable()
    try:
        with loading():
            during = gc.isenabled()
        assert not during
        assert gc.isenabled() is enabled
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.enable()
