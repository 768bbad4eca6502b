from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from services_support import NODE, FakeClock

from proconsul.domain import catalog as c
from proconsul.domain.definitions import (
    CheckDefinition,
    CheckType,
    DefinitionError,
    ServiceDefinition,
    UnknownIdError,
)
from proconsul.drivers.scope import TaskScope
from proconsul.services.agent.checks import CheckRunner
from proconsul.services.agent.config import AgentSettings
from proconsul.services.agent.local import LocalState
from proconsul.services.agent.registrations import Registrations
from proconsul.services.server.config import Identity

TTL = 30_000_000_000
SHOP = ServiceDefinition(
    c.NodeService(service="shop", address="10.1.1.1", port=80),
    (CheckType(ttl_ns=TTL), CheckType(ttl_ns=TTL, name="other")),
    "token",
)


class _Agent:
    def __init__(self, data_dir: Path | None, clock: FakeClock | None = None) -> None:
        identity = Identity(NODE.node, NODE.id, "dc1", "dc1")
        settings = AgentSettings(identity, is_server=False, address="10.0.0.1", data_dir=data_dir)
        self.clock = clock or FakeClock()
        self.state = LocalState(NODE.node, 0.0)
        self.scope = TaskScope("test")
        self.runner = CheckRunner(
            lambda i, s, o: self.state.update_check(i, s, o, self.clock.at),
            self.scope,
            random.Random(0),
        )
        self.registrations = Registrations(settings, self.state, self.runner, self.clock)


def _with_agents(
    path: Path | None, *acts: Callable[[_Agent], None], clock: FakeClock | None = None
) -> None:
    """Each act on an agent of its own, one after the other on the same data directory."""

    async def run() -> None:
        for act in acts:
            agent = _Agent(path, clock)
            act(agent)
            for check_id in list(agent.state.check_entries()):
                agent.runner.stop(check_id)
            await agent.scope.aclose()

    asyncio.run(run())


def test_defaults_of_services_and_their_checks() -> None:
    def act(agent: _Agent) -> None:
        agent.registrations.add_service(SHOP, persist=True)  # without a directory: kept nowhere
        service = agent.state.service("shop")
        own = c.ServiceAddress("10.1.1.1", 80)
        assert service is not None
        assert (service.id, service.weights) == ("shop", c.Weights(1, 1))
        assert service.tagged_addresses == {"lan_ipv4": own, "wan_ipv4": own}
        assert set(agent.state.checks()) == {"service:shop:1", "service:shop:2"}
        names = [check.name for check in agent.state.checks().values()]
        assert names == ["Service 'shop' check", "other"]

    _with_agents(None, act)


def test_services_and_checks_survive_a_restart(tmp_path: Path) -> None:
    node_check = CheckDefinition(check_id="disk", name="disk", ttl_ns=TTL)

    def register(agent: _Agent) -> None:
        agent.registrations.add_service(SHOP, persist=True)
        agent.registrations.add_check(node_check, persist=True)

    def remove(agent: _Agent) -> None:
        agent.registrations.load([], [])
        assert agent.state.service_token("shop") == "token"
        assert set(agent.state.checks()) == {"service:shop:1", "service:shop:2", "disk"}
        agent.registrations.remove_service("shop")
        agent.registrations.remove_check("disk")

    def look(agent: _Agent) -> None:
        agent.registrations.load([], [])
        assert not agent.state.services()
        assert not agent.state.checks()

    _with_agents(tmp_path, register, remove, look)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == []


def test_ttl_state_survives_a_restart_until_it_expires(tmp_path: Path) -> None:
    clock = FakeClock()

    def register(agent: _Agent) -> None:
        agent.registrations.add_service(SHOP, persist=True)
        agent.registrations.heartbeat("service:shop:1", c.PASSING, "fine")

    def status(wanted: str, output: str) -> Callable[[_Agent], None]:
        def act(agent: _Agent) -> None:
            agent.registrations.load([], [])
            check = agent.state.check("service:shop:1")
            assert check is not None
            assert (check.status, check.output) == (wanted, output)
            clock.unix += 29.0

        return act

    _with_agents(
        tmp_path, register, status(c.PASSING, "fine"), status(c.PASSING, "fine"), clock=clock
    )
    _with_agents(tmp_path, status(c.CRITICAL, ""), clock=clock)
    secrets = [p.stat().st_mode & 0o077 for p in tmp_path.rglob("*") if p.is_file()]
    assert secrets
    assert not any(secrets)


def test_damaged_files_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def register(agent: _Agent) -> None:
        agent.registrations.add_service(SHOP, persist=True)
        agent.registrations.heartbeat("service:shop:1", c.PASSING, "fine")
        for directory in ("services", "checks", "checks/state"):
            (tmp_path / directory).mkdir(exist_ok=True)
            (tmp_path / directory / "damaged").write_bytes(b"{")
        for path in (tmp_path / "checks" / "state").iterdir():
            path.write_bytes(b"\xff")
        (tmp_path / "services" / "half.tmp").write_bytes(b"{")

    def look(agent: _Agent) -> None:
        agent.registrations.load([], [])
        assert set(agent.state.services()) == {"shop"}
        check = agent.state.check("service:shop:1")
        assert check is not None
        assert check.status == c.CRITICAL

    _with_agents(tmp_path, register, look)
    assert caplog.text.count("delete the file") == 2
    assert "cannot restore a check's state" in caplog.text


