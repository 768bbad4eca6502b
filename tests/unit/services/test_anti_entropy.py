from __future__ import annotations

import asyncio
import random

import pytest
from msgspec.structs import replace
from services_support import NODE, FakeCatalog, RefusedError, denied

from proconsul.domain import catalog as c
from proconsul.domain.errors import NoLeaderError, NoServersError
from proconsul.services.agent import anti_entropy
from proconsul.services.agent.anti_entropy import AntiEntropy, scale_factor
from proconsul.services.agent.local import LocalState
from proconsul.testing.waiting import until


def _service(name: str, **fields: object) -> c.NodeService:
    base = c.NodeService(id=name, service=name, tags=[], meta={}, weights=c.Weights(1, 1))
    return replace(base, **fields)


def _check(name: str, service: str = "", status: str = c.PASSING) -> c.HealthCheck:
    return c.HealthCheck(check_id=name, name=name, status=status, service_id=service)


class _Agent:
    """Local state, its anti-entropy and a fake catalog; `async with` runs the loop."""

    def __init__(self, update_interval_s: float = 0.0, interval_s: float = 1000.0) -> None:
        self.state = LocalState(NODE.node, update_interval_s)
        self.catalog = FakeCatalog()
        self.sync = AntiEntropy(NODE, self.state, self.catalog, random.Random(1), interval_s)

    async def __aenter__(self) -> _Agent:
        self._task = asyncio.get_running_loop().create_task(self.sync.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._task

    def registers(self) -> list[c.RegisterRequest]:
        return [r for method, r in self.catalog.calls if method == "Catalog.Register"]


@pytest.mark.parametrize(
    ("nodes", "factor"), [(0, 1), (1, 1), (128, 1), (129, 2), (256, 2), (257, 3), (1000, 4)]
)
def test_scale_factor_is_the_references(nodes: int, factor: int) -> None:
    assert scale_factor(nodes) == factor


def test_registers_node_services_and_checks_and_removes_strangers() -> None:
    async def run() -> None:
        agent = _Agent()
        agent.state.add_service(_service("web"))
        agent.state.add_check(_check("web-up", "web"), now=0)
        agent.state.add_check(_check("disk"), now=0)
        agent.catalog.services = {"old": _service("old"), "consul": _service("consul")}
        agent.catalog.checks = {"old": _check("old"), "serfHealth": _check("serfHealth")}
        async with agent:
            await until(lambda: "disk" in agent.catalog.checks)
            await until(lambda: agent.catalog.node is not None)
            assert set(agent.catalog.services) == {"web", "consul"}
            assert set(agent.catalog.checks) == {"web-up", "disk", "serfHealth"}
            assert agent.catalog.node == c.Node(
                id=NODE.id,
                node="web",
                address="10.0.0.1",
                datacenter="dc1",
                tagged_addresses={},
                meta={},
            )
            # The service and its check went in one request.
            first = agent.registers()[0]
            assert first.service is not None
            assert [k.check_id for k in first.checks or ()] == ["web-up"]

    asyncio.run(run())


def test_changes_are_sent_when_they_happen() -> None:
    async def run() -> None:
        agent = _Agent()
        async with agent:
            await until(lambda: agent.catalog.node is not None)
            agent.state.add_service(_service("web"))
            agent.state.add_check(_check("up", "web"), now=0)
            await until(lambda: "up" in agent.catalog.checks)
            agent.state.update_check("up", c.CRITICAL, "down", 1.0)
            await until(lambda: agent.catalog.checks["up"].status == c.CRITICAL)
            agent.state.remove_check("up")
            await until(lambda: not agent.catalog.checks)
            agent.state.remove_service("web")
            await until(lambda: not agent.catalog.services)
            assert not agent.state.service_entries()
            assert not agent.state.check_entries()

    asyncio.run(run())


def test_a_refused_service_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anti_entropy, "RETRY_S_MIN", 0.01)

    async def run() -> None:
        agent = _Agent()
        agent.catalog.errors["bad"] = RefusedError("Invalid service address")
        agent.state.add_service(_service("bad"))
        agent.state.add_service(_service("good"))
        agent.state.add_check(_check("bad-check", "bad"), now=0)
        agent.state.add_check(_check("disk"), now=0)
        async with agent:
            await until(lambda: "disk" in agent.catalog.checks)
            assert set(agent.catalog.services) == {"good"}
            agent.catalog.errors.clear()  # it is tried again, without another change here
            await until(lambda: "bad-check" in agent.catalog.checks)

    asyncio.run(run())


