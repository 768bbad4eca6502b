"""Consul's snapshot archives: a gzipped tar with `meta.json`, `state.bin` and `SHA256SUMS`.

Follows Consul's snapshot/archive.go, errors included. All calls block: worker threads only. The tar
is written and read here, block by block: the standard library's pads it beyond its end, which Consul
refuses, and forgives what should be refused.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import tarfile
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from proconsul.util.errors import ProconsulError, WireError
from proconsul.util.goquote import go_quote
from proconsul.wire.raft import (
    SNAPSHOT_VERSION,
    Configuration,
    Server,
    Suffrage,
    encode_peers,
)

META, STATE, SUMS = "meta.json", "state.bin", "SHA256SUMS"

_BLOCK = 512
_COPY_BYTES = 1 << 20
_SMALL_BYTES_MAX = 1 << 20
"""Of `meta.json` and `SHA256SUMS`: they have a few hundred bytes."""
_GZIP_LEVEL = 6
_SERVERS_MAX = 1024


class ArchiveError(ProconsulError):
    """The archive is not one, is damaged or incomplete; the text is Consul's."""


@dataclass(frozen=True, slots=True)
class ArchiveMeta:
    """hashicorp/raft's `SnapshotMeta`: where a snapshot ends, and what it was called."""

    id: str
    index: int
    term: int
    configuration: Configuration
    configuration_index: int
    size: int
    version: int = SNAPSHOT_VERSION

    def to_json(self) -> bytes:
        """As Go's encoder writes it, with the newline at the end."""
        fields = {
            "Version": self.version,
            "ID": self.id,
            "Index": self.index,
            "Term": self.term,
            "Peers": base64.b64encode(encode_peers(self.configuration)).decode(),
            "Configuration": {
                "Servers": [
                    {"Suffrage": int(s.suffrage), "ID": s.id, "Address": s.address}
                    for s in self.configuration.servers
                ]
            },
            "ConfigurationIndex": self.configuration_index,
            "Size": self.size,
        }
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def write_archive(out: BinaryIO, meta: ArchiveMeta, state: BinaryIO, mtime: int) -> None:
    """Write `meta` and `meta.size` bytes of `state`; `mtime` is Unix time in seconds.

    Raises `ArchiveError` if `state` is shorter, and `OSError`.
    """
    sums: list[tuple[str, str]] = []
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as tar:
        text = meta.to_json()
        _put(tar, META, text, mtime)
        sums.append((META, hashlib.sha256(text).hexdigest()))
        tar.write(_header(STATE, meta.size, mtime))
        digest, left = hashlib.sha256(), meta.size
        while left:
            chunk = state.read(min(left, _COPY_BYTES))
            if not chunk:
                raise ArchiveError("failed to write snapshot metadata: EOF")
            digest.update(chunk)
            tar.write(chunk)
            left -= len(chunk)
        tar.write(_padding(meta.size))
        sums.append((STATE, digest.hexdigest()))
        _put(tar, SUMS, "".join(f"{h}  {name}\n" for name, h in sums).encode(), mtime)
        tar.write(bytes(2 * _BLOCK))


def _put(tar: gzip.GzipFile, name: str, data: bytes, mtime: int) -> None:
    tar.write(_header(name, len(data), mtime) + data + _padding(len(data)))


