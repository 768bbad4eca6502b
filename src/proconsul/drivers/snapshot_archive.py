"""Consul's snapshot archives: a gzipped tar with `meta.json`, `state.bin` and `SHA256SUMS`.

Follows Consul's snapshot/archive.go, errors included. All calls block: worker threads only. The tar
is written and read here, block by block: the standard library's pads it beyond its end, which Consul
refuses, and forgives what should be refused.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from proconsul.drivers.disk_space import no_room, room
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

_UNSOUND = "failed checking integrity of snapshot"
_BLOCK = 512
_COPY_BYTES = 1 << 20
_SMALL_BYTES_MAX = 1 << 20
"""Of `meta.json` and `SHA256SUMS`: they have a few hundred bytes."""
_GZIP_LEVEL = 6
_SERVERS_MAX = 1024
_INDEX_END = 1 << 62
"""Of an index: the log goes on behind it, in 64 bits."""
_BEHIND_MAX = 64 << 20
"""What is counted behind the end: a few bytes may unpack to any number."""


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

    `source` must be seekable. What was copied counts only if nothing is raised. Nothing is copied
    that is not as long as announced, or leaves a disk too little room. Raises `ArchiveError` with
    Consul's texts, and `OSError` where `state` cannot be written.
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
                if count > _BEHIND_MAX:
                    break
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
    digests: dict[str, str] = {}
    meta: ArchiveMeta | None = None
    sums: bytes | None = None
    while (entry := _entry(reader)) is not None:
        name, size = entry
        if name == META and meta is None:
            text = _small(reader, size, "failed to read snapshot metadata")
            digests[META] = hashlib.sha256(text).hexdigest()
            meta = _meta(text)
        elif name == STATE and STATE not in digests:
            if state is not None:
                _admit(size, meta, state)
            digests[STATE] = _copy(reader, size, state)
        elif name == SUMS and sums is None:
            sums = _small(reader, size, "failed to read snapshot hashes")
        else:
            raise _Damage(f"unexpected file {go_quote(name)} in snapshot")
        _skip(reader, -size % _BLOCK)
    empty = hashlib.sha256().hexdigest()
    _verify(sums or b"", {name: digests.get(name, empty) for name in (META, STATE)})
    if meta is None or STATE not in digests:
        missing = META if meta is None else STATE
        raise _Damage(f"{_UNSOUND}: file missing for {go_quote(missing)}")
    return meta


def _admit(size: int, meta: ArchiveMeta | None, state: BinaryIO) -> None:
    """Refuse a state before it is written."""
    if meta is not None and size != meta.size:
        raise _Damage(f"snapshot size didn't match ({size} != {meta.size})")
    try:
        file = state.fileno()
    except io.UnsupportedOperation:  # in memory
        return
    if size > (free := room(file)):
        raise _Damage(f"failed to read or write snapshot data: {no_room(size, free).strerror}")


def _copy(reader: _Reader, size: int, state: BinaryIO | None) -> str:
    """Copy the next `size` bytes; returns their SHA-256."""
    digest = hashlib.sha256()
    while size:
        chunk = reader.read(min(size, _COPY_BYTES), "failed to read or write snapshot data")
        digest.update(chunk)
        if state is not None:
            state.write(chunk)
        size -= len(chunk)
    return digest.hexdigest()


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
    seen: set[str] = set()
    for line in sums.decode("utf-8", "replace").splitlines():
        digest, _, name = line.partition("  ")
        if not name or len(digest) != 64:
            raise _Damage(f"{_UNSOUND}: input does not match format")
        if name not in digests:
            raise _Damage(f"{_UNSOUND}: list missing hash for {go_quote(name)}")
        if digests[name] != digest.lower():
            raise _Damage(f"{_UNSOUND}: hash check failed for {go_quote(name)}")
        seen.add(name)
    for name in digests:
        if name not in seen:
            raise _Damage(f"{_UNSOUND}: file missing for {go_quote(name)}")


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
            id=_text(fields, "ID"),
            index=_number(fields, "Index", _INDEX_END),
            term=_number(fields, "Term"),
            configuration=Configuration(tuple(_server(s) for s in servers)),
            configuration_index=_number(fields, "ConfigurationIndex"),
            size=_number(fields, "Size"),
            version=_number(fields, "Version"),
        )
    except (ValueError, TypeError, AttributeError, WireError, RecursionError) as error:
        raise _Damage(f"failed to decode snapshot metadata: {error}") from None


def _number(fields: dict[str, Any], name: str, end: int = 1 << 64) -> int:
    value = fields.get(name) or 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise ValueError(f"{name} is not an unsigned number")
    if value >= end:
        raise ValueError(f"{name} {value} is beyond any log")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    """What is missing is empty, and half a surrogate pair U+FFFD, as Go's decoder has it."""
    value = fields.get(name) or ""
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a string")
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _server(fields: dict[str, Any]) -> Server:
    suffrage = Suffrage(_number(fields, "Suffrage"))
    return Server(suffrage, _text(fields, "ID"), _text(fields, "Address"))
