"""Raft's members follow gossip's, on a Raft that only records."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from server_support import server_config

from proconsul.core.gossip.serf import Member, MemberStatus
from proconsul.domain.operator import DEFAULT_AUTOPILOT
from proconsul.services.server import reconcile
from proconsul.services.server.membership import RaftMembership
from proconsul.services.server.tags import server_tags
from proconsul.wire.raft import Configuration, Server, Suffrage


def _member(name: str, status: MemberStatus = MemberStatus.ALIVE, **tags: str) -> Member:
    known = server_tags(server_config(name), wan=False)
    return Member(name, ("127.0.0.1", 8301), {**known, **tags}, status, 1, 5, 2, 2, 5, 4)


def _peer(member: Member, suffrage: Suffrage = Suffrage.VOTER) -> Server:
    port = member.tags["port"]
    return Server(suffrage, member.tags["id"], f"127.0.0.1:{port}")


class _Server:
    """What `RaftMembership` uses of a server; s1 is itself."""

    def __init__(self, members: list[Member], peers: list[Server]) -> None:
        config = server_config("s1")
        # Its address is what it was started with.
        advertised = ("127.0.0.1", int(members[0].tags["port"]))
        self.config = SimpleNamespace(identity=config.identity, rpc_advertise=advertised)
        self.autopilot_config = DEFAULT_AUTOPILOT
        self.done: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.lan = SimpleNamespace(members=lambda: members, force_leave=self._record("force_leave"))
        self.wan = None
        self.store = SimpleNamespace(autopilot=lambda: SimpleNamespace(value=self.autopilot_config))
        self.raft = SimpleNamespace(
            configuration=lambda: (Configuration(tuple(peers)), 1),
            remove_server=self._change("remove"),
            add_nonvoter=self._change("add"),
            add_voter=self._change("promote"),
        )

    def _record(self, what: str) -> Any:
        return lambda name, **_: self.done.append((what, name))

    def _change(self, what: str) -> Any:
        async def change(server_id: str, *_: Any) -> int:
            if self.error is not None:
                raise self.error
            self.done.append((what, server_id))
            return 1

        return change


def _meta(member: Member) -> Any:
    meta = reconcile.server_of(member)
    assert meta is not None
    return meta


def _rules(server: _Server) -> RaftMembership:
    return RaftMembership(server)  # type: ignore[arg-type]


def test_servers_join_once_and_move() -> None:
    one, two, three = _member("s1"), _member("s2"), _member("s3")
    moved = _member("s2", port="9999")
    server = _Server([one, two, three], [_peer(one), _peer(two)])

    async def run() -> None:
        rules = _rules(server)
        await rules.joined(_meta(one))
        await rules.joined(_meta(two))
        assert server.done == []
        await rules.joined(_meta(three))
        await rules.joined(_meta(moved))
        assert server.done == [("add", three.tags["id"]), ("add", two.tags["id"])]

    asyncio.run(run())


def test_two_in_bootstrap_mode_do_not_mix() -> None:
    one, two = _member("s1", bootstrap="1"), _member("s2", bootstrap="1")
    server = _Server([one, two], [_peer(one)])
    asyncio.run(_rules(server).joined(_meta(two)))
    assert server.done == []


def test_who_left_or_was_forgotten_is_removed_but_never_oneself() -> None:
    one, two = _member("s1"), _member("s2")
    server = _Server([one], [_peer(one), _peer(two)])

    async def run() -> None:
        rules = _rules(server)
        await rules.left(_meta(two))
        await rules.gone("stranger")
        await rules.gone(one.tags["id"])
        assert server.done == [("remove", two.tags["id"])]

    asyncio.run(run())


def test_who_comes_to_the_address_of_another_takes_its_place() -> None:
    one, two = _member("s1"), _member("s2")
    three = _member("s3", port=two.tags["port"])
    server = _Server([one, three], [_peer(one), _peer(two)])
    asyncio.run(_rules(server).joined(_meta(three)))
    assert server.done == [("remove", two.tags["id"]), ("add", three.tags["id"])]


def test_a_leader_that_moved_corrects_its_own_address() -> None:
    one = _member("s1")
    server = _Server([one], [Server(Suffrage.VOTER, one.tags["id"], "10.0.0.9:8300")])
    asyncio.run(_rules(server).joined(_meta(one)))
    assert server.done == [("add", one.tags["id"])]
