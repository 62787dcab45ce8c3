"""Names on the wire. The cases are data: tests/vectors/{origins,key_arns}.json."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy import names
from iam_auth_proxy.errors import IamAuthError, Malformed
from iam_auth_proxy.names import KeyArn, Origin
from tests.support import vectors

UUID = "12345678-90ab-cdef-1234-567890abcdef"


class TestOrigin:
    @pytest.mark.parametrize("case", vectors.accepted("origins"))
    def test_is_read_in_one_spelling(self, case: list[Any]) -> None:
        text, serialised, host, port, authority = case
        origin = names.parse_origin(text)
        assert str(origin) == serialised
        assert (origin.host, origin.port, origin.authority) == (host, port, authority)
        assert names.parse_origin(serialised) == origin

    @pytest.mark.parametrize(("text", "error"), vectors.refused("origins"))
    def test_is_refused(self, text: str, error: str) -> None:
        with pytest.raises(Malformed, match=error):
            names.parse_origin(text)

    @pytest.mark.parametrize("case", vectors.accepted("origins"))
    def test_its_connect_target_says_the_port_always(self, case: list[Any]) -> None:
        origin = names.parse_origin(case[0])
        assert origin.host_port.endswith(f":{origin.port}")
        assert names.parse_connect_target(origin.host_port, origin.scheme) == origin

    @pytest.mark.parametrize("text", ["app.test", "app.test:", "[::1]", "", "a b:1"])
    def test_a_connect_target_without_a_port_is_refused(self, text: str) -> None:
        with pytest.raises(Malformed, match="CONNECT needs host:port"):
            names.parse_connect_target(text)

    def test_the_scheme_of_a_connect_target_is_https_unless_said(self) -> None:
        assert str(names.parse_connect_target("app.test:443")) == "https://app.test"
        assert str(names.parse_connect_target("app.test:80", "http")) == "http://app.test"

    @pytest.mark.parametrize(
        ("text", "address"),
        [("http://10.0.0.1", True), ("http://[::1]", True), ("http://app.test", False)],
    )
    def test_knows_an_address_from_a_name(self, text: str, address: bool) -> None:
        assert names.parse_origin(text).is_address is address

    def test_sorts_and_hashes(self) -> None:
        one, two = Origin("http", "a.test", 80), Origin("http", "b.test", 80)
        assert sorted({two, one, Origin("http", "a.test", 80)}) == [one, two]

    @given(st.ip_addresses(v=6))
    def test_every_ipv6_address_has_one_spelling(self, address: ipaddress.IPv6Address) -> None:
        host = names.parse_host(str(address))
        assert host == names.parse_host(address.exploded)
        assert ipaddress.IPv6Address(host) == address
        if address.ipv4_mapped is None:
            assert host == address.compressed

    @given(st.ip_addresses(v=4))
    def test_every_ipv4_address_is_itself(self, address: ipaddress.IPv4Address) -> None:
        assert names.parse_host(str(address)) == str(address)

    def test_a_zone_is_refused(self) -> None:
        with pytest.raises(Malformed, match="zone"):
            names.parse_host("fe80::1%eth0")

    def test_a_host_beyond_ascii_is_refused(self) -> None:
        with pytest.raises(Malformed, match="not ASCII"):
            names.parse_host("b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.test")

    @given(st.text(max_size=80) | st.from_regex(r"https?://[A-Za-z0-9.:\[\]-]{0,30}"))
    def test_whatever_is_accepted_reads_back(self, text: str) -> None:
        try:
            origin = names.parse_origin(text)
        except Malformed:
            return
        assert names.parse_origin(str(origin)) == origin
        assert str(origin).isascii()

    @given(st.text(max_size=40))
    def test_nothing_but_our_errors(self, text: str) -> None:
        for parse in (names.parse_host, names.parse_port, names.parse_authority):
            try:
                parse(text)
            except IamAuthError:
                pass


class TestKey:
    @pytest.mark.parametrize("case", vectors.accepted("key_arns"))
    def test_is_read(self, case: list[Any]) -> None:
        text, partition, region, account, is_key_arn = case
        reference = names.parse_key_reference(text)
        assert str(reference) == text
        assert (reference.partition, reference.region, reference.account) == (
            partition,
            region,
            account,
        )
        if is_key_arn:
            assert str(names.parse_key_arn(text)) == text
        else:
            with pytest.raises(Malformed, match="not a KMS key ARN"):
                names.parse_key_arn(text)

    @pytest.mark.parametrize(("text", "error"), vectors.refused("key_arns"))
    def test_is_refused(self, text: str, error: str) -> None:
        with pytest.raises(Malformed, match=error):
            names.parse_key_reference(text)
        with pytest.raises(Malformed):
            names.parse_key_arn(text)

    def test_is_taken_apart(self) -> None:
        arn = names.parse_key_arn(f"arn:aws-cn:kms:cn-north-1:111111111111:key/{UUID}")
        assert arn == KeyArn("aws-cn", "cn-north-1", "111111111111", UUID)

    @given(st.text(max_size=100) | st.from_regex(r"arn:aws:kms:[a-z0-9-]{3,12}:[0-9]{12}:.{0,50}"))
    def test_nothing_but_our_errors(self, text: str) -> None:
        for parse in (names.parse_key_reference, names.parse_key_arn):
            try:
                assert str(parse(text)) == text
            except IamAuthError:
                pass


def test_account_ids_are_twelve_ascii_digits() -> None:
    assert names.is_account_id("000000000000")
    for text in ("", "12345678901", "1234567890123", "12345678901a", "123456789012\n", "١" * 12):
        assert not names.is_account_id(text)


@pytest.mark.parametrize(
    ("partition", "region", "host"),
    [
        ("aws", "eu-west-1", "sts.eu-west-1.amazonaws.com"),
        ("aws", "us-east-1", "sts.us-east-1.amazonaws.com"),
        ("aws-cn", "cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
        ("aws-us-gov", "us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"),
        ("aws-eusc", "eusc-de-east-1", "sts.eusc-de-east-1.amazonaws.eu"),
    ],
)
def test_sts_is_asked_in_the_keys_region(partition: str, region: str, host: str) -> None:
    assert names.sts_host(KeyArn(partition, region, "123456789012", UUID)) == host


@pytest.mark.parametrize(
    ("partition", "region"),
    [("aws", "cn-north-1"), ("aws-cn", "eu-west-1"), ("", ""), ("aws", "eu-west-1.evil.example/")],
)
def test_no_sts_is_asked_in_an_unknown_region(partition: str, region: str) -> None:
    with pytest.raises(Malformed, match="unknown partition or region"):
        names.sts_host(KeyArn(partition, region, "123456789012", UUID))


def test_the_sts_hosts_are_those_of_botocore() -> None:
    session = botocore.session.Session()
    for partition, (_, suffix) in names.PARTITIONS.items():
        for region in session.get_available_regions("sts", partition):
            if not names.region_belongs(partition, region):
                continue  # "aws-global" and its like
            endpoint = session.create_client(
                "sts", region, aws_access_key_id="a", aws_secret_access_key="b"
            ).meta.endpoint_url
            host = names.sts_host(KeyArn(partition, region, "123456789012", UUID))
            assert (endpoint, host.endswith(suffix)) == (f"https://{host}", True)


def test_partitions_are_those_of_botocore() -> None:
    """Ours are written down, so that nothing on the wire has to import botocore."""
    path = Path(botocore.__file__).parent / "data" / "partitions.json"
    theirs = {
        partition["id"]: (partition["regionRegex"], partition["outputs"]["dnsSuffix"])
        for partition in json.loads(path.read_text("utf-8"))["partitions"]
    }
    ours = {
        # botocore anchors with ^ and $, escapes "-" and captures.
        name: ("^" + regions.replace("(?:", "(").replace("-", r"\-") + "$", suffix)
        for name, (regions, suffix) in names.PARTITIONS.items()
    }
    assert ours == theirs


@pytest.mark.parametrize("text", ["", "a b", "ä", "a\n", "x" * 257])
def test_audience_that_is_refused(text: str) -> None:
    assert names.check_audience("confidant-production") == "confidant-production"
    with pytest.raises(Malformed, match="visible ASCII"):
        names.check_audience(text)


def test_a_callers_name() -> None:
    """What else it may not be: tests/vectors/service_tokens.json."""
    assert names.check_caller_name("a.b+c=d,e@example.com_-") == "a.b+c=d,e@example.com_-"
    with pytest.raises(Malformed, match="is not a name"):
        names.check_caller_name("team/app")


class TestConnectTarget:
    @given(
        st.one_of(
            st.text(max_size=30),
            st.lists(
                st.sampled_from(
                    ("app.test", "[::1]", "127.0.0.1", ":", "443", "0", "65536", "@", "/", "[", "]")
                ),
                max_size=5,
            ).map("".join),
        )
    )
    def test_is_refused_or_has_one_spelling(self, text: str) -> None:
        try:
            origin = names.parse_connect_target(text)
        except Malformed:
            return
        assert origin.host_port.endswith(f":{int(text.rpartition(':')[2])}")
        assert names.parse_connect_target(origin.host_port) == origin