def _header(name: str, size: int, mtime: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, mtime
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def read_archive(source: BinaryIO, state: BinaryIO | None) -> ArchiveMeta:
    """Check a whole archive and copy its `state.bin` to `state`; returns what it says of itself.

    `source` must be seekable. What was copied counts only if nothing is raised. Raises
    `ArchiveError` with Consul's texts, and `OSError` where `state` cannot be written.
    """
    reader = _Reader(source)
    reader.begin()
    try:
        meta = _read(reader, state)
    except _Damage as error:
        raise ArchiveError(f"failed to read snapshot file: {error}") from None
    if extra := reader.behind():
        raise ArchiveError(f"{extra} unread uncompressed bytes remain")
    return meta


class _Damage(ArchiveError):
    """What is wrong inside."""


class _Reader:
    """The archive's uncompressed bytes."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._tar = gzip.GzipFile(fileobj=source, mode="rb")

    def begin(self) -> None:
        """Look at the beginning: an `ArchiveError` if this is no gzip file at all."""
        if not self._source.read(1):
            raise ArchiveError("failed to decompress snapshot: EOF")
        self._source.seek(-1, os.SEEK_CUR)
        try:
            self._tar.peek(1)
        except EOFError:
            raise ArchiveError("failed to decompress snapshot: unexpected EOF") from None
        except (gzip.BadGzipFile, zlib.error):
            raise ArchiveError("failed to decompress snapshot: gzip: invalid header") from None

    def read(self, count: int, what: str) -> bytes:
        """At most `count` bytes, at least one; `what` begins the error if there are none."""
        data = self.rest(count, what)
        if not data:
            raise _Damage(f"{what}: unexpected EOF")
        return data

    def rest(self, count: int, what: str) -> bytes:
        """At most `count` bytes, none at the end."""
        try:
            return self._tar.read(count)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise _Damage(f"{what}: {_gzip_error(error)}") from None

    def behind(self) -> int:
        """How many bytes follow. The checksum of all that was read is at the end: go there."""
        count = 0
        try:
            while data := self._tar.read(_COPY_BYTES):
                count += len(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ArchiveError(_gzip_error(error)) from None
        return count

    def block(self) -> bytes:
        """One block of the tar, b"" at its very end."""
        data = b""
        while len(data) < _BLOCK:
            more = self.rest(_BLOCK - len(data), "failed reading snapshot")
            if not more:
                if data:
                    raise _Damage("failed reading snapshot: unexpected EOF")
                return b""
            data += more
        return data


def _read(reader: _Reader, state: BinaryIO | None) -> ArchiveMeta:
    meta_digest, state_digest = hashlib.sha256(), hashlib.sha256()
    meta: ArchiveMeta | None = None
    sums = b""
    while (entry := _entry(reader)) is not None:
        name, size = entry
        match name:
            case "meta.json":
                text = _small(reader, size, "failed to read snapshot metadata")
                meta_digest.update(text)
                meta = _meta(text)
            case "state.bin":
                what, left = "failed to read or write snapshot data", size
                while left:
                    chunk = reader.read(min(left, _COPY_BYTES), what)
                    state_digest.update(chunk)
                    if state is not None:
                        state.write(chunk)
                    left -= len(chunk)
            case "SHA256SUMS":
                sums = _small(reader, size, "failed to read snapshot hashes")
            case _:
                raise _Damage(f"unexpected file {go_quote(name)} in snapshot")
        _skip(reader, -size % _BLOCK)
    _verify(sums, {META: meta_digest.hexdigest(), STATE: state_digest.hexdigest()})
    assert meta is not None  # its hash was right
    return meta


def _entry(reader: _Reader) -> tuple[str, int] | None:
    """Name and size of the next file; None at the end of the tar."""
    block = reader.block()
    if not block:
        return None
    if not any(block):
        second = reader.block()
        if any(second):
            raise _Damage("failed reading snapshot: archive/tar: invalid tar header")
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise _Damage("failed reading snapshot: archive/tar: invalid tar header") from None
    if info.size < 0:
        raise _Damage("failed reading snapshot: archive/tar: invalid tar header")
    return info.name, info.size


def _small(reader: _Reader, size: int, what: str) -> bytes:
    if size > _SMALL_BYTES_MAX:
        raise _Damage(f"{what}: {size} bytes are too many")
    data = b""
    while len(data) < size:
        data += reader.read(size - len(data), what)
    return data


def _skip(reader: _Reader, count: int) -> None:
    while count:
        count -= len(reader.read(count, "failed reading snapshot"))


def _verify(sums: bytes, digests: dict[str, str]) -> None:
    failed = "failed checking integrity of snapshot"
    seen: set[str] = set()
    for line in sums.decode("utf-8", "replace").splitlines():
        digest, _, name = line.partition("  ")
        if not name or len(digest) != 64:
            raise _Damage(f"{failed}: input does not match format")
        if name not in digests:
            raise _Damage(f"{failed}: list missing hash for {go_quote(name)}")
        if digests[name] != digest.lower():
            raise _Damage(f"{failed}: hash check failed for {go_quote(name)}")
        seen.add(name)
    for name in digests:
        if name not in seen:
            raise _Damage(f"{failed}: file missing for {go_quote(name)}")


def _gzip_error(error: Exception) -> str:
    """Go's text."""
    if isinstance(error, EOFError):
        return "unexpected EOF"
    if isinstance(error, gzip.BadGzipFile):
        return "gzip: invalid checksum" if "CRC" in str(error) else "gzip: invalid header"
    return f"gzip: corrupt input: {error}"


def _meta(text: bytes) -> ArchiveMeta:
    try:
        fields = json.loads(text)
        servers = (fields.get("Configuration") or {}).get("Servers") or []
        if len(servers) > _SERVERS_MAX:
            raise ValueError("too many servers")
        return ArchiveMeta(
            id=str(fields.get("ID", "")),
            index=_number(fields, "Index"),
            term=_number(fields, "Term"),
            configuration=Configuration(tuple(_server(s) for s in servers)),
            configuration_index=_number(fields, "ConfigurationIndex"),
            size=_number(fields, "Size"),
            version=_number(fields, "Version"),
        )
    except (ValueError, TypeError, AttributeError, WireError, RecursionError) as error:
        raise _Damage(f"failed to decode snapshot metadata: {error}") from None


def _number(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name) or 0
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise ValueError(f"{name} is not an unsigned number")
    return value


def _server(fields: dict[str, Any]) -> Server:
    return Server(Suffrage(_number(fields, "Suffrage")), str(fields["ID"]), str(fields["Address"]))
