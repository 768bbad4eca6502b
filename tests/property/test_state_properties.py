"""Model-based checks of the KV store and its watches, and fuzzing of what peers may send."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.domain.kv import DirEntry, KVSRequest
from proconsul.domain.messages import MessageType, encode_command
from proconsul.state.errors import FsmError
from proconsul.state.fsm import Fsm
from proconsul.state.sorted_keys import SortedKeys

_SETTINGS = settings(derandomize=True, max_examples=150, deadline=None)

_keys = st.text(alphabet="ab/", min_size=0, max_size=4)
_ops = st.tuples(
    st.sampled_from(["set", "delete", "delete-tree", "cas", "delete-cas"]),
    _keys.filter(bool),
    st.sampled_from([b"", b"1", b"2"]),
    st.integers(0, 12),
)


def _model(rows: dict[str, tuple[bytes, int]], op: tuple[str, str, bytes, int], at: int) -> None:
    kind, key, value, expected = op
    if kind == "cas" and expected != (rows[key][1] if key in rows else 0):
        return
    if kind == "delete-cas" and (key not in rows or rows[key][1] != expected):
        return
    if kind in {"set", "cas"}:
        if key not in rows or rows[key][0] != value:
            rows[key] = (value, at)
    elif kind in {"delete", "delete-cas"}:
        rows.pop(key, None)
    else:
        for one in [one for one in rows if one.startswith(key)]:
            del rows[one]


def _recorder(woken: set[tuple[str, str]], name: tuple[str, str]) -> Callable[[], None]:
    return lambda: woken.add(name)


@_SETTINGS
@given(st.lists(_ops, max_size=25), st.lists(_keys, min_size=1, max_size=5))
def test_kv_against_a_model(ops: list[tuple[str, str, bytes, int]], watched: list[str]) -> None:
    fsm, rows = Fsm(), dict[str, tuple[bytes, int]]()
    for at, op in enumerate(ops, start=2):
        kind, key, value, expected = op
        before = dict(rows)
        indexes = {one: fsm.store.kv.entries(one).index for one in watched}
        woken: set[tuple[str, str]] = set()
        for one in watched:
            fsm.store.kv.get(one).watch.add(_recorder(woken, ("key", one)))
            fsm.store.kv.entries(one).watch.add(_recorder(woken, ("prefix", one)))
        request = KVSRequest(op=kind, dir_ent=DirEntry.of(key, value, modify_index=expected))
        fsm.apply(at, encode_command(MessageType.KVS, request))
        _model(rows, op, at)
        entries = fsm.store.kv.entries("").value
        assert {row.key: (row.value, row.modify_index) for row in entries} == rows
        assert [row.key for row in entries] == sorted(rows)
        changed = {one for one in {*before, *rows} if before.get(one) != rows.get(one)}
        assert woken == {
            (how, one)
            for one in watched
            for how in ("key", "prefix")
            if (one in changed if how == "key" else any(c.startswith(one) for c in changed))
        }
        for one in watched:  # never backwards, and onwards whenever something changed
            now = fsm.store.kv.entries(one).index
            assert now >= 1
            if ("prefix", one) in woken:
                assert now > indexes[one] or now == at
            if one and one in rows and one in changed:
                assert fsm.store.kv.get(one).index == at
    copy = Fsm()
    copy.restore(fsm.snapshot())
    assert b"".join(copy.snapshot()) == b"".join(fsm.snapshot())


@_SETTINGS
@given(st.lists(st.tuples(st.booleans(), st.text(alphabet="abc", max_size=6)), max_size=80))
def test_sorted_keys_against_a_set(ops: list[tuple[bool, str]]) -> None:
    keys, model = SortedKeys(), set[str]()
    for add, key in ops:
        (keys.add if add else keys.discard)(key)
        (model.add if add else model.discard)(key)
        assert (key in keys) == (key in model)
    assert list(keys) == sorted(model)
    assert len(keys) == len(model)
    for prefix in ("", "a", "ab", "c", "ccc"):
        assert keys.with_prefix(prefix) == sorted(k for k in model if k.startswith(prefix))


def test_sorted_keys_across_chunks() -> None:
    names = [f"{n:05d}" for n in range(5000)]
    keys = SortedKeys(names[::2])
    for name in names[1::2]:
        keys.add(name)
    assert list(keys) == names
    assert keys.with_prefix("01") == names[1000:2000]
    for name in names[500:4500]:
        keys.discard(name)
    assert list(keys) == names[:500] + names[4500:]
    assert keys.with_prefix("0") == list(keys)


@_SETTINGS
@given(st.integers(0, 255), st.binary(max_size=200))
def test_any_log_entry_is_applied_or_refused(type_: int, body: bytes) -> None:
    fsm = Fsm()
    before = b"".join(fsm.snapshot())
    try:
        fsm.apply(5, bytes((type_,)) + body)
    except FsmError:
        assert b"".join(fsm.snapshot()) == before


@_SETTINGS
@given(st.integers(0, 31), st.recursive(
    st.none() | st.integers(-5, 1 << 64 - 1) | st.binary(max_size=8) | st.floats() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(
            ["Op", "Key", "DirEnt", "State", "Service", "Check", "Node", "ID", "Ops", "KV", "Roots",
             "Tokens", "Entry", "Kind", "Name", "Value", "Coord", "Config"]
        ), inner, max_size=5),
    max_leaves=15,
))  # fmt: skip
def test_any_shape_is_applied_or_refused(type_: int, body: object) -> None:
    from proconsul.wire.msgpack import pack

    try:
        data = pack(body)
    except (OverflowError, ValueError):
        return
    fsm = Fsm()
    try:
        fsm.apply(5, bytes((type_,)) + data)
    except FsmError:
        return
    copy = Fsm()
    copy.restore(fsm.snapshot())


@_SETTINGS
@given(st.binary(max_size=300))
def test_any_snapshot_is_restored_or_refused(data: bytes) -> None:
    fsm = Fsm()
    try:
        fsm.restore([b"\x81\xa9LastIndex\x05" + data])
    except FsmError:
        return


@pytest.mark.parametrize("extensions", [b"\x08", b"\x0d\x00", b"\x12\xff", b"\x08" + b"\xff" * 12])
def test_malformed_chunk_information(extensions: bytes) -> None:
    with pytest.raises(FsmError):
        Fsm().apply(5, b"x", extensions, 1)
