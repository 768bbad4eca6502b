from __future__ import annotations

from typing import Any

import msgpack
import pytest

from proconsul.domain.catalog import CheckServiceNode, Node, RegisterRequest
from proconsul.domain.connect import CAConfiguration, CARequest, CARoot
from proconsul.domain.federation import FederationState, FederationStateRequest, raw_time
from proconsul.domain.kv import DirEntry, KVSRequest
from proconsul.domain.messages import IGNORE_UNKNOWN_TYPE_FLAG, MessageType, encode_command
from proconsul.domain.operator import DEFAULT_AUTOPILOT, AutopilotSetConfigRequest
from proconsul.state.errors import FsmError, StateError
from proconsul.state.fsm import Fsm
from proconsul.wire import msgpack as gopack


def _set(key: str, value: bytes = b"v") -> bytes:
    request = KVSRequest(op="set", dir_ent=DirEntry.of(key, value))
    return encode_command(MessageType.KVS, request)


def test_unknown_types_stop_the_server_unless_flagged() -> None:
    fsm = Fsm()
    with pytest.raises(FsmError, match="unknown type 99"):
        fsm.apply(5, b"\x63\x80")
    assert fsm.apply(5, bytes((99 | IGNORE_UNKNOWN_TYPE_FLAG,)) + b"\x80") is None
    with pytest.raises(FsmError, match="empty"):
        fsm.apply(5, b"")
    with pytest.raises(FsmError):
        fsm.apply(5, b"\x02\xc1")


def test_a_known_type_may_carry_the_flag() -> None:
    fsm = Fsm()
    command = _set("a")
    fsm.apply(5, bytes((command[0] | IGNORE_UNKNOWN_TYPE_FLAG,)) + command[1:])
    assert fsm.store.kv.get("a").index == 5


def test_federation_states() -> None:
    fsm = Fsm()
    woken: list[str] = []
    fsm.store.federation.get("dc2").watch.add(lambda: woken.append("dc2"))
    gateways = [CheckServiceNode(node=Node(node="gw"))]
    state = FederationState("dc1", gateways, raw_time(5))
    upsert = FederationStateRequest(op="upsert", state=state)
    assert fsm.apply(7, encode_command(MessageType.FEDERATION_STATE, upsert)) is True
    assert not woken
    index, row, watch = fsm.store.federation.get("dc1")
    assert row is not None
    assert (index, row.primary_modify_index, row.updated_at_ns) == (7, 7, 5)
    assert row.is_same(state)
    watch.add(lambda: woken.append("dc1"))
    delete = FederationStateRequest(op="delete", state=FederationState("dc1"))
    assert fsm.apply(8, encode_command(MessageType.FEDERATION_STATE, delete)) is None
    assert woken == ["dc1"]
    assert fsm.store.federation.all()[:2] == (8, [])
    nameless = FederationStateRequest(op="upsert", state=FederationState())
    assert isinstance(
        fsm.apply(9, encode_command(MessageType.FEDERATION_STATE, nameless)), StateError
    )


def test_certificate_authority() -> None:
    fsm = Fsm()

    def ca(at: int, **fields: Any) -> object:
        return fsm.apply(at, encode_command(MessageType.CONNECT_CA, CARequest(**fields)))

    config = CAConfiguration(cluster_id="c", provider="consul")
    assert ca(3, op="set-config", config=config) is None
    root = CARoot(id="r1", active=True)
    assert ca(4, op="set-roots", index=9, roots=[root]) is False
    assert ca(5, op="set-roots", index=0, roots=[root]) is True
    assert str(ca(6, op="set-roots", index=5, roots=[])) == "there must be exactly one active CA"
    assert ca(7, op="set-config", config=CAConfiguration(provider="x", modify_index=3)) is True
    index, (roots, config_now), _ = fsm.store.connect.roots_and_config()
    assert (index, len(roots)) == (7, 1)
    assert config_now is not None
    assert config_now.cluster_id == "c"
    assert ca(8, op="increment-provider-serial") == 1


def test_autopilot() -> None:
    fsm = Fsm()
    request = AutopilotSetConfigRequest(config=DEFAULT_AUTOPILOT, cas=True)
    assert fsm.apply(3, encode_command(MessageType.AUTOPILOT, request)) is False
    request = AutopilotSetConfigRequest(config=DEFAULT_AUTOPILOT)
    fsm.apply(4, encode_command(MessageType.AUTOPILOT, request))
    row = fsm.store.autopilot().value
    assert row is not None
    assert (row.max_trailing_logs, row.create_index) == (250, 4)


