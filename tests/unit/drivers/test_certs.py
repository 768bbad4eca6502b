"""Certificates as `tls` makes them: names, usages, signatures, file modes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from proconsul.drivers.certs import (
    CertificateError,
    KeyPair,
    Role,
    create_ca,
    create_certificate,
    issued_by,
    write_new,
)


def test_server_certificate() -> None:
    ca = create_ca(name_constraints=["consul", "localhost"])
    pair = create_certificate(ca, Role.SERVER, datacenter="dc2", node="s1", ip_addresses=["::1"])
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "s1.server.dc2.consul", "server.dc2.consul", "localhost",
    ]  # fmt: skip
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["::1", "127.0.0.1"]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.subject.rfc4514_string() == "CN=server.dc2.consul"
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 365
    assert issued_by(pair.certificate, ca.certificate)
    assert not issued_by(pair.certificate, create_ca().certificate)


def test_key_of_another_ca_is_refused() -> None:
    with pytest.raises(CertificateError, match="does not belong"):
        create_certificate(KeyPair(create_ca().certificate, create_ca().key), Role.CLI)


def test_a_leaf_cannot_sign() -> None:
    leaf = create_certificate(create_ca(), Role.CLIENT)
    with pytest.raises(CertificateError, match="may not sign"):
        create_certificate(leaf, Role.CLIENT)


def test_secret_files(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_new(path, b"x", secret=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_new(path, b"y", secret=True)
