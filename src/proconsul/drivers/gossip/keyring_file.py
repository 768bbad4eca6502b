"""Where an agent keeps its gossip keys between starts (`agent/keyring.go`, serf's `KeyringFile`).

`serf/local.keyring` and `serf/remote.keyring` hold a JSON list of base64 keys, the primary first.
Consul reads ours and ours reads Consul's.
"""

from __future__ import annotations

import json
import logging
import os
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from pathlib import Path

from proconsul.util.errors import ConfigError, ProconsulError
from proconsul.wire.memberlist_crypto import Keyring

log = logging.getLogger("proconsul.agent")

LAN_FILE, WAN_FILE = "serf/local.keyring", "serf/remote.keyring"
"""Below the data directory."""
FILE_BYTES_MAX = 64 * 1024


class KeyringFileError(ProconsulError):
    """The keys could not be kept; the text is Consul's."""


def load(path: Path, key: bytes | None, pool: str) -> Keyring | None:
    """The pool's keys: those of the file, which `key` begins if there is none yet.

    None without a file and without a key: gossip is not encrypted. Raises `ConfigError`.
    """
    if not path.exists():
        if key is None:
            return None
        try:
            save(path, [key])
        except KeyringFileError as error:
            raise ConfigError(f"Failed to configure keyring: {error}") from error
        return Keyring(key)
    keyring = _read(path)
    if key is not None and key not in keyring.keys:
        log.warning(
            "keyring doesn't include key provided with -encrypt, using keyring: keyring=%s", pool
        )
    return keyring


def _read(path: Path) -> Keyring:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"Failed to configure keyring: open {path}: {error.strerror}; make it readable, or set "
            "disable_keyring_file"
        ) from error
    try:
        return decode(data)
    except ConfigError as error:
        raise ConfigError(
            f"Failed to configure keyring: {path}: {error}; restore the file, or remove it so that "
            "it is made anew from encrypt"
        ) from error


def decode(data: bytes) -> Keyring:
    """A file's content. Raises `ConfigError`, which never shows a key."""
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"keyring of more than {FILE_BYTES_MAX} bytes")
    try:
        texts = json.loads(data)
    except (ValueError, RecursionError):
        raise ConfigError("not JSON") from None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ConfigError("not a JSON list of keys")
    if not texts:
        raise ConfigError("no keys present in keyring")
    try:
        keys = [b64decode(text, validate=True) for text in texts]
    except (Base64Error, ValueError):
        raise ConfigError("illegal base64 data in a key") from None
    return Keyring(keys[0], tuple(keys[1:]))


def save(path: Path, keys: Sequence[bytes]) -> None:
    """Replace the file as a whole, durably, readable by its owner alone.

    Raises `KeyringFileError`.
    """
    text = json.dumps([b64encode(key).decode() for key in keys], indent=2)
    temporary = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise KeyringFileError(f"Failed to write keyring file: {error}") from error
