from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from server_support import client, identity, server_config, statuses

from proconsul.core.gossip.serf import SerfError, UserEvent
from proconsul.domain import catalog as c
from proconsul.domain.definitions import (
    CheckDefinition,
    CheckType,
    DefinitionError,
    ServiceDefinition,
)
from proconsul.domain.errors import RateExceededError
from proconsul.domain.options import DCSpecificRequest
from proconsul.services.agent import agent as agent_module
from proconsul.services.agent.agent import Agent
from proconsul.services.agent.client import Client
from proconsul.services.agent.config import AgentSettings
from proconsul.services.server import pools
from proconsul.services.server.server import Server
from proconsul.services.server.tags import NEW_LEADER_EVENT
from proconsul.testing.waiting import until
from proconsul.util.metrics import Metrics

TTL = 30_000_000_000
WEB = ServiceDefinition(c.NodeService(service="web", port=80), (CheckType(ttl_ns=TTL),))


@pytest.fixture(autouse=True)
def _quick_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "LEAVE_PROPAGATE_S", 0.2)


def _agent(name: str, data_dir: Path | None = None, *, server: bool = True) -> Agent:
    settings = AgentSettings(
        identity(name),
        is_server=server,
        address="127.0.0.1",
        data_dir=data_dir,
        grpc_port=8502,
        check_reap_s=0.05,
        coordinate_min_s=0.02,
        coordinate_rate=0.0,
        deregister_after_min_s=0.1,
    )

    def core(on_event: Callable[..., None]) -> Server | Client:
        if server:
            return Server(server_config(name), Metrics(), on_event)
        plain = client(name)
        return Client(plain.config, _no_tls(), Metrics(), on_event)

    async def reload() -> None:
        reloads.append(name)

    reloads: list[str] = []
    agent = Agent(settings, Metrics(), core, reload)
    agent.reloads = reloads  # type: ignore[attr-defined]
    return agent


def _no_tls() -> Any:
    from proconsul.drivers.tls_config import TlsConfig

    return TlsConfig()


@contextlib.asynccontextmanager
async def _running(
    *agents: Agent, services: tuple[ServiceDefinition, ...] = ()
) -> AsyncIterator[None]:
    try:
        for agent in agents:
            await agent.start(services, [])
        yield
    finally:
        for agent in agents:
            await agent.aclose()


def _run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(main())


def _server(agent: Agent) -> Server:
    assert isinstance(agent.core, Server)
    return agent.core


def test_registrations_reach_the_catalog_and_reports_follow(tmp_path: Path) -> None:
    async def test() -> None:
        agent = _agent("s1", tmp_path)
        async with _running(agent, services=(WEB,)):
            server = _server(agent)
            await until(lambda: statuses(server, "s1").get("service:web") == c.CRITICAL)
            await agent.update_ttl("service:web", c.PASSING, "fine", "")
            await until(lambda: statuses(server, "s1").get("service:web") == c.PASSING)
            await agent.service_maintenance("web", True, "because", "")
            await agent.node_maintenance(True, "", "")
            await until(lambda: c.NODE_MAINTENANCE in statuses(server, "s1"))
            await agent.add_check(CheckDefinition(name="disk", ttl_ns=TTL), persist=True, token="")
            await until(lambda: "disk" in statuses(server, "s1"))
            await agent.remove_check("disk", "")
            changed = asyncio.ensure_future(agent.service_changed("web", 5.0))
            await asyncio.sleep(0)
            await agent.remove_service("web", "")
            await changed
            await agent.service_changed("web", 0.01)
            await until(lambda: set(statuses(server, "s1")) == {"serfHealth", c.NODE_MAINTENANCE})
            assert await agent.services("") == {}
            assert set(await agent.checks("")) == {c.NODE_MAINTENANCE}
            assert await agent.service("web", "") is None

    _run(test)


def test_a_service_that_is_critical_too_long_goes(tmp_path: Path) -> None:
    async def test() -> None:
        agent = _agent("s1", tmp_path)
        dying = CheckType(ttl_ns=TTL, deregister_critical_service_after_ns=1)
        async with _running(agent):
            definition = ServiceDefinition(c.NodeService(service="web"), (dying,))
            await agent.add_service(
                definition, persist=True, replace_existing_checks=False, token=""
            )
            await until(lambda: not agent.local.services())

    _run(test)


def test_views_for_http_and_info() -> None:
    async def test() -> None:
        agent = _agent("s1")
        async with _running(agent):
            await until(lambda: _server(agent).ready_for_consistent_reads)
            info = await agent.self_info("")
            assert info["Config"]["NodeName"] == "s1"
            assert info["Member"].name == "s1"
            assert info["xDS"]["SupportedProxies"]["envoy"]
            stats = agent.stats()
            assert stats["agent"]["check_ttls"] == "0"
            assert stats["raft"]["state"] == "Leader"
            assert [m.name for m in await agent.members(False, "", "")] == ["s1"]
            assert list(await agent.members(True, "", "")) == []
            with pytest.raises(SerfError, match="Must be a server to join WAN"):
                await agent.join("127.0.0.1:1", True, "")
            with pytest.raises(DefinitionError, match="No node found with name 'x'"):
                await agent.force_leave("x", False, "")
            await agent.reload("")
            assert agent.reloads == ["s1"]  # type: ignore[attr-defined]

    _run(test)


