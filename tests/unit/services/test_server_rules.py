"""The parts of a server that only decide: bootstrap, tags, reconciling, dead servers, roots."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import pytest
from server_support import server_config

from proconsul.core.gossip.serf import Member, MemberStatus
from proconsul.domain import catalog as c
from proconsul.domain.messages import MessageType, encode_command
from proconsul.services.server import reconcile
from proconsul.services.server.bootstrap import first_configuration, may_bootstrap, raft_address
from proconsul.services.server.fsm import RaftFsm
from proconsul.services.server.tags import client_tags, is_agent, lan_merge, server_tags, wan_merge
from proconsul.wire.raft import Suffrage

CONFIG = server_config("s1", bootstrap_expect=3)


def _member(
    name: str, tags: Mapping[str, str], status: MemberStatus = MemberStatus.ALIVE
) -> Member:
    return Member(name, ("127.0.0.1", 8301), dict(tags), status, 1, 5, 2, 2, 5, 4)


def _server(name: str, **changes: str) -> Member:
    config = server_config(name, bootstrap_expect=3)
    tags = {**server_tags(config, wan=False), **changes}
    return _member(name, {k: v for k, v in tags.items() if v})


class _State:
    """Commands applied at once."""

    def __init__(self) -> None:
        self.fsm, self.index = RaftFsm(), 0
        self.store = self.fsm.store

    async def apply(self, type_: MessageType, request: Any) -> Any:
        self.index += 1
        return self.fsm.apply(self.index, encode_command(type_, request))


def _metas(*members: Member) -> list[Any]:
    metas = [reconcile.server_of(member) for member in members]
    assert all(metas)
    return metas


def test_bootstrap_waits_for_all_who_agree() -> None:
    three = [_server(f"s{i}") for i in (1, 2, 3)]
    assert may_bootstrap(_metas(*three), 3, "dc1")
    assert not may_bootstrap(_metas(*three[:2]), 3, "dc1")
    assert not may_bootstrap(_metas(*three), 0, "dc1")
    assert not may_bootstrap(_metas(*three[:2], _server("s3", dc="dc2")), 3, "dc1")
    assert not may_bootstrap(_metas(*three[:2], _server("s3", expect="5")), 3, "dc1")
    assert not may_bootstrap(_metas(*three[:2], _server("s3", bootstrap="1")), 3, "dc1")
    nonvoter = _metas(*three[:2], _server("s3", nonvoter="1"))
    assert not may_bootstrap(nonvoter, 3, "dc1")
    first = first_configuration([*nonvoter, *_metas(_server("x", dc="dc2"))], "dc1")
    assert [s.suffrage for s in first].count(Suffrage.NONVOTER) == 1
    assert len(first) == 3
    assert first == first_configuration(nonvoter[::-1], "dc1")
    assert raft_address(("::1", 8300)) == "[::1]:8300"


def test_tags_are_consuls() -> None:
    wan = dataclasses.replace(CONFIG, wan=CONFIG.lan, bootstrap=True)
    lan = server_tags(wan, wan=False)
    assert {"role", "dc", "id", "port", "vsn", "raft_vsn", "build", "ft_fs", "acls"} <= set(lan)
    assert (lan["expect"], lan["bootstrap"], lan["wan_join_port"]) == ("3", "1", "0")
    assert "wan_join_port" not in server_tags(wan, wan=True)
    assert "use_tls" not in lan
    tls = dataclasses.replace(CONFIG.tls, verify_outgoing=True, ca_file="ca.pem")
    assert server_tags(dataclasses.replace(CONFIG, tls=tls), wan=True)["use_tls"] == "1"
    assert client_tags(CONFIG.identity)["role"] == "node"


@pytest.mark.parametrize(("enabled", "mode"), [(True, "1"), (False, "0")])
def test_acls_are_on_or_off_and_never_in_legacy_mode(enabled: bool, mode: str) -> None:
    identity = dataclasses.replace(CONFIG.identity, acls_enabled=enabled)
    assert client_tags(identity)["acls"] == mode
    for wan in (False, True):
        config = dataclasses.replace(CONFIG, identity=identity, wan=CONFIG.lan)
        assert server_tags(config, wan=wan)["acls"] == mode


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"dc": "dc2"}, "part of wrong datacenter 'dc2'"),
        ({"segment": "x"}, "part of wrong segment 'x'"),
        ({"id": CONFIG.identity.node_id}, "conflicting node ID"),
        ({"role": "other", "dc": "dc2", "id": ""}, None),
    ],
)
def test_who_may_merge_into_the_lan(changes: dict[str, str], reason: str | None) -> None:
    check = lan_merge(CONFIG.identity)
    answer = check([_server("s1"), _server("s2", **changes)])
    assert answer is None if reason is None else answer is not None and reason in answer


def test_duplicate_ids_refuse_a_merge_but_not_of_members_that_left() -> None:
    check = lan_merge(CONFIG.identity)
    twin = {"id": "11111111-2222-3333-4444-000000000000"}
    assert "conflicting node ID" in (check([_server("a", **twin), _server("b", **twin)]) or "")
    left = _member("b", {**_server("b").tags, **twin}, MemberStatus.LEFT)
    assert check([_server("a", **twin), left]) is None


def test_the_wan_is_for_servers() -> None:
    assert wan_merge([_server("s1"), _server("s2", dc="dc2")]) is None
    client = _member("c", client_tags(CONFIG.identity))
    assert is_agent(client)
    assert wan_merge([client]) == "Member 'c' is not a server"


def test_what_members_need_written() -> None:
    state, member = _State(), _server("s1")

    async def run() -> None:
        store = state.store
        assert reconcile.failed(member, store, "dc1") is None  # never heard of
        assert reconcile.gone("s1", store, "dc1") is None
        first = reconcile.alive(member, store, "dc1")
        assert first is not None
        assert first.service is not None
        assert first.service.id == "consul"
        await state.apply(MessageType.REGISTER, first)
        assert reconcile.alive(member, store, "dc1") is None
        moved = _server("s1", port="1234")
        changed = reconcile.alive(moved, store, "dc1")
        assert changed is not None
        newer = reconcile.alive(_server("s1", build="1.9.0:x"), store, "dc1")
        assert newer is not None
        # What the agent said of its node is kept.
        tagged = c.RegisterRequest(
            node="s1", id=first.id, address="127.0.0.1", node_meta={"a": "b"},
            tagged_addresses={"wan": "192.0.2.1"},
        )  # fmt: skip
        await state.apply(MessageType.REGISTER, tagged)
        failed = reconcile.failed(member, store, "dc1")
        assert failed is not None
        assert failed.skip_node_update
        await state.apply(MessageType.REGISTER, failed)
        assert reconcile.failed(member, store, "dc1") is None
        back = reconcile.alive(member, store, "dc1")
        assert back is not None
        assert (back.node_meta, back.tagged_addresses) == ({"a": "b"}, {"wan": "192.0.2.1"})
        assert reconcile.reaped_nodes(store, ["s1"]) == []
        assert reconcile.reaped_nodes(store, []) == ["s1"]
        gone = reconcile.gone("s1", store, "dc1")
        assert gone is not None
        await state.apply(MessageType.DEREGISTER, gone)
        client = _member("c1", client_tags(CONFIG.identity))
        plain = reconcile.alive(client, store, "dc1")
        assert plain is not None
        assert plain.service is None

    asyncio.run(run())


def _restore(fsm: RaftFsm, snapshot: bytes) -> None:
    steps = fsm.restore(io.BytesIO(snapshot))
    while True:
        try:
            next(steps)
        except StopIteration as done:
            done.value()
            return


def test_large_restores_are_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    from proconsul.services.server import fsm as module

    frozen: list[int] = []
    monkeypatch.setattr(module.gc, "freeze", lambda: frozen.append(1))
    state = _State()
    asyncio.run(state.apply(MessageType.REGISTER, c.RegisterRequest(node="n", address="10.0.0.1")))
    snapshot = b"".join(state.fsm.snapshot())
    other = RaftFsm()
    _restore(other, snapshot)
    assert other.store.catalog.node("n").value is not None
    assert not frozen
    monkeypatch.setattr(module, "FREEZE_BYTES_MIN", 10)
    _restore(other, snapshot)
    assert frozen == [1]


def test_chunked_commands_reach_the_state_machine() -> None:
    fsm = RaftFsm()
    command = encode_command(MessageType.REGISTER, c.RegisterRequest(node="n", address="10.0.0.1"))
    # ChunkInfo{op_num: 1, sequence_num, num_chunks: 2}
    assert fsm.apply(1, command[:5], b"\x08\x01\x18\x02", 1) is None
    fsm.apply(2, command[5:], b"\x08\x01\x10\x01\x18\x02", 1)
    assert fsm.store.catalog.node("n").value is not None