def test_maintenance_survives_a_restart(tmp_path: Path) -> None:
    def enable(agent: _Agent) -> None:
        agent.registrations.add_service(SHOP, persist=True)
        agent.registrations.service_maintenance("shop", enable=True, reason="")
        agent.registrations.service_maintenance("shop", enable=True, reason="again")
        agent.registrations.node_maintenance(enable=True, reason="disk")
        with pytest.raises(UnknownIdError):
            agent.registrations.service_maintenance("x", enable=True, reason="")

    def disable(agent: _Agent) -> None:
        agent.registrations.load([], [])
        check = agent.state.check("_service_maintenance:shop")
        assert check is not None
        assert check.status == c.CRITICAL
        assert check.service_name == "shop"
        assert "no reason was provided" in check.notes
        node = agent.state.check(c.NODE_MAINTENANCE)
        assert node is not None
        assert node.notes == "disk"
        agent.registrations.service_maintenance("shop", enable=False, reason="")
        agent.registrations.node_maintenance(enable=False, reason="")

    def look(agent: _Agent) -> None:
        agent.registrations.load([], [])
        assert set(agent.state.checks()) == {"service:shop:1", "service:shop:2"}

    _with_agents(tmp_path, enable, disable, look)


def test_registering_again_keeps_the_status_and_can_replace_checks() -> None:
    def act(agent: _Agent) -> None:
        reg = agent.registrations
        reg.add_service(SHOP, persist=False)
        reg.heartbeat("service:shop:1", c.PASSING, "fine")
        reg.add_service(SHOP, persist=False)
        check = agent.state.check("service:shop:1")
        assert check is not None
        assert check.status == c.PASSING
        single = ServiceDefinition(SHOP.service, (CheckType(ttl_ns=TTL),))
        reg.add_service(single, persist=False)
        assert len(agent.state.checks()) == 3
        reg.add_service(single, persist=False, replace_existing_checks=True)
        assert set(agent.state.checks()) == {"service:shop"}
        assert agent.runner.stats()["check_ttls"] == "1"

    _with_agents(None, act)


def test_what_is_not_allowed_or_unknown_is_refused() -> None:
    def act(agent: _Agent) -> None:
        reg = agent.registrations
        script = CheckDefinition(name="s", script_args=["true"], interval_ns=TTL)
        with pytest.raises(DefinitionError, match="disabled on this agent from remote calls"):
            reg.add_check(script, persist=False)
        with pytest.raises(DefinitionError, match="disabled on this agent; to enable"):
            reg.add_check(script, persist=False, local=True)
        with pytest.raises(DefinitionError, match="Check is not valid: Interval must be"):
            reg.add_check(CheckDefinition(name="t", tcp="x:1"), persist=False)
        with pytest.raises(UnknownIdError):
            reg.remove_service("x")
        with pytest.raises(UnknownIdError):
            reg.remove_check("x")

    _with_agents(None, act)


def test_services_are_removed_that_were_critical_too_long(tmp_path: Path) -> None:
    def act(agent: _Agent) -> None:
        definition = ServiceDefinition(
            c.NodeService(service="shop"),
            (CheckType(ttl_ns=TTL, deregister_critical_service_after_ns=1),),  # raised to 1 min
        )
        agent.registrations.add_service(definition, persist=True)
        agent.clock.at += 59.0
        agent.registrations.reap_critical()
        assert agent.state.services()
        agent.clock.at += 1.0
        agent.registrations.reap_critical()
        assert not agent.state.services()

    _with_agents(tmp_path, act)


def test_reload_removes_what_the_files_no_longer_define(tmp_path: Path) -> None:
    disk = CheckDefinition(name="disk", ttl_ns=TTL)
    http = ServiceDefinition(c.NodeService(service="http"))

    def act(agent: _Agent) -> None:
        reg = agent.registrations
        reg.load([SHOP, http], [disk])
        reg.add_service(ServiceDefinition(c.NodeService(service="api")), persist=True)
        reg.heartbeat("disk", c.PASSING, "")
        reg.reload([http], [disk])
        assert set(agent.state.services()) == {"http", "api"}
        check = agent.state.check("disk")
        assert check is not None
        assert check.status == c.PASSING
        reg.reload([], [])
        assert set(agent.state.services()) == {"api"}
        assert not agent.state.checks()
        reg.reload([], [])

    _with_agents(tmp_path, act)


def test_first_results_wait_for_probes_alone() -> None:
    def act(agent: _Agent) -> None:
        reg = agent.registrations
        reg.add_check(CheckDefinition(name="ttl", ttl_ns=TTL), persist=False)
        assert reg.first_results()
        tcp = CheckDefinition(name="tcp", tcp="127.0.0.1:1", interval_ns=TTL)
        reg.add_check(tcp, persist=False)
        assert not reg.first_results()
        agent.state.update_check("tcp", c.PASSING, "", 0.0)
        assert reg.first_results()

    _with_agents(None, act)
