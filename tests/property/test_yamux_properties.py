"""yamux: any interleaving of operations and any cutting of the bytes keeps every stream whole."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.core.yamux.session import (
    Session,
    SessionFailed,
    StreamData,
    StreamEnded,
    StreamOffered,
    YamuxConfig,
)
from proconsul.wire import yamux as wire

CONFIG = YamuxConfig()
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["open", "send", "end", "flush"]),
        st.booleans(),  # which side
        st.integers(0, 7),  # which of its streams
        st.integers(0, 200_000),  # how many bytes
        st.integers(700, 70_000),  # how the bytes are cut
    ),
    max_size=60,
)


class Side:
    def __init__(self, *, client: bool) -> None:
        self.session = Session(CONFIG, client=client, now=0.0)
        self.streams: list[int] = []
        self.ended: set[int] = set()
        self.sent: dict[int, bytearray] = defaultdict(bytearray)
        self.received: dict[int, bytearray] = defaultdict(bytearray)
        self.finished: set[int] = set()

    def take(self, data: bytes) -> None:
        for event in self.session.receive(data, 0.0):
            match event:
                case StreamOffered(stream_id):
                    self.session.accept(stream_id)
                    self.streams.append(stream_id)
                case StreamData(stream_id, chunk):
                    assert stream_id not in self.finished
                    self.received[stream_id] += chunk
                    self.session.consumed(stream_id, len(chunk))
                case StreamEnded(stream_id):
                    assert stream_id not in self.finished
                    self.finished.add(stream_id)
                case SessionFailed(reason):
                    raise AssertionError(reason)
                case _:
                    pass


def settle(left: Side, right: Side, cut: int) -> None:
    while left.session.has_output or right.session.has_output:
        for source, target in ((left, right), (right, left)):
            data = source.session.take_output()
            for start in range(0, len(data), cut):
                target.take(data[start : start + cut])


@settings(derandomize=True, max_examples=60, deadline=None)
@given(OPERATIONS)
def test_streams_arrive_whole(operations: list[tuple[str, bool, int, int, int]]) -> None:
    left, right = Side(client=True), Side(client=False)
    for kind, is_left, index, size, cut in operations:
        side = left if is_left else right
        if kind == "open":
            side.streams.append(side.session.open())
        elif kind == "flush":
            settle(left, right, cut)
        elif side.streams:
            stream = side.streams[index % len(side.streams)]
            if stream in side.ended:
                continue
            if kind == "send":
                data = bytes([index]) * size
                taken = side.session.send(stream, data)
                side.sent[stream] += data[:taken]
            else:
                side.session.end(stream)
                side.ended.add(stream)
    settle(left, right, 4096)
    for source, target in ((left, right), (right, left)):
        for stream, data in source.sent.items():
            assert target.received[stream] == data
        assert target.finished == source.ended
    both = left.ended & right.ended
    assert not both & left.session._streams.keys()


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=64), max_size=20), st.booleans())
def test_noise_never_raises(chunks: list[bytes], client: bool) -> None:
    session = Session(CONFIG, client=client, now=0.0)
    for chunk in chunks:
        session.receive(chunk, 0.0)
        session.take_output()
    assert len(session._input) < wire.HEADER_BYTES


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 15), st.integers(0, 9), st.integers(0, 300)),
        max_size=40,
    )
)
def test_plausible_frames_never_raise(frames: list[tuple[int, int, int, int]]) -> None:
    session = Session(YamuxConfig(accept_backlog=3, streams_max=4), client=False, now=0.0)
    session.open()
    for kind, flags, stream_id, length in frames:
        data = bytes(min(length, 64)) if kind == wire.DATA else b""
        events = session.receive(
            wire.encode_header(kind, flags, stream_id, len(data) if data else length) + data, 0.0
        )
        for event in events:
            if isinstance(event, StreamOffered) and event.stream_id % 4 == 1:
                session.accept(event.stream_id)
        session.end(stream_id)
    assert session._offered >= 0
    assert session._peers_streams >= 0
    assert session._unacknowledged >= 0
    assert len(session) <= 5
