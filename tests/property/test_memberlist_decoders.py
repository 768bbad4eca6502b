"""No bytes crash a memberlist decoder: the only way out is `WireError`."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.util.errors import WireError
from proconsul.wire import lzw, msgpack
from proconsul.wire import memberlist as ml
from proconsul.wire.memberlist_crypto import Keyring
from proconsul.wire.memberlist_packet import make_compound, unwrap_packet
from proconsul.wire.memberlist_stream import StreamReader, encode_push_pull, wrap_stream

_SETTINGS = settings(derandomize=True, max_examples=150, deadline=None)
_DECODERS = [
    ml.decode_ping,
    ml.decode_indirect_ping,
    ml.decode_ack,
    ml.decode_nack,
    ml.decode_suspect,
    ml.decode_alive,
    ml.decode_dead,
]
_KEYS = ["SeqNo", "Node", "Payload", "Addr", "Port", "Meta", "Vsn", "Incarnation", "From", "Nack"]
_VALUES = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.binary() | st.text()
_MAPS = st.dictionaries(
    st.sampled_from(_KEYS), _VALUES | st.lists(_VALUES, max_size=3), max_size=10
)
_NAMES = st.text(max_size=40)
_UINT32 = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("decode", _DECODERS)
@given(data=st.binary(max_size=200) | _MAPS.map(msgpack.pack))
@_SETTINGS
def test_messages(decode: object, data: bytes) -> None:
    assert callable(decode)
    with contextlib.suppress(WireError):
        decode(data)


@given(
    incarnation=_UINT32,
    node=_NAMES,
    addr=st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
    port=st.integers(0, 65535),
    meta=st.binary(max_size=512),
)
@_SETTINGS
def test_alive_round_trip(incarnation: int, node: str, addr: bytes, port: int, meta: bytes) -> None:
    alive = ml.Alive(incarnation, node, addr, port, meta, b"\1\5\2\2\5\4")
    assert ml.decode_alive(ml.encode_alive(alive)[1:]) == alive


@given(data=st.binary(max_size=300))
@_SETTINGS
def test_packets(data: bytes) -> None:
    for packet in (data, b"\x07" + data, b"\x09" + data, b"\x0c" + data):
        with contextlib.suppress(WireError):
            unwrap_packet(packet)


@given(parts=st.lists(st.binary(min_size=1, max_size=50), max_size=20))
@_SETTINGS
def test_compound_round_trip(parts: list[bytes]) -> None:
    plain = [part for part in parts if part[0] not in {7, 9}]
    assert unwrap_packet(make_compound(plain)) == [(part[0], part[1:]) for part in plain]


@given(data=st.binary(max_size=3000))
@_SETTINGS
def test_lzw_round_trip(data: bytes) -> None:
    assert lzw.decompress(lzw.compress(data), len(data)) == data


@given(data=st.binary(max_size=300))
@_SETTINGS
def test_lzw_garbage(data: bytes) -> None:
    with contextlib.suppress(WireError):
        assert len(lzw.decompress(data, 10_000)) <= 10_000


@given(data=st.binary(max_size=100))
@_SETTINGS
def test_decryption(data: bytes) -> None:
    with pytest.raises(WireError):
        Keyring(b"k" * 16).open(data)


@given(pieces=st.lists(st.binary(max_size=60), max_size=8), kind=st.integers(0, 14))
@_SETTINGS
def test_stream_garbage(pieces: list[bytes], kind: int) -> None:
    reader = StreamReader(Keyring(b"k" * 16), require_encryption=False)
    with contextlib.suppress(WireError):
        reader.feed(bytes((kind,)))
        for piece in pieces:
            reader.feed(piece)


@given(flip=st.integers(0, 10_000), value=st.integers(0, 255), compress=st.booleans())
@_SETTINGS
def test_mutated_streams(flip: int, value: int, compress: bool) -> None:
    row = ml.NodeRow("n", b"\x7f\0\0\1", 1, b"m", 1, ml.NodeState.ALIVE, b"\1\5\2\2\5\4")
    data = bytearray(wrap_stream(encode_push_pull(True, [row] * 5, b"user"), compress=compress))
    data[flip % len(data)] = value
    with contextlib.suppress(WireError):
        StreamReader().feed(bytes(data))
