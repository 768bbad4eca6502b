"""What the mesh CA signs for other datacenters, and what it refuses to."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from proconsul.domain.spiffe import SigningId
from proconsul.mesh.ca import Authority, chain, create_root, cross_sign, sign_intermediate
from proconsul.mesh.certificates import check_key, check_root, facts_of, key_pem_of, load_key
from proconsul.mesh.errors import CertificateError, SigningRequestError

NOW = datetime(2030, 1, 1, tzinfo=UTC)
CLUSTER = "11111111-2222-3333-4444-555555555555"
YEAR = timedelta(days=365)
TRUST = SigningId(CLUSTER)
KEY = ec.generate_private_key(ec.SECP256R1())
ROOT = Authority(create_root(TRUST, "pri-1.consul.ca", KEY, 7, NOW), key_pem_of(KEY))
ROOT_END = facts_of(ROOT.certificate_pem).not_after


def _request(*uris: str, key: ec.EllipticCurvePrivateKey | None = None) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sec-1.consul.ca")])
    )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def _sign(request: str, valid: timedelta = YEAR, now: datetime = NOW) -> x509.Certificate:
    pem = sign_intermediate(request, ROOT, TRUST, 42, now, valid)
    return x509.load_pem_x509_certificate(pem.encode())


def test_an_intermediate_signs_leaves_only() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    signed = _sign(_request(f"spiffe://{CLUSTER}.consul", key=key))
    root = x509.load_pem_x509_certificate(ROOT.certificate_pem.encode())
    signed.verify_directly_issued_by(root)
    assert signed.public_key() == key.public_key()
    assert signed.serial_number == 42
    basic = signed.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    usage = signed.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert usage.crl_sign
    names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        f"spiffe://{CLUSTER}.consul"
    ]
    authority = signed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority.key_identifier == own.digest


def test_it_begins_a_little_earlier_and_ends_in_time() -> None:
    signed = _sign(_request(), timedelta(hours=24))
    assert signed.not_valid_before_utc == NOW - timedelta(minutes=1)
    assert signed.not_valid_after_utc == NOW - timedelta(minutes=1) + timedelta(hours=24)


def test_it_never_outlives_the_root() -> None:
    late = ROOT_END - timedelta(days=30)
    assert _sign(_request(), now=late).not_valid_after_utc == ROOT_END


@pytest.mark.parametrize(
    ("request_pem", "complaint"),
    [
        ("", "cannot be read"),
        ("no PEM at all", "cannot be read"),
        (ROOT.certificate_pem, "cannot be read"),
        (_request("spiffe://other.consul"), "not valid for our domain"),
        (_request(f"spiffe://{CLUSTER}.consul/ns/default/dc/x/svc/y"), "not valid for our domain"),
        (_request(f"spiffe://{CLUSTER}.consul", "spiffe://other.consul"), "number of URIs: 2"),
    ],
)
def test_refuses(request_pem: str, complaint: str) -> None:
    with pytest.raises(SigningRequestError, match=complaint):
        _sign(request_pem)


def test_refuses_a_request_that_is_not_signed_by_its_own_key() -> None:
    good = x509.load_pem_x509_csr(_request().encode())
    der = bytearray(good.public_bytes(serialization.Encoding.DER))
    at = der.index(b"sec-1")
    der[at : at + 5] = b"sec-2"
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(SigningRequestError, match="not signed by the key"):
        _sign(forged)


def test_refuses_a_key_that_no_consul_can_use() -> None:
    made = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(ed25519.Ed25519PrivateKey.generate(), None)
    )
    pem = made.public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(SigningRequestError, match="neither EC nor RSA"):
        _sign(pem)


def test_a_cross_signed_root_is_the_same_to_its_leaves() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    new = create_root(TRUST, "pri-2.consul.ca", key, 8, NOW)
    crossed = x509.load_pem_x509_certificate(cross_sign(new, ROOT, 9, NOW, YEAR).encode())
    root = x509.load_pem_x509_certificate(new.encode())
    crossed.verify_directly_issued_by(x509.load_pem_x509_certificate(ROOT.certificate_pem.encode()))
    assert crossed.subject == root.subject
    assert crossed.public_key() == root.public_key()
    for kind in (x509.SubjectKeyIdentifier, x509.SubjectAlternativeName, x509.BasicConstraints):
        ours = crossed.extensions.get_extension_for_class(kind)
        assert ours == root.extensions.get_extension_for_class(kind)
    assert crossed.not_valid_after_utc == NOW + YEAR
    brief = x509.load_pem_x509_certificate(
        cross_sign(new, ROOT, 9, NOW, timedelta(hours=2)).encode()
    )
    assert brief.not_valid_after_utc == NOW + timedelta(days=7)


def test_a_chain_holds_each_certificate_once_the_issuer_first() -> None:
    assert chain("leaf\n", "own", ["crossed\n", "own\n"]) == "leaf\nown\ncrossed\n"
    assert chain("leaf", "", []) == "leaf\n"


def _self_signed(*, authority: bool = True, key_id: bool = True) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "own")])
    builder = (
        x509.CertificateBuilder(name, name, KEY.public_key(), 1, NOW, NOW + YEAR)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
    )  # fmt: skip
    if key_id:
        own = x509.SubjectKeyIdentifier.from_public_key(KEY.public_key())
        builder = builder.add_extension(own, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_roots_that_users_give() -> None:
    check_root(_self_signed(), ROOT.key_pem)
    other = key_pem_of(ec.generate_private_key(ec.SECP256R1()))
    for root, key, complaint in (
        (_self_signed(), other, "do not belong together"),
        (_self_signed(authority=False), ROOT.key_pem, "not a CA certificate"),
        (_self_signed(key_id=False), ROOT.key_pem, "no subject key identifier"),
        ("none", ROOT.key_pem, "no PEM-encoded data"),
    ):
        with pytest.raises(CertificateError, match=complaint):
            check_root(root, key)


def test_what_is_no_key_is_never_shown() -> None:
    secret = "-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n"
    with pytest.raises(CertificateError, match="cannot be read") as refused:
        load_key(secret)
    assert "c2VjcmV0" not in str(refused.value)
    assert ROOT.key_pem not in repr(ROOT)


def test_a_damaged_key_is_noticed_when_it_is_given_not_whenever_it_signs() -> None:
    """Looking for the factors of its primes takes seconds of everybody's time at each load."""
    good, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    n, rest = good.private_numbers().public_numbers.n, other.private_numbers()
    numbers = (0, n, 65537, rest.d, rest.p, rest.q, rest.dmp1, rest.dmq1, rest.iqmp)
    body = b"".join(_der(2, one.to_bytes(one.bit_length() // 8 + 1, "big")) for one in numbers)
    text = base64.encodebytes(_der(0x30, body)).decode()
    damaged = f"-----BEGIN RSA PRIVATE KEY-----\n{text}-----END RSA PRIVATE KEY-----\n"
    for key in (good, ec.generate_private_key(ec.SECP256R1())):
        check_key(load_key(key_pem_of(key)))
    with pytest.raises(CertificateError, match="what it signs does not verify"):
        check_key(load_key(damaged))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    head = bytes((size,)) if size < 128 else bytes((0x80 | len(length),)) + length
    return bytes((tag,)) + head + content
