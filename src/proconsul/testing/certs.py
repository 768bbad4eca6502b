"""Certificate authorities and agents' certificates for tests, made in memory and written once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Paths of a certificate, its key and the CA that signed it."""

    ca: str
    certificate: str
    key: str


class TestAuthority:
    """A CA like the one `tls ca create` makes, in `directory`."""

    __test__ = False  # the name is not pytest's

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory, self._name = directory, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Test {name}")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self._subject)
            .issuer_name(self._subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = self._write(f"{name}.pem", _pem(certificate))

    def server(self, node: str, datacenter: str, *, expired: bool = False) -> CertificateFiles:
        """As `tls cert create -server -dc DATACENTER -node NODE`."""
        names = (
            f"{node}.server.{datacenter}.consul",
            f"server.{datacenter}.consul",
            "localhost",
        )
        return self.issue(f"{datacenter}-{node}", names, expired=expired)

    def client(self, datacenter: str) -> CertificateFiles:
        """As `tls cert create -client -dc DATACENTER`."""
        return self.issue(f"{datacenter}-client", (f"client.{datacenter}.consul", "localhost"))

    def issue(self, name: str, names: Sequence[str], *, expired: bool = False) -> CertificateFiles:
        """A certificate with these SANs, good for both ends of TLS."""
        key = ec.generate_private_key(ec.SECP256R1())
        end = datetime.now(UTC) + timedelta(hours=-1 if expired else 24)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - timedelta(days=2))
            .not_valid_after(end)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(item) for item in names]),
                critical=False,
            )
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        stem = f"{self._name}-{name}{'-expired' if expired else ''}"
        return CertificateFiles(
            self.ca_file,
            self._write(f"{stem}.pem", _pem(certificate)),
            self._write(f"{stem}-key.pem", private.decode()),
        )

    def _write(self, name: str, text: str) -> str:
        path = self._directory / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="ascii")
        return str(path)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
