"""A view of a table is what the table was, whatever happens to it while it is read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from proconsul.domain.catalog import DeregisterRequest, HealthCheck, NodeService, RegisterRequest
from proconsul.domain.kv import DirEntry, KVSRequest, TombstoneRequest
from proconsul.domain.messages import MessageType, encode_command
from proconsul.state import snapshot, sorted_keys
from proconsul.state.frozen import Views
from proconsul.state.fsm import Fsm
from proconsul.state.sorted_keys import SortedKeys

_KEYS = st.integers(0, 60).map(lambda number: f"k{number:02}")
_Reading = tuple[Iterator[tuple[str, str]], list[tuple[str, str]], list[tuple[str, str]]]
_STEPS = st.lists(st.tuples(st.sampled_from(["put", "remove", "read", "open"]), _KEYS), max_size=80)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.sets(_KEYS), _STEPS, st.sampled_from([1, 3, 512]))
def test_views_show_one_moment(start: set[str], steps: list[tuple[str, str]], chunk: int) -> None:
    chunk, sorted_keys._CHUNK = sorted_keys._CHUNK, chunk
    try:
        rows = {key: f"{key} at the start" for key in start}
        keys = SortedKeys(start)
        views = Views(rows.get, keys)
        reading: list[_Reading] = []
        for number, (what, key) in enumerate([("open", ""), *steps]):
            match what:
                case "open":
                    reading.append((iter(views.open()), sorted(rows.items()), []))
                case "read":
                    for view, _, found in reading:
                        found.extend([row for row in [next(view, None)] if row is not None])
                case "put":
                    views.keep(key)
                    rows[key] = f"{key} at {number}"
                    keys.add(key)
                case _:
                    if key not in rows:
                        continue
                    views.keep(key)
                    del rows[key]
                    keys.discard(key)
        for view, expected, found in reading:
            assert [*found, *view] == expected
        reading.clear()
        del view
        assert not views
    finally:
        sorted_keys._CHUNK = chunk


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.lists(_KEYS, max_size=9), max_size=6), _KEYS, st.sampled_from([1, 3, 512]))
def test_sorted_keys_take_many_at_once(batches: list[list[str]], key: str, chunk: int) -> None:
    chunk, sorted_keys._CHUNK = sorted_keys._CHUNK, chunk
    try:
        keys = SortedKeys()
        for batch in batches:
            keys.extend(list(batch))
        everything = sorted({one for batch in batches for one in batch})
        assert list(keys) == everything
        assert len(keys) == len(everything)
        at, walked = None, []
        while some := keys.after(at):
            walked += some
            at = some[-1]
        assert walked == everything
        assert keys.take_to(key) == [one for one in everything if one <= key]
        assert list(keys) == [one for one in everything if one > key]
        assert len(keys) == len(list(keys))
    finally:
        sorted_keys._CHUNK = chunk


_NODE, _ID = st.sampled_from(["n1", "N2", "n3"]), st.sampled_from(["", "a", "B"])
_COMMANDS = st.one_of(
    st.builds(
        lambda node, id_, port: encode_command(
            MessageType.REGISTER,
            RegisterRequest(
                node=node,
                address="10.0.0.1",
                service=NodeService(id=id_, service=id_, port=port) if id_ else None,
                check=HealthCheck(node=node, check_id=id_, name=str(port)) if port % 2 else None,
            ),
        ),
        _NODE, _ID, st.integers(1, 4),
    ),
    st.builds(
        lambda node, service, check: encode_command(
            MessageType.DEREGISTER,
            DeregisterRequest(node=node, service_id=service, check_id=check),
        ),
        _NODE, _ID, _ID,
    ),
    st.builds(
        lambda op, key, value: encode_command(
            MessageType.KVS, KVSRequest(op=op, dir_ent=DirEntry.of(key, value))
        ),
        st.sampled_from(["set", "delete", "delete-tree"]),
        st.sampled_from(["k1", "k2", "k3"]),
        st.sampled_from([b"1", b"2"]),
    ),
    st.builds(
        lambda index: encode_command(
            MessageType.TOMBSTONE, TombstoneRequest(op="reap", reap_index=index)
        ),
        st.sampled_from([10, 200]),
    ),
    st.sampled_from(["n1", "n2"]).map(
        lambda node: encode_command(MessageType.DEREGISTER, DeregisterRequest(node=node))
    ),
)  # fmt: skip


@settings(derandomize=True, max_examples=400, deadline=None)
@given(
    st.lists(_COMMANDS, max_size=12),
    st.lists(st.tuples(_COMMANDS, st.integers(0, 2)), max_size=8),
)
def test_a_snapshot_is_of_one_moment(
    before: list[bytes], meanwhile: list[tuple[bytes, int]]
) -> None:
    size, snapshot._CHUNK_BYTES = snapshot._CHUNK_BYTES, 1  # a record a piece
    try:
        fsm = Fsm()
        for index, command in enumerate(before, start=2):
            fsm.apply(index, command)
        expected = b"".join(fsm.snapshot())
        pieces, found = fsm.snapshot(), b""
        for index, (command, drawn) in enumerate(meanwhile, start=100):
            fsm.apply(index, command)
            found += b"".join(islice(pieces, drawn))
        assert found + b"".join(pieces) == expected
        copy = Fsm()
        copy.restore([expected])
        assert b"".join(copy.snapshot()) == expected
    finally:
        snapshot._CHUNK_BYTES = size


_SERVICE = NodeService(id="a", service="a", port=80)
_CHECK = HealthCheck(node="n1", check_id="b", name="b")
_BEFORE = [
    (MessageType.REGISTER, RegisterRequest(node="n3", address="10.0.0.1")),
    (MessageType.REGISTER, RegisterRequest(node="n1", address="10.0.0.1")),
    (MessageType.REGISTER, RegisterRequest(node="n2", address="10.0.0.1", service=_SERVICE)),
    (MessageType.REGISTER, RegisterRequest(node="n1", address="10.0.0.1", check=_CHECK)),
    (MessageType.KVS, KVSRequest(op="set", dir_ent=DirEntry.of("k1", b"1"))),
    (MessageType.KVS, KVSRequest(op="set", dir_ent=DirEntry.of("k2", b"1"))),
    (MessageType.KVS, KVSRequest(op="delete", dir_ent=DirEntry.of("k2"))),
]
_MEANWHILE = [
    (MessageType.REGISTER, RegisterRequest(node="n0", address="10.0.0.1")),
    (MessageType.REGISTER, RegisterRequest(node="n1", address="10.0.0.2")),
    (MessageType.REGISTER, RegisterRequest(node="n1", address="10.0.0.1", service=_SERVICE)),
    (
        MessageType.REGISTER,
        RegisterRequest(node="n1", address="10.0.0.1", check=replace(_CHECK, output="x")),
    ),
    (MessageType.DEREGISTER, DeregisterRequest(node="n1")),
    (MessageType.DEREGISTER, DeregisterRequest(node="n3")),
    (MessageType.DEREGISTER, DeregisterRequest(node="n2", service_id="a")),
    (MessageType.DEREGISTER, DeregisterRequest(node="n1", check_id="b")),
    (MessageType.KVS, KVSRequest(op="set", dir_ent=DirEntry.of("k0", b"1"))),
    (MessageType.KVS, KVSRequest(op="set", dir_ent=DirEntry.of("k1", b"2"))),
    (MessageType.KVS, KVSRequest(op="delete", dir_ent=DirEntry.of("k1"))),
    (MessageType.KVS, KVSRequest(op="delete-tree", dir_ent=DirEntry.of("k2"))),
    (MessageType.TOMBSTONE, TombstoneRequest(op="reap", reap_index=10)),
]


@pytest.mark.parametrize(("type_", "request_"), _MEANWHILE)
def test_no_command_shows_in_an_older_snapshot(type_: MessageType, request_: object) -> None:
    fsm = Fsm()
    for index, (before, request) in enumerate(_BEFORE, start=2):
        fsm.apply(index, encode_command(before, request))
    expected, pieces = b"".join(fsm.snapshot()), fsm.snapshot()
    fsm.apply(20, encode_command(type_, request_))
    assert b"".join(pieces) == expected
