"""What the mesh's CA reads from outside: requests, certificates, keys, ids, settings."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime

from fuzz_inputs import Target

from proconsul.domain import ca_config, spiffe
from proconsul.drivers.mesh_keys import generate
from proconsul.mesh import certificates as certs
from proconsul.mesh.ca import Subject, authority_request, create_root, leaf_request
from proconsul.mesh.errors import CertificateError, SigningRequestError

_CLUSTER = spiffe.SigningId("11111111-2222-3333-4444-555555555555")
_SERVICE = spiffe.ServiceId(_CLUSTER.host, "default", "dc1", "web")


def _der(pem: str) -> bytes:
    return base64.b64decode("".join(pem.split("\n")[1:-2]))


def _as_pem(kind: str, decoder: Callable[[str], object]) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        body = base64.encodebytes(data).decode()
        return decoder(f"-----BEGIN {kind}-----\n{body}-----END {kind}-----\n")

    return run


def _text(decoder: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: decoder(data.decode("utf-8", "surrogateescape"))


def _settings(data: bytes) -> object:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return ca_config.parse(found) if isinstance(found, dict) else None


def certificates() -> list[Target]:
    """The part of the table."""
    key = generate()
    root = create_root(_CLUSTER, "root", key, 7, datetime(2030, 1, 1, tzinfo=UTC))
    leaf = leaf_request(Subject(_SERVICE.common_name, _SERVICE.uri), key, ("localhost",))
    requests = [_der(leaf), _der(authority_request(_CLUSTER, "ca", key))]
    key_pem = certs.key_pem_of(key)
    configs = [
        {"LeafCertTTL": "72h", "PrivateKeyBits": "256", "SkipValidate": True},
        {"RotationPeriod": 1e30, "CSRMaxPerSecond": "1e999", "PrivateKey": "x"},
    ]
    return [
        Target("mesh CSR", _as_pem("CERTIFICATE REQUEST", certs.load_request), requests,
               (SigningRequestError,), weight=0.5),
        Target("mesh CSR text", _text(certs.load_request), [leaf.encode()],
               (SigningRequestError,), weight=0.5),
        Target("mesh certificate", _as_pem("CERTIFICATE", certs.facts_of), [_der(root)],
               (CertificateError,), weight=0.5),
        Target("mesh chain", _text(certs.authorities_of), [(root + root).encode()],
               (CertificateError,), weight=0.5),
        Target("mesh key", _text(certs.load_key), [key_pem.encode()], (CertificateError,),
               weight=0.5),
        Target("SPIFFE id", _text(spiffe.parse), [u.encode() for u in (
            _SERVICE.uri, _CLUSTER.uri, spiffe.AgentId("x.consul", "dc1", "n%2F").uri)],
               (spiffe.SpiffeError,)),
        Target("CA settings", _settings, [json.dumps(c).encode() for c in configs],
               (ca_config.CaConfigError,)),
    ]  # fmt: skip
