"""The IAM and KMS policies of an app, as its command prints them and its error pages quote them.

Pure. A person needs ``kms:Encrypt`` with the app's key and nothing else; what STS tells anybody
about himself needs no permission. The app's role needs ``kms:Decrypt``, and ``kms:DescribeKey``
where its key is named by an alias. Nobody needs ``kms:ReEncrypt*``, which would turn a token for
this app into one for another key.

A bound sign-in encrypts under a context that holds the app's origin (docs/protocol.md), so a right
can be given for one app even where several share a key. The original protocol's context has no
origin: there a person's right is for the key as a whole.
"""

from __future__ import annotations

import json
from typing import Any

from iam_auth_proxy.names import KeyArn, Origin
from iam_auth_proxy.protocol.envelope import ORIGIN_KEY

Document = dict[str, Any]


def user(origin: Origin | None, key: str) -> Document:
    """For the people: they may sign in.

    :param origin: of the app; None: for the original protocol, whose sign-ins do not name it.
    :param key: the ARN of the app's key.
    """
    statement: Document = {
        "Sid": "UserCanEncrypt",
        "Effect": "Allow",
        "Action": "kms:Encrypt",
        "Resource": key,
    }
    return _document(statement | _for(origin))


def server(key: str) -> Document:
    """For the app's role: it may open what was sealed for it."""
    return _document(
        {
            "Sid": "ServerCanDecrypt",
            "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:DescribeKey"],
            "Resource": key,
        }
    )


def of_key(origin: Origin | None, key: KeyArn, people: str) -> Document:
    """The key's own: its account decides by IAM, and another account's people may encrypt.

    :param origin: as for :func:`user`.
    :param people: the account of the people who sign in; the key's own needs no second statement.
    """
    own: Document = {
        "Sid": "OwnAccountDecides",
        "Effect": "Allow",
        "Principal": {"AWS": _root(key, key.account)},
        "Action": "kms:*",
        "Resource": "*",
    }
    if people in ("", key.account):
        return _document(own)
    other: Document = {
        "Sid": "OtherAccountCanEncrypt",
        "Effect": "Allow",
        "Principal": {"AWS": _root(key, people)},
        "Action": "kms:Encrypt",
        "Resource": "*",
    }
    return _document(own, other | _for(origin))


def token_user(to: str, key: str, *, mfa: bool = True) -> Document:
    """For people: each may make service tokens (kmsauth) in his own name, and in nobody else's.

    IAM fills in the name. It has one for users alone: a role's sessions have no ``aws:username``,
    so this lets none of them make any.

    :param to: the audience: what the app calls itself.
    :param key: the ARN of the key of users' tokens.
    :param mfa: only with a session that was begun with MFA.
    """
    statement = _token("UserCanMakeTokens", to, key, "user", "${aws:username}")
    if mfa:
        statement["Condition"]["Bool"] = {"aws:MultiFactorAuthPresent": "true"}
    return _document(statement)


def token_service(to: str, name: str, key: str) -> Document:
    """For the role of a service: it may make service tokens (kmsauth) in this one name.

    :param name: usually that of the role.
    :param key: the ARN of the key of services' tokens, another than the one of users'.
    """
    return _document(_token("ServiceCanMakeTokens", to, key, "service", name))


def _token(sid: str, to: str, key: str, kind: str, name: str) -> Document:
    # user_type among them: without it, who may make a token of one kind could make the other's.
    context = {"to": to, "from": name, "user_type": kind}
    conditions = {f"kms:EncryptionContext:{pair}": value for pair, value in context.items()}
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": "kms:Encrypt",
        "Resource": key,
        "Condition": {"StringEquals": conditions},
    }


def dumps(document: Document) -> str:
    """A policy as indented JSON, for people to read."""
    return json.dumps(document, indent=2)


def _for(origin: Origin | None) -> Document:
    if origin is None:
        return {}
    key = f"kms:EncryptionContext:{ORIGIN_KEY}"
    return {"Condition": {"StringEquals": {key: str(origin)}}}


def _root(key: KeyArn, account: str) -> str:
    return f"arn:{key.partition}:iam::{account}:root"


def _document(*statements: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}
