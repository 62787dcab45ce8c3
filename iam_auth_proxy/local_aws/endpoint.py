"""One request in, one reply out: authenticated, counted, authorised, run. No sockets here.

The order of the checks is AWS's as far as it shows: the access key, its session token, the clock,
the scope, the signature, and only then whether the session has expired.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol

from iam_auth_proxy import names
from iam_auth_proxy.local_aws import iam, kms, sigv4, sts, wire
from iam_auth_proxy.local_aws.calls import (
    Call,
    Fault,
    Faults,
    Record,
    encryption_context,
    public_parameters,
)
from iam_auth_proxy.local_aws.errors import AuthError, Denial, NotEmulated, ServiceError
from iam_auth_proxy.local_aws.invocation import Handler, Invocation
from iam_auth_proxy.local_aws.parameters import Parameters
from iam_auth_proxy.local_aws.sigv4 import Signed
from iam_auth_proxy.local_aws.state import Credential, State
from iam_auth_proxy.local_aws.wire import Answer, Operation, Request

_OPERATIONS: Final[Mapping[str, Mapping[str, Handler]]] = {
    "iam": iam.OPERATIONS,
    "kms": kms.OPERATIONS,
    "sts": sts.OPERATIONS,
}
_SKEW_MINUTES: Final = {"sts": 15, "iam": 15, "s3": 15, "kms": 5, "dynamodb": 5}


class Behind(Protocol):
    """S3 and DynamoDB, served by somebody else after our own checks."""

    def read(self, service: str, request: Request) -> Operation:
        """What is asked for."""
        ...

    def run(self, service: str, call: Invocation, operation: Operation, request: Request) -> Answer:
        """Authorise and run it."""
        ...

    def close(self) -> None:
        """Forget everything."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and how badly to deliver it: ``delay`` seconds after the request came."""

    answer: Answer
    delay: float = 0.0
    drop: bool = False
    truncate: bool = False


class Endpoint:
    """Answers requests to every service and region of one :class:`.state.State`."""

    def __init__(
        self,
        state: State,
        now: Callable[[], float],
        behind: Callable[[], Behind],
        observe: Callable[[Call], None],
    ) -> None:
        self._state = state
        self._now = now
        self._behind = behind
        self._observe = observe
        self.faults = Faults()
        self.record = Record()

    def handle(self, request: Request, source_ip: str) -> Reply:
        """Answer one request. Nothing that comes over the wire makes it raise."""
        service = wire.guess_service(request)
        call, fault = Call(service, "-"), None
        try:
            signed = sigv4.read(request)
            service = signed.service if signed.service in wire.SERVICES else service
            call = replace(call, service=signed.service, region=signed.region)
            call = replace(call, access_key_id=signed.access_key_id)
            with self._state.lock:
                now = self._now()
                caller = self._authenticate(signed, request, now)
                principal = caller.principal
                call = replace(call, principal=principal.arn, account=principal.account)
                operation = self._read(service, request)
                call = replace(
                    call,
                    action=operation.action,
                    context=encryption_context(operation.parameters),
                    parameters=public_parameters(operation.parameters),
                )
                fault = self.faults.take(call)
                answer = self._made_up(fault, service, request) or self._run(
                    Invocation(self._state, caller, now, signed.region, source_ip),
                    service,
                    operation,
                    request,
                )
        except (AuthError, NotEmulated, ServiceError) as error:
            answer = wire.error_answer(service, error, request)
        dropped = fault is not None and fault.drop
        call = replace(call, status=0 if dropped else answer.status, code=answer.code)
        self.record.add(call)
        self._observe(call)
        if fault is None:
            return Reply(answer)
        return Reply(answer, fault.delay, fault.drop, fault.truncate)

    # -- who asks ------------------------------------------------------------------------------

    def _authenticate(self, signed: Signed, request: Request, now: float) -> Credential:
        if signed.service not in wire.SERVICES:
            raise NotEmulated(f"service {signed.service}")
        caller = self._state.credential(signed.access_key_id)
        if caller is None:
            raise AuthError(Denial.UNKNOWN_KEY)
        if not hmac.compare_digest(caller.token.encode(), signed.token.encode("utf-8", "replace")):
            raise AuthError(Denial.BAD_TOKEN)
        _check_time(signed, now)
        if not names.region_belongs(self._state.partition, signed.region):
            raise _foreign_region(signed)
        _check_host(signed, request)
        sigv4.verify(signed, request, caller.secret)
        if caller.expires is not None and caller.expires <= now:
            raise AuthError(Denial.EXPIRED)
        return caller

    # -- what is asked -------------------------------------------------------------------------

    def _read(self, service: str, request: Request) -> Operation:
        if service in _OPERATIONS:
            return wire.read_operation(service, request)
        return self._behind().read(service, request)

    def _run(
        self, call: Invocation, service: str, operation: Operation, request: Request
    ) -> Answer:
        if service not in _OPERATIONS:
            return self._behind().run(service, call, operation, request)
        if service == "sts":
            sts.check_caller(call.caller, operation.action)
        if service == "iam":
            iam.check_caller(call.caller)
        handler = _OPERATIONS[service].get(operation.action)
        if handler is None:
            raise NotEmulated(f"operation {service}:{operation.action}")
        result = handler(call, Parameters(service, operation))
        return wire.answer(service, operation.action, result, request)

    def _made_up(self, fault: Fault | None, service: str, request: Request) -> Answer | None:
        if fault is None or (fault.code is None and fault.status is None and fault.body is None):
            return None
        status = fault.status or (400 if fault.code else 200)
        if fault.body is None:
            error = ServiceError(fault.code or "InternalFailure", status, fault.message)
            answer = wire.error_answer(service, error, request)
        else:
            answer = Answer(status, (), fault.body, fault.code or "")
        lower = {name.lower() for name in fault.headers}
        kept = tuple(pair for pair in answer.headers if pair[0].lower() not in lower)
        return replace(answer, headers=(*kept, *fault.headers.items()))


