from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from server_support import client, running, server_config, statuses

from proconsul.domain import catalog as c
from proconsul.domain import errors, kv
from proconsul.domain import options as o
from proconsul.drivers.gossip.pool import JoinError
from proconsul.services.server import answers, pools
from proconsul.services.server import leader as leader_module
from proconsul.services.server import server as server_module
from proconsul.services.server.server import Server
from proconsul.testing.waiting import until
from proconsul.util.errors import ConfigError, ProconsulError
from proconsul.util.metrics import Metrics


@pytest.fixture(autouse=True)
def _quick_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "LEAVE_PROPAGATE_S", 0.2)


def _run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(main())


def _put(key: str, value: bytes = b"v") -> kv.KVSRequest:
    entry = kv.DirEntry.of(key, value)
    return kv.KVSRequest(datacenter="dc1", op=kv.KV_SET, dir_ent=entry)


def _get(key: str, **options: object) -> kv.KeyRequest:
    return kv.KeyRequest(datacenter="dc1", key=key, **options)  # type: ignore[arg-type]


def _leader(servers: list[Server]) -> Server | None:
    return next((s for s in servers if s.is_leader and s.ready_for_consistent_reads), None)


def test_a_server_alone_leads_registers_itself_and_answers() -> None:
    async def test() -> None:
        server = Server(server_config("s1", connect_enabled=True), Metrics())
        async with running(server):
            await until(lambda: statuses(server, "s1").get("serfHealth") == c.PASSING)
            services = server.store.catalog.node_services("s1").value
            assert services is not None
            assert services.services is not None
            assert services.services["consul"].port == server.config.rpc_bind[1]
            await server.call("KVS.Apply", _put("a"))
            answer = await server.call("KVS.Get", _get("a", require_consistent=True))
            assert answer.entries[0].key == "a"
            assert answer.known_leader
            assert answer.last_contact_ns == 0
            now = server.try_call("KVS.Get", _get("a"))
            assert now is not None
            assert now.entries == answer.entries
            assert server.try_call("KVS.Get", _get("a", min_query_index=1)) is None
            assert server.store.connect.active_root().value is not None
            assert await server.call("Catalog.ListDatacenters", o.DatacentersRequest()) == ["dc1"]
            with pytest.raises(errors.NoPathToDatacenterError):
                await server.call("KVS.Get", kv.KeyRequest(datacenter="dc9", key="a"))
            assert server.stats()["consul"]["leader"] == "true"

    _run(test)


def test_a_command_too_large_for_the_log_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "COMMAND_BYTES_MAX", 1000)

    async def test() -> None:
        server = Server(server_config("s1"), Metrics())
        async with running(server):
            await until(lambda: server.ready_for_consistent_reads)
            with pytest.raises(errors.DomainError, match=r"request of \d+ bytes is too large"):
                await server.call("KVS.Apply", _put("a", b"x" * 1000))
            await server.call("KVS.Apply", _put("a"))

    _run(test)


def test_a_port_in_use_names_the_setting() -> None:
    async def test() -> None:
        config = server_config("s1")
        server = Server(config, Metrics())
        async with running(server):
            other = Server(
                dataclasses.replace(config, identity=server_config("s2").identity), Metrics()
            )
            with pytest.raises(ConfigError, match=r"ports\.server: cannot listen on"):
                await other.start()
            await other.aclose()  # what never started can be closed

    _run(test)


