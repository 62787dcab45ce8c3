"""The table of options agrees with itself, with the settings, and with AWS's own lists."""

from dataclasses import fields

import botocore.session
import pytest

from iam_auth_proxy.config import OPTIONS, Option, Settings
from iam_auth_proxy.config.options import ORIGINAL_GROUP
from iam_auth_proxy.errors import Malformed

BY_NAME = {option.name: option for option in OPTIONS}
# In the order of the original's usage text, then the flags that its text does not show.
ORIGINAL = [
    *("assume-role-arn", "assume-role-external-id", "assume-role-session-name"),
    *("region", "mfa-serial-number", "mfa-token-code", "socks-proxy", "bind"),
    *("assume-role-policy", "session-duration", "log-level", "log-format"),
]


def test_every_flag_of_the_seed_is_there_and_comes_first() -> None:
    first = [option.name for option in OPTIONS[: len(ORIGINAL)]]
    assert sorted(first) == sorted(ORIGINAL)
    assert all(option.group == ORIGINAL_GROUP for option in OPTIONS[: len(ORIGINAL)])
    assert all(option.group != ORIGINAL_GROUP for option in OPTIONS[len(ORIGINAL) :])


def test_names_keys_and_variables_are_unique() -> None:
    keys = [option.key for option in OPTIONS if option.key]
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)
    assert len(set(keys)) == len(keys)
    assert BY_NAME["assume-role-arn"].variable == "IAM_AUTH_PROXY_ASSUME_ROLE_ARN"


def test_every_option_is_a_setting() -> None:
    renamed = {"allow_target": "allow_targets", "proof": "proofs", "key_account": "key_accounts"}
    rules = {"alias", "intercept"}  # further ways to write what is in ``trust``
    wanted = {renamed.get(option.attribute, option.attribute) for option in OPTIONS} - rules
    assert {each.name for each in fields(Settings)} == wanted | {
        "files",
        "trust_files",
        "chosen",
        "vias",
        "warnings",
    }


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_option_is_whole(option: Option) -> None:
    assert option.help.endswith(".")
    assert bool(option.metavar) is not option.switch
    assert not (option.secret and option.key), "a secret is not written into a file"
    if option.choices:
        assert option.default in option.choices
        assert set(option.synonyms.values()) <= set(option.choices)
        assert not set(option.synonyms) & set(option.choices)
    if option.parse is not None and option.default:
        option.parse(option.default)


def test_every_region_of_aws_is_one() -> None:
    session = botocore.session.Session()
    parse = BY_NAME["region"].parse
    assert parse is not None
    for partition in session.get_available_partitions():
        for region in session.get_available_regions("sts", partition):
            parse(region)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("region", "Ireland"),
        ("region", "eu-west-1\n"),
        ("region", "eu-west"),
        ("region", "eu-west-1.evil.com"),
        ("assume-role-arn", "role/x"),
        ("assume-role-arn", "arn:aws:iam::111122223333:user/x"),
        ("assume-role-arn", "arn:aws:iam::11112222333:role/x"),
        ("assume-role-arn", "arn:aws:iam::111122223333:role/"),
        ("assume-role-arn", "arn:aws:iam::111122223333:role/a b"),
        ("assume-role-external-id", "x"),
        ("assume-role-external-id", "a b"),
        ("assume-role-session-name", "x"),
        ("assume-role-session-name", "a" * 65),
        ("assume-role-session-name", "al ice"),
        ("mfa-serial-number", "short"),
        ("mfa-serial-number", "a" * 257),
        ("mfa-token-code", "12345"),
        ("mfa-token-code", "1234567"),
        ("mfa-token-code", "١٢٣٤٥٦"),
    ],
)
def test_what_aws_would_refuse_is_refused_here(name: str, text: str) -> None:
    parse = BY_NAME[name].parse
    assert parse is not None
    with pytest.raises(Malformed):
        parse(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("assume-role-arn", "arn:aws:iam::111122223333:role/path/to/Name"),
        ("assume-role-arn", "arn:aws-us-gov:iam::111122223333:role/x"),
        ("assume-role-external-id", "a/b:c=1"),
        ("assume-role-session-name", "alice@example.com"),
        ("mfa-serial-number", "GAHT12345678"),
        ("mfa-serial-number", "arn:aws:iam::111122223333:mfa/alice"),
        ("mfa-token-code", "012345"),
    ],
)
def test_what_aws_takes_is_taken(name: str, text: str) -> None:
    parse = BY_NAME[name].parse
    assert parse is not None
    parse(text)