def test_the_first_comparison_waits_for_the_first_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not for ever."""

    async def test() -> None:
        agent = _agent("c1", server=False)
        async with contextlib.aclosing(agent):
            begun: list[float] = []

            async def compare() -> None:
                begun.append(asyncio.get_running_loop().time())

            monkeypatch.setattr(agent.anti_entropy, "run", compare)
            loop = asyncio.get_running_loop()
            for patience_s, result_after_s in ((30.0, 0.05), (0.05, 30.0)):
                monkeypatch.setattr(agent_module, "FIRST_PROBES_S", patience_s)
                at = loop.time() + result_after_s
                monkeypatch.setattr(
                    agent.registrations, "first_results", lambda at=at: loop.time() >= at
                )
                started = loop.time()
                await agent._synchronise()
                assert 0.04 <= begun[-1] - started < 10

    _run(test)


def test_what_a_reload_changes_reaches_catalog_and_limits() -> None:
    async def test() -> None:
        first, second = _agent("s1"), _agent("c1", server=False)
        async with _running(first, second):
            server, plain = _server(first), second.core
            assert isinstance(plain, Client)
            host, port = server.lan.local().address
            await second.join(f"{host}:{port}", False, "")
            await until(lambda: server.store.catalog.node("c1").value)
            second.reconfigure(
                replace(second.settings, node_meta={"rack": "2"}, discard_check_output=True)
            )
            second.anti_entropy.trigger_full()
            await until(lambda: _meta(server, "c1") == {"rack": "2"})
            assert (await second.self_info(""))["Meta"] == {"rack": "2"}
            assert second.local.discard_output
            plain.limit.change(0.0, 0)
            request = DCSpecificRequest(datacenter="dc1")
            with pytest.raises(RateExceededError):
                await plain.call("Status.Leader", request)
            plain.limit.change(-1.0, 1)
            first.limit.change(0.0, 0)
            with pytest.raises(RateExceededError):
                await first.rpc("Status.Leader", request)
            with pytest.raises(RateExceededError):
                first.try_rpc(
                    "Catalog.ListNodes", DCSpecificRequest(datacenter="dc1", allow_stale=True)
                )
            first.limit.change(-1.0, 1)
            assert await plain.call("Status.Leader", request)

    _run(test)


def _meta(server: Server, node: str) -> object:
    row = server.store.catalog.node(node).value
    return row.meta if row is not None else None


def test_clients_register_through_servers_and_send_their_coordinates() -> None:
    async def test() -> None:
        first, second = _agent("s1"), _agent("c1", server=False)
        async with _running(first, second, services=(WEB,)):
            server = _server(first)
            host, port = first.core.lan.local().address
            await second.join(f"{host}:{port}", False, "")
            await until(lambda: statuses(server, "c1").get("service:web") == c.CRITICAL)
            await until(lambda: server.store.coordinates.of_node("c1").value)
            assert second.try_rpc("Status.Ping", None) is None
            with pytest.raises(DefinitionError, match="known to servers alone"):
                await second.federation_status("")
            report = await first.federation_status("")
            assert report
            await second.depart()
            await second.stopped.wait()
            await until(lambda: server.store.catalog.node("c1").value is None)

    _run(test)


def test_a_leave_is_answered_when_it_is_done_and_asked_for_once() -> None:
    async def test() -> None:
        agent = _agent("c1", server=False)
        calls = []
        async with _running(agent):
            done = asyncio.Event()

            async def slow() -> None:
                calls.append(1)
                await done.wait()

            agent.core.leave = slow  # type: ignore[method-assign]
            asked = [asyncio.ensure_future(agent.leave("")) for _ in range(2)]
            await until(lambda: calls)
            assert not any(one.done() for one in asked)
            assert not agent.stopped.is_set()
            done.set()
            await asyncio.gather(*asked)
            await agent.stopped.wait()
        assert calls == [1]

    _run(test)


def test_a_leave_that_fails_still_ends_the_agent() -> None:
    async def test() -> None:
        agent = _agent("c1", server=False)
        async with _running(agent):

            async def broken() -> None:
                raise SerfError("broken")

            agent.core.leave = broken  # type: ignore[method-assign]
            await agent.leave("")
            await agent.stopped.wait()

    _run(test)


def test_a_new_leaders_event_makes_an_agent_compare_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Soon, though not at once: all agents hear it at the same time."""
    monkeypatch.setattr(agent_module, "NEW_LEADER_S_MAX", 0.05)

    async def test() -> None:
        agent = _agent("c1", server=False)
        compared: list[str] = []
        agent.anti_entropy.trigger_full = lambda: compared.append("all")  # type: ignore[method-assign]

        def hear(name: str, *, wan: bool = False) -> None:
            agent._member_event(wan, UserEvent(1, name, b"s1", False))

        hear("other")
        hear(NEW_LEADER_EVENT, wan=True)
        hear(NEW_LEADER_EVENT)
        assert compared == []
        await until(lambda: compared)
        hear(NEW_LEADER_EVENT)
        await until(lambda: len(compared) > 1)
        assert compared == ["all"] * 2  # neither of the first two
        await agent.aclose()

    asyncio.run(test())


def test_what_the_catalog_has_otherwise_is_mended_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_module, "NEW_LEADER_S_MAX", 0.05)

    async def test() -> None:
        agent = _agent("s1")
        async with _running(agent, services=(WEB,)):
            core = agent.core
            assert isinstance(core, Server)
            await until(lambda: "web" in _services(core))
            stray = c.RegisterRequest(
                datacenter="dc1",
                node="s1",
                address="127.0.0.1",
                service=c.NodeService(id="stray", service="stray", port=1),
            )
            await core.call("Catalog.Register", stray)
            gone = c.DeregisterRequest(datacenter="dc1", node="s1", service_id="web")
            await core.call("Catalog.Deregister", gone)
            await core.lan.user_event(NEW_LEADER_EVENT, b"s1")
            await until(lambda: {"web", "stray"} & _services(core) == {"web"})

    asyncio.run(test())


def _services(server: Server) -> set[str]:
    found = server.store.catalog.node_services("s1").value
    return {one.service for one in (found.services or {}).values()} if found else set()