def test_permission_denied_is_not_repeated_until_the_next_comparison(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        agent = _Agent()
        agent.catalog.errors = {"web": denied(), "disk": denied(), "old": denied()}
        agent.catalog.services["old"] = _service("old")
        agent.state.add_service(_service("web"))
        agent.state.add_check(_check("disk"), now=0)
        async with agent:
            await until(lambda: agent.state.node_in_sync)
            before = len(agent.catalog.calls)
            agent.state.add_service(_service("other"))
            await until(lambda: "other" in agent.catalog.services)
            assert len(agent.catalog.calls) == before + 1
            agent.catalog.errors.clear()
            agent.sync.trigger_full()
            await until(lambda: "disk" in agent.catalog.checks)
            assert set(agent.catalog.services) == {"web", "other"}

    asyncio.run(run())
    assert (
        "Service registration blocked by ACLs: service=web (no token: the token it is registered"
        " with or acl.tokens.default needs service:write)"
    ) in caplog.messages


def test_node_update_denied_is_not_repeated() -> None:
    async def run() -> None:
        agent = _Agent()
        agent.catalog.errors["Catalog.Register"] = denied()
        async with agent:
            await until(lambda: agent.state.node_in_sync)
            assert agent.catalog.node is None
            assert len(agent.registers()) == 1

    asyncio.run(run())


@pytest.mark.parametrize("error", [NoLeaderError(), NoServersError(), TimeoutError()])
def test_servers_that_are_away_are_asked_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anti_entropy, "RETRY_S_MIN", 0.01)

    async def run() -> None:
        agent = _Agent()
        agent.catalog.errors["Health.NodeChecks"] = error  # type: ignore[assignment]
        agent.state.add_service(_service("web"))
        async with agent:
            await until(lambda: len(agent.catalog.calls) >= 4)
            assert not agent.catalog.services
            agent.catalog.errors.clear()
            await until(lambda: "web" in agent.catalog.services)

    asyncio.run(run())


def test_comparison_asked_for_while_one_runs_is_not_lost() -> None:
    async def run() -> None:
        agent = _Agent()
        gate = asyncio.Event()
        answer, once = agent.catalog.call, []

        async def slow(method: str, request: object) -> object:
            if method == "Health.NodeChecks" and not once:
                once.append(1)
                agent.sync.trigger_full()
                await gate.wait()
            return await answer(method, request)

        agent.catalog.call = slow  # type: ignore[method-assign]
        async with agent:
            await until(lambda: bool(once))
            gate.set()
            await until(lambda: [m for m, _ in agent.catalog.calls].count("Health.NodeChecks") == 2)

    asyncio.run(run())


def test_what_changed_while_it_was_sent_is_sent_again() -> None:
    async def run() -> None:
        agent = _Agent()
        answer = agent.catalog.call

        async def racing(method: str, request: object) -> object:
            result = await answer(method, request)
            service = getattr(request, "service", None)
            if service is not None and service.port == 1:
                agent.state.add_service(_service("web", port=2))
            if method == "Catalog.Deregister" and agent.state.service("web") is None:
                agent.state.add_service(_service("web", port=3))
            return result

        agent.catalog.call = racing  # type: ignore[method-assign]
        async with agent:
            agent.state.add_service(_service("web", port=1))
            await until(lambda: agent.catalog.services.get("web", _service("")).port == 2)
            agent.state.remove_service("web")
            await until(lambda: agent.catalog.services.get("web", _service("")).port == 3)

    asyncio.run(run())


def test_output_alone_is_deferred() -> None:
    async def run() -> None:
        agent = _Agent(update_interval_s=0.2)
        agent.state.add_check(_check("up"), now=0)
        async with agent:
            await until(lambda: "up" in agent.catalog.checks)
            await until(lambda: agent.state.node_in_sync)
            sent = len(agent.registers())
            now = asyncio.get_running_loop().time()
            agent.state.update_check("up", c.PASSING, "1", now)
            agent.state.update_check("up", c.PASSING, "2", now)
            agent.sync.trigger_full()  # a comparison does not hurry it
            await asyncio.sleep(0.02)
            assert len(agent.registers()) == sent
            await until(lambda: agent.catalog.checks["up"].output == "2")
            assert len(agent.registers()) == sent + 1

    asyncio.run(run())


def test_tags_of_the_catalog_win_with_tag_override() -> None:
    async def run() -> None:
        agent = _Agent()
        agent.state.add_service(_service("web", tags=["mine"], enable_tag_override=True))
        agent.state.add_service(_service("plain", tags=["mine"]))
        for name in ("web", "plain"):
            override = name == "web"
            agent.catalog.services[name] = _service(
                name, tags=["theirs"], enable_tag_override=override
            )
        async with agent:
            await until(lambda: agent.catalog.services["plain"].tags == ["mine"])
            assert agent.catalog.services["web"].tags == ["theirs"]
            service = agent.state.service("web")
            assert service is not None
            assert service.tags == ["theirs"]

    asyncio.run(run())


def test_token_of_the_registration_is_used() -> None:
    async def run() -> None:
        agent = _Agent()
        agent.sync = AntiEntropy(
            NODE, agent.state, agent.catalog, random.Random(1), 60, lambda: "agent"
        )
        agent.state.add_service(_service("web"), "secret")
        async with agent:
            await until(lambda: agent.state.node_in_sync)
            assert agent.registers()[0].token == "secret"
            agent.state.remove_service("web")
            await until(lambda: not agent.catalog.services)
            assert agent.catalog.calls[-1][1].token == "secret"
            assert agent.catalog.calls[0][1].token == "agent"

    asyncio.run(run())
