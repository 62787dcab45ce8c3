"""An IAM Identity Center, as far as boto3 has to do with it: cached tokens, and its portal."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from iam_auth_proxy.local_aws import Keys
from tests.support.upstreams import listening


def identity_center(
    status: int, error: str, body: dict[str, object]
) -> AbstractAsyncContextManager[str]:
    """A portal that answers one thing only; the embedded AWS has none. Gives its URL."""
    content = json.dumps(body)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(
                f"HTTP/1.1 {status} Whatever\r\nx-amzn-ErrorType: {error}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
                f"{content}".encode()
            )

    @asynccontextmanager
    async def serving() -> AsyncIterator[str]:
        async with listening(answer) as port:
            yield f"http://127.0.0.1:{port}"

    return serving()


def role_credentials(keys: Keys, expires: float) -> dict[str, object]:
    """The portal's body for a role's session; ``expires``: seconds since the epoch."""
    return {
        "roleCredentials": {
            "accessKeyId": keys.access_key_id,
            "secretAccessKey": keys.secret_access_key,
            "sessionToken": keys.session_token,
            "expiration": int(expires * 1000),
        }
    }


def move_token_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let boto3 look for tokens under ``home``: it looks at HOME once, when it is imported."""
    cache = str(home / ".aws" / "sso" / "cache")
    for provider in ("credentials.SSOProvider", "tokens.SSOTokenProvider"):
        monkeypatch.setattr(f"botocore.{provider}._SSO_TOKEN_CACHE_DIR", cache)


def leave_token(home: Path, name: str, token: str, expires: str) -> None:
    """What ``aws sso login`` leaves; ``name``: of the session, or the start URL."""
    cache = home / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / f"{hashlib.sha1(name.encode()).hexdigest()}.json"
    file.write_text(json.dumps({"accessToken": token, "expiresAt": expires}))
