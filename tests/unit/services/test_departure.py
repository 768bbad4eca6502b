"""Leaving: leadership that comes to a server on its way out is passed on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from proconsul.services.server import departure
from proconsul.wire.raft import Configuration, Server, Suffrage


class _Raft:
    """Hands over when it leads; then the next leader removes it."""

    def __init__(self) -> None:
        self.is_leader = False
        self.transfers = 0
        self.members = ["a", "b", "c"]

    def configuration(self) -> tuple[Configuration, int]:
        servers = tuple(Server(Suffrage.VOTER, name, name) for name in self.members)
        return Configuration(servers), 1

    async def leadership_transfer(self, deadline: float) -> None:
        self.transfers += 1
        self.is_leader = False
        self.members.remove("a")


def test_leadership_that_comes_late_is_passed_on() -> None:
    raft = _Raft()

    class _Pool:
        async def leave(self) -> None:
            raft.is_leader = True  # another one that leaves has just handed over to us

    server = SimpleNamespace(
        raft=raft, wan=None, lan=_Pool(), is_leaving=False,
        config=SimpleNamespace(identity=SimpleNamespace(node_id="a"), leave_drain_s=0.0),
    )  # fmt: skip

    async def run() -> None:
        async with asyncio.timeout(5):
            await departure.leave(cast("Any", server))

    asyncio.run(run())
    assert raft.transfers == 1
    assert not raft.is_leader
