"""--socks-proxy and --connect-to as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.via import ConnectTo, Target, Via, parse_connect_to, parse_via, target_of

HUNTER2 = "hunter2"  # the planted secret


class TestParseVia:
    @pytest.mark.parametrize(
        ("text", "via"),
        [
            ("127.0.0.1:8081", Via("socks5h", "127.0.0.1", 8081)),
            ("localhost:8081", Via("socks5h", "localhost", 8081)),
            ("[::1]:8081", Via("socks5h", "::1", 8081)),
            ("me@bastion:1080", Via("socks5h", "bastion", 1080, "me")),
            ("socks5h://bastion:1080", Via("socks5h", "bastion", 1080)),
            ("socks5://bastion:1080", Via("socks5", "bastion", 1080)),
            ("SOCKS4://me@Bastion:1080", Via("socks4", "bastion", 1080, "me")),
            ("http://proxy.corp:3128", Via("http", "proxy.corp", 3128)),
            ("http://d%40corp@[fd00::1]:3128", Via("http", "fd00::1", 3128, "d@corp")),
            ("socks5://@bastion:1080", Via("socks5", "bastion", 1080)),
        ],
    )
    def test_reads(self, text: str, via: Via) -> None:
        assert parse_via(text) == via

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "an upstream proxy is"),
            ("bastion", "an upstream proxy is"),
            ("socks5h://bastion", "an upstream proxy is"),
            ("bastion:1080/", "an upstream proxy is"),
            ("http://bastion:1080/path", "an upstream proxy is"),
            ("bastion:port", "an upstream proxy is"),
            ("bastion:0", "port"),
            ("bastion:65536", "port"),
            ("::1:8081", "an upstream proxy is"),
            ("ba stion:1080", "an upstream proxy is"),
            ("bastion:1080\n", "an upstream proxy is"),
            ("bastion:١٠٨٠", "an upstream proxy is"),
            ("127.1:1080", "number"),
            ("socks5a://bastion:1080", "socks5a:// is not one of"),
            ("socks4a://bastion:1080", "socks4a:// is not one of"),
            ("https://bastion:1080", "https:// is not one of"),
            ("me%0a@bastion:1080", "control characters"),
            ("m%C3%A9@bastion:1080", "at most 255 ASCII"),
            ("m" * 256 + "@bastion:1080", "at most 255 ASCII"),
            ("http://me%3Ayou@bastion:1080", "colon"),
        ],
    )
    def test_refuses_with_the_reason(self, text: str, why: str) -> None:
        with pytest.raises(Malformed, match=why):
            parse_via(text)

    @pytest.mark.parametrize(
        "text",
        [
            f"me:{HUNTER2}@bastion:1080",
            f"socks5h://me:{HUNTER2}@bastion:1080",
            f"http://:{HUNTER2}@bastion:1080",
        ],
    )
    def test_a_password_is_refused_with_the_way_out_and_not_repeated(self, text: str) -> None:
        with pytest.raises(Malformed, match="command line") as caught:
            parse_via(text)
        assert "IAM_AUTH_PROXY_SOCKS_PASSWORD" in caught.value.remedy
        assert HUNTER2 not in str(caught.value) + caught.value.public + caught.value.remedy

    @given(st.text(max_size=60) | st.from_regex(r"(socks5|http)://[a-z:@%0-9]{0,12}:[0-9]{1,5}"))
    def test_any_text_parses_or_is_malformed(self, text: str) -> None:
        try:
            via = parse_via(text)
        except Malformed:
            return
        assert parse_via(str(via)) == Via(via.scheme, via.host, via.port)


class TestPasswords:
    def test_a_user_of_socks5_needs_one(self) -> None:
        via = parse_via("me@bastion:1080")
        assert via.needs_password
        whole = via.with_password(HUNTER2)
        assert not whole.needs_password
        assert whole.password == HUNTER2
        assert HUNTER2 not in repr(whole) + str(whole)

    def test_http_and_socks4_users_can_do_without(self) -> None:
        assert not parse_via("http://me@bastion:1080").needs_password
        assert not parse_via("socks4://me@bastion:1080").needs_password
        assert parse_via("http://me@bastion:1080").with_password("ü").password == "ü"

    @pytest.mark.parametrize(
        ("text", "password", "why"),
        [
            ("bastion:1080", HUNTER2, "without a user"),
            ("socks4://me@bastion:1080", HUNTER2, "SOCKS4"),
            ("me@bastion:1080", "ü", "ASCII"),
            ("me@bastion:1080", "x" * 256, "255"),
            ("me@bastion:1080", "", "1 to 255"),
        ],
    )
    def test_refuses_with_the_reason(self, text: str, password: str, why: str) -> None:
        with pytest.raises(Malformed, match=why):
            parse_via(text).with_password(password)


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("127.0.0.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("127.0.0.2:1", True),
        ("bastion:1", False),
        ("10.0.0.1:1", False),
    ],
)
def test_what_runs_on_this_machine(text: str, local: bool) -> None:
    assert parse_via(text).is_local is local


class TestConnectTo:
    @pytest.mark.parametrize(
        ("text", "mapping"),
        [
            ("app.test:80:127.0.0.1:8082", ConnectTo("app.test", 80, "127.0.0.1", 8082)),
            ("App.Test:80:Other.Test:8082", ConnectTo("app.test", 80, "other.test", 8082)),
            ("[::1]:80:[fd00::1]:81", ConnectTo("::1", 80, "fd00::1", 81)),
            ("::127.0.0.1:8082", ConnectTo("", None, "127.0.0.1", 8082)),
            ("app.test:80::", ConnectTo("app.test", 80, "", None)),
            ("app.test:::8082", ConnectTo("app.test", None, "", 8082)),
            (":::", ConnectTo("", None, "", None)),
        ],
    )
    def test_reads(self, text: str, mapping: ConnectTo) -> None:
        assert parse_connect_to(text) == mapping

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "--connect-to is"),
            ("app.test:80", "--connect-to is"),
            ("app.test:80:127.0.0.1", "--connect-to is"),
            ("app.test:80:127.0.0.1:80:80", "--connect-to is"),
            ("app.test:80:::1:80", "--connect-to is"),
            ("app.test:80:[app.test]:80", "--connect-to is"),
            ("app.test:80:[127.0.0.1]:80", "brackets"),
            ("app.test:http:127.0.0.1:80", "--connect-to is"),
            ("app.test:80:127.0.0.1:0", "port"),
            ("app.test:80:127.1:80", "number"),
            ("app.test:80:127.0.0.1:80\n", "--connect-to is"),
            ("http://app.test:80:127.0.0.1:80", "--connect-to is"),
        ],
    )
    def test_refuses_with_the_reason(self, text: str, why: str) -> None:
        with pytest.raises(Malformed, match=why):
            parse_connect_to(text)

    @given(st.text(alphabet="ab:[].1/ \n", max_size=20))
    def test_any_text_parses_or_is_malformed(self, text: str) -> None:
        try:
            mapping = parse_connect_to(text)
        except Malformed:
            return
        assert text.count(":") >= 3
        assert isinstance(mapping.covers(Origin("http", "a", 80)), bool)

    def test_the_first_that_covers_decides(self) -> None:
        mappings = tuple(
            map(parse_connect_to, ["b.test:80:one:1", "a.test::two:2", "::three:", "::four:4"])
        )
        assert target_of(Origin("http", "b.test", 80), mappings) == Target("one", 1, named=True)
        assert target_of(Origin("http", "a.test", 99), mappings) == Target("two", 2, named=True)
        assert target_of(Origin("http", "c.test", 99), mappings) == Target("three", 99, named=True)

    def test_without_one_it_is_the_origin_itself(self) -> None:
        assert target_of(Origin("http", "::1", 80), ()) == Target("::1", 80)
        assert Target("::1", 80).host_port == "[::1]:80"

    def test_a_mapped_port_alone_names_no_address(self) -> None:
        mapping = parse_connect_to("app.test:80::8080")
        assert target_of(Origin("http", "app.test", 80), (mapping,)) == Target("app.test", 8080)
