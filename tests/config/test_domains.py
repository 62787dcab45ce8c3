"""What a local CA may speak for: tests/vectors/domains.json."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.config import parse_domain, parse_trust
from iam_auth_proxy.config.domains import may_be_own
from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import parse_host
from tests.support import vectors


@pytest.mark.parametrize("case", vectors.accepted("domains"))
def test_a_domain_of_ones_own(case: tuple[str, str]) -> None:
    text, domain = case
    assert parse_domain(text) == domain
    assert parse_domain(domain) == domain


@pytest.mark.parametrize(("text", "error"), vectors.refused("domains"))
def test_what_no_ca_may_speak_for(text: str, error: str) -> None:
    with pytest.raises(Malformed, match=error):
        parse_domain(text)


@given(st.text(alphabet="ab.*:-_/1\nü", max_size=12))
def test_any_text_is_a_name_of_two_labels_or_malformed(text: str) -> None:
    with contextlib.suppress(Malformed):
        domain = parse_domain(text)
        assert domain == parse_host(domain)
        assert "." in domain
        assert may_be_own(domain)
        assert parse_trust(f"https://*.{domain}").wildcard
