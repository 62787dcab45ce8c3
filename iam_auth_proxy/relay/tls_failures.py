"""What failures of TLS towards an app are called: error tokens, sentences, remedies.

Tokens are those of ``Proxy-Status`` (RFC 9209 section 2.3). None of the remedies is a way to go on
regardless: there is none. What the sentences say of a certificate is what it says of itself, so of
whoever sent it: shortened, and without anything that does not print.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.failures import printable

if TYPE_CHECKING:
    from cryptography import x509

# X509_V_ERR_* of OpenSSL's x509_vfy.h, which have no names in the ssl module.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_SELF_SIGNED: Final = 18
_UNKNOWN_ISSUER: Final = (2, 19, 20, 21)
_OTHER_NAME: Final = (62, 64)

_OWNER: Final = "Tell the app's owner."
_AUTHORITY: Final = (
    "If it is one of your company's, get its certificate from whoever runs it, and name the file "
    "with --cacert (cacert in config.toml)."
)
_NAMES: Final = 5

# An alert as OpenSSL names what it got: TLSV1_ALERT_PROTOCOL_VERSION, TLSV1_UNRECOGNIZED_NAME.
_ALERT = re.compile(
    r"(?:SSLV3|TLSV1|TLSV13)_ALERT_(?P<alert>[A-Z_]+)"
    r"|TLSV1_(?P<further>UNRECOGNIZED_NAME|CERTIFICATE_UNOBTAINABLE|UNSUPPORTED_EXTENSION)"
)
_SAID = re.compile(r"\] (?P<words>[A-Za-z0-9 ]+)(?: \(_ssl\.c|$)")
_WANTS_CERTIFICATE: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE")
_NO_VERSION: Final = ("UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION", "NO_PROTOCOLS_AVAILABLE")
# What OpenSSL makes of bytes that are no TLS record.
_NOT_TLS: Final = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "RECORD_LAYER_FAILURE",
    "UNKNOWN_PROTOCOL",
)


async def handshake(origin: Origin, error: Exception, shown: bytes | None) -> PathError:
    """A handshake that failed.

    :param shown: the peer's certificate as DER.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        # cryptography takes a while to import, once.
        facts = await asyncio.to_thread(read_certificate, shown) if shown else None
        return certificate(origin, error, facts)
    if isinstance(error, ssl.SSLError):
        return spoken(origin, error)
    if isinstance(error, OSError):
        return PathError(
            f"{origin.host_port}: TLS handshake: {error!r}",
            error="connection_terminated",
            public=f"{origin.host_port} closed the connection during the TLS handshake.",
            remedy="Check that the app speaks TLS on this port, and try again.",
        )
    return PathError(
        f"{origin.host_port}: {error!r}",
        error="tls_protocol_error",
        public=f"{origin.host} is not a name that TLS can ask for.",
        remedy="Check the app's name.",
    )


def timed_out(host_port: str) -> tuple[str, str]:
    """(public sentence, remedy) of a handshake that was not done in time."""
    return (
        f"{host_port} took the connection, but did not finish the TLS handshake in time.",
        "Try again; if it stays so, check that the app speaks TLS on this port.",
    )


def other_protocol(origin: Origin) -> PathError:
    """ALPN gave what was not asked for."""
    return PathError(
        f"{origin.host_port}: ALPN chose another protocol than http/1.1",
        error="tls_protocol_error",
        public=f"{origin.host_port} insists on another protocol than HTTP/1.1.",
        remedy=_OWNER,
    )


def own_authority(origin: Origin) -> PathError:
    """The system's store trusts a CA that is there for browsers of this machine alone."""
    return PathError(
        f"{origin.host_port}: shows a certificate of a local CA",
        error="tls_certificate_error",
        public=f"{origin.host_port} shows a certificate of a local CA, which no app has.",
        remedy="If no second iam-auth-proxy is on the way to it, the CA's key was stolen. "
        f"Run: iam-auth-proxy ca remove {origin.host}",
    )


