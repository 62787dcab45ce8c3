"""What a request may not say of its own framing, whatever the parser below lets through."""

from __future__ import annotations

import pytest

from iam_auth_proxy.relay.message import (
    CHUNKED,
    NEVER_NOMINATED,
    BadRequest,
    Request,
    _request_length,
    parse_request,
)

NEVER = [
    "host", "content-length", "transfer-encoding", "trailer", "expect", "cdn-loop", "max-forwards",
    "www-authenticate", "set-cookie", "origin", "referer", "user-agent",
    "upgrade-insecure-requests", "purpose", "access-control-request-method",
]  # fmt: skip


def test_every_name_is_tried() -> None:
    assert {name.encode() for name in NEVER} == NEVER_NOMINATED


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("options", ["{}", "close, {}", "{},x", "x\r\nConnection: {}"])
def test_what_connection_may_not_take_away(name: str, options: str) -> None:
    for spelled in (name, name.title()):
        lines = (
            f"GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: {options.format(spelled)}\r\n\r\n"
        )
        with pytest.raises(BadRequest, match="Connection names what it may not"):
            parse_request(lines.encode())


def length(http10: bool = False, **fields: list[bytes]) -> int:
    made = Request(b"POST", b"http://a/", http10)
    made.noted = {name.replace("_", "-").encode(): values for name, values in fields.items()}
    return _request_length(made)


def test_one_way_to_say_where_a_body_ends() -> None:
    assert length() == 0
    assert length(content_length=[b" 7 "]) == 7
    assert length(transfer_encoding=[b"Chunked"]) == CHUNKED


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (400, {"content_length": [b"7"], "transfer_encoding": [b"chunked"]}),
        (400, {"content_length": [b"7"], "transfer_encoding": [b"identity"]}),
        (400, {"content_length": [b"7", b"7"]}),
        (400, {"content_length": [b"7", b"8"]}),
        (400, {"content_length": [b"7, 7"]}),
        (400, {"content_length": [b"+7"]}),
        (400, {"content_length": [b"-7"]}),
        (400, {"content_length": [b"0x7"]}),
        (400, {"content_length": [b"7 7"]}),
        (400, {"content_length": [b""]}),
        (400, {"content_length": [b"1" * 16]}),
        (501, {"transfer_encoding": [b"chunked", b"chunked"]}),
        (501, {"transfer_encoding": [b"gzip, chunked"]}),
        (501, {"transfer_encoding": [b"chunked "]}),
        (501, {"transfer_encoding": [b""]}),
    ],
)
def test_every_doubt_is_a_refusal(status: int, fields: dict[str, list[bytes]]) -> None:
    with pytest.raises(BadRequest) as refused:
        length(**fields)
    assert refused.value.http_status == status


def test_http_10_knows_no_transfer_coding() -> None:
    with pytest.raises(BadRequest, match="knows no Transfer-Encoding"):
        length(http10=True, transfer_encoding=[b"chunked"])
