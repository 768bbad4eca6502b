"""Messages of real Consul 1.8.7 servers decode, and encode to the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proconsul.wire import raft
from proconsul.wire.msgpack import unpack, unpack_first

HERE = Path(__file__).parent
MESSAGES = {
    **json.loads((HERE / "messages.json").read_text()),
    **{
        f"captured {name}": pair
        for name, pair in json.loads((HERE / "exchanges.json").read_text()).items()
    },
}


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_round_trip(name: str) -> None:
    wire = bytes.fromhex(MESSAGES[name]["request"])
    request = raft.decode_request(wire[0], unpack(wire[1:]))
    assert raft.encode_request(request) == wire

    answer = bytes.fromhex(MESSAGES[name]["response"])
    error, offset = unpack_first(answer)
    assert error == b""
    response = raft.decode_response(request, unpack(answer[offset:]))
    assert raft.encode_response(response) == answer


def test_configuration_inside_an_entry() -> None:
    wire = bytes.fromhex(MESSAGES["append demotion"]["request"])
    request = raft.decode_request(0, unpack(wire[1:]))
    assert isinstance(request, raft.AppendEntriesRequest)
    assert request.entries is not None
    entry = request.entries[-1]
    configuration = raft.decode_configuration(entry.data)
    assert [s.suffrage for s in configuration.servers] == [0, 0, 1]
    assert raft.encode_configuration(configuration) == entry.data


def test_heartbeat_is_told_apart() -> None:
    def decode(name: str) -> raft.AppendEntriesRequest:
        wire = bytes.fromhex(MESSAGES[name]["request"])
        request = raft.decode_request(0, unpack(wire[1:]))
        assert isinstance(request, raft.AppendEntriesRequest)
        return request

    assert decode("heartbeat").is_heartbeat
    assert not decode("append nothing").is_heartbeat


def test_every_message_was_captured() -> None:
    requests = {bytes.fromhex(pair["request"])[0] for pair in MESSAGES.values()}
    assert requests == set(raft.RpcType)
    entries = [
        entry
        for pair in MESSAGES.values()
        if (wire := bytes.fromhex(pair["request"]))[0] == raft.RpcType.APPEND_ENTRIES
        for entry in raft.decode_request(0, unpack(wire[1:])).entries or ()  # type: ignore[union-attr]
    ]
    deprecated = {raft.LogType.ADD_PEER_DEPRECATED, raft.LogType.REMOVE_PEER_DEPRECATED}
    assert {entry.type for entry in entries} == set(raft.LogType) - deprecated


def test_snapshot_announces_its_configuration() -> None:
    wire = bytes.fromhex(MESSAGES["captured install snapshot"]["request"])
    request = raft.decode_request(wire[0], unpack(wire[1:]))
    assert isinstance(request, raft.InstallSnapshotRequest)
    configuration = raft.decode_configuration(request.configuration)
    assert len(configuration.servers) == 2
    assert raft.encode_configuration(configuration) == request.configuration
    assert raft.decode_peers(request.peers).servers[0].address == configuration.servers[0].address
    assert raft.encode_peers(configuration) == request.peers


def test_a_leader_that_hands_over_lets_its_successor_say_so() -> None:
    wire = bytes.fromhex(MESSAGES["captured vote on transfer granted"]["request"])
    request = raft.decode_request(wire[0], unpack(wire[1:]))
    assert isinstance(request, raft.RequestVoteRequest)
    assert request.leadership_transfer
