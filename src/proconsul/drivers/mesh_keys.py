"""Makes private keys for the mesh's certificates (`agent/connect/generate.go`)."""

from __future__ import annotations

import secrets
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, rsa

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_CURVES: dict[int, type[ec.EllipticCurve]] = {
    224: ec.SECP224R1,
    256: ec.SECP256R1,
    384: ec.SECP384R1,
    521: ec.SECP521R1,
}
_PUBLIC_EXPONENT = 65537
_BASE_36 = "0123456789abcdefghijklmnopqrstuvwxyz"


def generate(key_type: str = "ec", bits: int = 256) -> Key:
    """A new key. RSA takes up to seconds: run it in a thread.

    Raises ValueError for a type or size that `domain.ca_config` would have refused.
    """
    if key_type == "rsa":
        return rsa.generate_private_key(_PUBLIC_EXPONENT, bits)
    if key_type != "ec" or bits not in _CURVES:
        raise ValueError(f"no private key of type {key_type} with {bits} bits")
    return ec.generate_private_key(_CURVES[bits]())


def compact_id() -> str:
    """Eight random letters and digits, which tell one CA's name from the next one's."""
    return "".join(secrets.choice(_BASE_36) for _ in range(8))
