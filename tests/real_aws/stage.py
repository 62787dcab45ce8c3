"""What is created in the account, and how all of it goes away again.

Everything has one random name, ``iam-auth-proxy-check-...``. What undoes a step is noted before the
step is taken, so that nothing stays behind wherever it is interrupted.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

import server_example
from iam_auth_proxy.local_aws import Keys
from tests.real_aws.sides import Side

Say = Callable[[str], None]

PREFIX: Final = "iam-auth-proxy-check-"
WAITING_DAYS: Final = 7
"""The shortest time that KMS lets pass before a key is deleted; it costs nothing meanwhile."""

POLICIES: Final = Path(server_example.__file__).parent / "policies"
# Who is who in the shipped files.
_APP, _PEOPLE = "111122223333", "222222222222"
_KEY = f"arn:aws:kms:eu-west-1:{_APP}:key/1234abcd-12ab-34cd-56ef-1234567890ab"

_GONE: Final = frozenset(
    {"NoSuchEntity", "NotFoundException", "KMSInvalidStateException", "NoSuchEntityException"}
)


def policy(name: str, side: Side, key: str = "") -> str:
    """A shipped policy, for this account and key."""
    text = (POLICIES / f"{name}.json").read_text().replace(_KEY, key)
    for number in (_APP, _PEOPLE):
        text = text.replace(number, side.account)
    return text.replace("arn:aws:", f"arn:{side.partition}:")


@dataclass
class Stage:
    """What the facts play on.

    :ivar person: may do what ``user.json`` says, ``server`` what ``server.json`` says.
    :ivar key: has ``key.json``; ``other`` is a key that neither may use.
    """

    side: Side
    name: str
    key: str = ""
    other: str = ""
    person: Keys = field(default_factory=lambda: Keys("", ""))
    server: Keys = field(default_factory=lambda: Keys("", ""))

    @property
    def user_name(self) -> str:
        return f"{self.name}-person"

    @property
    def role_name(self) -> str:
        return f"{self.name}-role"


def plan(side: Side) -> list[str]:
    """What will be created, for the person to read before it is."""
    return [
        f"As {side.caller}, in account {side.account}, region {side.region}, named {PREFIX}...:",
        "  2 KMS keys (symmetric; a few cents until they are scheduled for deletion, which is at",
        f"    the end; they are gone {WAITING_DAYS} days later)",
        "  2 IAM users with one access key each, and the policies of server_example/policies",
        "  1 IAM role without permissions, which this account alone may assume",
        "Nothing else is touched, and everything is removed at the end, on Ctrl-C too.",
    ]


@contextlib.contextmanager
def staged(side: Side, say: Say) -> Iterator[Stage]:
    """Create everything, and remove it whatever happens. A removal that fails says what is left."""
    stage = Stage(side, PREFIX + secrets.token_hex(4))
    undo = contextlib.ExitStack()
    try:
        stage.key = _make_key(stage, undo, say, policy("key", side))
        stage.other = _make_key(stage, undo, say, "")
        stage.person = _make_user(stage, undo, say, "person", policy("user", side, stage.key))
        stage.server = _make_user(stage, undo, say, "server", policy("server", side, stage.key))
        _make_role(stage, undo, say)
        yield stage
    finally:
        with _uninterrupted(say):
            undo.close()


@contextlib.contextmanager
def _uninterrupted(say: Say) -> Iterator[None]:
    """Another Ctrl-C does not leave half of it behind."""
    before = signal.signal(signal.SIGINT, lambda *_: say("removing what was created; wait"))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _make_key(stage: Stage, undo: contextlib.ExitStack, say: Say, document: str) -> str:
    kms = stage.side.client("kms")
    more = {"Policy": document} if document else {}
    # A key has no name to find it by, so an interruption within this one call leaves one behind.
    arn: str = kms.create_key(Description=stage.name, **more)["KeyMetadata"]["Arn"]
    by_hand = f"aws kms schedule-key-deletion --region {stage.side.region} --key-id {arn}"
    undo.callback(
        _remove, say, by_hand, kms.schedule_key_deletion,
        KeyId=arn, PendingWindowInDays=WAITING_DAYS,
    )  # fmt: skip
    say(f"created {arn}")
    return arn


def _make_user(
    stage: Stage, undo: contextlib.ExitStack, say: Say, suffix: str, document: str
) -> Keys:
    iam, name = stage.side.client("iam"), f"{stage.name}-{suffix}"
    undo.callback(remove_user, stage.side, name, say)
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="shipped", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    say(f"created user {name}")
    return Keys(key["AccessKeyId"], key["SecretAccessKey"])


def remove_user(side: Side, name: str, say: Say) -> None:
    """The user with its keys and policies; whatever of it there is."""
    iam, of = side.client("iam"), {"UserName": name}
    try:
        held = iam.list_access_keys(**of)["AccessKeyMetadata"]
    except ClientError as error:
        if error.response["Error"]["Code"] in _GONE:
            return
        held = []
    for key in held:
        key_id = key["AccessKeyId"]
        by_hand = f"aws iam delete-access-key --user-name {name} --access-key-id {key_id}"
        _remove(say, by_hand, iam.delete_access_key, AccessKeyId=key_id, **of)
    by_hand = f"aws iam delete-user-policy --user-name {name} --policy-name shipped"
    _remove(say, by_hand, iam.delete_user_policy, PolicyName="shipped", **of)
    _remove(say, f"aws iam delete-user --user-name {name}", iam.delete_user, **of)


def _make_role(stage: Stage, undo: contextlib.ExitStack, say: Say) -> None:
    """A role that trusts everybody, as far as they are of this account."""
    iam, name = stage.side.client("iam"), stage.role_name
    trust = {
        "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"},
        "Condition": {"StringEquals": {"aws:PrincipalAccount": stage.side.account}},
    }  # fmt: skip
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    by_hand = f"aws iam delete-role --role-name {name}"
    undo.callback(_remove, say, by_hand, iam.delete_role, RoleName=name)
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)
    say(f"created role {name}")


def _remove(say: Say, by_hand: str, operation: Callable[..., Any], **what: Any) -> None:
    """One step back; the ones after it are taken even if it fails."""
    try:
        operation(**what)
    except (ClientError, BotoCoreError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        if code not in _GONE:
            say(f"NOT REMOVED: {error}. Remove it with: {by_hand}")
    else:
        say(f"removed: {by_hand.partition(' ')[2]}")
