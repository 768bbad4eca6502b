"""Why a TLS handshake failed, as types: operators and `federation status` tell them apart."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from proconsul.drivers.buffer import StreamError

_X509_EXPIRED = frozenset({9, 10})
_X509_UNKNOWN_CA = frozenset({2, 18, 19, 20, 21, 27})

_NO_CLIENT_CERTIFICATE = frozenset(
    {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_CERTIFICATE_REQUIRED",
    }
)
_REMOTE_UNKNOWN_CA = frozenset({"TLSV1_ALERT_UNKNOWN_CA"})
_REMOTE_EXPIRED = frozenset({"SSLV3_ALERT_CERTIFICATE_EXPIRED"})
_REMOTE_REJECTED = frozenset(
    {"SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_UNKNOWN", "TLSV1_ALERT_ACCESS_DENIED"}
)
_NO_ALPN = frozenset({"TLSV1_ALERT_NO_APPLICATION_PROTOCOL"})
_NO_NAME = frozenset({"TLSV1_UNRECOGNIZED_NAME"})
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})


class TlsError(StreamError):
    """The TLS handshake, or the TLS stream later, failed."""


class TlsNameError(TlsError):
    """The certificate is good but is not the peer's that was asked for."""

    def __init__(self, needed: str, offered: Sequence[str]) -> None:
        names = ", ".join(offered) or "none"
        super().__init__(
            f"certificate is not valid for {needed!r}; it is valid for: {names}. "
            "Issue the peer a certificate with that name (`tls cert create -server -node ...`)"
        )
        self.needed, self.offered = needed, tuple(offered)


class TlsUnknownAuthorityError(TlsError):
    """A certificate was not signed by a CA that the verifying side knows."""


class TlsExpiredError(TlsError):
    """A certificate is expired or not valid yet."""


class TlsClientCertificateError(TlsError):
    """A client certificate was demanded and not given, or not accepted."""


class TlsEofError(TlsError):
    """The connection ended within the handshake; behind a gateway: the SNI was refused."""

    def __init__(self, message: str, *, before_server_hello: bool = False) -> None:
        super().__init__(message)
        self.before_server_hello = before_server_hello


class TlsAlpnError(TlsError):
    """No application protocol in common."""


class TlsProtocolError(TlsError):
    """The peer does not speak TLS, or no version or cipher is common."""


class TlsTimeoutError(TlsError):
    """The handshake did not end before its deadline."""


def translate(error: ssl.SSLError) -> TlsError:
    """OpenSSL's error as one of ours."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"peer's certificate was refused: {error.verify_message}"
        if error.verify_code in _X509_EXPIRED:
            return TlsExpiredError(text)
        if error.verify_code in _X509_UNKNOWN_CA:
            return TlsUnknownAuthorityError(f"{text} (signed by an unknown CA; check `ca_file`)")
        return TlsError(text)
    reason = error.reason or str(error)
    if reason in _NO_CLIENT_CERTIFICATE:
        return TlsClientCertificateError("a client certificate is required and was not given")
    if reason in _REMOTE_UNKNOWN_CA:
        return TlsUnknownAuthorityError("the peer does not know the CA of our certificate")
    if reason in _REMOTE_EXPIRED:
        return TlsExpiredError("the peer found our certificate expired")
    if reason in _REMOTE_REJECTED:
        return TlsClientCertificateError("the peer refused our certificate, or misses one")
    if reason in _NO_ALPN:
        return TlsAlpnError("the peer accepts none of the application protocols offered")
    if reason in _NO_NAME:
        return TlsError("the peer does not serve the name asked for (SNI)")
    if reason in _NOT_TLS:
        return TlsProtocolError("the peer does not speak TLS on this port")
    return TlsProtocolError(f"TLS failed: {reason.replace('_', ' ').lower()}")
