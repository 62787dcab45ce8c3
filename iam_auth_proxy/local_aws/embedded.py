"""The embedded AWS as Python sees it: set things up, make faults, look at what was called."""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from iam_auth_proxy.local_aws import state as records
from iam_auth_proxy.local_aws.calls import Call, Fault
from iam_auth_proxy.local_aws.endpoint import Behind, Endpoint
from iam_auth_proxy.local_aws.kms import default_policy
from iam_auth_proxy.local_aws.policy import Document, Kind, read_policy
from iam_auth_proxy.local_aws.resources import Key, Keys, Role, User, check_key_state, keys_of
from iam_auth_proxy.local_aws.server import HOST, Server


class LocalAws:
    """An AWS on a loopback port, for tests and demonstrations::

        with LocalAws() as aws:
            key = aws.key()
            alice = aws.user("alice", policies=[allow("kms:Encrypt", resource=key.arn)])
            kms = aws.client("kms", alice.keys())
            kms.encrypt(KeyId=key.arn, Plaintext=b"hello")
            assert aws.calls[-1].action == "Encrypt"

    Every region is served by the one endpoint: the signature says which one is meant. Give client
    and server the very same :attr:`url`, since the Host field is signed.

    :param accounts: twelve-digit numbers; the first is the default for everything set up here.
    :param region: the default region; its partition (``aws``, ``aws-cn``, …) is that of all ARNs.
    :param clock: seconds since the epoch; see also :meth:`skew`.
    :param port: 0 for a free one.
    :param observe: called with each :class:`.calls.Call`, from the thread that answers it.
    :raises ValueError: not an account number, or not a region.
    """

    def __init__(
        self,
        accounts: Sequence[str] = ("111122223333",),
        region: str = "eu-west-1",
        clock: Callable[[], float] = time.time,
        *,
        port: int = 0,
        observe: Callable[[Call], None] = lambda call: None,
    ) -> None:
        self.state = records.State(tuple(accounts), region)
        self.region = region
        self.account = accounts[0]
        self._clock = clock
        self._skew = 0.0
        self._port = port
        self._server: Server | None = None
        self._files: tempfile.TemporaryDirectory[str] | None = None
        self._behind_lock = threading.Lock()
        self._moto: Behind | None = None
        self._endpoint = Endpoint(self.state, self.now, self._behind, observe)

    # -- life ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to serve.

        :raises OSError: the port is in use.
        """
        self._server = Server(self._endpoint.handle, self._port)
        self._files = tempfile.TemporaryDirectory(prefix="local-aws-")
        for name in ("config", "credentials"):
            Path(self._files.name, name).touch(mode=0o600)
        self._server.start()

    def close(self) -> None:
        """Stop serving. What was set up stays readable; open connections are cut."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._files is not None:
            self._files.cleanup()
            self._files = None
        with self._behind_lock:
            if self._moto is not None:
                self._moto.close()
                self._moto = None

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, without a slash at its end."""
        if self._server is None:
            raise RuntimeError("the embedded AWS is not running")
        return f"http://{HOST}:{self._server.port}"

    @property
    def env(self) -> dict[str, str]:
        """The environment in which any AWS SDK finds this AWS and nothing else; no credentials."""
        if self._files is None:
            raise RuntimeError("the embedded AWS is not running")
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(Path(self._files.name, "config")),
            "AWS_SHARED_CREDENTIALS_FILE": str(Path(self._files.name, "credentials")),
        }

    def client(self, service: str, keys: Keys, *, region: str = "", **options: Any) -> Any:
        """A boto3 client for this AWS; ``options`` as ``boto3.client`` takes them."""
        from iam_auth_proxy.local_aws.client import make_client

        return make_client(self.url, service, keys.boto3, region or self.region, options)

    @property
    def session_token_size(self) -> int:
        """Bytes of the session tokens that are made from now on; up to 4096 at AWS."""
        return self.state.token_size

    @session_token_size.setter
    def session_token_size(self, size: int) -> None:
        self.state.token_size = size

    # -- setting up ----------------------------------------------------------------------------

    def root(self, account: str = "") -> Keys:
        """A new access key of an account's root user, who may do everything in it."""
        number = account or self.account
        with self.state.lock:
            return keys_of(self.state.add_access_key(number, None, self.now()).credential)

    def user(
        self,
        name: str,
        path: str = "/",
        policies: Sequence[Document | str] = (),
        account: str | None = None,
    ) -> User:
        """An IAM user; without policies it may do next to nothing.

        :raises ValueError: the name is taken (names are compared without case).
        :raises PolicyError: a malformed policy.
        :raises NotEmulated: a policy with an element, operator or key that is not known here.
        """
        number = account or self.account
        parsed = [read_policy(policy) for policy in policies]
        with self.state.lock:
            if name.lower() in self.state.accounts[number].users:
                raise ValueError(f"there is a user {name} already")
            user = self.state.add_user(number, name, path, self.now())
            user.policies.update((f"inline-{index}", each) for index, each in enumerate(parsed))
        return User(self.state, self.now, user)

    def role(
        self,
        name: str,
        trust: Document | str,
        path: str = "/",
        policies: Sequence[Document | str] = (),
        max_session: int = 3600,
        account: str | None = None,
    ) -> Role:
        """An IAM role; ``max_session`` in seconds. Errors as of :meth:`user`."""
        number = account or self.account
        parsed = [read_policy(policy) for policy in policies]
        with self.state.lock:
            if name.lower() in self.state.accounts[number].roles:
                raise ValueError(f"there is a role {name} already")
            role = self.state.add_role(
                number, name, path, read_policy(trust, Kind.TRUST), max_session, self.now()
            )
            role.policies.update((f"inline-{index}", each) for index, each in enumerate(parsed))
        return Role(self.state, self.now, role)

    def sso_role(
        self,
        permission_set: str,
        user: str,
        *,
        policies: Sequence[Document | str] = (),
        account: str | None = None,
        suffix: str = "",
    ) -> Keys:
        """A session as IAM Identity Center gives it to ``user`` (``alice@example.com``).

        The role is made at the first call for a permission set, with a random suffix of 16
        hexadecimal digits. Another ``suffix`` stands for deleted and recreated assignments.
        """
        number = account or self.account
        start = f"awsreservedsso_{permission_set.lower()}_{suffix.lower()}"
        with self.state.lock:
            roles = self.state.accounts[number].roles
            found = next((role for name, role in roles.items() if name.startswith(start)), None)
        if found is not None:
            return Role(self.state, self.now, found).session(user)
        # us-east-1's own Identity Center leaves the region out of the path.
        region = "" if self.region == "us-east-1" else f"{self.region}/"
        saml = f"arn:{self.state.partition}:iam::{number}:saml-provider/AWSSSO"
        trust_document = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Federated": saml},
                    "Action": ["sts:AssumeRoleWithSAML", "sts:TagSession"],
                }
            ],
        }
        return self.role(
            f"AWSReservedSSO_{permission_set}_{suffix or secrets.token_hex(8)}",
            trust_document,
            f"/aws-reserved/sso.amazonaws.com/{region}",
            policies,
            account=number,
        ).session(user)

    def key(
        self,
        alias: str | None = None,
        policy: Document | str | None = None,
        multi_region: bool = False,
        state: str = "Enabled",
        *,
        region: str | None = None,
        account: str | None = None,
    ) -> Key:
        """A symmetric KMS key. Without a policy it has KMS's default: the account decides."""
        check_key_state(state)
        number = account or self.account
        document = policy or default_policy(self.state.partition, number)
        with self.state.lock:
            record = self.state.add_key(
                number,
                region or self.region,
                read_policy(document, Kind.RESOURCE),
                self.now(),
                multi_region=multi_region,
            )
            record.state = state
        key = Key(self.state, self.now, record)
        if alias is not None:
            key.alias(alias)
        return key

    # -- time and faults -----------------------------------------------------------------------

    def now(self) -> float:
        """AWS's clock: seconds since the epoch."""
        return self._clock() + self._skew

    def skew(self, seconds: float) -> None:
        """Set AWS's clock ``seconds`` ahead of :attr:`clock` (negative: behind)."""
        self._skew = seconds

    def expire(self, access_key_id: str) -> None:
        """End a session now; the signature's clock is another matter.

        :raises KeyError: there is no such session.
        """
        with self.state.lock:
            self.state.end_session(access_key_id, self.now())

    def fault(
        self,
        service: str,
        action: str = "*",
        code: str | None = None,
        status: int | None = None,
        message: str = "",
        delay: float = 0.0,
        drop: bool = False,
        truncate: bool = False,
        times: int | None = 1,
        when: Callable[[Call], bool] = lambda call: True,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """Let the next ``times`` fitting calls go wrong (``None``: all of them).

        The call is authenticated first. With a ``code``, ``status`` or ``body`` it is not run;
        otherwise it is, and its answer delivered badly.

        :param service: ``sts``, ``kms``, ``iam``, ``s3``, ``dynamodb`` or ``*``.
        :param code: an AWS error code, answered in the service's own format.
        :param status: HTTP status; 400 where only a code is given.
        :param delay: seconds from the request to its answer, the time that the call itself takes
            among them.
        :param drop: close the connection instead of answering.
        :param truncate: half the body, then close.
        :param body: this instead of AWS's answer, whatever it is.
        :param headers: further fields of the answer, such as Location.
        :returns: the fault; its ``hits`` counts.
        """
        fault = Fault(
            service,
            action,
            code,
            status,
            message,
            delay,
            drop,
            truncate,
            times,
            when,
            body,
            headers or {},
        )
        self._endpoint.faults.add(fault)
        return fault

    def clear_faults(self) -> None:
        """Forget all faults."""
        self._endpoint.faults.clear()

    # -- what was called -----------------------------------------------------------------------

    @property
    def calls(self) -> list[Call]:
        """Every call so far, refused ones included, in the order of their answers."""
        return self._endpoint.record.list()

    def clear_calls(self) -> None:
        """Forget the calls so far."""
        self._endpoint.record.clear()

    def _behind(self) -> Behind:
        with self._behind_lock:
            if self._moto is None:
                from iam_auth_proxy.local_aws.motoapps import Moto

                self._moto = Moto()
            return self._moto
