"""Options are data: name, help, default, place in the file and grammar, in one table.

Flags, environment variables and ``config.toml`` are three spellings of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from iam_auth_proxy.config.values import parse_bind, parse_duration, parse_trust
from iam_auth_proxy.errors import Malformed

ENV_PREFIX: Final = "IAM_AUTH_PROXY_"
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``name`` is its flag without dashes in front and its variable's last part.

    :ivar key: its place in config.toml; dots are tables. Empty: not in the file.
    :ivar parse: checks a text; raises :class:`Malformed`.
    :ivar secret: never shown, and its text is not quoted in a problem.
    """

    name: str
    help: str
    metavar: str
    default: str = ""
    key: str = ""
    repeat: bool = False
    choices: tuple[str, ...] = ()
    parse: Callable[[str], object] | None = None
    secret: bool = False
    seed: bool = False

    @property
    def attribute(self) -> str:
        """The name as Python has it."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable's name."""
        return ENV_PREFIX + self.attribute.upper()


def _region(text: str) -> str:
    if not re.fullmatch(r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2}", text, re.ASCII):
        raise Malformed("not an AWS region such as eu-west-1")
    return text


def _role_arn(text: str) -> str:
    if not re.fullmatch(r"arn:[a-z-]+:iam::[0-9]{12}:role/[\x21-\x7e]{1,576}", text, re.ASCII):
        raise Malformed("not a role ARN such as arn:aws:iam::111122223333:role/NAME")
    return text


def _session_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_+=,.@-]{2,64}", text, re.ASCII):
        raise Malformed("a session name is 2 to 64 letters, digits or _+=,.@-")
    return text


def _mfa_code(text: str) -> str:
    if not re.fullmatch(r"[0-9]{6}", text, re.ASCII):
        raise Malformed("an MFA code has six digits")
    return text


OPTIONS: Final = (
    Option(
        "assume-role-arn",
        "Role to assume.",
        metavar="ARN",
        key="assume_role.arn",
        parse=_role_arn,
        seed=True,
    ),
    Option(
        "assume-role-external-id",
        "External ID of the role to assume.",
        metavar="ID",
        key="assume_role.external_id",
        seed=True,
    ),
    Option(
        "assume-role-session-name",
        "Session name of the assumed role.",
        metavar="NAME",
        key="assume_role.session_name",
        parse=_session_name,
        seed=True,
    ),
    Option(
        "assume-role-policy",
        "Session policy of the assumed role: JSON, or a path.",
        metavar="JSON",
        key="assume_role.policy",
        seed=True,
    ),
    Option(
        "session-duration",
        "Life of the assumed or MFA session.",
        metavar="DURATION",
        key="assume_role.duration",
        default="1h",
        parse=parse_duration,
        seed=True,
    ),
    Option(
        "region",
        "AWS region for STS. KMS is called in the region of the app's key.",
        metavar="REGION",
        key="region",
        parse=_region,
        seed=True,
    ),
    Option(
        "mfa-serial-number",
        "Serial number or ARN of your MFA device.",
        metavar="SERIAL",
        key="mfa.serial",
        seed=True,
    ),
    Option(
        "mfa-token-code",
        "Code of your MFA device; asked for on the terminal when absent.",
        metavar="CODE",
        parse=_mfa_code,
        secret=True,
        seed=True,
    ),
    Option(
        "socks-proxy",
        "Reach apps through [socks5h|socks5|socks4|http://][user@]HOST:PORT.",
        metavar="PROXY",
        key="socks_proxy",
        seed=True,
    ),
    Option(
        "bind",
        "Where to listen: ADDRESS:PORT or unix:PATH; :PORT is loopback.",
        metavar="ADDRESS",
        key="bind",
        default=":8080",
        parse=parse_bind,
        seed=True,
    ),
    Option(
        "log-level",
        "How much is logged.",
        metavar="LEVEL",
        key="log_level",
        default="info",
        choices=LOG_LEVELS,
        seed=True,
    ),
    Option(
        "log-format",
        "How it is logged; auto: text on a terminal, json otherwise.",
        metavar="FORMAT",
        key="log_format",
        default="auto",
        choices=("auto", "text", "json"),
        seed=True,
    ),
    Option(
        "profile",
        "AWS profile to sign in with.",
        metavar="NAME",
        key="profile",
    ),
    Option(
        "trust",
        "Answer the challenges of ORIGIN, sealed for KEY_ARN or a key of your own account.",
        metavar="ORIGIN[=KEY_ARN]",
        key="trust",
        repeat=True,
        parse=parse_trust,
    ),
    Option(
        "connect-to",
        "Dial ADDRESS:PORT for HOST:PORT, as curl does.",
        metavar="HOST:PORT:ADDRESS:PORT",
        key="connect_to",
        repeat=True,
    ),
    Option(
        "allow-target",
        "Loopback or link-local HOST, HOST:PORT or network that may be reached.",
        metavar="TARGET",
        key="allow_targets",
        repeat=True,
    ),
    Option(
        "cacert",
        "PEM file of further certificate authorities for the calls to AWS.",
        metavar="FILE",
        key="cacert",
    ),
    Option(
        "sign-in",
        "auto: no token in a URL bar or history; redirect: the original's form.",
        metavar="MODE",
        key="sign_in",
        default="auto",
        choices=("auto", "redirect"),
    ),
)
