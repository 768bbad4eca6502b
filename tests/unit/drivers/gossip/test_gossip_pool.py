"""Pools on a network in memory: membership, refusals, limits, conflicts, rejoin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proconsul.core.gossip.memberlist import MemberlistConfig
from proconsul.core.gossip.serf import (
    MemberEvent,
    MemberEventKind,
    MemberStatus,
    QueryEvent,
    QueryParams,
    SerfConfig,
    SerfError,
    ShutdownRequired,
    UserEvent,
)
from proconsul.drivers.gossip.memory import MemoryNetwork, MemoryTransport
from proconsul.drivers.gossip.pool import GossipPool, JoinError, PoolEvent


async def eventually(condition: Callable[[], object], what: str) -> None:
    """`what` is for the reader of a failure's traceback."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await asyncio.sleep(0.01)


class World:
    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.pools: list[GossipPool] = []
        self.events: dict[GossipPool, list[PoolEvent]] = {}

    async def pool(
        self,
        name: str,
        host: str = "10.0.0.1",
        port: int = 0,
        snapshot: Path | None = None,
        **settings: Any,
    ) -> GossipPool:
        memberlist = MemberlistConfig(
            name=name,
            advertise=(host, 0),
            probe_interval_s=0.05,
            probe_timeout_s=0.02,
            gossip_interval_s=0.01,
            suspicion_mult=2,
        )
        config = SerfConfig(
            node_name=name, memberlist=memberlist, leave_propagate_delay_s=0.05, **settings
        )
        events: list[PoolEvent] = []

        def on_event(event: PoolEvent) -> None:
            events.append(event)
            if isinstance(event, QueryEvent):
                pool.respond(event, name.encode())

        pool = GossipPool(
            config,
            MemoryTransport(self.network, host, port),
            on_event=on_event,
            snapshot_path=snapshot,
        )
        await pool.start()
        self.pools.append(pool)
        self.events[pool] = events
        return pool

    async def close(self) -> None:
        for pool in self.pools:
            await pool.shutdown()


def run(scenario: Callable[[World], Any]) -> None:
    async def main() -> None:
        world = World()
        try:
            async with asyncio.timeout(30):
                await scenario(world)
        finally:
            await world.close()

    uvloop.run(main())


def place(pool: GossipPool) -> str:
    host, port = pool.local().address
    return f"{host}:{port}"


def status(pool: GossipPool, name: str) -> MemberStatus | None:
    member = pool.member(name)
    return member.status if member else None


def test_three_join_one_leaves_one_dies_and_is_pruned():
    async def scenario(world: World) -> None:
        a, b, c = [await world.pool(name) for name in "abc"]
        assert await b.join([f"a/{place(a)}"]) == 1
        assert await c.join([place(a), place(b)]) == 2
        for pool in (a, b, c):
            await eventually(lambda p=pool: len(p.members()) == 3, "all see all")
        await b.leave()
        assert b.left
        await b.shutdown()
        await eventually(lambda: status(a, "b") is MemberStatus.LEFT, "b left")
        await c.shutdown()
        await eventually(lambda: status(a, "c") is MemberStatus.FAILED, "c failed")
        assert a.stats()["failed"] == "1"
        with pytest.raises(SerfError, match="nobody"):
            a.force_leave("nobody")
        a.force_leave("c", prune=True)
        assert status(a, "c") is None
        kinds = [e.kind for e in world.events[a] if isinstance(e, MemberEvent)]
        assert kinds == [
            *[MemberEventKind.JOIN] * 3,
            MemberEventKind.LEAVE,
            MemberEventKind.FAILED,
            MemberEventKind.LEAVE,
            MemberEventKind.REAP,
        ]

    run(scenario)


def test_events_are_delivered_once_and_old_ones_can_be_ignored():
    async def scenario(world: World) -> None:
        a, b = await world.pool("a"), await world.pool("b")
        await a.user_event("before", b"1")
        await b.join([place(a)], ignore_old=True)
        c = await world.pool("c")
        await c.join([place(a)])
        await a.user_event("after", b"2")

        def heard(pool: GossipPool) -> list[str]:
            return [e.name for e in world.events[pool] if isinstance(e, UserEvent)]

        await eventually(lambda: "after" in heard(b) and "after" in heard(c), "events")
        await asyncio.sleep(0.1)
        assert heard(b) == ["after"]
        assert heard(c) == ["before", "after"]
        with pytest.raises(SerfError, match="512 bytes before encoding"):
            await a.user_event("x", bytes(512))
        with pytest.raises(SerfError, match="512 bytes after encoding"):
            await a.user_event("x", bytes(500))

    run(scenario)


