"""Serf's messages: golden bytes of a real agent, round trips, and refusal of everything else."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.util.errors import WireError
from proconsul.wire import serf as wire
from proconsul.wire import serf_decode as decode

GOLDEN_FILE = Path(__file__).parents[2] / "golden" / "serf" / "messages.txt"
GOLDEN = {
    name: bytes.fromhex(text)
    for line in GOLDEN_FILE.read_text().splitlines()
    if not line.startswith("#")
    for name, text in [line.split()]
}
DECODERS = [
    decode.decode_join,
    decode.decode_leave,
    decode.decode_user_event,
    decode.decode_push_pull,
    decode.decode_query,
    decode.decode_query_response,
    decode.decode_relay,
    decode.decode_filter,
    decode.decode_conflict_response,
    decode.decode_key_request,
    decode.decode_key_response,
    decode.decode_tags,
    decode.decode_coordinate,
    decode.message_type,
]

JOIN = wire.Join(1, "ours")
LEAVE = wire.Leave(2, "theirs")
EVENT = wire.UserEventMessage(1, "deploy", b"now", True)
QUERY = wire.Query(
    ltime=1,
    id=0x0AD5F682,
    address=("127.0.0.1", 7946),
    source="theirs",
    filters=(
        wire.encode_filter(wire.NodeFilter(("ours", "theirs"))),
        wire.encode_filter(wire.TagFilter("role", "x.*")),
    ),
    flags=wire.FLAG_ACK,
    relay_factor=2,
    timeout_ns=3_200_000_000,
    name="hello",
    payload=b"w",
)
ACK = wire.QueryResponse(2, 0x17156A69, "theirs", wire.FLAG_ACK)
MEMBER = wire.WireMember("ours", ("127.0.0.1", 41451), {"role": "x"}, 1, (1, 5, 2), (2, 5, 4))
REFUSED = wire.KeyResponse(False, "Keyring is empty (encryption not enabled)")


@pytest.mark.parametrize(
    ("name", "value", "decoder", "encoder"),
    [
        ("join", JOIN, decode.decode_join, wire.encode_join),
        ("leave", LEAVE, decode.decode_leave, wire.encode_leave),
        ("user-event", EVENT, decode.decode_user_event, wire.encode_user_event),
        ("query", QUERY, decode.decode_query, wire.encode_query),
        ("query-ack", ACK, decode.decode_query_response, wire.encode_query_response),
        ("conflict", MEMBER, decode.decode_conflict_response, wire.encode_conflict_response),
        ("conflict-unknown", None, decode.decode_conflict_response, wire.encode_conflict_response),
        ("keys-refused", REFUSED, decode.decode_key_response, wire.encode_key_response),
    ],
)
def test_golden_messages_decode_and_encode_to_the_same_bytes(name, value, decoder, encoder):
    assert decoder(GOLDEN[name]) == value
    assert encoder(value) == GOLDEN[name]


def test_golden_tags():
    assert decode.decode_tags(GOLDEN["tags"]) == {"role": "xy", "dc": "1"}
    assert wire.encode_tags({"role": "xy", "dc": "1"}, 4) == GOLDEN["tags"]


def test_golden_coordinate():
    vec, error, adjustment, height = decode.decode_coordinate(GOLDEN["coordinate"])
    assert (vec, error, adjustment, height) == ([0.0] * 8, 1.5, 0.0, 1e-05)
    assert wire.encode_coordinate(vec, error, adjustment, height) == GOLDEN["coordinate"]


def test_golden_push_pull_with_its_mostly_nil_event_buffer():
    state = decode.decode_push_pull(GOLDEN["push-pull"])
    assert state == wire.PushPull(
        ltime=2,
        status_ltimes={"theirs": 0, "ours": 1},
        left_members=[],
        event_ltime=2,
        events=[wire.RecentEvents(1, (("deploy", b"now"),))],
        query_ltime=7,
    )
    assert decode.decode_push_pull(wire.encode_push_pull(state)) == state


def test_role_is_the_whole_meta_before_protocol_3():
    assert wire.encode_tags({"role": "web", "x": "y"}, 2) == b"web"
    assert decode.decode_tags(b"web") == {"role": "web"}
    assert decode.decode_tags(b"") == {"role": ""}


def test_relay_carries_the_message_untouched():
    relay = wire.Relay(("fd00::1", 8301), "a", wire.encode_query_response(ACK))
    assert decode.decode_relay(wire.encode_relay(relay)) == relay


def test_ipv4_in_sixteen_bytes_is_ipv4():
    raw = wire.encode_query(QUERY).replace(
        b"\xa4\x7f\x00\x00\x01", b"\xb0" + bytes(10) + b"\xff\xff\x7f\x00\x00\x01"
    )
    assert decode.decode_query(raw).address == ("127.0.0.1", 7946)


def test_a_name_that_is_not_utf8_survives_the_round_trip():
    raw = b"\x01\x82\xa5LTime\x07\xa4Node\xa2\xff\xfe"
    assert wire.encode_join(decode.decode_join(raw)) == raw


def test_unknown_keys_and_trailing_bytes_are_ignored():
    raw = b"\x01\x83" + b"\xa3New\xc3" + b"\xa5LTime\x07" + b"\xa4Node\xa1n" + b"trailing"
    assert decode.decode_join(raw) == wire.Join(7, "n")


@pytest.mark.parametrize(
    "raw",
    [b"\x01\x81\xa5LTime\xff", b"\x01\x81\xa4Node\x01", b"\x01\x91\x01", b"\x01\x81\xa5LTime\xc3"],
)
def test_fields_of_the_wrong_type_are_refused(raw):
    with pytest.raises(WireError):
        decode.decode_join(raw)


def test_too_many_filters_are_refused():
    query = wire.Query(1, 1, ("::1", 1), "n", (b"\x00\x90",) * 65, 0, 0, 1, "q", b"")
    with pytest.raises(WireError, match="filters"):
        decode.decode_query(wire.encode_query(query))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.sampled_from(DECODERS), st.sampled_from(sorted(GOLDEN)), st.data())
def test_damaged_messages_are_refused_or_read_but_never_crash(decoder, name, data):
    raw = bytearray(GOLDEN[name][:400])
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    with contextlib.suppress(WireError):
        decoder(bytes(raw))


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sampled_from(DECODERS), st.binary(max_size=200))
def test_any_bytes_are_refused_or_read_but_never_crash(decoder, raw):
    with contextlib.suppress(WireError):
        decoder(raw)
