"""Messages of real Consul 1.8.7 servers decode, and encode to the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proconsul.wire import raft
from proconsul.wire.msgpack import unpack, unpack_first

MESSAGES = json.loads((Path(__file__).parent / "messages.json").read_text())


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
