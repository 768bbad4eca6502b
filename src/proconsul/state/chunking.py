"""Entries that a peer split for exceeding Raft's suggested size (`hashicorp/go-raftchunking`).

Each chunk carries a protobuf `ChunkInfo` in the log's extensions: op_num (1), sequence_num (2),
num_chunks (3). All chunks of an operation stem from one term; a new term drops the unfinished.
"""

from __future__ import annotations

from msgspec import Raw

from proconsul.domain.base import NIL, GoStruct, bytes_of, decode, encode, raw_bytes
from proconsul.state.errors import FsmError

_CHUNKS_MAX = 4096
_BYTES_MAX = 64 << 20
_VARINT_BYTES_MAX = 10


class _Chunk(GoStruct, frozen=True, gc=False):
    op_num: int = 0
    sequence_num: int = 0
    num_chunks: int = 0
    term: int = 0
    raw_data: Raw = NIL


class _ChunkState(GoStruct, frozen=True, gc=False):
    chunk_map: dict[int, list[_Chunk | None]] | None = None


class Chunker:
    """Collects chunks until an operation is whole."""

    __slots__ = ("_ops", "_term")

    def __init__(self) -> None:
        self._ops: dict[int, list[bytes | None]] = {}
        self._term = 0

    def add(self, data: bytes, extensions: bytes, term: int) -> bytes | None:
        """The whole command once its last chunk is here, else None. Raises `FsmError`."""
        op, sequence, count = _parse(extensions)
        if not 0 < count <= _CHUNKS_MAX or sequence >= count:
            raise FsmError(f"invalid chunk {sequence} of {count}")
        if term > self._term:
            self._ops.clear()
            self._term = term
        chunks = self._ops.setdefault(op, [None] * count)
        if len(chunks) != count:
            raise FsmError(f"chunk {sequence} of {count} does not fit its operation")
        chunks[sequence] = data
        if sum(len(chunk or b"") for parts in self._ops.values() for chunk in parts) > _BYTES_MAX:
            raise FsmError(f"chunked commands exceed {_BYTES_MAX} bytes")
        if any(chunk is None for chunk in chunks):
            return None
        del self._ops[op]
        return b"".join(chunk for chunk in chunks if chunk is not None)

    def dump(self) -> bytes:
        """The body of the snapshot's chunking record."""
        return encode(
            _ChunkState(
                {
                    op: [
                        None
                        if data is None
                        else _Chunk(op, sequence, len(chunks), self._term, raw_bytes(data))
                        for sequence, data in enumerate(chunks)
                    ]
                    for op, chunks in self._ops.items()
                }
            )
        )

    def load(self, body: bytes) -> None:
        """Take over what `dump`, or Consul, wrote."""
        state = decode(body, _ChunkState)
        self._ops.clear()
        for op, chunks in (state.chunk_map or {}).items():
            if len(chunks) > _CHUNKS_MAX:
                raise FsmError(f"{len(chunks)} chunks in a snapshot's operation")
            self._ops[op] = [bytes_of(chunk.raw_data) if chunk else None for chunk in chunks]
            self._term = max([self._term, *(chunk.term for chunk in chunks if chunk)])


def _parse(extensions: bytes) -> tuple[int, int, int]:
    fields = {1: 0, 2: 0, 3: 0}
    at = 0
    while at < len(extensions):
        tag, at = _varint(extensions, at)
        match tag & 7:
            case 0:
                value, at = _varint(extensions, at)
                fields[tag >> 3] = value
            case 2:  # next_extensions, for middleware that Consul does not have
                size, at = _varint(extensions, at)
                at += size
            case other:
                raise FsmError(f"chunk information has a field of wire type {other}")
    if at != len(extensions):
        raise FsmError("chunk information is truncated")
    return fields[1], fields[2], fields[3]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for position in range(_VARINT_BYTES_MAX):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return value, at
    raise FsmError("chunk information is truncated")