def test_queries_filter_relay_and_refuse_what_is_too_large():
    async def scenario(world: World) -> None:
        a = await world.pool("a", tags={"role": "x"})
        others = [await world.pool(name, tags={"role": "db-1"}) for name in "bcd"]
        for pool in others:
            await pool.join([place(a)])
        await eventually(lambda: len(a.members()) == 4, "all see all")
        everyone = QueryParams(request_ack=True, relay_factor=2, timeout_s=0.5)
        result = await a.query("q", b"", everyone)
        assert sorted(result.acks) == ["a", "b", "c", "d"]
        assert result.responses == {name: name.encode() for name in "abcd"}
        tagged = QueryParams(filter_tags={"role": "^db-[0-9]"}, timeout_s=0.3)
        assert sorted((await a.query("q", b"", tagged)).responses) == ["b", "c", "d"]
        runaway = QueryParams(filter_tags={"role": "^(d|d)*(b|b)*$"}, timeout_s=0.1)
        assert (await a.query("q", b"", runaway)).responses == {}
        with pytest.raises(SerfError, match="query exceeds limit of 1024"):
            await a.query("q", bytes(2000))

    run(scenario)


def test_merge_refusal_names_the_reason():
    async def scenario(world: World) -> None:
        def only_dc1(members: Any) -> str | None:
            wrong = [m.name for m in members if m.tags.get("dc") != "dc1"]
            return f"Member '{wrong[0]}' part of wrong datacenter" if wrong else None

        a = await world.pool("a", tags={"dc": "dc1"}, merge=only_dc1)
        b = await world.pool("b", tags={"dc": "dc2"})
        await b.join([place(a)])  # whoever is asked answers before he refuses, as memberlist does
        with pytest.raises(JoinError, match="wrong datacenter"):
            await a.join([place(b)])
        assert len(a.members()) == 1

    run(scenario)


def test_the_minority_of_a_name_conflict_is_told_to_go():
    async def scenario(world: World) -> None:
        a, b = await world.pool("a"), await world.pool("b")
        twin = await world.pool("twin", name_conflict_resolution=True, query_timeout_mult=20)
        await a.join([place(b), place(twin)])
        await eventually(lambda: status(b, "twin") is MemberStatus.ALIVE, "all know the first")
        second = await world.pool("twin", name_conflict_resolution=True, query_timeout_mult=20)
        with_second = world.events[second]
        await second.join([place(a)])
        await eventually(
            lambda: any(isinstance(e, ShutdownRequired) for e in with_second), "second has to go"
        )
        await second.shutdown()
        assert not any(isinstance(e, ShutdownRequired) for e in world.events[twin])

    run(scenario)


def test_rejoin_by_snapshot_but_not_after_a_leave(tmp_path: Path):
    async def scenario(world: World) -> None:
        snapshot = tmp_path / "s"
        a = await world.pool("a")
        b = await world.pool("b", snapshot=snapshot)
        await b.join([place(a)])
        await a.user_event("once", b"")
        await eventually(lambda: UserEvent in map(type, world.events[b]), "event")
        port = b.local().address[1]
        await b.shutdown()
        assert f"alive: a {place(a)}" in snapshot.read_text().splitlines()
        again = await world.pool("b", snapshot=snapshot, port=port)
        await eventually(lambda: status(again, "a") is MemberStatus.ALIVE, "rejoined")
        await asyncio.sleep(0.1)
        assert UserEvent not in map(type, world.events[again])
        await again.leave()
        await again.shutdown()
        third = await world.pool("b", snapshot=snapshot, port=port)
        await asyncio.sleep(0.1)
        assert [m.name for m in third.members()] == ["b"]

    run(scenario)


def test_failed_members_are_reconnected_and_reaped():
    async def scenario(world: World) -> None:
        a = await world.pool(
            "a", reconnect_interval_s=0.1, reap_interval_s=0.1,
            reconnect_timeout_override=lambda m, t: 0.0 if m.name == "c" else t,
        )  # fmt: skip
        b, c = await world.pool("b"), await world.pool("c")
        await a.join([place(b), place(c)])
        await eventually(lambda: len(b.members()) == 3, "all see all")
        world.network.cut |= {b.local().address, c.local().address}
        await eventually(lambda: status(a, "b") is MemberStatus.FAILED, "b failed")
        await eventually(lambda: status(a, "c") is None, "c was reaped")
        world.network.cut.clear()
        await eventually(lambda: status(a, "b") is MemberStatus.ALIVE, "b is back")

    run(scenario)


def test_requests_on_a_pool_that_is_not_running_are_refused():
    async def scenario(world: World) -> None:
        a = await world.pool("a")
        with pytest.raises(SerfError, match="tags exceeds limit of 512"):
            a.set_tags({"k": "v" * 600})
        waiting = asyncio.ensure_future(a.query("q", b"", QueryParams(timeout_s=20)))
        await asyncio.sleep(0)
        await a.shutdown()
        await a.shutdown()
        assert (await waiting).responses == {"a": b"a"}
        with pytest.raises(SerfError, match="not running"):
            a.members()
        with pytest.raises(JoinError):
            await (await world.pool("b")).join(["10.0.0.9:1"])

    run(scenario)
