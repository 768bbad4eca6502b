"""Bytes that real peers sent: all must decode, and encode to the same bytes again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proconsul.wire import lzw, msgpack
from proconsul.wire import memberlist as ml
from proconsul.wire.memberlist_crypto import Keyring
from proconsul.wire.memberlist_packet import encode_compress, unwrap_packet
from proconsul.wire.memberlist_stream import (
    PushPull,
    StreamReader,
    encode_push_pull,
    wrap_stream,
)

_VECTORS = json.loads((Path(__file__).parent / "memberlist.json").read_text())
_KEYRING = Keyring(b"another key, 16!", (bytes(range(16)),))
_CODECS: dict[int, tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = {
    ml.Kind.PING: (ml.decode_ping, ml.encode_ping),
    ml.Kind.ACK: (ml.decode_ack, ml.encode_ack),
    ml.Kind.ALIVE: (ml.decode_alive, ml.encode_alive),
    ml.Kind.SUSPECT: (ml.decode_suspect, ml.encode_suspect),
    ml.Kind.DEAD: (ml.decode_dead, ml.encode_dead),
}


def _packets(peer: str) -> list[bytes]:
    packets = [bytes.fromhex(packet) for packet in _VECTORS[peer]["packets"]]
    return [_KEYRING.open(p) for p in packets] if peer == "encrypted" else packets


@pytest.mark.parametrize("peer", ["consul", "serf", "encrypted"])
def test_packets_decode_and_encode_to_the_same_bytes(peer: str) -> None:
    kinds = set()
    for packet in _packets(peer):
        for kind, body in unwrap_packet(packet):
            decode, encode = _CODECS[kind]
            assert encode(decode(body)) == bytes((kind,)) + body
            kinds.add(kind)
    assert {ml.Kind.ACK, ml.Kind.ALIVE} <= kinds


@pytest.mark.parametrize("peer", ["consul", "serf", "encrypted"])
def test_push_pull_decodes(peer: str) -> None:
    keyring = _KEYRING if peer == "encrypted" else None
    message = StreamReader(keyring).feed(bytes.fromhex(_VECTORS[peer]["streams"][0]))
    assert isinstance(message, PushPull)
    assert message.join
    (row,) = message.rows
    assert (row.name, row.state) == ("serf1", ml.NodeState.ALIVE)
    assert row.addr == b"\x7f\0\0\1"
    assert message.user_state is not None
    assert message.user_state[0] == 2  # serf's push/pull


def test_consul_push_pull_is_written_the_same() -> None:
    stream = bytes.fromhex(_VECTORS["consul"]["streams"][0])
    message = StreamReader().feed(stream)
    assert isinstance(message, PushPull)
    plain = encode_push_pull(message.join, message.rows, message.user_state or b"")
    assert wrap_stream(plain, compress=True) == stream


def test_consul_packets_are_compressed_the_same() -> None:
    compared = 0
    for packet in _packets("consul"):
        inner = packet[5:] if packet[0] == ml.Kind.HAS_CRC else packet
        if inner[0] == ml.Kind.COMPRESS:
            plain = lzw.decompress(msgpack.unpack(inner[1:])[b"Buf"], 1 << 16)
            assert encode_compress(plain) == inner
            compared += 1
    assert compared


def test_fallback_ping_and_ack() -> None:
    ping, ack = (
        StreamReader().feed(bytes.fromhex(stream)) for stream in _VECTORS["serf"]["streams"][1:]
    )
    assert isinstance(ping, ml.Ping)
    assert (ping.node, ping.source_node, ping.source_addr) == ("ours", "serf1", b"\x7f\0\0\1")
    assert isinstance(ack, ml.Ack)
