"""boto3's clients by the original's names. One is shared only by those who ask for the same.

The original's are told apart by the access key alone: whoever asks with another secret, with no
session token or with other timeouts gets the client of whoever asked before.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from typing import Any

__all__ = [
    "CLIENT_CACHE",
    "RESOURCE_CACHE",
    "get_boto_client",
    "get_boto_resource",
    "get_boto_session",
]

CLIENT_CACHE: dict[str, Any] = {}
RESOURCE_CACHE: dict[str, Any] = {}

_lock = threading.Lock()


def get_boto_client(
    client: str,
    region: str | None = None,
    aws_access_key_id: str | None = None,
    aws_secret_access_key: str | None = None,
    aws_session_token: str | None = None,
    endpoint_url: str | None = None,
    max_pool_connections: int | None = None,
    connect_timeout: float | None = None,
    read_timeout: float | None = None,
) -> Any:
    """A client of boto3. With a session token, which ends some day, it is a new one each time."""
    from botocore.config import Config

    keys = (region, aws_access_key_id, aws_secret_access_key, aws_session_token)
    asked = {
        "max_pool_connections": max_pool_connections,
        "connect_timeout": connect_timeout,
        "read_timeout": read_timeout,
    }
    settings: Any = {name: value for name, value in asked.items() if value is not None}

    def make() -> Any:
        session = get_boto_session(*keys)
        return session.client(client, endpoint_url=endpoint_url, config=Config(**settings))

    if aws_session_token:
        return make()
    return _shared(CLIENT_CACHE, [client, *keys, endpoint_url, settings], make)


def get_boto_resource(
    resource: str,
    region: str | None = None,
    aws_access_key_id: str | None = None,
    aws_secret_access_key: str | None = None,
    aws_session_token: str | None = None,
    endpoint_url: str | None = None,
) -> Any:
    """A resource of boto3, as :func:`get_boto_client`."""
    keys = (region, aws_access_key_id, aws_secret_access_key, aws_session_token)

    def make() -> Any:
        return get_boto_session(*keys).resource(resource, endpoint_url=endpoint_url)

    if aws_session_token:
        return make()
    return _shared(RESOURCE_CACHE, [resource, *keys, endpoint_url], make)


def get_boto_session(
    region: str | None,
    aws_access_key_id: str | None = None,
    aws_secret_access_key: str | None = None,
    aws_session_token: str | None = None,
) -> Any:
    """A session of boto3."""
    import boto3

    return boto3.session.Session(
        region_name=region,
        aws_access_key_id=aws_access_key_id,
        aws_secret_access_key=aws_secret_access_key,
        aws_session_token=aws_session_token,
    )


def _shared(cache: dict[str, Any], asked: list[Any], make: Callable[[], Any]) -> Any:
    # A digest: secrets are among what is asked for, and keys of dicts are printed.
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    with _lock:  # making clients is not safe to do side by side
        if key not in cache:
            cache[key] = make()
        return cache[key]
