"""However a chunked body is cut into reads, it means the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iam_auth_proxy.relay.chunked import LAST_CHUNK, ChunkError, ChunkScanner, write_chunk

extensions = st.sampled_from([b"", b";a", b";a=b", b' ; a="x y"', b"\t;\xff"])
sizes = st.sampled_from([b"%x", b"%X", b"00%x"])
trailers = st.lists(st.sampled_from([b"X: 1\r\n", b"x-y:\r\n", b"Z:\t\xe4 \r\n"]), max_size=3)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A valid body and its content."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    body = b"".join(
        draw(sizes) % len(piece) + draw(extensions) + b"\r\n" + piece + b"\r\n" for piece in pieces
    )
    last = draw(st.sampled_from([b"0", b"000"])) + draw(extensions) + b"\r\n"
    return body + last + b"".join(draw(trailers)) + b"\r\n", b"".join(pieces)


def run(reads: list[bytes]) -> tuple[str, bytes, bytes, bytes]:
    """What becomes of these reads: outcome, bytes passed on, content, what came behind."""
    scanner = ChunkScanner(line_limit=32, trailer_limit=64)
    passed, content = b"", []
    try:
        for at, read in enumerate(reads):
            passed += scanner.feed(read, content)
            if scanner.done:
                rest = scanner.rest + b"".join(reads[at + 1 :])
                return "done", passed, b"".join(content), rest
    except ChunkError:
        return "error", b"", b"", b""
    return "more", passed, b"".join(content), b""


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


places = st.lists(st.integers(0, 300), max_size=12)


@given(bodies(), st.binary(max_size=10), places)
def test_a_valid_body_passes_whole_however_it_is_cut(body, behind, at):
    data, content = body
    expected = ("done", data, content, behind)
    assert run([data + behind]) == expected
    assert run(cut(data + behind, at)) == expected


@given(bodies(), st.data(), places)
def test_a_changed_body_means_the_same_however_it_is_cut(body, data, at):
    raw = bytearray(body[0])
    index = data.draw(st.integers(0, len(raw) - 1))
    raw[index] = data.draw(st.sampled_from(b"\r\n\x00 ;0aXg:\xff"))
    whole, pieces, single = run([bytes(raw)]), run(cut(bytes(raw), at)), run(cut(raw, range(300)))
    assert whole == pieces == single


@given(st.binary(max_size=60), places)
@settings(max_examples=300)
def test_noise_means_the_same_however_it_is_cut(noise, at):
    assert run([noise])[0] == run(cut(noise, at))[0]


def test_an_unfinished_line_is_held_back():
    scanner = ChunkScanner()
    passed = [scanner.feed(read) for read in (b"5;a", b"b\r", b"\nhe", b"llo\r", b"\n0\r\nX: ")]
    assert passed == [b"", b"", b"5;ab\r\nhe", b"llo", b"\r\n0\r\n"]
    with pytest.raises(ChunkError):
        scanner.feed(b"1\n\r\n\r\n")


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"5;" + b"a" * 26 + b"\r\nhello\r\n", True),
        (b"5;" + b"a" * 29 + b"\r\nhello\r\n", False),
        (b"0\r\nX: " + b"a" * 52 + b"\r\n\r\n", True),
        (b"0\r\nX: " + b"a" * 60 + b"\r\n\r\n", False),
        (b"0\r\n" + b"X: 1\r\n" * 12, False),
    ],
)
def test_lines_and_trailers_are_bounded(body, kept):
    assert (run([body])[0] != "error") is kept
    assert (run(cut(body, list(range(len(body)))))[0] != "error") is kept


def test_what_is_written_can_be_read():
    content = []
    scanner = ChunkScanner()
    scanner.feed(write_chunk(b"hello") + write_chunk(b"x" * 1000) + LAST_CHUNK, content)
    assert scanner.done
    assert b"".join(content) == b"hello" + b"x" * 1000
