"""An AWS in one process: STS, KMS and the part of IAM that sets things up; S3 and DynamoDB by moto.

It is there so that a sign-in can be tried, and tested, without an AWS account, and so that such a
test means something: signatures are verified (with botocore's own signer), sessions expire, MFA
codes work once, policies are evaluated, and an encryption context that differs in one letter does
not decrypt. What AWS offers and this does not is answered with status 501, never with success.

How a request goes through it: ``server`` (HTTP, threads, loopback) -> ``endpoint`` (order of the
checks) -> ``sigv4`` (who signed) -> ``sts``, ``kms``, ``iam`` or ``mfa`` (operations), or
``motoapps`` (moto) -> ``authorize`` over ``policy`` and ``conditions`` (may they) -> ``wire`` (each
service's own answers and ``errors``). An operation gets an ``invocation`` and its ``parameters``;
``entities`` finds users and roles, ``ciphertext`` is KMS's, ``totp`` computes MFA codes.

``state`` is what it knows. ``embedded`` and ``resources`` are its Python side, with ``calls`` for
the record of calls and faults, ``client`` for boto3 clients and ``ready`` for a set-up that a first
sign-in needs; ``command`` is the command line.
"""

from iam_auth_proxy.local_aws.calls import Call, Fault
from iam_auth_proxy.local_aws.embedded import LocalAws
from iam_auth_proxy.local_aws.errors import NotEmulated, PolicyError
from iam_auth_proxy.local_aws.policy import allow, deny, trust
from iam_auth_proxy.local_aws.resources import Key, Keys, Mfa, Role, User

__all__ = [
    "Call",
    "Fault",
    "Key",
    "Keys",
    "LocalAws",
    "Mfa",
    "NotEmulated",
    "PolicyError",
    "Role",
    "User",
    "allow",
    "deny",
    "trust",
]
