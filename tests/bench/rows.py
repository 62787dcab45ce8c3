"""What is owed: the rows of the table, in its order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    :ivar key: its name in the JSON file.
    :ivar unit: of what is measured: see ``figures.show``.
    :ivar against: what it is measured against in the same run, or a constant measured once.
    :ivar relative: the bounds are on the ratio to ``against``, not on what is measured.
    :ivar at_most: the bounds are upper ones.
    :ivar stretch: None where it is the same figure with more to it, which ``stretch_note`` says.
    """

    key: str
    what: str
    unit: str
    against: str
    relative: bool
    at_most: bool
    owed: float
    stretch: float | None
    stretch_note: str = ""


OURS: Final = "ours"
PROXY_PY: Final = "proxy.py"
NGINX: Final = "nginx as reverse proxy"
DIRECT: Final = "direct"
MITMPROXY: Final = "mitmproxy"
KMSAUTH: Final = "kmsauth"
KMS_ALONE: Final = "KMS alone"
REFERENCE: Final = "uvloop read/write loop"

_RATE: Final = "forwarded requests/s on one core, 32 connections"
_ADDED: Final = "added latency at 1 connection (median)"

RATE_PROXY_PY: Final = Row("rate-proxy.py", _RATE, "/s", PROXY_PY, True, False, 3, 4)
RATE_DIRECT: Final = Row("rate-direct", "the same", "/s", DIRECT, True, False, 0.45, 0.6)
LATENCY_NGINX: Final = Row("latency-nginx", _ADDED, "us", NGINX, True, True, 1.7, 1.2)
LATENCY_PROXY_PY: Final = Row(
    "latency-proxy.py", "the same", "us", PROXY_PY, True, True, 0.65, 0.45
)
DOWNLOAD: Final = Row(
    "download", "download with Content-Length, 256 MiB", "MB/s", DIRECT, True, False, 0.85, 0.95
)
CONNECT: Final = Row(
    "connect", "download through CONNECT, 256 MiB", "MB/s", DIRECT, True, False, 0.85, 0.95
)
CHUNKED: Final = Row(
    "chunked", "chunked download, 256 MiB in 16 KiB chunks", "MB/s", DIRECT, True, False, 0.3, 0.6
)
CPU: Final = Row("cpu", "proxy CPU per GiB through CONNECT", "ms", REFERENCE, True, True, 1.0, 0.6)
AWS_CALLS: Final = Row(
    "aws-calls",
    "AWS calls the proxy makes per warm sign-in",
    "",
    "(the Go original: 3)",
    False,
    True,
    1,
    None,
    "1, and 0 waited for",
)
AWS_CALLS_50: Final = Row(
    "aws-calls-50",
    "AWS calls it makes for 50 parallel 401s of one origin",
    "",
    "(the Go original: 150)",
    False,
    True,
    1,
    1,
)
SIGN_IN: Final = Row(
    "sign-in",
    "sign-in wall time, 50 ms per AWS call, warm",
    "ms",
    "(the Go original: 290 ms)",
    False,
    True,
    170,
    160,
)
READY: Final = Row(
    "ready", "ready after start", "ms", "(the Go original: 13 ms)", False, True, 350, 250
)
RSS: Final = Row(
    "rss", "RSS before the first sign-in", "MB", "(the Go original: 12 MB)", False, True, 48, 40
)
IDLE: Final = Row(
    "idle-memory",
    "memory with 1,000 idle keep-alive connections",
    "+MB",
    "itself with none",
    False,
    True,
    10,
    5,
)

INTERCEPT_RATE: Final = Row(
    "intercept-rate",
    "requests/s with TLS ended here, 32 kept connections",
    "/s",
    MITMPROXY,
    True,
    False,
    3,
    6,
)
INTERCEPT_NEW: Final = Row(
    "intercept-new", "new connections/s with TLS ended here", "/s", MITMPROXY, True, False, 3, 6
)
INTERCEPT_LATENCY: Final = Row(
    "intercept-latency",
    "latency added to the first byte, TLS ended here (median)",
    "us",
    MITMPROXY,
    True,
    True,
    0.4,
    0.2,
)
INTERCEPT_IDLE: Final = Row(
    "intercept-memory",
    "memory with 1,000 idle connections inside TLS",
    "+MB",
    "itself with one",
    False,
    True,
    100,
    60,
)
TOKENS: Final = Row(
    "tokens", "known service tokens verified/s, one thread", "/s", KMSAUTH, True, False, 3, 5
)
TOKENS_NEW: Final = Row(
    "tokens-new",
    "new ones verified/s, one thread, each a call of boto3",
    "/s",
    KMSAUTH,
    True,
    False,
    0.8,
    1,
)
TOKENS_KMS: Final = Row(
    "tokens-kms",
    "new ones verified/s, 16 threads, 20 ms per KMS call",
    "/s",
    KMS_ALONE,
    True,
    False,
    0.9,
    0.95,
)
TOKENS_MEMORY: Final = Row(
    "tokens-memory",
    "memory for the 4,096 tokens remembered, of 12,288 seen",
    "MB",
    KMSAUTH,
    True,
    True,
    1,
    0.75,
)
TOKEN_CALLS: Final = Row(
    "token-calls",
    "KMS calls for one token in 50 requests at once",
    "",
    "(kmsauth: 50)",
    False,
    True,
    1,
    None,
)

ROWS: Final = (
    RATE_PROXY_PY,
    RATE_DIRECT,
    LATENCY_NGINX,
    LATENCY_PROXY_PY,
    DOWNLOAD,
    CONNECT,
    CHUNKED,
    CPU,
    AWS_CALLS,
    AWS_CALLS_50,
    SIGN_IN,
    READY,
    RSS,
    IDLE,
    INTERCEPT_RATE,
    INTERCEPT_NEW,
    INTERCEPT_LATENCY,
    INTERCEPT_IDLE,
    TOKENS,
    TOKENS_NEW,
    TOKENS_KMS,
    TOKENS_MEMORY,
    TOKEN_CALLS,
)
