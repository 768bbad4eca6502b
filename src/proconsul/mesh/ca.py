"""What the mesh's certificate authority signs: roots, intermediates, leaves, and roots' successors.

Layout after Consul's `agent/connect/ca/provider_consul.go`. Keys, serials and time are passed in;
nothing here decides who may have a certificate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from proconsul.domain.spiffe import SigningId
from proconsul.mesh.certificates import (
    PrivateKey,
    PublicKey,
    common_name,
    key_id,
    load_certificate,
    load_key,
    load_request,
    pem_of,
    subject_key_id,
    uris_of,
)
from proconsul.mesh.errors import SigningRequestError

ROOT_DAYS = 3650
CROSS_SIGNED = timedelta(days=7)
"""At least: while leaves that only know the old root are about."""
BACKDATE = timedelta(minutes=1)
"""Clocks differ a little; what is fresh must be valid everywhere at once."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs: a certificate (root or intermediate) and its key, as PEM texts."""

    certificate_pem: str
    key_pem: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a leaf is for; the certificate says this and not what the request's subject says."""

    common_name: str
    uri: str


def create_root(trust: SigningId, name: str, key: PrivateKey, serial: int, now: datetime) -> str:
    """A self-signed root (PEM) of the trust domain, valid for ten years from `now` (UTC)."""
    public = key.public_key()
    own_id = key_id(public)
    subject = common_name(name)
    builder = (
        _begun(subject, subject, public, serial)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=ROOT_DAYS))
        .add_extension(_uri_names([trust.uri]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_signing_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(own_id), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(own_id, None, None), critical=False)
    )
    return pem_of(builder.sign(key, hashes.SHA256()))


def sign_intermediate(
    request_pem: str,
    authority: Authority,
    trust: SigningId,
    serial: int,
    now: datetime,
    valid: timedelta,
) -> str:
    """The certificate (PEM) of a datacenter's own CA, which signs leaves and nothing else.

    Raises `SigningRequestError` for a request that is none, is not signed by its own key, or is
    for another trust domain; `CertificateError` if the authority's own PEM cannot be used.
    """
    request, public = load_request(request_pem)
    uris = uris_of(request)
    if len(uris) > 1:
        raise SigningRequestError(f"incoming CSR has unexpected number of URIs: {len(uris)}")
    # None at all is allowed: some providers cannot set one
    for uri in uris:
        if uri.lower() != trust.uri:
            raise SigningRequestError(
                f'incoming CSR domain "{uri}" is not valid for our domain "{trust.uri}"'
            )
    issuer = load_certificate(authority.certificate_pem)
    builder = (
        _issued(request.subject, public, issuer, serial, now, valid)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_signing_usage(), critical=True)
    )
    if uris:
        builder = builder.add_extension(_uri_names(uris), critical=False)
    return pem_of(builder.sign(load_key(authority.key_pem), hashes.SHA256()))


def sign_leaf(
    request_pem: str,
    subject: Subject,
    authority: Authority,
    serial: int,
    now: datetime,
    valid: timedelta,
) -> str:
    """A certificate (PEM) for a service or an agent, for both sides of TLS.

    DNS names and IP addresses are the request's. It does not outlive its issuer. Raises as
    `sign_intermediate` does.
    """
    request, public = load_request(request_pem)
    issuer = load_certificate(authority.certificate_pem)
    names = [*_other_names(request), x509.UniformResourceIdentifier(subject.uri)]
    builder = (
        _issued(common_name(subject.common_name), public, issuer, serial, now, valid)
        .add_extension(_leaf_usage(), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return pem_of(builder.sign(load_key(authority.key_pem), hashes.SHA256()))


def cross_sign(
    root_pem: str, authority: Authority, serial: int, now: datetime, valid: timedelta
) -> str:
    """The new root `root_pem` as an intermediate (PEM) of the old one.

    Who trusts only the old root verifies the new one's leaves by it.
    """
    root, issuer = load_certificate(root_pem), load_certificate(authority.certificate_pem)
    public = root.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(root.subject)
        .issuer_name(issuer.subject)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(now + max(CROSS_SIGNED, valid), issuer.not_valid_after_utc))
        .add_extension(_authority_of(issuer), critical=False)
    )
    for extension in root.extensions:
        if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    return pem_of(builder.sign(load_key(authority.key_pem), hashes.SHA256()))


def authority_request(trust: SigningId, name: str, key: PrivateKey) -> str:
    """A request (PEM) for an intermediate of our own."""
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(common_name(name))
        .add_extension(_uri_names([trust.uri]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return pem_of(builder.sign(key, hashes.SHA256()))


def leaf_request(
    subject: Subject,
    key: PrivateKey,
    dns_names: tuple[str, ...] = (),
    addresses: tuple[IPv4Address | IPv6Address, ...] = (),
) -> str:
    """A request (PEM) for a service's or agent's certificate."""
    names: list[x509.GeneralName] = [
        *map(x509.DNSName, dns_names),
        *map(x509.IPAddress, addresses),
        x509.UniformResourceIdentifier(subject.uri),
    ]
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(common_name(subject.common_name))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return pem_of(builder.sign(key, hashes.SHA256()))


def chain(leaf_pem: str, own_pem: str, intermediates: list[str]) -> str:
    """A leaf with all that leads from it to a root, each once, its issuer first."""
    texts: list[str] = []
    for text in (leaf_pem, own_pem, *intermediates):
        if (stripped := text.strip()) and stripped not in texts:
            texts.append(stripped)
    return "".join(f"{text}\n" for text in texts)


def _begun(
    subject: x509.Name, issuer: x509.Name, public: PublicKey, serial: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(serial)
    )


def _issued(
    subject: x509.Name,
    public: PublicKey,
    issuer: x509.Certificate,
    serial: int,
    now: datetime,
    valid: timedelta,
) -> x509.CertificateBuilder:
    not_before = now - BACKDATE
    return (
        _begun(subject, issuer.subject, public, serial)
        .not_valid_before(not_before)
        .not_valid_after(min(not_before + valid, issuer.not_valid_after_utc))
        .add_extension(x509.SubjectKeyIdentifier(key_id(public)), critical=False)
        .add_extension(_authority_of(issuer), critical=False)
    )


def _other_names(request: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]


def _uri_names(uris: list[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


def _authority_of(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    found = subject_key_id(issuer)
    if found is None:
        public = issuer.public_key()
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier(found, None, None)


def _signing_usage() -> x509.KeyUsage:
    return _usage(key_cert_sign=True, crl_sign=True)


def _leaf_usage() -> x509.KeyUsage:
    return _usage(key_encipherment=True, data_encipherment=True, key_agreement=True)


def _usage(
    *,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
    key_encipherment: bool = False,
    data_encipherment: bool = False,
    key_agreement: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=data_encipherment,
        key_agreement=key_agreement,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
