"""boto3 clients for the embedded AWS, quickly: one loader of service models for the process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import boto3

_lock = threading.Lock()


@lru_cache(maxsize=1)
def _session() -> boto3.Session:
    return boto3.Session()


def make_client(
    url: str, service: str, keys: Mapping[str, str], region: str, options: Mapping[str, Any]
) -> Any:
    """A client with these keys; sessions are not safe to share between threads, hence the lock."""
    with _lock:
        return _session().client(
            service,  # type: ignore[call-overload]  # the stubs know services by literal name only
            endpoint_url=url,
            region_name=region,
            **keys,
            **options,
        )
