"""The service mesh's certificate authority: its root. Key, serial and time are passed in.

Layout after Consul's `agent/connect/ca/provider_consul.go`: a self-signed EC root whose URI SAN is the
trust domain's SPIFFE id. Intermediates and leaves are signed elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT_DAYS = 3650
BACKDATE = timedelta(minutes=1)
"""Clocks differ a little; a fresh root must be valid everywhere at once."""


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
    usage = x509.KeyUsage(
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
        .add_extension(usage, critical=True)
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
