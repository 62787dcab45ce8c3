"""What the relay's tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Everything of the relay runs on both loops: they differ in more than speed."""
    return {"stock": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
