"""What the mesh's certificates and keys say, in Consul's terms (`agent/connect/parsing.go`).

Ids of keys are the SHA-256 of the public key's DER, ids of certificates the SHA-1 of theirs, both
shown as hex with colons.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtensionOID, NameOID

from proconsul.domain.spiffe import SigningId
from proconsul.mesh.errors import CertificateError, SigningRequestError

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_UNREADABLE = (
    ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType, UserWarning,
)  # fmt: skip
"""What `cryptography` raises of what others made up; a warning where warnings are errors."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What Consul keeps of a certificate beside its text. Times are UTC."""

    fingerprint: str
    serial: int
    subject_key_id: str
    authority_key_id: str
    not_before: datetime
    not_after: datetime
    key_type: str
    key_bits: int
    uris: tuple[str, ...]


def load_certificate(pem: str) -> x509.Certificate:
    """The first certificate of `pem`. Raises `CertificateError`."""
    if "-----BEGIN" not in pem:
        raise CertificateError("no PEM-encoded data found")
    try:
        found = x509.load_pem_x509_certificate(pem.encode("utf-8", "surrogateescape"))
        uris_of(found)
        _ = found.subject, found.issuer, found.not_valid_after_utc
    except _UNREADABLE as error:
        raise CertificateError(f"certificate cannot be read: {error}") from error
    return found


def load_key(pem: str) -> PrivateKey:
    """A signing key, EC or RSA. Raises `CertificateError`, whose text never holds the key.

    Whether an RSA key's numbers fit together is for `check_key`. OpenSSL would look for the factors
    of its primes at every load: up to seconds, in which Python does nothing else in any thread.
    """
    try:
        key = serialization.load_pem_private_key(
            pem.encode("utf-8", "surrogateescape"), None, unsafe_skip_rsa_key_validation=True
        )
    except _UNREADABLE:
        raise CertificateError(
            "private key cannot be read: give it unencrypted, in PEM (EC, RSA or PKCS#8)"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CertificateError("private key is neither EC nor RSA")
    return key


def check_key(key: PrivateKey) -> None:
    """Whether what a key signs verifies. Raises `CertificateError`."""
    message, digest = b"proconsul", hashes.SHA256()
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            signed = key.sign(message, padding.PKCS1v15(), digest)
            key.public_key().verify(signed, message, padding.PKCS1v15(), digest)
        else:
            scheme = ec.ECDSA(digest)
            key.public_key().verify(key.sign(message, scheme), message, scheme)
    except (InvalidSignature, ValueError):
        raise CertificateError("private key is damaged: what it signs does not verify") from None


def facts(certificate: x509.Certificate) -> CertificateFacts:
    """Raises `CertificateError` if its key is neither EC nor RSA."""
    key_type, key_bits = _key_info(certificate)
    return CertificateFacts(
        fingerprint=certificate.fingerprint(hashes.SHA1()).hex(":"),
        serial=certificate.serial_number,
        subject_key_id=(subject_key_id(certificate) or b"").hex(":"),
        authority_key_id=_authority_key_id(certificate).hex(":"),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        key_type=key_type,
        key_bits=key_bits,
        uris=tuple(uris_of(certificate)),
    )


def facts_of(pem: str) -> CertificateFacts:
    """`facts` of the first certificate of `pem`. Raises `CertificateError`."""
    return facts(load_certificate(pem))


def authorities_of(chain_pem: str) -> list[str]:
    """The ids of the keys that signed the certificates of a chain, its leaf's first.

    Raises `CertificateError`.
    """
    try:
        chain = x509.load_pem_x509_certificates(chain_pem.encode("utf-8", "surrogateescape"))
    except _UNREADABLE as error:
        raise CertificateError(f"certificate cannot be read: {error}") from error
    return [_authority_key_id(certificate).hex(":") for certificate in chain]


def key_id(public: PublicKey) -> bytes:
    """The id that a certificate of this key carries."""
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).digest()


