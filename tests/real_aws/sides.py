"""Whom to ask: a real account, or an embedded AWS; and what was answered."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from iam_auth_proxy.local_aws import Keys, LocalAws, allow

UNCHECKED: Final = Config(
    parameter_validation=False, retries={"mode": "standard", "total_max_attempts": 5}
)
"""botocore refuses some of what is asked here by itself."""

_POLL: Final = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer in one word, to compare: what was found, or ``CODE (status)``.

    :ivar message: AWS's own words, where it refused; for people to read.
    """

    text: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """One AWS.

    :ivar connect: gives a client for a service, with these keys or, without any, as the person who
        runs this.
    :ivar environ: variables by which our own code finds this AWS; no credentials.
    :ivar patience: seconds that a change may take until it is seen everywhere.
    """

    name: str
    account: str
    partition: str
    region: str
    caller: str
    connect: Callable[[str, Keys | None], Any] = field(repr=False)
    environ: Mapping[str, str]
    patience: float

    def client(self, service: str, keys: Keys | None = None) -> Any:
        return self.connect(service, keys)

    @contextlib.contextmanager
    def found_by_our_code(self, keys: Keys) -> Iterator[None]:
        """Within, the process's environment leads to this AWS, as the owner of the keys."""
        before = dict(os.environ)
        for name in list(os.environ):
            if name.startswith("AWS_") and name not in _KEPT:
                del os.environ[name]
        os.environ.update({"AWS_REGION": self.region, **self.environ, **keys.env})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def eventually(self, ask: Callable[[], Outcome], done: Callable[[Outcome], bool]) -> Outcome:
        """The first answer that is ``done``, or the last one before patience runs out."""
        end = time.monotonic() + self.patience
        while True:
            outcome = ask()
            if done(outcome) or time.monotonic() >= end:
                return outcome
            time.sleep(_POLL)


# What a person may have set to reach AWS at all.
_KEPT: Final = frozenset({"AWS_CA_BUNDLE", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"})


def told(
    ask: Callable[..., Any], describe: Callable[[Any], str] = lambda answer: "ok", /, **said: Any
) -> Outcome:
    """What ``ask(**said)``, an operation of a client, comes to."""
    try:
        return Outcome(describe(ask(**said)))
    except ClientError as error:
        answer: Any = error.response
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        return Outcome(f"{answer['Error']['Code']} ({status})", answer["Error"].get("Message", ""))
    except (BotoCoreError, OSError) as error:
        return Outcome(type(error).__name__, str(error))


def real(region: str = "") -> Side:
    """The account that boto3 finds.

    :raises ClientError: AWS refuses to say who we are.
    :raises BotoCoreError: there are no credentials, or no region.
    """
    session = boto3.Session(region_name=region or os.environ.get("AWS_REGION") or None)

    def connect(service: str, keys: Keys | None) -> Any:
        make: Any = session.client
        return make(service, config=UNCHECKED, **(keys.boto3 if keys else {}))

    caller = connect("sts", None).get_caller_identity()
    partition = caller["Arn"].split(":")[1]
    return Side(
        "AWS", caller["Account"], partition, connect("kms", None).meta.region_name, caller["Arn"],
        connect, {}, patience=60.0,
    )  # fmt: skip


@contextlib.contextmanager
def embedded(region: str = "eu-west-1", account: str = "111122223333") -> Iterator[Side]:
    """An embedded AWS of its own, as an administrator."""
    with LocalAws((account,), region) as aws:
        admin = aws.user("administrator", policies=[allow("*")]).keys()

        def connect(service: str, keys: Keys | None) -> Any:
            return aws.client(service, keys or admin, config=UNCHECKED)

        yield Side(
            "embedded", account, aws.state.partition, region, admin.arn, connect, aws.env,
            patience=0.0,
        )  # fmt: skip
