from __future__ import annotations

import pytest

from proconsul.domain.base import encode
from proconsul.domain.catalog import CRITICAL, HealthCheck, RegisterRequest
from proconsul.domain.kv import DirEntry, KVSRequest, TombstoneRequest
from proconsul.domain.messages import MessageType, encode_command
from proconsul.domain.session import Session, SessionRequest
from proconsul.domain.txn import TxnKVOp, TxnOp, TxnRequest, TxnResponse
from proconsul.state.errors import StateError
from proconsul.state.fsm import Fsm


class World:
    """An FSM whose commands get the next index."""

    def __init__(self) -> None:
        self.fsm = Fsm()
        self.index = 1

    def kv(self, op: str, key: str, value: bytes = b"", **fields: object) -> object:
        modify = fields.pop("modify_index", 0)
        entry = DirEntry.of(key, value, modify_index=modify, **fields)  # type: ignore[arg-type]
        return self.apply(MessageType.KVS, KVSRequest(op=op, dir_ent=entry))

    def apply(self, type_: MessageType, request: object) -> object:
        self.index += 1
        return self.fsm.apply(self.index, encode_command(type_, request))


@pytest.fixture
def world() -> World:
    return World()


def test_set_and_get(world: World) -> None:
    assert world.fsm.store.kv.get("a")[:2] == (1, None)
    assert world.kv("set", "a", b"1", flags=3) is None
    index, row, _ = world.fsm.store.kv.get("a")
    assert row is not None
    assert (index, row.value, row.flags, row.create_index) == (2, b"1", 3, 2)


def test_index_of_a_key_is_its_own(world: World) -> None:
    world.kv("set", "a", b"1")
    world.kv("set", "b", b"1")
    assert world.fsm.store.kv.get("a").index == 2
    assert world.fsm.store.kv.get("missing").index == 3


def test_writing_the_same_changes_nothing(world: World) -> None:
    world.kv("set", "a", b"1")
    woken: list[int] = []
    world.fsm.store.kv.get("a").watch.add(lambda: woken.append(1))
    world.kv("set", "a", b"1")
    assert world.fsm.store.kv.entries("").index == 2
    assert not woken


def test_prefix_index_survives_deletion_and_reaping(world: World) -> None:
    for key in ("x/1", "x/2", "y"):
        world.kv("set", key, b"v")
    assert world.fsm.store.kv.entries("x/").index == 3
    world.kv("delete", "x/2")
    assert world.fsm.store.kv.entries("x/")[:1] == (5,)
    assert world.fsm.store.kv.entries("y").index == 4
    world.apply(MessageType.TOMBSTONE, TombstoneRequest(reap_index=5))
    assert world.fsm.store.kv.entries("x/").index == 2
    assert world.fsm.store.kv.entries("nothing").index == 5


def test_keys_up_to_the_separator(world: World) -> None:
    for key in ("a/1", "a/2", "ab", "b/c/d", "c"):
        world.kv("set", key)
    assert world.fsm.store.kv.keys("", "/").value == ["a/", "ab", "b/", "c"]
    assert world.fsm.store.kv.keys("a/", "/").value == ["a/1", "a/2"]
    assert world.fsm.store.kv.keys("b/").value == ["b/c/d"]


def test_cas(world: World) -> None:
    assert world.kv("cas", "a", b"1", modify_index=9) is False
    assert world.kv("cas", "a", b"1") is True
    assert world.kv("cas", "a", b"2") is False
    assert world.kv("cas", "a", b"2", modify_index=3) is True
    assert world.kv("delete-cas", "a", modify_index=3) is False
    assert world.kv("delete-cas", "a", modify_index=5) is True
    assert world.kv("delete-cas", "a", modify_index=5) is True


def test_delete_tree(world: World) -> None:
    for key in ("a/1", "a/2", "b"):
        world.kv("set", key)
    world.kv("delete-tree", "a/")
    assert world.fsm.store.kv.keys("").value == ["b"]
    assert world.fsm.store.kv.entries("a/").index == 5
    world.kv("delete-tree", "")
    assert world.fsm.store.kv.keys("")[:2] == (6, [])