_REGIONAL = re.compile(r"[a-z0-9]+\.([a-z]+(?:-[a-z]+)+-[0-9]+)\.", re.ASCII)


def _check_host(signed: Signed, request: Request) -> None:
    """Whether the signature is for the region of a name such as ``sts.eu-west-1.amazonaws.com``.

    Under its loopback address this AWS is every region at once; under a region's name it is that
    region, which knows no other's signatures.
    """
    match = _REGIONAL.match(request.first("host"))
    if match is not None and match[1] != signed.region:
        raise AuthError(
            Denial.SIGNATURE,
            f"Credential should be scoped to a valid region, not '{signed.region}'.",
        )


def _foreign_region(signed: Signed) -> AuthError:
    return AuthError(
        Denial.SIGNATURE, f"Credential should be scoped to a valid region, not '{signed.region}'."
    )


def _check_time(signed: Signed, now: float) -> None:
    """The signature's age, with AWS's own texts: people compute their clock's error from them."""
    minutes = _SKEW_MINUTES[signed.service]
    if signed.service == "s3" and signed.presigned:
        if signed.expires is None or not 1 <= signed.expires <= 604_800:
            raise AuthError(Denial.INCOMPLETE, "X-Amz-Expires is from 1 to 604800 seconds")
        if now > signed.time + signed.expires:
            raise AuthError(Denial.NOT_AUTHORIZED, "Request has expired")
    elif now - signed.time > minutes * 60:
        raise _skewed(
            signed,
            f"Signature expired: {signed.timestamp} is now earlier than "
            f"{_stamp(now - minutes * 60)} ({_stamp(now)} - {minutes} min.)",
        )
    if signed.time - now > minutes * 60:
        raise _skewed(
            signed,
            f"Signature not yet current: {signed.timestamp} is still later than "
            f"{_stamp(now + minutes * 60)} ({_stamp(now)} + {minutes} min.)",
        )


def _skewed(signed: Signed, message: str) -> AuthError:
    if signed.service == "s3":
        message = "The difference between the request time and the current time is too large."
    return AuthError(Denial.SKEWED, message)


def _stamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
