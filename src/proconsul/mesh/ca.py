"""The service mesh's certificate authority: its root, and intermediates for other datacenters.

Layout after Consul's `agent/connect/ca/provider_consul.go`: a self-signed EC root whose URI SAN is the
trust domain's SPIFFE id. Key, serial and time are passed in. Leaves are signed elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from proconsul.mesh.errors import SigningRequestError

ROOT_DAYS = 3650
BACKDATE = timedelta(minutes=1)
"""Clocks differ a little; a fresh root must be valid everywhere at once."""
_SIGNING = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Root:
    """A self-signed root. `fingerprint` is Consul's id of it: SHA-1 of the DER, colon separated."""

    certificate_pem: str
    key_pem: str = field(repr=False)
    fingerprint: str
    signing_key_id: str
    serial: int
    not_before: datetime
    not_after: datetime


def create_root(
    cluster_id: str, key: ec.EllipticCurvePrivateKey, serial: int, now: datetime
) -> Root:
    """The root of the trust domain `<cluster_id>.consul`, valid for ten years from `now` (UTC)."""
    public = key.public_key()
    der_key = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    key_id = hashlib.sha256(der_key).digest()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Consul CA {serial}")])
    uri = x509.UniformResourceIdentifier(f"spiffe://{cluster_id}.consul")
    not_before, not_after = now - BACKDATE, now + timedelta(days=ROOT_DAYS)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_SIGNING, critical=True)
        .add_extension(x509.SubjectKeyIdentifier(key_id), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(key_id, None, None), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Root(
        certificate_pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key_pem=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ).decode(),
        fingerprint=certificate.fingerprint(hashes.SHA1()).hex(":"),
        signing_key_id=key_id.hex(":"),
        serial=serial,
        not_before=not_before,
        not_after=not_after,
    )


def sign_intermediate(
    request_pem: str,
    root_pem: str,
    root_key_pem: str,
    cluster_id: str,
    serial: int,
    now: datetime,
    valid: timedelta,
) -> str:
    """The certificate (PEM) of a datacenter's own CA, which signs leaves and nothing else.

    Raises SigningRequestError for a request that is none, is not signed by its own key, or is for
    another trust domain.
    """
    request = _signing_request(request_pem, f"spiffe://{cluster_id}.consul")
    root = x509.load_pem_x509_certificate(root_pem.encode())
    key = serialization.load_pem_private_key(root_key_pem.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise SigningRequestError("the root's key is neither EC nor RSA")
    public = request.public_key()
    der_key = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    not_before = now - BACKDATE
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(root.subject)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(min(not_before + valid, root.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNING, critical=True)
        .add_extension(x509.SubjectKeyIdentifier(hashlib.sha256(der_key).digest()), critical=False)
        .add_extension(_authority(root), critical=False)
    )
    if uris := _uris(request):
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signed = builder.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def _signing_request(pem: str, trust_uri: str) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        if not isinstance(request.public_key(), ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise SigningRequestError("incoming CSR has a key that is neither EC nor RSA")
        proved, uris = request.is_signature_valid, _uris(request)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningRequestError(f"incoming CSR cannot be read: {error}") from error
    if not proved:
        raise SigningRequestError("incoming CSR is not signed by the key that it holds")
    if len(uris) > 1:
        raise SigningRequestError(f"incoming CSR has unexpected number of URIs: {len(uris)}")
    # None at all is allowed: some providers cannot set one
    for uri in uris:
        if uri.lower() != trust_uri:
            raise SigningRequestError(
                f'incoming CSR domain "{uri}" is not valid for our domain "{trust_uri}"'
            )
    return request


def _uris(request: x509.CertificateSigningRequest) -> list[str]:
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _authority(root: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        found = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)
