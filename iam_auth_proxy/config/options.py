"""Options are data: name, help, default, place in the file and grammar, in one table.

Flags, environment variables and ``config.toml`` are three spellings of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from iam_auth_proxy.config.values import (
    PROOFS,
    parse_account,
    parse_alias_of,
    parse_bastion,
    parse_bind,
    parse_intercept,
    parse_profile,
    parse_session_duration,
    parse_size,
    parse_switch,
    parse_trust,
)
from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import parse_port

ENV_PREFIX: Final = "IAM_AUTH_PROXY_"
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
# The Go original's further levels, so that its command lines keep working.
_LOG_SYNONYMS = {"trace": "debug", "warn": "warning", "fatal": "error", "panic": "error"}

ORIGINAL_GROUP: Final = "Flags"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``name`` is its flag without dashes in front and its variable's last part.

    :ivar group: the heading under which help lists it; the original's own flags come first.
    :ivar key: its place in config.toml; dots are tables. Empty: not in the file.
    :ivar repeat: may be given several times; the sources add up.
    :ivar replaces: of an option that repeats: the sources do not add up, the first one counts.
    :ivar switch: takes no value as a flag; ``true`` or ``false`` elsewhere.
    :ivar choices: the texts that it takes.
    :ivar synonyms: further texts -> the choice that each stands for.
    :ivar parse: checks a text; raises :class:`Malformed`.
    :ivar secret: never shown, and its text is not quoted in a problem.
    """

    name: str
    help: str
    metavar: str = ""
    group: str = ORIGINAL_GROUP
    default: str = ""
    key: str = ""
    repeat: bool = False
    replaces: bool = False
    switch: bool = False
    choices: tuple[str, ...] = ()
    synonyms: Mapping[str, str] = field(default_factory=dict)
    parse: Callable[[str], object] | None = None
    secret: bool = False

    @property
    def attribute(self) -> str:
        """The name as Python has it."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable's name."""
        return ENV_PREFIX + self.attribute.upper()


def _grammar(pattern: str, otherwise: str) -> Callable[[str], object]:
    compiled = re.compile(pattern, re.ASCII)

    def parse(text: str) -> str:
        if not compiled.fullmatch(text):
            raise Malformed(otherwise)
        return text

    return parse


# Lengths and alphabets are those of the STS API reference (AssumeRole, GetSessionToken).
_region = _grammar(r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2}", "not an AWS region such as eu-west-1")
_role_arn = _grammar(
    r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\x21-\x7e]{1,576}",
    "not a role ARN such as arn:aws:iam::111122223333:role/NAME",
)
_external_id = _grammar(
    r"[A-Za-z0-9_+=,.@:/-]{2,1224}", "an external ID is 2 to 1,224 letters, digits or _+=,.@:/-"
)
_session_name = _grammar(
    r"[A-Za-z0-9_+=,.@-]{2,64}", "a session name is 2 to 64 letters, digits or _+=,.@-"
)
_mfa_serial = _grammar(
    r"[A-Za-z0-9_+=/:,.@-]{9,256}",
    "not a device such as GAHT12345678 or arn:aws:iam::111122223333:mfa/NAME",
)
_mfa_code = _grammar(r"[0-9]{6}", "an MFA code has six digits")


