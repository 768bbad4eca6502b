"""The yamux session core: life of streams, windows, limits, keepalive."""

from __future__ import annotations

import pytest

from proconsul.core.yamux import session
from proconsul.core.yamux.session import (
    Event,
    RemoteGoAway,
    Session,
    SessionClosedError,
    SessionFailed,
    StreamData,
    StreamEnded,
    StreamOffered,
    StreamReset,
    WindowOpened,
    YamuxConfig,
)
from proconsul.wire import yamux as wire


def pair(**settings: object) -> tuple[Session, Session]:
    config = YamuxConfig(**settings)
    return Session(config, client=True, now=0.0), Session(config, client=False, now=0.0)


def move(source: Session, target: Session, now: float = 0.0) -> list[Event]:
    return target.receive(source.take_output(), now)


def opened(client: Session, server: Session) -> int:
    stream_id = client.open()
    assert move(client, server) == [StreamOffered(stream_id)]
    server.accept(stream_id)
    assert move(server, client) == [WindowOpened(stream_id, acknowledged=True)]
    return stream_id


def test_golden_frames_of_a_stream() -> None:
    client, _ = pair()
    assert client.open() == 1
    client.send(1, b"hi")
    client.end(1)
    assert client.take_output().hex() == (
        "000100010000000100000000"  # window update, SYN, stream 1
        "000000000000000100000002" + b"hi".hex() + "000100040000000100000000"  # FIN
    )


def test_data_then_end_both_ways_frees_the_stream() -> None:
    client, server = pair()
    stream = opened(client, server)
    client.send(stream, b"ask")
    client.end(stream)
    assert move(client, server) == [StreamData(stream, b"ask"), StreamEnded(stream)]
    server.send(stream, b"answer")
    server.end(stream)
    assert move(server, client) == [StreamData(stream, b"answer"), StreamEnded(stream)]
    assert len(client) == len(server) == 0


def test_window_bounds_what_is_sent_until_it_is_consumed() -> None:
    client, server = pair()
    stream = opened(client, server)
    assert client.send(stream, bytes(300_000)) == 262_144
    assert client.send(stream, b"x") == 0
    move(client, server)
    server.consumed(stream, 100_000)
    assert not server.has_output  # below half a window nothing is said
    server.consumed(stream, 100_000)
    assert move(server, client) == [WindowOpened(stream)]
    assert client.send(stream, bytes(300_000)) == 200_000


def test_a_peer_that_exceeds_the_window_ends_the_session() -> None:
    client, server = pair()
    stream = opened(client, server)
    header = wire.encode_header(wire.DATA, 0, stream, 262_145)
    events = server.receive(header, 0.0)
    assert events == [SessionFailed("yamux: recv window exceeded")]
    assert server.take_output() == wire.encode_header(wire.GO_AWAY, 0, 0, 1)
    with pytest.raises(SessionClosedError):
        server.open()
    assert move(server, client) == []


def test_reset_is_seen_and_late_data_is_dropped() -> None:
    client, server = pair()
    stream = opened(client, server)
    client.send(stream, b"late")
    server.reset(stream)
    assert move(client, server) == []
    assert move(server, client) == [StreamReset(stream)]
    assert len(client) == len(server) == 0


def test_data_on_an_abandoned_stream_of_the_peers_is_answered_with_a_reset() -> None:
    client, server = pair()
    stream = opened(client, server)
    server.abandon(stream)
    move(server, client)
    client.send(stream, b"does anyone listen?")
    assert move(client, server) == []
    assert move(server, client) == [StreamReset(stream)]
    assert len(server) == 0


def test_an_answer_that_nobody_waits_for_is_dropped_whatever_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "DROPPED_BYTES_MAX", 600_000)
    client, server = pair()
    stream = opened(client, server)
    client.abandon(stream)
    move(client, server)
    for _ in range(3):
        assert server.send(stream, bytes(200_000)) == 200_000
        assert move(server, client) == []
        assert move(client, server) in ([WindowOpened(stream)], [])
    server.end(stream)
    move(server, client)
    assert len(client) == len(server) == 0

    events: list[Event] = []
    endless = opened(client, server)
    client.abandon(endless)
    move(client, server)
    for _ in range(4):
        server.send(endless, bytes(200_000))
        move(server, client)
        events = move(client, server)
    assert events == [StreamReset(endless)]


