"""``token``: make a service token for a script, and say what is wrong with one."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from iam_auth_proxy import config
from iam_auth_proxy.cli.layout import PROGRAM, Command, Flag, Group, Misused, Number
from iam_auth_proxy.cli.settings import config_flag, flag, json_flag, loader
from iam_auth_proxy.errors import BadServiceToken, ConfigError, Malformed, MfaNeeded

if TYPE_CHECKING:
    from iam_auth_proxy.aws.base import Kms, Principal
    from iam_auth_proxy.protocol.service_token import Caller, ServiceToken

T = TypeVar("T")

_OPTIONS = {option.name: option for option in config.OPTIONS}
_WHO = ("profile", "region", "assume-role-arn", "mfa-serial-number", "mfa-token-code")

# One thing to do for each part of a token that may not match.
_REMEDIES: Final = {
    "username": "Write it as 2/user/NAME or 2/service/NAME.",
    "version": "Use version 2: its username is 2/user/NAME, its context has user_type.",
    "user_type": "Seal it with user_type in its context, the same as in the username.",
    "from": "Let from in the context and the name in the username be the same.",
    "to": "Make it for this audience.",
    "context": "Compare to, from, user_type and further context with what it was sealed with.",
    "key": "Name its key with --kms-key, and run this as the app, for example with --profile NAME.",
    "token": "Send the base64 of KMS's answer as it is.",
    "payload": 'Seal {"not_before": "20261121T204802Z", "not_after": "20261121T205802Z"}, in UTC.',
    "lifetime": "Make it shorter, or say --max-lifetime if the app accepts more.",
    "not_before": "Compare the clocks of both machines with: date -u",
    "not_after": f"Make a new one: {PROGRAM} token issue",
}


@click.group("token", cls=Group, short_help="Service tokens (kmsauth) for scripts and services.")
def token_commands() -> None:
    """Make service tokens (kmsauth), with which scripts and services call an app
    without a browser, and find out why one is not accepted.
    """


def _context_flag() -> Flag:
    return Flag(
        ["--context"],
        metavar="KEY=VALUE",
        multiple=True,
        help="Further encryption context that the app wants. Repeatable.",
    )


# -- issue -----------------------------------------------------------------------------------------


@token_commands.command(
    "issue",
    cls=Command,
    params=[
        Flag(["--to"], metavar="AUDIENCE", required=True, help="What the app calls itself."),
        Flag(["--kms-key", "key"], metavar="KEY", required=True, help="ARN, id or alias/NAME."),
        Flag(["--from", "name"], metavar="NAME", help="Who calls. Default: your own IAM name."),
        Flag(
            ["--type", "kind"],
            type=click.Choice(["user", "service"]),
            metavar="TYPE",
            help="user or service. Default: what your identity is; with --from, user.",
        ),
        Flag(
            ["--format", "form"],
            type=click.Choice(["curl-config", "headers", "json"]),
            default="curl-config",
            metavar="FORMAT",
            help="curl-config, headers or json. [default:\xa0curl-config]",
        ),
        Flag(["--lifetime"], metavar="DURATION", help="How long it is valid. [default:\xa010m]"),
        Flag(
            ["--token-version", "version"],
            type=Number(1, 2),
            default=2,
            metavar="N",
            help="1 for apps that know no other. [default:\xa02]",
        ),
        _context_flag(),
        *(flag(_OPTIONS[name]) for name in _WHO),
        config_flag(),
    ],
    short_help="Make a token and print it for curl and others.",
)
def issue_command(
    to: str,
    key: str,
    name: str | None,
    kind: str | None,
    form: str,
    lifetime: str | None,
    version: int,
    context: Sequence[str],
    config_file: str | None,
    **given: Any,
) -> int:
    """Have KMS make a token that is yours for a few minutes, and print it.

    \b
      iam-auth-proxy token issue --to app --kms-key alias/authnz | curl -K - URL

    Whoever has it is you until then: pipe it, and write it nowhere.
    """
    settings = loader(given, config_file)()
    from iam_auth_proxy.names import parse_key_reference
    from iam_auth_proxy.proxy.process.build import principal_of
    from iam_auth_proxy.tokens.issuer import LIFETIME, USUAL_WINDOW, Issuer, OfPrincipal

    try:
        seconds = _of("--lifetime", config.parse_duration, lifetime) if lifetime else LIFETIME
        region = _of("--kms-key", parse_key_reference, key).region
        principal = principal_of(settings, os.environ, region)
        caller = _with_mfa(principal, lambda: _caller(principal, name, kind, version))
        issuer = Issuer(
            OfPrincipal(principal, time.time), key, caller, to,
            lifetime=seconds, extra=_pairs(context),
        )  # fmt: skip
    except Malformed as error:
        raise Misused(str(error), f"See: {PROGRAM} token issue --help") from error
    made = _with_mfa(principal, lambda: issuer.issue(time.time()))
    click.echo(_written(made, form))
    minutes = round((made.window.not_after - time.time()) / 60)
    click.echo(f"{made.caller} to {made.to}, for {minutes} min, key {made.key_arn}", err=True)
    if made.window.lifetime > USUAL_WINDOW:
        click.echo("Apps accept at most an hour, unless they are told otherwise.", err=True)
    return 0


def _of(name: str, parse: Callable[[str], T], text: str) -> T:
    """The value of a flag.

    :raises Malformed: with the flag's name.
    """
    try:
        return parse(text)
    except Malformed as error:
        raise Malformed(f"{name} {text!r}: {error}") from error


def _with_mfa(principal: Principal, ask: Callable[[], T]) -> T:
    """What AWS answers, once it was told a code where it wants one and somebody can be asked.

    :raises MfaNeeded: nobody can.
    """
    try:
        return ask()
    except MfaNeeded as needed:
        if not sys.stdin.isatty():
            needed.remedy = "Give it with --mfa-token-code."
            raise
        code = click.prompt(f"Code of {needed.serial}", hide_input=True, err=True)
        principal.enter_mfa(code)
    return ask()


def _caller(principal: Principal, name: str | None, kind: str | None, version: int) -> Caller:
    """Whom the token is from: as it was said, or as AWS knows us.

    :raises Malformed: there is no such caller.
    :raises Misused: AWS knows us by no name of that type.
    """
    from iam_auth_proxy.aws.base import CallerIdentity
    from iam_auth_proxy.errors import Unnamed
    from iam_auth_proxy.protocol.service_token import CallerType
    from iam_auth_proxy.tokens.naming import caller_of

    nobody = CallerIdentity("", "", "")  # with a name, AWS need not be asked who we are
    seen = nobody if name else principal.identity(time.time())
    try:
        return caller_of(seen, CallerType(kind) if kind else None, name or "", version)
    except Unnamed as error:
        raise Misused(str(error), "Say which: --from NAME") from error


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts)
    if len(pairs) != len(texts):
        raise Malformed("a key of --context is repeated")
    return pairs


def _written(token: ServiceToken, form: str) -> str:
    if form == "headers":
        return "\n".join(f"{name}: {value}" for name, value in token.headers().items())
    if form == "curl-config":
        # Basic: unlike with other fields, curl keeps it to the host it is for.
        return f'user = "{token.caller}:{token.text}"'
    document = {
        "username": str(token.caller),
        "token": token.text,
        "to": token.to,
        "not_before": token.window.not_before,
        "not_after": token.window.not_after,
        "headers": token.headers(),
        "key": token.key_arn,
    }
    return json.dumps(document, indent=2)


# -- check -----------------------------------------------------------------------------------------


@token_commands.command(
    "check",
    cls=Command,
    params=[
        Flag(["--to"], metavar="AUDIENCE", required=True, help="What the app calls itself."),
        Flag(
            ["--kms-key", "keys"],
            metavar="KEY",
            multiple=True,
            required=True,
            help="A key that the app accepts. Repeatable.",
        ),
        Flag(
            ["--max-lifetime"],
            metavar="DURATION",
            help="The longest that the app lets a token be valid. [default:\xa01h]",
        ),
        _context_flag(),
        *(flag(_OPTIONS[name]) for name in ("profile", "region")),
        json_flag(),
        config_flag(),
    ],
    short_help="Say whether an app accepts a token, or which part does not match.",
)
def check_command(
    to: str,
    keys: Sequence[str],
    max_lifetime: str | None,
    context: Sequence[str],
    as_json: bool,
    config_file: str | None,
    **given: Any,
) -> int:
    """Check a token as the app would, with the app's right to decrypt.

    It is read from standard input, in any format of token issue.

    \b
      iam-auth-proxy token issue ... | iam-auth-proxy token check --to app ...
    """
    settings = loader(given, config_file)()
    text = sys.stdin.buffer.read(65536).decode("utf-8", "replace")
    try:
        username, token = _read(text, to)
        verified = _verify(
            username, token, to, keys, max_lifetime, context, settings.profile, settings.region
        )
    except BadServiceToken as error:
        error.remedy = _REMEDIES.get(error.field, f"See: {PROGRAM} token check --help")
        raise
    except Malformed as error:
        raise Misused(str(error), f"See: {PROGRAM} token check --help") from error
    left = verified.window.not_after - int(time.time())
    if as_json:
        document = {
            "username": str(verified.caller), "to": to, "key": verified.key_arn,
            "not_before": verified.window.not_before, "not_after": verified.window.not_after,
        }  # fmt: skip
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(f"{verified.caller} to {to}, for {left} s more, key {verified.key_arn}")
    return 0


def _verify(
    username: str,
    token: str,
    to: str,
    keys: Sequence[str],
    max_lifetime: str | None,
    context: Sequence[str],
    profile: str,
    region: str,
) -> Any:
    import logging

    from iam_auth_proxy.names import parse_key_reference
    from iam_auth_proxy.protocol import service_token
    from iam_auth_proxy.tokens.accepts import Accepts
    from iam_auth_proxy.tokens.build import open_kms
    from iam_auth_proxy.tokens.diagnosis import explain
    from iam_auth_proxy.tokens.verifier import Verifier

    kms = open_kms(keys[0], profile=profile, region=region)
    # Looked up before verifying, so that AccessDenied is not reported as AWS being unreachable.
    named = tuple(parse_key_reference(_arn(kms, key)) for key in keys)
    first = service_token.parse_username(username).version == 1
    longest = 3600.0
    if max_lifetime:
        longest = _of("--max-lifetime", config.parse_duration, max_lifetime)
    try:
        accepts = Accepts(
            to=to, service_keys=named, user_keys=() if first else named, max_lifetime=longest,
            # Which of its keys are for whom, and which versions it takes, the app's log tells.
            min_version=1, extra=_pairs(context),
        )  # fmt: skip
    except ConfigError as error:
        raise Malformed(str(error)) from error
    # The error that is printed says the same as the log, which would be printed beside it.
    logging.getLogger("iam_auth_proxy.tokens").addHandler(logging.NullHandler())
    verifier = Verifier(accepts, lambda: kms, explain=explain)
    return verifier.verify(username, token, time.time())


def _arn(kms: Kms, key: str) -> str:
    from iam_auth_proxy.names import parse_key_arn, parse_key_reference

    try:
        return str(parse_key_arn(key))
    except Malformed:
        return kms.key_arn(str(_of("--kms-key", parse_key_reference, key)))


_HEADERS = re.compile(
    r"(?is)\s*X-Auth-From: *(?P<username>[^\r\n]*)\r?\n\s*X-Auth-Token: *(?P<token>[^\r\n]*)\s*"
)
_CURL = re.compile(r'\s*user *= *"(?P<username>[^:"\r\n]*):(?P<token>[^"\r\n]*)"\s*')


def _read(text: str, to: str) -> tuple[str, str]:
    """Username and token in any format that ``issue`` writes.

    :raises BadServiceToken: it is said to be for another audience.
    """
    match = _HEADERS.fullmatch(text) or _CURL.fullmatch(text)
    if match is not None:
        return match["username"], match["token"]
    try:
        document = json.loads(text)
        username, token = document["username"], document["token"]
    except (ValueError, KeyError, TypeError) as error:
        remedy = f"Pipe it: {PROGRAM} token issue ... | {PROGRAM} token check ..."
        raise Misused("there is no token on standard input", remedy) from error
    if document.get("to", to) != to:
        raise BadServiceToken(f"it was made for {document['to']!r}, not {to!r}", field="to")
    return str(username), str(token)
