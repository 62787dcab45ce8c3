"""What ``trust`` says of the service token that goes with an app's requests."""

from __future__ import annotations

from typing import Final

from iam_auth_proxy import config
from iam_auth_proxy.cli.layout import PROGRAM, Flag, Misused
from iam_auth_proxy.cli.settings import completer

FLAGS: Final = (
    Flag(
        ["--token-to"],
        metavar="AUDIENCE",
        help="Add a service token (kmsauth) for AUDIENCE to your programs' requests.",
    ),
    Flag(
        ["--token-key"],
        metavar="KEY",
        help="The key that it is made with: ARN, id or alias/NAME of your own account.",
    ),
    Flag(
        ["--token-type"],
        metavar="TYPE",
        shell_complete=completer(config.TOKEN_TYPES, file=False),
        help="Whom it is from: user or service. Default: what your identity is.",
    ),
    Flag(["--token-from"], metavar="NAME", help="Its name. Default: your own IAM name."),
    Flag(
        ["--allow-http"],
        is_flag=True,
        help="Send it without encryption, where everybody on the way can take it.",
    ),
)


def table(
    to: str | None, key: str | None, kind: str | None, name: str | None, allow_http: bool
) -> dict[str, object]:
    """What the flags say, in the words of a file; nothing where they say nothing.

    :raises Misused: of what is needed together something is missing.
    """
    if not (to or key or kind or name or allow_http):
        return {}
    if not (to and key):
        raise Misused(
            "a service token needs its audience and its key",
            f"Run: {PROGRAM} trust add ORIGIN --token-to AUDIENCE --token-key KEY",
        )
    texts = {"to": to, "kms_key": key, "type": kind or "", "from": name or ""}
    return {
        "service_token": {part: text for part, text in texts.items() if text},
        "allow_http": allow_http,
    }


def flags_of(token: config.ServiceTokenRule) -> list[str]:
    """The flags that say the same."""
    words = ["--token-to", token.to, "--token-key", token.key]
    words += ["--token-type", token.type] if token.type else []
    words += ["--token-from", token.name] if token.name else []
    return words + (["--allow-http"] if token.allow_http else [])


def described(token: config.ServiceTokenRule | None) -> dict[str, object] | None:
    """As ``--json`` prints it."""
    if token is None:
        return None
    return {
        "to": token.to,
        "kms_key": token.key,
        "type": token.type,
        "from": token.name,
        "allow_http": token.allow_http,
    }


def in_words(token: config.ServiceTokenRule) -> str:
    """The same for people."""
    caller = " ".join(filter(None, (token.type, token.name)))
    words = [f"to {token.to}", f"key {token.key}"]
    words += [f"from {caller}"] if caller else []
    words += ["unencrypted too"] if token.allow_http else []
    return ", ".join(words)
