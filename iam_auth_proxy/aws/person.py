"""The person at AWS: three identities, and what is cached of them.

The *base* identity is what boto3 finds for the profile. The *acting* one is a role that it assumes,
or its session with MFA; it is the base one where neither is configured. Encrypt and
GetCallerIdentity run as the acting identity (docs/protocol.md 1), and so does the signed identity.
The session that is sealed for a legacy app comes from the base identity, without MFA: of
GetSessionToken, or where that is a session already of a login role, by :mod:`.handed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from botocore.credentials import Credentials

from iam_auth_proxy.aws.base import CallerIdentity, Encrypted, Seen
from iam_auth_proxy.aws.clients import caller_identity, encrypt
from iam_auth_proxy.aws.credentials import Codes, CredentialSettings
from iam_auth_proxy.aws.login import Login, region
from iam_auth_proxy.aws.renewal import FOREVER, Renewed
from iam_auth_proxy.aws.session_credentials import (
    Obtained,
    login_role_session,
    no_login_role,
    temporary,
    user_session,
)
from iam_auth_proxy.aws.signing import sign_identity
from iam_auth_proxy.errors import (
    AccessDenied,
    AwsError,
    IamAuthError,
    MfaRefused,
    SettingRefused,
)
from iam_auth_proxy.names import KeyArn, Origin
from iam_auth_proxy.protocol.proof import SessionCredentials, SignedIdentity

_AHEAD: Final = 300.0
_EVERY_ROLE: Final = 3600
"""Seconds that every role allows: the least that its own maximum can be."""
_DEFAULT_SESSION_NAME: Final = "iam-auth-proxy"


class Person:
    """One login with all that is cached of it; dropped whole when it turns out to be stale."""

    def __init__(
        self,
        settings: CredentialSettings,
        environ: Mapping[str, str],
        key_region: str,
        codes: Codes,
    ) -> None:
        self._settings = settings
        self._codes = codes
        self._login = Login(
            settings.profile,
            codes.take,
            lambda of_profile: region(settings.region, environ, of_profile, key_region),
            settings.further_authorities,
        )
        self._acting: Renewed[Credentials] = Renewed(ahead=_AHEAD)
        self._session: Renewed[Obtained] = Renewed(ahead=_AHEAD)
        self._identity: Renewed[CallerIdentity] = Renewed()
        self._base: Renewed[CallerIdentity] = Renewed()
        self._arn = ""

    @property
    def remedy(self) -> str:
        return self._login.remedy

    # -- as the acting identity --------------------------------------------------------------------

    def identity(self, now: float) -> CallerIdentity:
        signer = self._signer(now)

        def ask() -> tuple[CallerIdentity, float]:
            return caller_identity(self._login.connections, signer, self._login.region), FOREVER

        # Cached by access key: one key is always the same identity.
        identity = self._identity.get(now, ask, key=signer.access_key)
        self._arn = identity.arn
        return identity

    def seen(self) -> Seen | None:
        found = self._identity.held
        if found is None:
            return None
        acting = self._acting.held
        return Seen(found.value, self._login.expires if acting is None else acting.expires)

    def encrypt(
        self, key: str, plaintext: bytes, context: Mapping[str, str], now: float
    ) -> Encrypted:
        signer = self._signer(now)
        try:
            return encrypt(
                self._login.connections, signer, self._login.region, key, plaintext, context
            )
        except AccessDenied as error:
            if self._arn:
                error.remedy = (
                    f"Ask your AWS administrator to allow kms:Encrypt on {key} for {self._arn}."
                )
            raise

    def sign_identity(self, key: KeyArn, origin: Origin, nonce: str, now: float) -> SignedIdentity:
        return sign_identity(self._signer(now), key, origin, nonce, now)

    def _signer(self, now: float) -> Credentials:
        if not self._settings.assume_role_arn and not self._settings.mfa_serial:
            return self._login.credentials()
        return self._acting.get(now, self._act)

    def begin_mfa(self) -> None:
        """Use the code that was just entered, whether or not a session is still good.

        :raises MfaRefused: AWS did not take it.
        """
        if self._settings.mfa_serial:
            self._acting.replace(self._act)
            return
        try:  # the profile's own device
            self._login.credentials()
        except AccessDenied as error:
            raise _mfa_refused(error) from error

    # -- what AWS is asked for ---------------------------------------------------------------------

    def _act(self) -> tuple[Credentials, float]:
        settings = self._settings
        base = self._login.credentials()
        parameters: dict[str, Any] = {"DurationSeconds": settings.duration_seconds}
        if settings.mfa_serial:
            if base.token and not settings.assume_role_arn:
                raise AwsError(
                    "GetSessionToken with MFA needs the long-term keys of an IAM user",
                    public="This identity is a session already, and cannot begin one with MFA.",
                    remedy="Leave --mfa-serial-number out, or use an IAM user's profile.",
                )
            parameters["SerialNumber"] = settings.mfa_serial
            parameters["TokenCode"] = self._codes.take(settings.mfa_serial)
        operation = "get_session_token"
        if settings.assume_role_arn:
            operation = "assume_role"
            parameters["RoleArn"] = settings.assume_role_arn
            parameters["RoleSessionName"] = settings.session_name or _DEFAULT_SESSION_NAME
            if settings.external_id:
                parameters["ExternalId"] = settings.external_id
            if settings.policy:
                parameters["Policy"] = settings.policy
        try:
            answer = self._login.connections.call(
                "sts", self._login.region, operation, base, settings.assume_role_arn, **parameters
            )
        except AccessDenied as error:
            if settings.mfa_serial:
                raise _mfa_refused(error) from error
            raise
        except SettingRefused as error:
            if settings.duration_seconds > _EVERY_ROLE and settings.assume_role_arn:
                error.remedy = (
                    "Set --session-duration to 1h, or have the role's maximum raised: few roles "
                    f"allow more, and none where a role or SSO session assumes it. {error.remedy}"
                )
            raise
        return temporary(answer)

    # -- what a legacy app gets --------------------------------------------------------------------

    def session_credentials(self, now: float) -> SessionCredentials:
        return self._obtain(now)[0]

    def session_identity(self, now: float) -> CallerIdentity:
        base = self._login.credentials()
        if base.token:
            _, identity = self._obtain(now)
            assert identity is not None  # AssumeRole says whose session it made
            return identity
        return self._base_identity(now, base)

    def _obtain(self, now: float) -> Obtained:
        base = self._login.credentials()
        settings, login = self._settings, self._login

        def ask() -> tuple[Obtained, float]:
            if not base.token:
                made = user_session(login, base)
            elif settings.login_role_arn:
                caller = self._base_identity(now, base)
                made = login_role_session(login, base, settings.login_role_arn, caller)
            else:
                raise no_login_role()
            return made, made[0].expiration

        return self._session.get(now, ask, key=base.access_key)

    def _base_identity(self, now: float, base: Credentials) -> CallerIdentity:
        if not self._settings.assume_role_arn:
            return self.identity(now)  # MFA makes the user nobody else

        def ask() -> tuple[CallerIdentity, float]:
            return caller_identity(self._login.connections, base, self._login.region), FOREVER

        return self._base.get(now, ask, key=base.access_key)


def _mfa_refused(error: IamAuthError) -> MfaRefused:
    """AccessDenied with a code given: AWS says in words alone whether the code or a right is it."""
    return MfaRefused(
        str(error),
        public="AWS did not accept the MFA code, or does not allow what it was for.",
        remedy="Codes work once: wait for the next one. Check the serial number, and whether you "
        "may assume the role.",
    )
