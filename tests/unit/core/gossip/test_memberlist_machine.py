"""State transitions and conversations of memberlist machines on a simulated network."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from proconsul.core.gossip.memberlist import (
    JoinDone,
    Keyring,
    LeaveDone,
    Memberlist,
    MemberlistConfig,
    NodeState,
    OpenStream,
    SendPacket,
    consul_wan_config,
    lan_config,
)
from proconsul.testing.simnet import RecordingDelegate, SimHost, SimNet
from proconsul.util.errors import ConfigError
from proconsul.wire import memberlist as ml
from proconsul.wire.memberlist_packet import unwrap_packet

_VERSIONS = b"\1\5\2\2\5\4"


class _World:
    """Some members, joined through the first."""

    def __init__(self, names: str, loss: float = 0.0, **settings: Any) -> None:
        self.net = SimNet(seed=11, loss=loss)
        self.settings = settings
        self.hosts: dict[str, SimHost] = {}
        self.delegates: dict[str, RecordingDelegate] = {}
        self.outputs: dict[str, list[object]] = {}
        first = None
        for name in names:
            self.add(name)
            if first is None:
                first = name
            else:
                self.join(name, first)
        self.net.run(3)

    def __getitem__(self, name: str) -> Memberlist:
        machine = self.hosts[name].machine
        assert isinstance(machine, Memberlist)
        return machine

    def add(self, name: str, port: int = 0, **settings: Any) -> None:
        address = f"10.0.0.{ord(name)}", port or 7946
        config = replace(lan_config(name, address), **{**self.settings, **settings})
        delegate = self.delegates[name] = RecordingDelegate(b"meta of " + name.encode(), b"state")
        outputs = self.outputs[name] = []
        machine = Memberlist(config, delegate, random.Random(ord(name)))
        self.hosts[name] = self.net.add(machine, address, outputs.append)

    def join(self, name: str, other: str) -> None:
        self[name].join(other, self[other].config.advertise, self.net.now)
        self.net.pump(self.hosts[name])
        self.net.run(0.1)

    def state(self, seen_by: str, name: str) -> NodeState:
        return self[seen_by].nodes[name].state

    def tell(self, name: str, *messages: bytes) -> None:
        for message in messages:
            self[name].handle_packet(message, ("10.9.9.9", 1), self.net.now)
        self.net.pump(self.hosts[name])


def _packets(machine: Memberlist) -> list[SendPacket]:
    return [o for o in machine.take_outputs() if isinstance(o, SendPacket)]


def _alone(**settings: Any) -> tuple[Memberlist, RecordingDelegate]:
    delegate = RecordingDelegate()
    config = replace(lan_config("me", ("10.0.0.1", 7946)), compress=False, **settings)
    machine = Memberlist(config, delegate, random.Random(1))
    machine.start(100.0)
    delegate.events.clear()
    return machine, delegate


def _alive(incarnation: int, name: str = "x", host: int = 9, meta: bytes = b"") -> bytes:
    addr = bytes((10, 0, 0, host))
    return ml.encode_alive(ml.Alive(incarnation, name, addr, 7946, meta, _VERSIONS))


_SOURCE = ("10.0.0.7", 7946)


def test_join_spreads_to_all() -> None:
    world = _World("abcd")
    for name in "abcd":
        assert {n.name for n in world[name].members()} == set("abcd")
        assert world[name].nodes["a"].meta == b"meta of a"
    assert world.outputs["b"] == [JoinDone(2, None)]
    assert world.delegates["b"].states == [b"state"]
    assert world.delegates["a"].states == [b"state"] * 3


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_encrypted_cluster(compress: bool, version: int) -> None:
    ring = Keyring(b"k" * 16)
    world = _World("abc", keyring=ring, compress=compress, protocol_version=version)
    assert len(world["c"].members()) == 3
    world.add("z", keyring=None)
    world.join("z", "a")
    (done,) = world.outputs["z"]
    assert isinstance(done, JoinDone)
    assert done.error is not None
    assert "z" not in world["a"].nodes


def test_probe_measures_and_delivers_the_payload() -> None:
    world = _World("ab")
    name, rtt_s, payload = world.delegates["a"].rtts_s[0]
    assert (name, payload) == ("b", b"payload")
    assert 0.001 <= rtt_s <= 0.01


def test_killed_node_is_suspected_then_dead_then_forgotten() -> None:
    world = _World("abcde", gossip_to_the_dead_s=5.0)
    world.net.kill(world.hosts.pop("e"))
    assert world.net.run_until(lambda: world.state("a", "e") is NodeState.SUSPECT, 10, 0.1)
    assert world.net.run_until(lambda: world.state("a", "e") is NodeState.DEAD, 30)
    assert ("leave", "e") in world.delegates["a"].events
    assert world.net.run_until(lambda: "e" not in world["a"].nodes, 30)


def test_lossy_network_kills_nobody() -> None:
    world = _World("abcdef", loss=0.2)
    world.net.run(120)
    assert not any(kind == "leave" for d in world.delegates.values() for kind, _ in d.events)


@pytest.mark.parametrize("allowed", [True, False])
def test_stream_pings_rescue_who_gets_no_datagrams_unless_disabled(allowed: bool) -> None:
    asked: list[str] = []

    def disabled(name: str) -> bool:
        asked.append(name)
        return not allowed

    world = _World("ab", disable_tcp_pings=disabled, push_pull_interval_s=0.0)
    world.net.loss = 1.0
    world.net.run(20)
    assert world.state("a", "b") is (NodeState.ALIVE if allowed else NodeState.DEAD)
    assert set(asked) == {"a", "b"}


def test_false_accusations_are_refuted() -> None:
    world = _World("abc")
    before = world["b"].local.incarnation
    world.tell("a", ml.encode_dead(ml.Dead(before, "b", "liar")))
    assert world.state("a", "b") is NodeState.DEAD
    world.net.run(3)
    assert world.state("a", "b") is NodeState.ALIVE
    assert world["a"].nodes["b"].incarnation > before
    world.tell("b", ml.encode_suspect(ml.Suspect(world["b"].local.incarnation + 7, "b", "liar")))
    assert world["b"].local.incarnation >= before + 8
    assert world["b"].health_score > 0


def test_leave() -> None:
    world = _World("abc")
    world["c"].leave(world.net.now)
    world.net.pump(world.hosts["c"])
    world.net.run(2)
    assert world.state("a", "c") is NodeState.LEFT
    assert world.state("b", "c") is NodeState.LEFT
    assert world.outputs["c"][-1] == LeaveDone()
    assert world.outputs["c"].count(LeaveDone()) == 1


def test_leave_of_a_lone_node_is_done_at_once() -> None:
    machine, _ = _alone()
    machine.leave(101.0)
    assert machine.take_outputs() == [LeaveDone()]


def test_update_reaches_all() -> None:
    world = _World("abc")
    world.delegates["a"].meta = b"new"
    world["a"].update_node(world.net.now)
    world.net.run(2)
    assert world["c"].nodes["a"].meta == b"new"
    assert ("update", "a") in world.delegates["c"].events


def test_merge_refusal() -> None:
    world = _World("ab")
    world.add("c")
    world.delegates["c"].refuse_merge = "wrong datacenter"
    world.join("c", "a")
    assert world.outputs["c"] == [JoinDone(2, "wrong datacenter")]
    assert list(world["c"].nodes) == ["c"]


def test_alive_refusal() -> None:
    machine, delegate = _alone()
    delegate.refuse_alive = "not of ours"
    machine.handle_packet(_alive(1), _SOURCE, 101.0)
    assert "x" not in machine.nodes


def test_address_filter() -> None:
    machine, _ = _alone(address_allowed=lambda host: host == "10.0.0.9")
    machine.handle_packet(_alive(1), _SOURCE, 101.0)
    machine.handle_packet(_alive(1, "y", host=8), _SOURCE, 101.0)
    assert set(machine.nodes) == {"me", "x"}


def test_name_conflict_and_reclaim() -> None:
    machine, delegate = _alone(dead_node_reclaim_s=30.0)
    machine.handle_packet(_alive(5), _SOURCE, 101.0)
    machine.handle_packet(_alive(6, host=8), _SOURCE, 102.0)
    ((existing, other),) = delegate.conflicts
    assert (existing.address[0], other.address[0]) == ("10.0.0.9", "10.0.0.8")
    machine.handle_packet(ml.encode_dead(ml.Dead(5, "x", "y")), _SOURCE, 103.0)
    machine.handle_packet(_alive(1, host=8), _SOURCE, 104.0)
    assert machine.nodes["x"].state is NodeState.DEAD
    machine.handle_packet(_alive(1, host=8), _SOURCE, 134.0)
    assert machine.nodes["x"].address == ("10.0.0.8", 7946)
    assert [kind for kind, _ in delegate.events] == ["join", "leave", "join"]


def test_a_suspect_that_restarted_elsewhere_is_believed() -> None:
    machine, delegate = _alone(suspects_may_move=True)
    machine.handle_packet(_alive(5), _SOURCE, 101.0)
    machine.handle_packet(_alive(6, host=8), _SOURCE, 102.0)
    assert machine.nodes["x"].address == ("10.0.0.9", 7946)
    # What it said of itself is remembered until something speaks against the old address.
    machine.handle_packet(ml.encode_suspect(ml.Suspect(5, "x", "y")), _SOURCE, 103.0)
    assert machine.nodes["x"].address == ("10.0.0.8", 7946)
    assert machine.nodes["x"].state is NodeState.ALIVE
    machine.handle_packet(ml.encode_dead(ml.Dead(6, "x", "y")), _SOURCE, 104.0)
    machine.handle_packet(_alive(6, host=9), _SOURCE, 105.0)
    assert machine.nodes["x"].state is NodeState.DEAD
    machine.handle_packet(_alive(7, host=9), _SOURCE, 106.0)
    assert machine.nodes["x"].address == ("10.0.0.9", 7946)
    assert len(delegate.conflicts) == 2


def test_where_names_lead_to_nodes_a_newer_address_is_news() -> None:
    machine, delegate = _alone(addressed_by_name=lambda name: name == "x")
    machine.handle_packet(_alive(5), _SOURCE, 101.0)
    machine.handle_packet(_alive(5, "y"), _SOURCE, 101.0)
    machine.handle_packet(_alive(6, host=8), _SOURCE, 102.0)
    machine.handle_packet(_alive(6, "y", host=8), _SOURCE, 102.0)
    assert machine.nodes["x"].address == ("10.0.0.8", 7946)
    assert machine.nodes["y"].address == ("10.0.0.9", 7946)
    machine.handle_packet(_alive(5), _SOURCE, 103.0)
    assert machine.nodes["x"].address == ("10.0.0.8", 7946)
    assert [existing.name for existing, _ in delegate.conflicts] == ["y", "x"]


def test_we_outlive_the_address_that_we_had_before() -> None:
    machine, _ = _alone(suspects_may_move=True)
    mine = machine.nodes["me"]
    machine.handle_packet(_alive(7, "me", host=8), _SOURCE, 101.0)
    assert mine.incarnation == 8
    machine.handle_packet(_alive(9, "me", host=8), _SOURCE, 102.0)
    assert mine.incarnation == 8, "not twice within seconds: it may be a second node of our name"
    machine.handle_packet(_alive(9, "me", host=8), _SOURCE, 107.0)
    assert mine.incarnation == 10


def test_a_node_that_left_is_reclaimed_at_once() -> None:
    machine, _ = _alone()
    left = ml.encode_dead(ml.Dead(5, "x", "x"))
    for message in (_alive(5), left, _alive(1, host=8)):
        machine.handle_packet(message, _SOURCE, 101.0)
    assert machine.nodes["x"].address == ("10.0.0.8", 7946)
    assert machine.nodes["x"].state is NodeState.ALIVE


def test_old_news_is_ignored() -> None:
    machine, delegate = _alone()
    for message in (
        _alive(5),
        _alive(5, meta=b"other"),
        _alive(4),
        ml.encode_suspect(ml.Suspect(4, "x", "y")),
        ml.encode_dead(ml.Dead(4, "x", "y")),
        ml.encode_dead(ml.Dead(9, "unknown", "y")),
    ):
        machine.handle_packet(message, _SOURCE, 101.0)
    assert machine.nodes["x"].state is NodeState.ALIVE
    assert machine.nodes["x"].meta == b""
    assert delegate.events == [("join", "x")]


def test_incompatible_versions_are_refused() -> None:
    machine, _ = _alone()
    bad = ml.Alive(1, "x", b"\x0a\0\0\x09", 1, b"", b"\4\1\2\2\5\4")
    machine.handle_packet(ml.encode_alive(bad), _SOURCE, 101.0)
    assert "x" not in machine.nodes
    world = _World("a")
    world.add("z", delegate_version=1, delegate_version_min=1, delegate_version_max=1)
    world.join("z", "a")
    (done,) = world.outputs["z"]
    assert isinstance(done, JoinDone)
    assert done.error is not None
    assert "incompatible" in done.error


def test_ack_goes_to_the_source_that_the_ping_names() -> None:
    machine, _ = _alone()
    ping = ml.Ping(77, "me", b"\x0a\0\0\x09", 8301, "x")
    machine.handle_packet(ml.encode_ping(ping), ("192.0.2.1", 5), 101.0)
    (packet,) = _packets(machine)
    assert (packet.node, packet.address) == ("x", ("10.0.0.9", 8301))
    messages = [(kind, body) for kind, body in unwrap_packet(packet.data) if kind == ml.Kind.ACK]
    assert ml.decode_ack(messages[0][1]) == ml.Ack(77, b"payload")
    machine.handle_packet(ml.encode_ping(ml.Ping(78, "other")), _SOURCE, 101.0)
    assert _packets(machine) == []


def test_old_pings_are_answered_by_address_with_the_name_if_known() -> None:
    machine, _ = _alone(require_node_names=True)
    machine.handle_packet(_alive(1), _SOURCE, 101.0)
    ping = ml.encode_ping(ml.Ping(1, "me"))
    machine.handle_packet(ping, ("10.0.0.9", 7946), 101.0)
    (packet,) = _packets(machine)
    assert packet.node == "x"
    machine.handle_packet(ping, ("10.0.0.99", 7946), 101.0)
    assert _packets(machine) == []


@pytest.mark.parametrize("answered", [True, False])
def test_indirect_ping_is_relayed(answered: bool) -> None:
    machine, _ = _alone(probe_interval_s=0.0, gossip_interval_s=0.0, push_pull_interval_s=0.0)
    target, origin = b"\x0a\0\0\x09", b"\x0a\0\0\x08"
    request = ml.IndirectPing(5, target, 1000, "x", True, origin, 2000, "asker")
    machine.handle_packet(ml.encode_indirect_ping(request), _SOURCE, 101.0)
    (ping_packet,) = _packets(machine)
    assert (ping_packet.node, ping_packet.address) == ("x", ("10.0.0.9", 1000))
    pings = [body for kind, body in unwrap_packet(ping_packet.data) if kind == ml.Kind.PING]
    ping = ml.decode_ping(pings[0])
    assert ping.source_node == "me"
    if answered:
        machine.handle_packet(ml.encode_ack(ml.Ack(ping.seq_no)), _SOURCE, 101.1)
    machine.handle_timer(101.6)
    (answer,) = _packets(machine)
    assert (answer.node, answer.address) == ("asker", ("10.0.0.8", 2000))
    kinds = [kind for kind, _ in unwrap_packet(answer.data)]
    assert (ml.Kind.ACK in kinds, ml.Kind.NACK in kinds) == (answered, not answered)
    assert machine.get_timer() is None


def test_names_are_required_for_joins_too() -> None:
    machine, _ = _alone(require_node_names=True)
    sid = machine.join("", ("10.0.0.9", 7946), 101.0)
    machine.handle_timer(101.0)
    (done,) = (o for o in machine.take_outputs() if isinstance(o, JoinDone))
    assert done.sid == sid
    assert "node names are required" in str(done.error)
    machine.join("*.dc1", ("192.0.2.2", 8302), 102.0)
    (opened,) = (o for o in machine.take_outputs() if isinstance(o, OpenStream))
    assert (opened.node, opened.address, opened.deadline) == ("*.dc1", ("192.0.2.2", 8302), 112.0)


def test_join_times_out() -> None:
    machine, _ = _alone()
    sid = machine.join("x", ("10.0.0.9", 7946), 101.0)
    machine.take_outputs()
    machine.handle_timer(111.0)
    assert JoinDone(sid, "i/o timeout") in machine.take_outputs()


def test_user_messages() -> None:
    world = _World("ab")
    assert world["a"].send_user("b", b"datagram", world.net.now)
    assert world["a"].send_user_reliable("b", b"stream" * 5000, world.net.now)
    assert not world["a"].send_user("nobody", b"x", world.net.now)
    world.delegates["a"].broadcasts = [b"rumour"]
    world.net.pump(world.hosts["a"])
    world.net.run(2)
    assert sorted(world.delegates["b"].messages) == [b"datagram", b"rumour", b"stream" * 5000]


def test_packets_never_exceed_the_buffer() -> None:
    machine, _ = _alone(keyring=Keyring(b"k" * 16), verify_incoming=False)
    for index in range(200):
        machine.handle_packet(_alive(1, f"node-{index:03}", meta=b"m" * 60), _SOURCE, 101.0)
    machine.take_outputs()
    now = 101.0
    sizes = []
    while now < 110.0:
        now = machine.get_timer() or now
        machine.handle_timer(now)
        sizes += [len(packet.data) for packet in _packets(machine)]
    assert 1200 < max(sizes) <= 1400


def test_garbage_is_counted_and_dropped() -> None:
    machine, _ = _alone()
    for data in (b"", b"\xff", b"\x04\x01", b"\x06\x80", b"\x0c\0\0\0\0\0"):
        machine.handle_packet(data, _SOURCE, 101.0)
    counters = machine.counters
    assert counters.packets_malformed + counters.messages_malformed == 5
    machine.stream_accepted(1, _SOURCE, 101.0)
    machine.stream_data(1, b"\x06\xff", 101.0)
    machine.stream_eof(1, 101.0)
    machine.stream_data(1, b"late", 101.0)


def test_config() -> None:
    wan = consul_wan_config("n.dc1", ("10.0.0.1", 8302))
    assert (wan.probe_interval_s, wan.suspicion_mult, wan.dead_node_reclaim_s) == (5.0, 6, 30.0)
    with pytest.raises(ConfigError, match="protocol_version"):
        MemberlistConfig(name="n", advertise=("10.0.0.1", 1), protocol_version=9)
    with pytest.raises(ConfigError, match="name"):
        lan_config("", ("10.0.0.1", 1))


def test_a_member_outlives_the_leave_of_an_impostor() -> None:
    # Without probes, whose answers may happen to carry the rumour to the one concerned
    world = _World("abc", probe_interval_s=1000.0)
    config = lan_config("b", ("10.0.0.200", 7946))
    impostor = Memberlist(config, RecordingDelegate(), random.Random(5))
    host = world.net.add(impostor, ("10.0.0.200", 7946), lambda output: None)
    impostor.join("a", world["a"].config.advertise, world.net.now)
    world.net.pump(host)
    world.net.run(1)
    impostor.leave(world.net.now)
    world.net.pump(host)
    assert world.net.run_until(
        lambda: "leave" in {kind for kind, name in world.delegates["a"].events if name == "b"},
        2, 0.01,
    )  # fmt: skip
    assert world.net.run_until(
        lambda: world.state("a", "b") is world.state("c", "b") is NodeState.ALIVE, 0.5, 0.01
    )
    world.net.run(30)
    assert world.state("a", "b") is world.state("c", "b") is NodeState.ALIVE
