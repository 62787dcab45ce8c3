"""Lines for people, objects for programs; no traceback and no planted secret in either."""

import io
import json
import logging
import re
import warnings
from typing import Any

import pytest

from iam_auth_proxy.proxy.process import logs

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
log = logging.getLogger("iam_auth_proxy.proxy.somewhere")


def without_pytests_own() -> None:
    """pytest's handlers raise what a formatter raises; the fixture brings them back."""
    logging.getLogger().handlers.clear()


def configured(level: str = "info", format: str = "json", **more: Any) -> io.StringIO:
    stream = io.StringIO()
    without_pytests_own()
    logs.configure(level, format, stream, more.pop("terminal", False), more.pop("environ", {}))
    return stream


def objects(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_object_a_line_with_the_extra_fields() -> None:
    stream = configured()
    log.info("signed in to %s", "http://a.test", extra={"account": "1111", "calls": 1, "ok": True})
    log.warning("two\nlines")
    first, second = objects(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "level": "info",
        "logger": "iam_auth_proxy.proxy.somewhere",
        "message": "signed in to http://a.test",
        "account": "1111",
        "calls": 1,
        "ok": True,
    }
    assert second["message"] == "two\nlines"
    assert stream.getvalue().isascii()


def test_the_time_is_the_records_own() -> None:
    record = logging.makeLogRecord({"name": "a", "created": 1795302513.0625, "msg": "x"})
    assert json.loads(logs.JsonFormatter().format(record))["time"] == "2026-11-21T23:08:33.062Z"
    plain = logs.ConsoleFormatter(terminal=False, colour=False)
    assert plain.format(record).startswith("2026-11-21T23:08:33.062Z ")


def test_an_extra_field_never_replaces_ours() -> None:
    stream = configured()
    log.info("x", extra={"level": "y", "time": "z"})
    [entry] = objects(stream)
    assert (entry["level"], entry["level_"], entry["time_"]) == ("info", "y", "z")


def test_the_console_of_a_terminal() -> None:
    stream = configured(format="auto", terminal=True, environ={"NO_COLOR": "1"})
    log.info("signed in", extra={"origin": "http://a.test", "who": "a b", "n": 2, "none": ""})
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d info    somewhere: signed in"
        r'  origin=http://a.test  who="a b"  n=2  none=""\n',
        stream.getvalue(),
    )


@pytest.mark.parametrize(
    ("environ", "colour"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colour_on_a_terminal_that_wants_it(environ: dict[str, str], colour: bool) -> None:
    stream = configured(format="text", terminal=True, environ=environ)
    log.warning("x", extra={"a": 1})
    log.info("y")
    assert ("\x1b[" in stream.getvalue()) is colour


def test_no_colour_into_a_file() -> None:
    stream = configured(format="text")
    log.error("x")
    assert "\x1b" not in stream.getvalue()
    assert " error   somewhere: x\n" in stream.getvalue()


@pytest.mark.parametrize(
    ("format", "terminal", "json_"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("json", True, True),
        ("text", False, False),
    ],
)
def test_auto_is_text_for_people(format: str, terminal: bool, json_: bool) -> None:
    stream = configured(format=format, terminal=terminal)
    log.info("x")
    assert stream.getvalue().startswith("{") is json_


def test_a_peer_cannot_write_lines_or_escapes_of_its_own() -> None:
    stream = configured(format="text", terminal=True, environ={"NO_COLOR": "1"})
    log.info("GET /\n12:00:00 error \x1b[2J\x9b\u2028\u202e", extra={"host": "a\r\nb"})
    [line] = stream.getvalue().splitlines()
    assert r"GET /\x0a12:00:00 error \x1b[2J\x9b\x2028\x202e" in line
    assert "\x1b" not in line


def test_levels() -> None:
    stream = configured("warning")
    log.info("not this")
    log.warning("this")
    assert [entry["message"] for entry in objects(stream)] == ["this"]


def test_other_libraries_debug_logs_are_not_heard() -> None:
    stream = configured("debug")
    logging.getLogger("botocore.auth").debug("signing with %s", SECRET)
    logging.getLogger("botocore.auth").info("neither")
    logging.getLogger("asyncio").warning("slow callback")
    log.debug("ours")
    assert [entry["message"] for entry in objects(stream)] == ["slow callback", "ours"]


def test_configuring_again_replaces() -> None:
    first = configured()
    second = io.StringIO()
    logs.configure("error", "json", second, False, {})
    log.info("x")
    log.error("y")
    assert first.getvalue() == ""
    assert [entry["message"] for entry in objects(second)] == ["y"]


def fail(text: str) -> None:
    raise KeyError(text)


def test_an_exception_is_one_line_without_a_traceback() -> None:
    for format in ("json", "text"):
        stream = configured(format=format)
        try:
            fail(f"SecretAccessKey={SECRET}")
        except KeyError:
            log.exception("sign-in failed")
        said = stream.getvalue()
        assert said.count("\n") == 1
        assert "Traceback" not in said
        assert "KeyError" in said
        assert "test_logs.py:" in said
        assert SECRET not in said


def test_where_it_arose_is_our_own_code_if_any() -> None:
    with pytest.raises(KeyError) as raised:
        logs.configure("nonsense", "text", io.StringIO(), False)
    assert re.fullmatch(r"proxy/process/logs\.py:\d+", logs.describe(raised.value)[1])
    assert logs.describe(ValueError()) == ("ValueError", "unknown")


def test_an_exception_flag_without_an_exception() -> None:
    stream = configured()
    log.error("x", exc_info=(None, None, None))
    assert "exception" not in objects(stream)[0]


@pytest.mark.parametrize("format", ["json", "text"])
def test_planted_secrets_are_in_no_line(format: str) -> None:
    stream = configured("debug", format)
    log.debug("GET %s", f"http://a.test/auth?token={SECRET}", extra={"cookie": "hunter2"})
    log.info("headers %r", {"Authorization": f"AWS4 {SECRET}", "Cookie": "sid=hunter2"})
    log.info("credentials", extra={"session": {"SecretAccessKey": SECRET, "list": [SECRET]}})
    log.info("AKIAIOSFODNN7EXAMPLE %s", SECRET)
    assert SECRET not in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 4


def test_warnings_are_logged() -> None:
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", stacklevel=1)
    logging.captureWarnings(False)
    assert objects(stream)[0]["logger"] == "py.warnings"


def test_a_record_that_cannot_be_formatted_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = configured()
    log.info("%d", "not a number")
    assert stream.getvalue().count("\n") == 1
    assert "iam_auth_proxy.proxy.somewhere" in stream.getvalue()
    assert capsys.readouterr().err == ""


class _Full(io.StringIO):
    def write(self, text: str, /) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [_Full(), io.StringIO()])
def test_a_stream_that_is_gone_ends_nothing(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    stream.flush()
    if not isinstance(stream, _Full):
        stream.close()
    without_pytests_own()
    logs.configure("info", "json", stream, False, {})
    log.info("x")
    log.info("%d", "not a number")
    assert capsys.readouterr().err == ""
