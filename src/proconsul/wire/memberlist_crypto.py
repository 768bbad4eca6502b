"""AES-GCM around memberlist packets and streams, and the ring of keys.

Layout: version byte, 12-byte nonce, ciphertext with its 16-byte tag. Version 0 (protocol version
1) pads the plaintext by PKCS#7, version 1 does not. Streams authenticate their 5-byte header too.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from typing_extensions import override

from proconsul.util.errors import ConfigError, WireError

if TYPE_CHECKING:
    # Loaded with the first key: 7 MiB that nobody needs who does not encrypt.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
_TAG_BYTES = 16
_BLOCK_BYTES = 16
_VERSION_MAX = 1
_KEYS_MAX = 64


def overhead_bytes(version: int) -> int:
    """The most that encryption adds to a message."""
    return 45 if version == 0 else 29


def sealed_bytes(version: int, size: int) -> int:
    """Exact size of the sealed form of `size` bytes."""
    padding = _BLOCK_BYTES - size % _BLOCK_BYTES if version == 0 else 0
    return 1 + NONCE_BYTES + size + padding + _TAG_BYTES


class Keyring:
    """The cluster's gossip keys. The first encrypts; all are tried, in order, to decrypt."""

    __slots__ = ("_ring",)

    def __init__(self, primary: bytes, others: tuple[bytes, ...] = ()) -> None:
        """Keys are 16, 24 or 32 bytes. Raises `ConfigError`."""
        self._ring: list[tuple[bytes, AESGCM]] = []
        self.add(primary)
        for key in others:
            self.add(key)

    @override
    def __repr__(self) -> str:
        return f"<Keyring of {len(self._ring)} keys>"

    @property
    def primary(self) -> bytes:
        """The key that encrypts."""
        return self._ring[0][0]

    @property
    def keys(self) -> list[bytes]:
        """All keys, the primary first."""
        return [key for key, _ in self._ring]

    def add(self, key: bytes) -> None:
        """Add a key; one that is there already is left where it is."""
        if len(key) not in {16, 24, 32}:
            raise ConfigError("key size must be 16, 24 or 32 bytes")
        if self._index(key) is not None:
            return
        if len(self._ring) >= _KEYS_MAX:
            raise ConfigError(f"more than {_KEYS_MAX} keys in the keyring")
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._ring.append((key, AESGCM(key)))

    def use(self, key: bytes) -> None:
        """Make an installed key the primary."""
        index = self._index(key)
        if index is None:
            raise ConfigError("Requested key is not in the keyring")
        self._ring.insert(0, self._ring.pop(index))

    def remove(self, key: bytes) -> None:
        """Forget a key that is not the primary; an unknown one is fine."""
        index = self._index(key)
        if index == 0:
            raise ConfigError("Removing the primary key is not allowed")
        if index is not None:
            del self._ring[index]

    def seal(self, plain: bytes, version: int, nonce: bytes, header: bytes = b"") -> bytes:
        """Encrypt with the primary key. A nonce (12 random bytes) is never used twice."""
        if version == 0:
            padding = _BLOCK_BYTES - len(plain) % _BLOCK_BYTES
            plain += bytes((padding,)) * padding
        sealed = self._ring[0][1].encrypt(nonce, plain, header or None)
        return bytes((version,)) + nonce + sealed

    def open(self, sealed: bytes, header: bytes = b"") -> bytes:
        """Decrypt with the first key that fits. Raises `WireError`, which tells nothing else."""
        if not sealed:
            raise WireError("Cannot decrypt empty payload")
        version = sealed[0]
        if version > _VERSION_MAX:
            raise WireError(f"Unsupported encryption version {version}")
        if len(sealed) < sealed_bytes(version, 0):
            raise WireError(f"Payload is too small to decrypt: {len(sealed)}")
        from cryptography.exceptions import InvalidTag

        nonce, ciphertext = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        for _, cipher in self._ring:
            try:
                plain = cipher.decrypt(nonce, ciphertext, header or None)
            except InvalidTag:
                continue
            return _unpad(plain) if version == 0 else plain
        raise WireError("No installed keys could decrypt the message")

    def _index(self, key: bytes) -> int | None:
        for index, (known, _) in enumerate(self._ring):
            if hmac.compare_digest(known, key):
                return index
        return None


def _unpad(plain: bytes) -> bytes:
    size = plain[-1] if plain else 0
    if not 1 <= size <= _BLOCK_BYTES or size > len(plain):
        raise WireError("malformed padding")
    return plain[:-size]