def subject_key_id(certificate: x509.Certificate) -> bytes | None:
    """The id of the certificate's key, as it says itself."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return None
    return found.value.digest


def _authority_key_id(certificate: x509.Certificate) -> bytes:
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return b""
    return found.value.key_identifier or b""


def _key_info(certificate: x509.Certificate) -> tuple[str, int]:
    try:
        public = certificate.public_key()
    except _UNREADABLE as error:
        raise CertificateError(f"unsupported key type: {error}") from error
    match public:
        case ec.EllipticCurvePublicKey() as key:
            return "ec", key.curve.key_size
        case rsa.RSAPublicKey() as key:
            return "rsa", key.key_size
        case _:
            raise CertificateError("unsupported key type")


def uris_of(source: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    """Its URI names; none if it has no alternative names."""
    try:
        names = source.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def dns_names_of(request: x509.CertificateSigningRequest) -> list[str]:
    """The DNS names that a request asks for."""
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def load_request(pem: str) -> tuple[x509.CertificateSigningRequest, PublicKey]:
    """A signing request that its own key signed, and that key. Raises `SigningRequestError`."""
    try:
        request = x509.load_pem_x509_csr(pem.encode("utf-8", "surrogateescape"))
        public, proved = request.public_key(), False
        if isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            proved = request.is_signature_valid
            uris_of(request)
            _ = request.subject
    except _UNREADABLE as error:
        raise SigningRequestError(f"incoming CSR cannot be read: {error}") from error
    if not isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise SigningRequestError("incoming CSR has a key that is neither EC nor RSA")
    if not proved:
        raise SigningRequestError("incoming CSR is not signed by the key that it holds")
    return request, public


def check_root(root_pem: str, key_pem: str) -> None:
    """Whether a user's root and key can work together. Raises `CertificateError` with the remedy.

    The reference would take them, and then sign leaves that nobody could verify.
    """
    root, key = load_certificate(root_pem), load_key(key_pem)
    if root.public_key() != key.public_key():
        raise CertificateError("RootCert and PrivateKey do not belong together")
    if not _is_authority(root):
        raise CertificateError("RootCert is not a CA certificate (basic constraints CA:TRUE)")
    if not subject_key_id(root):
        raise CertificateError(
            "RootCert has no subject key identifier, by which agents know whether a leaf is its: "
            "make one with it"
        )


def check_intermediate(
    intermediate_pem: str, root_pem: str, key_pem: str, trust: SigningId, now: datetime
) -> CertificateFacts:
    """Whether the primary gave what was asked for. Raises `CertificateError` in Consul's words."""
    certificate, key = load_certificate(intermediate_pem), load_key(key_pem)
    if certificate.public_key() != key.public_key():
        raise CertificateError("intermediate cert is for a different private key")
    if not _is_authority(certificate):
        raise CertificateError("intermediate is not a CA certificate")
    found = facts(certificate)
    if len(found.uris) != 1:
        raise CertificateError(
            f"incoming intermediate cert has unexpected number of URIs: {len(found.uris)}"
        )
    if found.uris[0] != trust.uri:
        raise CertificateError(
            f'incoming cert URI "{found.uris[0]}" does not match current URI: "{trust.uri}"'
        )
    try:
        certificate.verify_directly_issued_by(load_certificate(root_pem))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CertificateError(
            f"could not verify intermediate cert against root: {error or 'wrong signature'}"
        ) from error
    if now >= found.not_after:
        raise CertificateError("could not verify intermediate cert against root: it has expired")
    return found


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.BASIC_CONSTRAINTS)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return isinstance(found.value, x509.BasicConstraints) and found.value.ca


def common_name(text: str) -> x509.Name:
    """A subject that is nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem_of(signed: x509.Certificate | x509.CertificateSigningRequest) -> str:
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def key_pem_of(key: PrivateKey) -> str:
    """In the form that Go writes: `EC PRIVATE KEY` or `RSA PRIVATE KEY`."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()


def utc(unix_ns: int) -> datetime:
    """A moment as certificates have it."""
    return datetime.fromtimestamp(unix_ns / 1e9, UTC)
