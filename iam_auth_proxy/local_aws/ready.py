"""An embedded AWS with everything a first sign-in needs: a key, a user, a server, and root."""

from __future__ import annotations

from dataclasses import dataclass

from iam_auth_proxy.local_aws.embedded import LocalAws
from iam_auth_proxy.local_aws.policy import allow
from iam_auth_proxy.local_aws.resources import Key, Keys

USER = "example-user"
SERVER = "example-server"
ALIAS = "example"


@dataclass(frozen=True, slots=True)
class Ready:
    """What :func:`make_ready` made.

    :param user: may use ``kms:Encrypt`` on the key; what STS gives to anybody needs no permission.
    :param server: may use ``kms:Decrypt`` and ``kms:DescribeKey`` on it, and nothing else.
    :param root: may do everything in the account.
    """

    account: str
    key: Key
    user: Keys
    server: Keys
    root: Keys

    @property
    def env(self) -> dict[str, str]:
        """The environment of the user, with the other two under names of their own."""
        return {
            **self.user.env,
            "AWS_ACCOUNT_ID": self.account,
            "KMS_KEY_ID": self.key.arn,
            "LOCAL_AWS_SERVER_ACCESS_KEY_ID": self.server.access_key_id,
            "LOCAL_AWS_SERVER_SECRET_ACCESS_KEY": self.server.secret_access_key,
            "LOCAL_AWS_ROOT_ACCESS_KEY_ID": self.root.access_key_id,
            "LOCAL_AWS_ROOT_SECRET_ACCESS_KEY": self.root.secret_access_key,
        }


def make_ready(aws: LocalAws) -> Ready:
    """Make ``alias/example`` and the users ``example-user`` and ``example-server``."""
    key = aws.key(ALIAS)
    user = aws.user(USER, policies=[allow("kms:Encrypt", resource=key.arn)])
    server = aws.user(SERVER, policies=[allow("kms:Decrypt", "kms:DescribeKey", resource=key.arn)])
    return Ready(aws.account, key, user.keys(), server.keys(), aws.root())
