"""How memberlist packets wrap messages: CRC around compression around a compound of messages.

Encryption, the outermost layer, is in `wire.memberlist_crypto`.
"""

from __future__ import annotations

import struct
import zlib

from proconsul.util.errors import WireError
from proconsul.wire import lzw
from proconsul.wire.memberlist import MAP_ITEMS_MAX, Kind
from proconsul.wire.msgpack import as_bytes, as_uint, raw, unpack

PACKET_BYTES_MAX = 64 << 10
"""What one datagram may hold, and what all of it may be after decompression."""
COMPOUND_HEADER_BYTES = 2
COMPOUND_ENTRY_BYTES = 2
CRC_BYTES = 5
USER_BYTES = 1
_NESTING_MAX = 4
_NESTS = (int(Kind.COMPOUND), int(Kind.COMPRESS))


def make_compound(messages: list[bytes]) -> bytes:
    """One compound of at most 255 messages of less than 64 KiB each."""
    count = len(messages)
    if count > 255:
        raise ValueError("a compound holds at most 255 messages")
    lengths = struct.pack(f">{count}H", *map(len, messages))
    return b"".join((bytes((Kind.COMPOUND, count)), lengths, *messages))


def split_compound(body: bytes) -> tuple[list[bytes], int]:
    """The messages of a compound (after its type byte) and how many were cut off."""
    if not body:
        raise WireError("missing compound length byte")
    count = body[0]
    position = 1 + count * 2
    if len(body) < position:
        raise WireError("truncated len slice")
    parts: list[bytes] = []
    for size in struct.unpack_from(f">{count}H", body, 1):
        if position + size > len(body):
            return parts, count - len(parts)
        parts.append(body[position : position + size])
        position += size
    return parts, 0


def encode_compress(message: bytes) -> bytes:
    """`message` as an LZW compress message."""
    return b"\x09\x82\xa4Algo\x00\xa3Buf" + raw(lzw.compress(message))


def decompress_fields(fields: object, size_max: int) -> bytes:
    """The payload of a decoded compress message. Raises `WireError`."""
    if type(fields) is not dict:
        raise WireError("compress message is not a map")
    algorithm = as_uint(fields.get(b"Algo"), 8)
    if algorithm != 0:
        raise WireError(f"Cannot decompress unknown algorithm {algorithm}")
    return lzw.decompress(as_bytes(fields.get(b"Buf")), size_max)


def add_crc(message: bytes) -> bytes:
    """`message` behind its CRC header, for peers of protocol version 5."""
    return b"\x0c" + zlib.crc32(message).to_bytes(4, "big") + message


def unwrap_packet(packet: bytes) -> list[tuple[int, bytes]]:
    """A decrypted packet as its plain messages: (type byte, body) each, in order.

    Compounds and compression are undone, the CRC is checked. Raises `WireError` if any of it is
    malformed, nests deeper than 4, or unpacks to more than `PACKET_BYTES_MAX` in total. What a
    compound lost to truncation is dropped.
    """
    if len(packet) > PACKET_BYTES_MAX:
        raise WireError(f"packet larger than {PACKET_BYTES_MAX} bytes")
    if len(packet) >= CRC_BYTES and packet[0] == Kind.HAS_CRC:
        if zlib.crc32(packet[5:]) != int.from_bytes(packet[1:5], "big"):
            raise WireError("invalid checksum for UDP packet")
        packet = packet[5:]
    messages: list[tuple[int, bytes]] = []
    _unwrap(packet, messages, PACKET_BYTES_MAX, _NESTING_MAX)
    return messages


def _unwrap(data: bytes, messages: list[tuple[int, bytes]], budget: int, depth: int) -> int:
    """Append the messages of `data`; returns what is left of the decompression budget."""
    if not data:
        raise WireError("empty message")
    kind = data[0]
    if kind == Kind.COMPOUND:
        if depth == 0:
            raise WireError("packet nests too deeply")
        for part in split_compound(data[1:])[0]:
            # Nearly all parts are plain, and there are many.
            if part and part[0] not in _NESTS:
                messages.append((part[0], part[1:]))
            else:
                budget = _unwrap(part, messages, budget, depth - 1)
    elif kind == Kind.COMPRESS:
        if depth == 0:
            raise WireError("packet nests too deeply")
        plain = decompress_fields(unpack(data[1:], items_max=MAP_ITEMS_MAX), budget)
        budget = _unwrap(plain, messages, budget - len(plain), depth - 1)
    else:
        messages.append((kind, data[1:]))
    return budget