def test_metrics_of_raft_rpc_and_gossip_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MEASURE_S", 0.05)

    async def test() -> None:
        metrics = Metrics()
        server = Server(server_config("s1"), metrics)
        peer = client("c1")
        async with running(server, peer):
            await until(lambda: statuses(server, "c1").get("serfHealth") == c.PASSING)
            await peer.call("KVS.Apply", _put("a"))
            await asyncio.sleep(0.1)
            index = (await server.call("KVS.Get", _get("a"))).index
            waiting = asyncio.ensure_future(
                server.call("KVS.Get", _get("a", min_query_index=index))
            )
            await until(lambda: _gauge(metrics, "consul.rpc.queries_blocking") == 1)
            await server.call("KVS.Apply", _put("a", b"2"))
            await waiting
            assert _gauge(metrics, "consul.rpc.queries_blocking") == 0
            summary = metrics.summary()
            counters = {entry["Name"] for entry in summary["Counters"]}
            assert {
                "consul.raft.apply",
                "consul.raft.barrier",
                "consul.raft.state.leader",
                "consul.memberlist.udp.sent",
                "consul.memberlist.udp.received",
                "consul.memberlist.tcp.accept",
                "consul.serf.member.join",
                "consul.serf.events",
                "consul.rpc.request",
            } <= counters
            samples = {entry["Name"] for entry in summary["Samples"]}
            assert {
                "consul.raft.commitTime",
                "consul.raft.fsm.applyBatch",
                "consul.serf.queue.Event",
                "consul.leader.barrier",
                "consul.leader.reconcile",
                "consul.leader.reconcileMember",
                "consul.kvs.apply",
                "consul.fsm.kvs",
                "consul.fsm.register",
            } <= samples
            gauges = {
                (entry["Name"], entry["Labels"].get("status", "")): entry["Value"]
                for entry in summary["Gauges"]
            }
            assert gauges["consul.serf.members", "alive"] == 2
            assert gauges["consul.raft.applied_index", ""] > 0

    _run(test)


def _gauge(metrics: Metrics, name: str) -> float | None:
    gauges = metrics.summary()["Gauges"]
    return next((entry["Value"] for entry in gauges if entry["Name"] == name), None)


def test_clients_come_fail_and_leave() -> None:
    async def test() -> None:
        server, stays, fails = Server(server_config("s1"), Metrics()), client("c1"), client("c2")
        async with running(server, stays, fails):
            for name in ("c1", "c2"):
                await until(lambda n=name: statuses(server, n).get("serfHealth") == c.PASSING)
            await stays.call("KVS.Apply", _put("a"))
            answer = await stays.call("KVS.Get", _get("a"))
            assert answer.entries[0].key == "a"
            waiting = asyncio.ensure_future(
                stays.call("KVS.Get", _get("a", min_query_index=answer.index))
            )
            await asyncio.sleep(0.05)
            await stays.call("KVS.Apply", _put("a", b"2"))
            assert (await waiting).index > answer.index
            assert stays.stats()["consul"]["known_servers"] == "1"

            await fails.lan.shutdown()
            await until(lambda: statuses(server, "c2").get("serfHealth") == c.CRITICAL)
            server.lan.force_leave("c2")
            await until(lambda: server.store.catalog.node("c2").value is None)
            await stays.leave()
            await until(lambda: server.store.catalog.node("c1").value is None)

    _run(test)


def test_strangers_in_the_catalog_stay_and_reaped_members_go() -> None:
    async def test() -> None:
        server = Server(server_config("s1"), Metrics())
        async with running(server):
            await until(lambda: server.ready_for_consistent_reads)
            for name, check in (("external", "ping"), ("reaped", "serfHealth")):
                request = c.RegisterRequest(
                    datacenter="dc1",
                    node=name,
                    address="192.0.2.9",
                    check=c.HealthCheck(name=check, check_id=check, status=c.PASSING),
                )
                await server.call("Catalog.Register", request)
            await until(lambda: server.store.catalog.node("reaped").value is None)
            assert server.store.catalog.node("external").value is not None

    _run(test)


