"""Keys for the mesh's CA, and OpenSSL's judgement of what it signed."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path
from typing import Any

from proconsul.drivers.mesh_keys import generate
from proconsul.mesh.certificates import key_pem_of


def new_key(key_type: str = "ec", bits: int = 256) -> str:
    """A private key in PEM."""
    return key_pem_of(generate(key_type, bits))


def accepted(leaf: dict[str, Any], roots_pem: str) -> bool:
    """Whether OpenSSL takes the leaf of both sides of a TLS connection, trusting `roots_pem` alone."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "leaf.pem")
        file.write_text(leaf["CertPEM"] + leaf["PrivateKeyPEM"])
        contexts = []
        for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
            context = ssl.SSLContext(protocol)
            context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=roots_pem)
            context.load_cert_chain(file)
            contexts.append(context)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        contexts[0].wrap_bio(there, back, server_side=True),
        contexts[1].wrap_bio(back, there),
    ]
    for _ in range(6):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return all(side.getpeercert() for side in sides)