def test_too_many_streams_are_reset() -> None:
    client, server = pair(accept_backlog=4, streams_max=6)
    for _ in range(4):
        client.open()
    with pytest.raises(SessionClosedError):
        client.open()
    offered = move(client, server)
    assert len(offered) == 4
    # A peer that does not keep to the backlog:
    for stream_id in (101, 103):
        events = server.receive(wire.encode_header(wire.WINDOW_UPDATE, wire.SYN, stream_id, 0), 0.0)
        assert events == []
    for event in offered:
        assert isinstance(event, StreamOffered)
        server.accept(event.stream_id)
    assert server.receive(wire.encode_header(wire.WINDOW_UPDATE, wire.SYN, 105, 0), 0.0)
    assert server.receive(wire.encode_header(wire.WINDOW_UPDATE, wire.SYN, 107, 0), 0.0)
    assert server.receive(wire.encode_header(wire.WINDOW_UPDATE, wire.SYN, 109, 0), 0.0) == []
    assert len(server) == 6


def test_a_refused_stream_gives_its_place_back() -> None:
    client, server = pair(accept_backlog=1)
    stream = client.open()
    assert not client.can_open
    move(client, server)
    server.reset(stream)
    move(server, client)
    assert client.can_open


@pytest.mark.parametrize(
    "frame",
    [
        b"\x01" + bytes(11),
        b"\x00\x04" + bytes(10),
        wire.encode_header(wire.WINDOW_UPDATE, wire.SYN, 2, 0),  # an even id is ours to open
        wire.encode_header(wire.WINDOW_UPDATE, wire.SYN, 0, 0),
        wire.encode_header(wire.WINDOW_UPDATE, wire.SYN, 1, 0) * 2,
        wire.encode_header(wire.WINDOW_UPDATE, wire.SYN, 1, 0)
        + wire.encode_header(wire.WINDOW_UPDATE, wire.FIN, 1, 0) * 2,
        wire.encode_header(wire.WINDOW_UPDATE, wire.SYN, 1, 0xFFFFFFFF),
        wire.encode_header(wire.DATA, 0, 7, 0xFFFFFFFF),
        wire.encode_header(wire.GO_AWAY, 0, 0, 99),
    ],
)
def test_protocol_violations_end_the_session(frame: bytes) -> None:
    _, server = pair()
    events = server.receive(frame, 0.0)
    assert isinstance(events[-1], SessionFailed)
    assert server.receive(b"more", 0.0) == []


def test_keepalive() -> None:
    client, server = pair()
    assert client.get_timer() == 30.0
    assert client.handle_timer(29.0) == []
    assert not client.has_output
    client.handle_timer(30.0)
    move(client, server, 30.1)
    assert client.get_timer() == 40.0
    move(server, client, 30.25)
    assert client.round_trip_s == pytest.approx(0.25)
    assert client.get_timer() == pytest.approx(60.25)
    client.handle_timer(61.0)
    assert client.handle_timer(71.0) == [SessionFailed("keepalive timeout")]


def test_a_probe_shortens_a_ping_that_is_under_way() -> None:
    client, _ = pair()
    client.handle_timer(30.0)
    client.ping(31.0, timeout_s=3.0)
    assert client.get_timer() == 34.0


def test_go_away_stops_new_streams_and_keeps_old_ones() -> None:
    client, server = pair()
    stream = opened(client, server)
    server.go_away()
    assert move(server, client) == [RemoteGoAway()]
    with pytest.raises(SessionClosedError, match="not accepting"):
        client.open()
    client.send(stream, b"still works")
    assert move(client, server) == [StreamData(stream, b"still works")]
