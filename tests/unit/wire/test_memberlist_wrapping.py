"""LZW, encryption, packets and streams of memberlist."""

from __future__ import annotations

import random

import pytest

from proconsul.util.errors import ConfigError, WireError
from proconsul.wire import lzw
from proconsul.wire import memberlist as ml
from proconsul.wire.memberlist_crypto import Keyring, overhead_bytes, sealed_bytes
from proconsul.wire.memberlist_packet import (
    PACKET_BYTES_MAX,
    add_crc,
    encode_compress,
    make_compound,
    split_compound,
    unwrap_packet,
)
from proconsul.wire.memberlist_stream import (
    ErrorReply,
    PushPull,
    StreamReader,
    UserMessage,
    encode_error,
    encode_push_pull,
    encode_user_stream,
    wrap_stream,
)

_NONCE = b"n" * 12
_KEY, _OTHER = b"k" * 16, b"o" * 32
_ROWS = tuple(
    ml.NodeRow(f"n{i}", b"\x7f\0\0\1", i, b"meta", i, ml.NodeState(i % 4), b"\1\5\2\2\5\4")
    for i in range(300)
)


@pytest.mark.parametrize("size", [0, 1, 2, 300, 3_835, 3_840, 5_000, 70_000])
@pytest.mark.parametrize("alphabet", [1, 3, 256])
def test_lzw_round_trip(size: int, alphabet: int) -> None:
    rng = random.Random(size)
    data = bytes(rng.randrange(alphabet) for _ in range(size))
    assert lzw.decompress(lzw.compress(data), size) == data


def test_lzw_reads_a_stream_that_opens_with_a_clear_code() -> None:
    # Go since 1.17: 256, then 'a' and the end code 257.
    bits = 256 | ord("a") << 9 | 257 << 18
    assert lzw.decompress(bits.to_bytes(4, "little"), 10) == b"a"


def test_lzw_output_is_bounded() -> None:
    bomb = lzw.compress(bytes(1 << 20))
    with pytest.raises(WireError, match="more than"):
        lzw.decompress(bomb, 1000)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 8, b"\x61\x00\x00"])
def test_lzw_refuses_malformed(data: bytes) -> None:
    with pytest.raises(WireError, match="lzw"):
        lzw.decompress(data, 1000)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 400])
def test_encryption_round_trip_and_sizes(version: int, size: int) -> None:
    ring = Keyring(_KEY)
    sealed = ring.seal(b"x" * size, version, _NONCE, b"header")
    assert len(sealed) == sealed_bytes(version, size) <= size + overhead_bytes(version)
    assert ring.open(sealed, b"header") == b"x" * size
    with pytest.raises(WireError, match="No installed keys"):
        ring.open(sealed, b"HEADER")


def test_key_rotation() -> None:
    old, new = Keyring(_KEY), Keyring(_KEY)
    new.add(_OTHER)
    new.use(_OTHER)
    assert new.primary == _OTHER
    assert new.open(old.seal(b"hello", 1, _NONCE)) == b"hello"
    with pytest.raises(WireError, match="No installed keys"):
        old.open(new.seal(b"hello", 1, _NONCE))
    with pytest.raises(ConfigError, match="primary"):
        new.remove(_OTHER)
    new.remove(_KEY)
    assert new.keys == [_OTHER]
    with pytest.raises(ConfigError, match="not in the keyring"):
        new.use(_KEY)
    with pytest.raises(ConfigError, match="16, 24 or 32"):
        new.add(b"short")
    assert repr(_KEY) not in repr(new)


def test_packet_wrapping_is_undone_in_any_order() -> None:
    nack = ml.encode_nack(ml.Nack(7))
    packet = add_crc(encode_compress(make_compound([nack, encode_compress(nack), nack])))
    assert unwrap_packet(packet) == [(nack[0], nack[1:])] * 3


def test_crc_is_checked() -> None:
    packet = bytearray(add_crc(ml.encode_nack(ml.Nack(7))))
    packet[-1] ^= 1
    with pytest.raises(WireError, match="checksum"):
        unwrap_packet(bytes(packet))


def test_truncated_compound_yields_what_is_whole() -> None:
    compound = make_compound([b"one", b"three"])
    assert split_compound(compound[1:-1]) == ([b"one"], 1)
    with pytest.raises(WireError, match="truncated"):
        split_compound(b"\x09\x00")


def test_nesting_is_bounded() -> None:
    packet = ml.encode_nack(ml.Nack(7))
    for _ in range(6):
        packet = make_compound([packet])
    with pytest.raises(WireError, match="deeply"):
        unwrap_packet(packet)


def test_decompression_budget_is_for_the_whole_packet() -> None:
    part = encode_compress(b"\x08" + bytes(PACKET_BYTES_MAX // 3))
    assert len(unwrap_packet(make_compound([part, part]))) == 2
    with pytest.raises(WireError, match="more than"):
        unwrap_packet(make_compound([part] * 4))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("encrypt", [None, 0, 1])
@pytest.mark.parametrize("step", [1, 17, 1 << 20])
def test_stream_round_trip(compress: bool, encrypt: int | None, step: int) -> None:
    ring = None if encrypt is None else Keyring(_KEY)
    data = wrap_stream(
        encode_push_pull(True, _ROWS, b"user state"),
        compress=compress,
        keyring=ring,
        encryption_version=encrypt or 0,
        nonce=_NONCE,
    )
    reader = StreamReader(ring)
    for start in range(0, len(data), step):
        message = reader.feed(data[start : start + step])
        assert (message is None) == (start + step < len(data))
    assert message == PushPull(True, _ROWS, b"user state")


def test_other_stream_messages() -> None:
    assert StreamReader().feed(encode_user_stream(b"hello")) == UserMessage(b"hello")
    assert StreamReader().feed(encode_error("no")) == ErrorReply("no")


def test_streams_enforce_encryption() -> None:
    plain = encode_error("x")
    with pytest.raises(WireError, match="not encrypted"):
        StreamReader(Keyring(_KEY)).feed(plain)
    assert StreamReader(Keyring(_KEY), require_encryption=False).feed(plain) == ErrorReply("x")
    with pytest.raises(WireError, match="not configured"):
        StreamReader().feed(b"\x0a\0\0\0\x20")


def test_stream_bounds() -> None:
    with pytest.raises(WireError, match="larger than limit"):
        StreamReader(Keyring(_KEY)).feed(b"\x0a\xff\xff\xff\xff")
    too_many = encode_push_pull(False, (), b"").replace(
        b"\xa5Nodes\x00", b"\xa5Nodes\xce\xff\0\0\0"
    )
    with pytest.raises(WireError, match="more than"):
        StreamReader().feed(too_many)
    cut = encode_compress(encode_push_pull(False, _ROWS, b"")[:-1])
    with pytest.raises(WireError, match="truncated"):
        StreamReader().feed(cut)


def test_fields_are_bounded() -> None:
    meta = ml.Alive(1, "n", b"\x7f\0\0\1", 1, b"m" * 513, b"\1\5\2\2\5\4")
    with pytest.raises(WireError, match="meta"):
        ml.decode_alive(ml.encode_alive(meta)[1:])
    versions = ml.Alive(1, "n", b"\x7f\0\0\1", 1, b"", b"\1\5")
    with pytest.raises(WireError, match="version vector"):
        ml.decode_alive(ml.encode_alive(versions)[1:])