def test_unknown_operation_is_refused(world: World) -> None:
    result = world.kv("nonsense", "a")
    assert isinstance(result, StateError)
    assert str(result) == "Invalid KVS operation 'nonsense'"


def _session(world: World, behavior: str = "release") -> None:
    check = HealthCheck(node="n", check_id="c", status="passing")
    world.apply(MessageType.REGISTER, RegisterRequest(node="n", address="1.1.1.1", check=check))
    created = world.apply(
        MessageType.SESSION,
        SessionRequest(
            op="create", session=Session(id="s", node="n", behavior=behavior, checks=["c"])
        ),
    )
    assert created == "s"


def test_lock_and_unlock(world: World) -> None:
    assert str(world.kv("lock", "k")) == "missing session"
    assert str(world.kv("lock", "k", session="s")) == 'invalid session "s"'
    _session(world)
    assert world.kv("lock", "k", b"1", session="s") is True
    assert world.kv("set", "k", b"2") is None
    row = world.fsm.store.kv.get("k").value
    assert row is not None
    assert (row.session, row.lock_index, row.value) == ("s", 0, b"2")  # as Consul: set resets it
    assert world.kv("unlock", "k", b"3", session="other") is False
    assert world.kv("unlock", "k", b"3", session="s") is True
    row = world.fsm.store.kv.get("k").value
    assert row is not None
    assert row.session == ""


def test_the_lock_index_wraps_as_in_go(world: World) -> None:
    _session(world)
    entry = DirEntry(key="k", lock_index=2**64 - 1)  # servers may be told any by RPC
    world.apply(MessageType.KVS, KVSRequest(op="set", dir_ent=entry))
    assert world.kv("lock", "k", session="s") is True
    row = world.fsm.store.kv.get("k").value
    assert row is not None
    assert row.lock_index == 0
    assert b"".join(world.fsm.snapshot())  # every number of it fits


@pytest.mark.parametrize(("behavior", "left"), [("release", ["k"]), ("delete", [])])
def test_a_critical_check_ends_the_session(world: World, behavior: str, left: list[str]) -> None:
    _session(world, behavior)
    world.kv("lock", "k", session="s")
    check = HealthCheck(node="n", check_id="c", status=CRITICAL)
    world.apply(MessageType.REGISTER, RegisterRequest(node="n", address="1.1.1.1", check=check))
    assert world.fsm.store.sessions.all().value == []
    assert world.fsm.store.kv.keys("").value == left
    assert all(row.session == "" for row in world.fsm.store.kv.entries("").value)


def test_a_failed_transaction_leaves_no_trace(world: World) -> None:
    world.kv("set", "a", b"1")
    before = b"".join(world.fsm.snapshot())
    woken: list[int] = []
    world.fsm.store.kv.entries("").watch.add(lambda: woken.append(1))
    ops = [
        TxnOp(kv=TxnKVOp("set", DirEntry.of("b", b"2"))),
        TxnOp(kv=TxnKVOp("delete-tree", DirEntry.of("a"))),
        TxnOp(kv=TxnKVOp("check-not-exists", DirEntry.of("b"))),
        TxnOp(),
    ]
    response = world.apply(MessageType.TXN, TxnRequest(ops=ops))
    assert isinstance(response, TxnResponse)
    assert [(error.op_index, error.what) for error in response.errors or ()] == [
        (2, 'key "b" exists'),
        (3, "no operation specified"),
    ]
    assert b"".join(world.fsm.snapshot()) == before
    assert not woken


def test_a_transaction_answers_without_values(world: World) -> None:
    ops = [
        TxnOp(kv=TxnKVOp("set", DirEntry.of("b", b"2"))),
        TxnOp(kv=TxnKVOp("get", DirEntry.of("b"))),
    ]
    response = world.apply(MessageType.TXN, TxnRequest(ops=ops))
    assert isinstance(response, TxnResponse)
    values = [result.kv.value for result in response.results or () if result.kv]
    assert values == [b"", b"2"]
    assert encode(response)
