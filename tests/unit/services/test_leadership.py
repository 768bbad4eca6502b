"""How a server takes up leadership, hands it over, and lets go of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from server_support import running, server_config

from proconsul.core.raft.types import Config, RaftError
from proconsul.domain import errors, kv
from proconsul.services.server import leader as leader_module
from proconsul.services.server import pools
from proconsul.services.server.leader import LeaderDuties
from proconsul.services.server.server import Server
from proconsul.testing.waiting import until
from proconsul.util.metrics import Metrics
from proconsul.wire.raft import TimeoutNowRequest

ELECTION_S = 4.0
"""Longer than any hand-over: what takes less did not wait for an election."""


@pytest.fixture(autouse=True)
def _quick_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "LEAVE_PROPAGATE_S", 0.2)


def _in_three(
    tmp_path: Path, test: Callable[[Server, list[Server]], Awaitable[None]], hold_s: float = 30.0
) -> None:
    """Run `test(leader, the others)`. Elections are as slow as `ELECTION_S`, except the first."""

    async def main() -> None:
        slow = Config(ELECTION_S, ELECTION_S, ELECTION_S)
        servers = []
        for name in ("s1", "s2", "s3"):
            config = server_config(
                name, tmp_path / name, bootstrap_expect=3, raft=slow, rpc_hold_s=hold_s
            )
            servers.append(Server(config, Metrics()))
        async with asyncio.timeout(60), running(*servers):
            await until(lambda: all(s.raft.configuration()[0].servers for s in servers))
            # Somebody's first election timeout is cut short
            await _elect(servers[0])
            await until(lambda: servers[0].ready_for_consistent_reads)
            await until(lambda: all(s.raft.leader for s in servers))
            await test(servers[0], servers[1:])

    asyncio.run(main())


async def _elect(server: Server) -> None:
    """As if leadership were transferred to it; again, where another's first election interfered."""
    while not server.is_leader:
        await server.raft.handle(TimeoutNowRequest())
        with contextlib.suppress(TimeoutError):
            await until(lambda: server.is_leader, 1.0)


def _put(key: str) -> kv.KVSRequest:
    entry = kv.DirEntry.of(key, b"v")
    return kv.KVSRequest(datacenter="dc1", op=kv.KV_SET, dir_ent=entry)


async def _writing(server: Server, stop: asyncio.Event) -> float:
    """Write until told to stop; the longest time one write took. None may be refused."""
    clock, longest, number, unknown = asyncio.get_running_loop().time, 0.0, 0, 0
    while not stop.is_set():
        started, number = clock(), number + 1
        try:
            await server.call("KVS.Apply", _put(f"w{number}"))
        except errors.OutcomeUnknownError:
            unknown += 1
            assert unknown <= 1, "more than what was under way when the connection ended"
        longest = max(longest, clock() - started)
    return longest


@pytest.mark.parametrize("how", ["leave", "aclose"])
def test_a_leader_that_ends_hands_over_first(tmp_path: Path, how: str) -> None:
    async def test(leader: Server, others: list[Server]) -> None:
        stop = asyncio.Event()
        writer = asyncio.create_task(_writing(others[0], stop))
        await asyncio.sleep(0.05)
        await getattr(leader, how)()
        await until(lambda: any(server.is_leader for server in others))
        stop.set()
        assert await writer < ELECTION_S
        if how == "leave":
            me = leader.config.identity.node_id
            new = next(server for server in others if server.is_leader)
            assert me not in {s.id for s in new.raft.configuration()[0].servers}

    _in_three(tmp_path, test)


def test_a_leader_hands_over_no_more_than_its_duties(tmp_path: Path) -> None:
    """What is asked of the old leader meanwhile is passed on to the new one."""

    async def test(leader: Server, others: list[Server]) -> None:
        lost: list[bool] = []
        duties = leader._leader
        assert duties is not None
        task = leader._leader_task
        assert task is not None
        was = leader._leadership_changed

        def changed(is_leader: bool) -> None:
            was(is_leader)
            lost.append(leader.ready_for_consistent_reads)

        leader.raft._engine._hooks.on_leadership = changed
        reads = kv.KeyRequest(datacenter="dc1", key="a", require_consistent=True)
        await leader.call("KVS.Apply", _put("a"))
        loop = asyncio.get_running_loop()
        await leader.raft.leadership_transfer(loop.time() + 10)
        assert lost == [False], "ready for consistent reads although leadership is gone"
        assert (await leader.call("KVS.Get", reads)).entries[0].key == "a"
        await leader.call("KVS.Apply", _put("b"))
        await asyncio.wait([task])
        leader.set_ready(duties, ready=True)
        assert not leader.ready_for_consistent_reads, "duties of a past term made it ready"
        await until(lambda: any(server.is_leader for server in others))

    _in_three(tmp_path, test)


def test_who_cannot_establish_leadership_gives_it_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "RETRY_S", 0.01)

    async def test(leader: Server, others: list[Server]) -> None:
        async def refuse(_self: LeaderDuties) -> None:
            if _self._server is others[0]:
                raise RaftError("no")

        monkeypatch.setattr(LeaderDuties, "_initialize", refuse)
        loop = asyncio.get_running_loop()
        await leader.raft.leadership_transfer(loop.time() + 10, others[0].config.identity.node_id)
        able = [leader, others[1]]
        await until(lambda: any(s.is_leader and s.ready_for_consistent_reads for s in able))
        assert not others[0].is_leader

    _in_three(tmp_path, test)


def test_without_others_nothing_is_handed_over(tmp_path: Path) -> None:
    async def main() -> None:
        config = server_config("s1", tmp_path, bootstrap=True)
        server = Server(replace(config, leave_drain_s=0.0), Metrics())
        async with asyncio.timeout(20), running(server):
            await until(lambda: server.ready_for_consistent_reads)
            await server.leave()
            assert server.is_leader

    asyncio.run(main())