OPTIONS: Final = (
    Option(
        "assume-role-arn",
        "Role to assume.",
        metavar="ARN",
        key="assume_role.arn",
        parse=_role_arn,
    ),
    Option(
        "assume-role-external-id",
        "External ID of the role to assume.",
        metavar="ID",
        key="assume_role.external_id",
        parse=_external_id,
    ),
    Option(
        "assume-role-session-name",
        "Session name of the assumed role.",
        metavar="NAME",
        key="assume_role.session_name",
        parse=_session_name,
    ),
    Option(
        "assume-role-policy",
        "Session policy of that role, JSON or a path.",
        metavar="JSON",
        key="assume_role.policy",
    ),
    Option(
        "session-duration",
        "Life of the assumed or MFA session.",
        metavar="DURATION",
        key="assume_role.duration",
        default="1h",
        parse=parse_session_duration,
    ),
    Option(
        "region",
        "Region for STS; KMS is called in the key's.",
        metavar="REGION",
        key="region",
        parse=_region,
    ),
    Option(
        "mfa-serial-number",
        "Serial number or ARN of your MFA device.",
        metavar="SERIAL",
        key="mfa.serial",
        parse=_mfa_serial,
    ),
    Option(
        "mfa-token-code",
        "Code of that device; asked for when absent.",
        metavar="CODE",
        parse=_mfa_code,
        secret=True,
    ),
    Option(
        "socks-proxy",
        "Reach apps through [SCHEME://][USER@]HOST:PORT, SCHEME being socks5h (names are looked up "
        "there), socks5, socks4 or http. Its password: "
        "IAM_AUTH_PROXY_SOCKS_PASSWORD.",
        metavar="PROXY",
        key="socks_proxy",
    ),
    Option(
        "bind",
        "Listen on ADDRESS:PORT, on unix:PATH, or on :PORT of loopback.",
        metavar="ADDRESS",
        key="bind",
        default=":8080",
        parse=parse_bind,
    ),
    Option(
        "log-level",
        "debug, info, warning, error.",
        metavar="LEVEL",
        key="log_level",
        default="info",
        choices=LOG_LEVELS,
        synonyms=_LOG_SYNONYMS,
    ),
    Option(
        "log-format",
        "text, json, or auto: text on a terminal only.",
        metavar="FORMAT",
        key="log_format",
        default="auto",
        choices=("auto", "text", "json"),
    ),
    Option(
        "profile",
        "AWS profile whose identity the apps see.",
        group="Signing in",
        metavar="NAME",
        key="profile",
        parse=parse_profile,
    ),
    Option(
        "trust",
        "Sign in to this app, with KEY_ARN or the first key it shows. Repeatable; "
        "http://*.corp.example covers names. See: iam-auth-proxy trust.",
        group="Signing in",
        metavar="ORIGIN[=KEY_ARN]",
        key="trust",
        repeat=True,
        parse=parse_trust,
    ),
    Option(
        "alias",
        "Sign in to this app on https, under http://NAME.localhost on the proxy's own port. "
        "Repeatable.",
        group="Apps on https",
        metavar="NAME=https://HOST",
        repeat=True,
        parse=parse_alias_of,
    ),
    Option(
        "intercept",
        "Sign in to this app on https by ending its TLS here, with the local CA that "
        "iam-auth-proxy ca add makes. Repeatable.",
        group="Apps on https",
        metavar="HOST",
        repeat=True,
        parse=parse_intercept,
    ),
    Option(
        "alias-port",
        "Give each alias an address of its own besides, http://127.x.y.z:PORT, for browsers and "
        "programs that do not find names under .localhost.",
        group="Apps on https",
        metavar="PORT",
        key="alias_port",
        parse=parse_port,
    ),
    Option(
        "proof",
        "What apps may be given: signed-identity (worthless elsewhere), session-credentials (what "
        "original servers want: nearly all your rights). Repeatable.",
        group="Signing in",
        metavar="KIND",
        key="proofs",
        default=PROOFS[0],
        repeat=True,
        replaces=True,
        choices=PROOFS,
    ),
    Option(
        "key-account",
        "Take this account's keys as those of your own account. Repeatable.",
        group="Signing in",
        metavar="ACCOUNT",
        key="key_accounts",
        repeat=True,
        parse=parse_account,
    ),
    Option(
        "login-role-arn",
        "Role without rights that signs in to original servers for roles and SSO.",
        group="Signing in",
        metavar="ARN",
        key="login_role_arn",
        parse=_role_arn,
    ),
    Option(
        "ssh-bastion",
        "Reach apps through this host, by an ssh that runs with the proxy. All else goes directly.",
        group="Reaching apps and AWS",
        metavar="[USER@]HOST",
        key="ssh_bastion",
        parse=parse_bastion,
    ),
    Option(
        "ssh",
        "The ssh of that bastion and its first options, a word each. Repeatable; default: ssh.",
        group="Reaching apps and AWS",
        metavar="WORD",
        key="ssh",
        repeat=True,
        replaces=True,
    ),
    Option(
        "connect-to",
        "Dial ADDRESS:PORT for HOST:PORT. Repeatable.",
        group="Reaching apps and AWS",
        metavar="HOST:PORT:ADDRESS:PORT",
        key="connect_to",
        repeat=True,
    ),
    Option(
        "allow-target",
        "Loopback or link-local HOST, HOST:PORT or network that may be reached. Repeatable.",
        group="Reaching apps and AWS",
        metavar="TARGET",
        key="allow_targets",
        repeat=True,
    ),
    Option(
        "cacert",
        "Trust these authorities (PEM) in AWS calls and for https apps.",
        group="Reaching apps and AWS",
        metavar="FILE",
        key="cacert",
    ),
    Option(
        "sign-in",
        "auto keeps tokens out of URLs; redirect is the Go proxy's way, for old servers; inline "
        "spares pages the redirect where the browser says that the person asked for them.",
        group="Signing in",
        metavar="MODE",
        key="sign_in",
        default="auto",
        choices=("auto", "redirect", "inline"),
    ),
    Option(
        "replay-body",
        "Bytes of a request that are kept, to send it again after a sign-in.",
        group="Signing in",
        metavar="SIZE",
        key="replay_body",
        default="64MiB",
        parse=parse_size,
    ),
    Option(
        "client-auth",
        "Ask clients for a password of FILE; on plain http anybody on the way reads it. Make "
        "FILE with: iam-auth-proxy client-auth.",
        group="Who may use it",
        metavar="FILE",
        key="client_auth",
    ),
    Option(
        "allow-other-users",
        "Let every user of this machine use the proxy, as you.",
        group="Who may use it",
        key="allow_other_users",
        default="false",
        switch=True,
        parse=parse_switch,
    ),
    Option(
        "quiet",
        "Say nothing but warnings and errors.",
        group="Everywhere",
        key="quiet",
        default="false",
        switch=True,
        parse=parse_switch,
    ),
)
