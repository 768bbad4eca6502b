"""Raft's decoders meet arbitrary input; what is encoded comes back."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.util.errors import WireError
from proconsul.wire import raft
from proconsul.wire.msgpack import pack, unpack

UINT = st.integers(0, (1 << 64) - 1)
ENTRIES = st.builds(
    raft.Entry,
    UINT,
    UINT,
    st.sampled_from(raft.LogType),
    st.binary(max_size=40),
    st.binary(max_size=4),
)
APPENDS = st.builds(
    raft.AppendEntriesRequest, UINT, st.binary(max_size=30), UINT, UINT,
    st.none() | st.lists(ENTRIES, max_size=5).map(tuple), UINT,
)  # fmt: skip
VOTES = st.builds(raft.RequestVoteRequest, UINT, st.binary(max_size=30), UINT, UINT, st.booleans())
SNAPSHOTS = st.builds(
    raft.InstallSnapshotRequest, UINT, st.binary(max_size=30), UINT, UINT, st.binary(max_size=30),
    UINT, st.integers(0, (1 << 63) - 1), st.binary(max_size=9),
)  # fmt: skip
NAMES = st.sampled_from(
    [b"Entries", b"Leader", b"Term", b"ProtocolVersion", b"Granted", b"Size", b"Servers", b"Type"]
)
JUNK = st.recursive(
    st.none() | st.booleans() | UINT | st.floats() | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(derandomize=True, max_examples=150)
@given(APPENDS | VOTES | SNAPSHOTS | st.just(raft.TimeoutNowRequest()))
def test_requests_round_trip(request: raft.Request) -> None:
    wire = raft.encode_request(request)
    assert raft.decode_request(wire[0], unpack(wire[1:])) == request


@settings(derandomize=True, max_examples=150)
@given(st.integers(0, 255), JUNK)
def test_decoders_refuse_junk_politely(kind: int, value: object) -> None:
    value = unpack(pack(value))
    with contextlib.suppress(WireError):
        raft.decode_request(kind, value)
    for request in (
        raft.AppendEntriesRequest(1, b""),
        raft.RequestVoteRequest(1, b"", 0, 0),
        raft.InstallSnapshotRequest(1, b"", 0, 0, b"", 0, 0),
        raft.TimeoutNowRequest(),
    ):
        with contextlib.suppress(WireError):
            raft.decode_response(request, value)


@settings(derandomize=True, max_examples=150)
@given(st.binary(max_size=80))
def test_stored_bytes_decode_or_are_refused(data: bytes) -> None:
    for decode in (raft.decode_configuration, raft.decode_peers, raft.decode_entry):
        with contextlib.suppress(WireError):
            decode(data)
