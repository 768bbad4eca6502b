"""Where our gossip does otherwise than memberlist and serf on purpose (docs/divergence.md)."""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from typing import Any

import pytest

from proconsul.core.gossip.memberlist import (
    Keyring,
    LeaveDone,
    Memberlist,
    SendPacket,
    WriteStream,
    lan_config,
)
from proconsul.core.gossip.serf import Serf, SerfConfig
from proconsul.testing.simnet import RecordingDelegate, SimNet
from proconsul.util.throttle import LINES, PERIOD_S
from proconsul.wire import memberlist as ml

OTHER = ("10.0.0.9", 7946)
KEY = bytes(range(16))
VERSIONS = b"\1\5\2\2\5\4"
ALLOWED_ELSEWHERE = "192.0.2.1"


def started(**settings: Any) -> tuple[Memberlist, RecordingDelegate]:
    """A member that knows another one."""
    delegate = RecordingDelegate()
    machine = Memberlist(
        replace(lan_config("me", ("10.0.0.1", 7946)), **settings), delegate, random.Random(1)
    )
    machine.start(100.0)
    return machine, delegate


def alive(name: str = "x", versions: bytes = VERSIONS) -> bytes:
    return ml.encode_alive(ml.Alive(1, name, b"\x0a\0\0\x09", 7946, b"", versions))


def sent(machine: Memberlist, message: bytes) -> bytes:
    """The packet in which `message` goes to the other one."""
    machine.handle_packet(alive(), OTHER, 101.0)
    machine.take_outputs()
    machine._packets.send_alone("x", OTHER, message)
    (packet,) = (o for o in machine.take_outputs() if isinstance(o, SendPacket))
    return packet.data


def test_a_sum_stands_before_packets_that_are_not_encrypted() -> None:
    message = ml.encode_nack(ml.Nack(7))
    plain, _ = started()
    assert sent(plain, message)[:1] == bytes((ml.Kind.HAS_CRC,))
    assert sent(plain, message)[5:] == message
    sealed, _ = started(keyring=Keyring(KEY), verify_incoming=False, verify_outgoing=True)
    assert Keyring(KEY).open(sent(sealed, message)) == message


@pytest.mark.parametrize(("size", "compressed"), [(127, False), (128, True)])
def test_small_packets_are_not_compressed(size: int, compressed: bool) -> None:
    machine, _ = started()
    packet = sent(machine, bytes((ml.Kind.USER,)) + b"a" * (size - 1))
    assert (packet[5] == ml.Kind.COMPRESS) is compressed


@pytest.mark.parametrize(("size", "compressed"), [(100_000, True), (140_000, False)])
def test_large_streams_are_not_compressed(size: int, compressed: bool) -> None:
    machine, delegate = started()
    delegate.state = b"a" * size
    sid = machine.join("x", OTHER, 101.0)
    machine.stream_connected(sid, 101.0)
    (written,) = (o for o in machine.take_outputs() if isinstance(o, WriteStream))
    assert (written.data[0] == ml.Kind.COMPRESS) is compressed
    assert (len(written.data) < size) is compressed


def test_who_says_no_versions_is_unknown_and_a_message_ends_where_it_ends() -> None:
    machine, _ = started()
    machine.handle_packet(alive("old", b""), OTHER, 101.0)
    machine.handle_packet(alive("long") + b"\0", OTHER, 101.0)
    assert set(machine.nodes) == {"me"}
    assert machine.counters.messages_malformed == 1
    machine.handle_packet(alive(), OTHER, 101.0)
    assert set(machine.nodes) == {"me", "x"}


def test_no_filter_keeps_a_node_out_of_itself() -> None:
    machine, _ = started(address_allowed=lambda host: host == ALLOWED_ELSEWHERE)
    machine.handle_packet(alive(), OTHER, 101.0)
    assert set(machine.nodes) == {"me"}


def test_few_lines_tell_of_many_datagrams_that_cannot_be_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine, _ = started()
    with caplog.at_level(logging.ERROR):
        for _ in range(LINES + 90):
            machine.handle_packet(b"\xff", OTHER, 101.0)
        assert len(caplog.records) == LINES
        machine.handle_packet(b"\xff", OTHER, 101.0 + PERIOD_S)
    assert len(caplog.records) == LINES + 1
    assert "(90 more were not logged)" in caplog.text


def test_a_leave_goes_on_when_its_intent_does_not_spread(caplog: pytest.LogCaptureFixture) -> None:
    net = SimNet(seed=3)
    outputs: list[object] = []
    machines: list[Serf] = []
    for number in (1, 2):
        address = (f"10.0.0.{number}", 7946)
        config = SerfConfig(
            node_name=f"n{number}",
            # Nobody gossips: what is to be told does not leave
            memberlist=replace(
                lan_config(f"n{number}", address), gossip_interval_s=1000.0, probe_interval_s=1000.0
            ),
            broadcast_timeout_s=2.0,
            leave_propagate_delay_s=0.5,
        )
        machines.append(Serf(config, random.Random(number)))
        net.add(machines[-1], address, outputs.append if number == 1 else lambda _: None)
    first, host = machines[0], net.hosts["10.0.0.1", 7946]
    first.join("n2", ("10.0.0.2", 7946), net.now)
    net.pump(host)
    net.run(2)
    assert first.roster.others_alive()
    first.leave(net.now)
    net.pump(host)
    assert net.run_until(lambda: LeaveDone() in outputs, 30, 0.1)
    assert "timeout while waiting for graceful leave" in caplog.text


def test_who_left_is_forgotten_once_the_dead_are_not_gossiped_to_any_more() -> None:
    machine, delegate = started(gossip_to_the_dead_s=5.0)
    machine.handle_packet(alive(), OTHER, 101.0)
    machine.handle_packet(ml.encode_dead(ml.Dead(1, "x", "x")), OTHER, 102.0)
    assert ("leave", "x") in delegate.events
    assert machine.nodes["x"].gone
    now = 102.0
    while now < 140.0:
        now = max(now, machine.get_timer() or now)
        machine.handle_timer(now)
    assert "x" not in machine.nodes
