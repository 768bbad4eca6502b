"""hashicorp/yamux frames (its spec.md): a header of 12 bytes, then data for `DATA` frames.

version(1) | type(1) | flags(2) | stream id(4) | length(4), big endian. `length` is a window delta
in `WINDOW_UPDATE`, an opaque value in `PING`, a reason in `GO_AWAY`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from proconsul.util.errors import WireError

VERSION = 0
HEADER_BYTES = 12
INITIAL_WINDOW = 256 * 1024

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8

GO_AWAY_NORMAL, GO_AWAY_PROTOCOL_ERROR, GO_AWAY_INTERNAL_ERROR = range(3)

_HEADER = struct.Struct(">BBHII")


class Header(NamedTuple):
    """A frame's header."""

    kind: int
    flags: int
    stream_id: int
    length: int


def encode_header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The 12 bytes of a header."""
    return _HEADER.pack(VERSION, kind, flags, stream_id, length)


def decode_header(data: bytes | bytearray | memoryview, offset: int = 0) -> Header:
    """The header at `offset`, where 12 bytes must be. Raises `WireError`."""
    version, kind, flags, stream_id, length = _HEADER.unpack_from(data, offset)
    if version != VERSION:
        raise WireError(f"yamux: invalid protocol version: {version}")
    if kind > GO_AWAY:
        raise WireError(f"yamux: invalid msg type: {kind}")
    return Header(kind, flags, stream_id, length)