def spoken(origin: Origin, error: ssl.SSLError) -> PathError:
    """TLS that failed for another reason than the certificate, in the handshake or later."""
    reason = _reason(error)
    at = origin.host_port
    alert = _ALERT.fullmatch(reason)
    token, remedy = "tls_protocol_error", _OWNER
    if alert is not None:
        name = alert["alert"] or alert["further"]
        token = "tls_alert_received"  # noqa: S105  # an error token
        public = f"{at} refused the TLS connection ({name.lower().replace('_', ' ')})."
        if name == "PROTOCOL_VERSION":
            public = f"{at} does not speak TLS 1.2 or later."
            remedy = "Tell the app's owner to enable TLS 1.2 or 1.3."
        elif name in _WANTS_CERTIFICATE:
            remedy = (
                "If the app wants a client certificate, name it with client_cert and client_key in "
                "its [[app]]; otherwise tell its owner."
            )
        elif name == "UNRECOGNIZED_NAME":
            public = f"The server at {at} does not know an app of the name {origin.host}."
            remedy = "Check the app's name."
        elif name == "NO_APPLICATION_PROTOCOL":
            public = f"{at} does not speak HTTP/1.1."
    elif reason in _NO_VERSION:
        public = f"{at} does not speak TLS 1.2 or later."
        remedy = "Tell the app's owner to enable TLS 1.2 or 1.3."
    elif reason in _NOT_TLS:
        public = f"{at} does not speak TLS."
        remedy = "Check the port, and whether the app's address begins with http://."
    else:
        public = f"TLS with {at} failed ({printable(reason.lower().replace('_', ' ')) or 'cut'})."
    return PathError(f"{at}: {error}", error=token, public=public, remedy=remedy)


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's own name for it; Python does not know those of all versions by their numbers."""
    if error.reason:
        return error.reason
    said = _SAID.search(str(error))
    return said["words"].upper().replace(" ", "_") if said else ""


# -- certificates ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says of itself, fit to be shown.

    :ivar names: the names it is for; no more than a few, ``more`` says how many there are besides.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    more: int
    not_before: datetime
    not_after: datetime

    @property
    def for_names(self) -> str:
        """The names in a sentence."""
        if not self.names:
            return "no name at all"
        return ", ".join(self.names) + (f" and {self.more} more" if self.more else "")


def certificate(
    origin: Origin, error: ssl.SSLCertVerificationError, facts: Facts | None
) -> PathError:
    """A certificate that does not prove that the peer is this origin."""
    code = getattr(error, "verify_code", 0)
    said = printable(getattr(error, "verify_message", "") or "not valid")
    of = f"The certificate of {origin.host_port}"
    public, remedy = f"{of} is not accepted: {said}.", _OWNER
    now = datetime.now(UTC)
    if code == _EXPIRED:
        public = f"{of}, or one above it, has expired."
        if facts is not None and facts.not_after < now:
            public = f"{of} expired on {_day(facts.not_after)} (issued by {facts.issuer})."
        remedy = "Tell the app's owner to renew it."
    elif code == _NOT_YET_VALID:
        public = f"{of}, or one above it, is not valid yet."
        if facts is not None and facts.not_before > now:
            public = f"{of} is valid only from {_day(facts.not_before)} on."
        remedy = "Check this machine's clock: timedatectl"
    elif code in _OTHER_NAME:
        names = f" It is for {facts.for_names}." if facts is not None else ""
        public = f"{of} is for another name.{names}"
        remedy = "Check the app's name; if it is right, tell the app's owner."
    elif code == _SELF_SIGNED:
        who = f" ({facts.subject})" if facts is not None else ""
        public = f"{of} is self-signed{who}: no authority vouches for it."
        remedy = "Tell the app's owner, who needs one of an authority that this machine knows."
    elif code in _UNKNOWN_ISSUER:
        issuer = facts.issuer if facts is not None else "an authority"
        public = f"{of} was issued by {issuer}, which this machine does not know."
        remedy = _AUTHORITY
    detail = f"{origin.host_port}: {said} ({facts})"
    return PathError(detail, error="tls_certificate_error", public=public, remedy=remedy)


def read_certificate(der: bytes) -> Facts | None:
    """What a certificate says; None where it cannot be read."""
    from cryptography import x509  # only who meets a bad one pays for it

    try:
        found = x509.load_der_x509_certificate(der)
        names = _names(found)
        subject, issuer = _called(found.subject), _called(found.issuer)
        dates = found.not_valid_before_utc, found.not_valid_after_utc
    except (
        TypeError,  # a name's part is bits
        ValueError,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ):
        return None
    return Facts(subject, issuer, names[:_NAMES], max(0, len(names) - _NAMES), *dates)


def _names(found: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    texts = [*names.get_values_for_type(x509.DNSName)]
    texts += [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return tuple(printable(text) for text in texts)


def _called(name: x509.Name) -> str:
    """The most telling part of a distinguished name."""
    from cryptography.x509.oid import NameOID

    for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME):
        for attribute in name.get_attributes_for_oid(kind):
            value = attribute.value
            text = value if isinstance(value, str) else value.decode("latin-1")
            if text:
                return printable(text)
    return "nobody"


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")
