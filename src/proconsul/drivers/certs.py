"""Keys and certificates for TLS between agents, in the style of `consul tls` (tlsutil/generate.go).

EC P-256 keys; subject key ids are the SHA-256 of the public key's DER, as the reference has them.
Not to be confused with the mesh's CA, which signs for services.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from proconsul.util.errors import ProconsulError


class CertificateError(ProconsulError):
    """A CA or key that cannot be used to sign; the text names the remedy."""


class Role(Enum):
    """What a certificate is for; the value is the first label of its name."""

    SERVER = "server"
    CLIENT = "client"
    CLI = "cli"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """PEM texts."""

    certificate: bytes
    key: bytes = field(repr=False)


def create_ca(
    *,
    days: int = 1825,
    name_constraints: Iterable[str] = (),
    now: datetime | None = None,
) -> KeyPair:
    """A self-signed CA. `name_constraints` are the DNS domains it may sign for; none is all."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = _serial()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "proconsul"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Consul Agent CA {serial}"),
        ]
    )
    key_id = _key_id(key.public_key())
    builder = (
        _builder(name, name, key.public_key(), serial, days, now)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(key_id), critical=False)
        .add_extension(_authority(key_id), critical=False)
    )
    permitted = [x509.DNSName(domain) for domain in name_constraints]
    if permitted:
        builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=True)
    return KeyPair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def create_certificate(
    ca: KeyPair,
    role: Role,
    *,
    datacenter: str = "dc1",
    domain: str = "consul",
    node: str = "",
    days: int = 365,
    dns_names: Iterable[str] = (),
    ip_addresses: Iterable[str] = (),
    now: datetime | None = None,
) -> KeyPair:
    """A certificate signed by `ca`.

    `node` adds the SAN `<node>.server.<datacenter>.<domain>`, by which other datacenters address a
    server through gateways. Raises CertificateError for an unusable CA, ValueError for a bad
    address.
    """
    issuer, issuer_key = load_ca(ca)
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"{role.value}.{datacenter}.{domain}"
    sans = _alternative_names(role, name, node, dns_names, ip_addresses)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(subject, issuer.subject, key.public_key(), _serial(), days, now)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(_key_id(key.public_key())), critical=False)
        .add_extension(_authority(_issuer_key_id(issuer)), critical=False)
        .add_extension(x509.SubjectAlternativeName(sans), critical=False)
    )
    usages = {
        Role.SERVER: [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
        Role.CLIENT: [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH],
        Role.CLI: [],
    }[role]
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return KeyPair(_pem(builder.sign(issuer_key, hashes.SHA256())), _key_pem(key))


def load_ca(ca: KeyPair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Parse a CA and check that key and certificate belong together. Raises CertificateError."""
    try:
        certificate = x509.load_pem_x509_certificate(ca.certificate)
    except ValueError:
        raise CertificateError(
            "the CA file holds no PEM certificate; name the file made by: proconsul tls ca create"
        ) from None
    try:
        key = serialization.load_pem_private_key(ca.key, password=None)
    except (ValueError, TypeError):
        raise CertificateError(
            "the CA key file holds no unencrypted PEM key; name the file made by: proconsul tls ca"
            " create"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError("the CA key is not an elliptic curve key; make a new CA")
    if certificate.public_key() != key.public_key():
        raise CertificateError("the CA key does not belong to the CA certificate")
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise CertificateError("the CA certificate may not sign others (it is no CA)")
    return certificate, key


def issued_by(certificate: bytes, ca: bytes) -> bool:
    """Whether the PEM `certificate` bears the signature of the PEM `ca`."""
    try:
        x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(
            x509.load_pem_x509_certificate(ca)
        )
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def write_new(path: Path, data: bytes, *, secret: bool) -> None:
    """Create a file that must not exist yet; `secret` ones are mode 0600 from the first byte.

    Raises FileExistsError, OSError.
    """
    mode = 0o600 if secret else 0o644
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _alternative_names(
    role: Role, name: str, node: str, dns_names: Iterable[str], ip_addresses: Iterable[str]
) -> list[x509.GeneralName]:
    if role is Role.CLI:
        # The reference, too, gives command-line certificates fixed names only
        return [x509.DNSName(name), x509.DNSName("localhost")]
    names = [n.strip() for n in dns_names if n.strip()]
    if node:
        names.append(f"{node}.{name}")
    names += [name, "localhost"]
    addresses = [a.strip() for a in ip_addresses if a.strip()] + ["127.0.0.1"]
    return [
        *(x509.DNSName(n) for n in names),
        *(x509.IPAddress(ipaddress.ip_address(a)) for a in addresses),
    ]


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    serial: int,
    days: int,
    now: datetime | None,
) -> x509.CertificateBuilder:
    start = (now or datetime.now(UTC)).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )


def _serial() -> int:
    return secrets.randbits(128) | 1


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_id(public_key: ec.EllipticCurvePublicKey) -> bytes:
    der = public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).digest()


def _issuer_key_id(issuer: x509.Certificate) -> bytes:
    try:
        return issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest


def _authority(key_id: bytes) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(key_id, None, None)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