def test_opaque_rows_are_kept_and_written_back() -> None:
    fsm = Fsm()
    policy = {"ID": "p1", "Name": "ops", "Rules": "x", "Hash": b"\xff\x00"}
    body = gopack.pack({"Policies": [policy]})
    fsm.apply(5, bytes((MessageType.ACL_POLICY_SET,)) + body)
    fsm.apply(6, bytes((MessageType.ACL_POLICY_SET,)) + body)
    copy = Fsm()
    copy.restore(fsm.snapshot())
    (row,) = copy.store.tables.opaque[MessageType.ACL_POLICY_SET].values()
    assert (row[b"CreateIndex"], row[b"ModifyIndex"], row[b"Hash"]) == (5, 6, b"\xff\x00")
    delete = gopack.pack({"PolicyIDs": ["p1"]})
    fsm.apply(7, bytes((MessageType.ACL_POLICY_DELETE,)) + delete)
    assert not fsm.store.tables.opaque[MessageType.ACL_POLICY_SET]


def test_chunked_command() -> None:
    fsm = Fsm()
    command = _set("big", b"x" * 1000)
    parts = [command[:400], command[400:800], command[800:]]
    for sequence, part in enumerate(parts):
        extensions = bytes((0x08, 77, 0x10, sequence, 0x18, 3))
        if sequence == 2:  # restart in the middle
            copy = Fsm()
            copy.restore(fsm.snapshot())
            fsm = copy
        fsm.apply(10 + sequence, part, extensions, 4)
    assert fsm.store.kv.get("big").index == 12


def test_a_new_term_forgets_unfinished_chunks() -> None:
    fsm = Fsm()
    command = _set("big")
    fsm.apply(5, command[:5], bytes((0x08, 1, 0x18, 2)), 1)
    fsm.apply(6, command[5:], bytes((0x08, 1, 0x10, 1, 0x18, 2)), 2)
    assert fsm.store.kv.get("big").value is None
    with pytest.raises(FsmError):
        fsm.apply(7, b"x", b"\x08", 2)


def test_a_snapshot_is_of_one_moment() -> None:
    fsm = Fsm()
    fsm.apply(2, _set("a"))
    pieces = fsm.snapshot()
    fsm.apply(3, _set("b"))
    fsm.apply(4, encode_command(MessageType.REGISTER, RegisterRequest(node="n")))
    copy = Fsm()
    copy.restore(pieces)
    assert copy.store.kv.keys("")[:2] == (2, ["a"])
    assert copy.store.last_index() == 2


def test_restore_wakes_everyone_and_a_damaged_one_changes_nothing() -> None:
    fsm = Fsm()
    fsm.apply(2, _set("a"))
    woken: list[int] = []
    fsm.store.kv.get("zzz").watch.add(lambda: woken.append(1))
    good = b"".join(fsm.snapshot())
    for bad in (b"", good[:-3], b"\x80\x63\x80", good + b"\x04\x80", b"\x80\x02\x05"):
        with pytest.raises(FsmError):
            fsm.restore([bad])
    assert not woken
    fsm.restore([good])
    assert woken == [1]
    assert fsm.store.kv.get("a").index == 2


def test_watch_added_late_fires_at_once() -> None:
    fsm = Fsm()
    watch = fsm.store.kv.get("a").watch
    fsm.apply(2, _set("b"))
    woken: list[int] = []
    watch.add(lambda: woken.append(1))
    assert woken == [1]


def test_cancelled_watch_stays_silent() -> None:
    fsm = Fsm()
    watch = fsm.store.kv.entries("a").watch
    woken: list[int] = []

    def callback() -> None:
        woken.append(1)

    watch.add(callback)
    watch.cancel(callback)
    watch.cancel(callback)
    fsm.apply(2, _set("abc"))
    assert not woken


def test_config_entries_keep_kind_and_name() -> None:
    fsm = Fsm()
    entry = {"Kind": "service-defaults", "Name": "web", "Protocol": "http"}
    inner = gopack.pack("service-defaults") + gopack.pack({"Op": "upsert", "Entry": entry})
    command = bytes((MessageType.CONFIG_ENTRY,)) + msgpack.packb(inner, use_bin_type=False)
    assert fsm.apply(5, command) is True
    copy = Fsm()
    copy.restore(fsm.snapshot())
    row = copy.store.tables.config_entries["service-defaults", "web"]
    assert row[b"ModifyIndex"] == 5