def test_the_leaders_loops_survive_refused_writes_and_bugs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leader_module, "TOMBSTONE_GRANULARITY_S", 0.02)
    monkeypatch.setattr(leader_module, "TOMBSTONE_TTL_S", 0.05)
    monkeypatch.setattr(leader_module, "RETRY_S", 0.01)
    monkeypatch.setattr(server_module, "LEAD_AGAIN_S", 0.01)

    async def test() -> None:
        server = Server(server_config("s1"), Metrics())
        apply, refusals = server.apply, [3, 3]

        async def refusing(type_: object, request: object, **options: object) -> object:
            name = type(request).__name__
            if name == "TombstoneRequest" and refusals[0]:
                refusals[0] -= 1
                raise ProconsulError("not now")
            if name == "AutopilotSetConfigRequest" and refusals[1]:
                refusals[1] -= 1
                raise RuntimeError("bug") if refusals[1] == 2 else ProconsulError("refused")
            return await apply(type_, request, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(server, "apply", refusing)
        async with running(server):
            await until(lambda: server.ready_for_consistent_reads)
            await server.call("KVS.Apply", _put("a"))
            delete = kv.KVSRequest(datacenter="dc1", op=kv.KV_DELETE, dir_ent=kv.DirEntry(key="a"))
            await server.call("KVS.Apply", delete)
            assert server.store.tables.tombstones
            await until(lambda: not server.store.tables.tombstones)
            assert refusals == [0, 0]

    _run(test)
    assert "failed to reap tombstones" in caplog.text
    assert "RuntimeError: bug" in caplog.text


def test_three_servers_elect_forward_and_lose_their_leader(tmp_path: Path) -> None:
    async def test() -> None:
        names = ("s1", "s2", "s3")
        servers = [
            Server(server_config(n, tmp_path / n, bootstrap_expect=3), Metrics()) for n in names
        ]
        async with running(*servers):
            await until(lambda: _leader(servers))
            leader = _leader(servers)
            assert leader is not None
            follower = next(s for s in servers if s is not leader)
            await follower.call("KVS.Apply", _put("a"))
            answer = await follower.call("KVS.Get", _get("a"))
            assert answer.entries is not None
            stale = follower.try_call("KVS.Get", _get("a", allow_stale=True))
            assert stale is not None
            shown = leader.metrics.prometheus()
            for other in servers:
                name = f"rpc_{other.config.identity.node_id}_count".replace("-", "_")
                assert (f"appendEntries_{name}" in shown) is (other is not leader)
            assert stale.known_leader
            with pytest.raises(ProconsulError, match="Must provide key"):
                await follower.call("KVS.Apply", _put(""))
            assert await follower.call("Status.Leader", o.DCSpecificRequest()) == (
                leader.views.leader_address()
            )
            peers = follower.views.peers().servers or ()
            assert {p.node for p in peers} == set(names)
            assert [p.node for p in peers if p.leader] == [leader.config.identity.node_name]
            for server in servers:
                name = server.config.identity.node_name
                await until(lambda n=name: statuses(leader, n).get("serfHealth") == c.PASSING)

            lost = leader.config.identity.node_name
            await leader.aclose()
            rest = [s for s in servers if s is not leader]
            write = asyncio.ensure_future(rest[0].call("KVS.Apply", _put("b")))
            await until(lambda: _leader(rest))
            await write  # was held until there was a leader again
            new = _leader(rest)
            assert new is not None
            await until(lambda: statuses(new, lost).get("serfHealth") == c.CRITICAL)

    _run(test)


def test_a_server_that_leaves_is_taken_out_of_raft(tmp_path: Path) -> None:
    async def test() -> None:
        names = ("s1", "s2", "s3")
        servers = [
            Server(server_config(n, tmp_path / n, bootstrap_expect=3), Metrics()) for n in names
        ]
        async with running(*servers):
            await until(lambda: _leader(servers))
            leader = _leader(servers)
            assert leader is not None
            gone = next(s for s in servers if s is not leader)
            await until(lambda: len(leader.views.peers().servers or ()) == 3)
            await gone.leave()
            await until(lambda: len(leader.views.peers().servers or ()) == 2)
            name = gone.config.identity.node_name
            await until(lambda: leader.store.catalog.node(name).value is None)

    _run(test)


def test_a_client_without_servers_says_so() -> None:
    async def test() -> None:
        alone = client("c1", rpc_hold_s=0.05)
        async with running(alone):
            with pytest.raises(errors.NoServersError):
                await alone.call("KVS.Get", _get("a"))
            with pytest.raises(JoinError):
                await alone.lan.join(["127.0.0.1:1"])
            limited = client("c2", rpc_rate=0.001, rpc_burst=1, rpc_hold_s=0.01)
            with pytest.raises(errors.NoServersError):
                await limited.call("KVS.Get", _get("a"))
            with pytest.raises(errors.RateExceededError):
                await limited.call("KVS.Get", _get("a"))
            await limited.aclose()

    _run(test)
