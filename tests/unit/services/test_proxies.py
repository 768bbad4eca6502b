from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from server_support import identity

from proconsul.domain import catalog as c
from proconsul.domain import connect as ca
from proconsul.domain.errors import AclNotFoundError
from proconsul.mesh.errors import ProxyDeniedError, UnknownProxyError
from proconsul.mesh.snapshot import MeshGatewaySnapshot
from proconsul.rpc.errors import RemoteError
from proconsul.services.agent import proxies
from proconsul.services.agent.local import LocalState
from proconsul.services.agent.proxies import ProxySource
from proconsul.testing.waiting import until
from proconsul.util.errors import ProconsulError

GATEWAY = c.NodeService(
    id="gw",
    service="mesh-gateway",
    kind=c.MESH_GATEWAY,
    address="10.0.0.1",
    port=8443,
    meta={"consul-wan-federation": "1"},
)


class _Servers:
    """Blocking queries by hand: an answer is given when its index differs from the asked one."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "ConnectCA.Roots": ca.IndexedCARoots(trust_domain="abc.consul", index=5),
            "FederationState.ListMeshGateways": c.DatacenterIndexedCheckServiceNodes(index=5),
            "Catalog.ListServices": c.IndexedServices(services={"consul": []}, index=5),
            "consul": c.IndexedCheckServiceNodes(nodes=[], index=5),
        }
        self.broken = False
        self.refused: set[str] = set()
        self.calls: list[tuple[str, int]] = []
        self.tokens: set[str] = set()
        self.changed = asyncio.Event()

    def set(self, name: str, answer: Any) -> None:
        self.answers[name] = answer
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def call(self, method: str, request: Any) -> Any:
        name = getattr(request, "service_name", "") or method
        self.calls.append((name, request.min_query_index))
        self.tokens.add(request.token)
        while True:
            if self.broken:
                raise ProconsulError("gone")
            if name in self.refused:
                raise RemoteError("no such thing")
            answer = self.answers.get(name)
            if answer is not None and answer.index != request.min_query_index:
                return answer
            await self.changed.wait()


def _run(
    test: Callable[[_Servers, LocalState, list[MeshGatewaySnapshot]], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proxies, "SETTLE_S", 0.0)
    monkeypatch.setattr(proxies, "RETRY_S_MIN", 0.005)

    async def main() -> None:
        servers, state = _Servers(), LocalState("n", 0.0)
        state.add_service(GATEWAY)
        source = ProxySource(identity("n"), servers, state)
        seen: list[MeshGatewaySnapshot] = []

        async def watch() -> None:
            async for snapshot in source.watch("gw", ""):
                seen.append(snapshot)  # noqa: PERF401 - shown one by one

        watching = asyncio.get_running_loop().create_task(watch())
        try:
            async with asyncio.timeout(10):
                await test(servers, state, seen)
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        if not watching.cancelled() and (error := watching.exception()) is not None:
            raise error

    asyncio.run(main())


def _instances(service: str, index: int) -> c.IndexedCheckServiceNodes:
    row = c.CheckServiceNode(
        c.Node(node="n", address="10.0.0.9"),
        c.NodeService(id=service, service=service, address="10.0.0.9", port=80),
        [],
    )
    return c.IndexedCheckServiceNodes(nodes=[row], index=index)


def test_nothing_is_given_before_every_query_has_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(servers: _Servers, _state: LocalState, seen: list[Any]) -> None:
        servers.set("Catalog.ListServices", c.IndexedServices(services={"web": []}, index=6))
        await until(lambda: ("web", 0) in servers.calls)
        await asyncio.sleep(0.02)
        assert not seen
        servers.set("web", _instances("web", 5))
        await until(lambda: len(seen) == 1)
        servers.set("web", c.IndexedCheckServiceNodes(nodes=_instances("web", 5).nodes, index=7))
        await asyncio.sleep(0.02)
        assert len(seen) == 1  # another index, the same outcome
        servers.set("Catalog.ListServices", c.IndexedServices(services={}, index=8))
        await until(lambda: len(seen) == 2)

    _run(test, monkeypatch)


def test_servers_that_go_keep_the_last_snapshot_and_may_come_back_older(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(servers: _Servers, _state: LocalState, seen: list[Any]) -> None:
        await until(lambda: len(seen) == 1)
        servers.broken = True
        servers.wake()
        await asyncio.sleep(0.02)
        servers.broken = False
        count = len(servers.calls)
        for name in list(servers.answers):
            servers.answers[name] = _older(servers.answers[name])
        servers.set("consul", _instances("consul", 3))  # a restored server: all begins anew
        await until(lambda: len(servers.calls) > count + 4)
        await until(lambda: len(seen) == 2)
        servers.set("consul", c.IndexedCheckServiceNodes(nodes=[], index=2))
        await until(lambda: len(seen) == 3)
        calls = len(servers.calls)
        await asyncio.sleep(0.02)
        assert len(servers.calls) == calls  # every query blocks again

    _run(test, monkeypatch)


def test_a_service_that_cannot_be_asked_for_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(servers: _Servers, _state: LocalState, seen: list[Any]) -> None:
        await until(lambda: len(seen) == 1)
        servers.refused = {"odd"}
        servers.answers["web"] = _instances("web", 6)
        names = c.IndexedServices(services={"": [], "odd": [], "web": []}, index=7)
        servers.set("Catalog.ListServices", names)
        await until(lambda: len(seen) == 2)
        assert [service.name for service in seen[-1].services] == ["web"]
        assert servers.calls.count(("odd", 0)) >= proxies.REFUSALS_MAX
        servers.answers["odd"] = _instances("odd", 8)
        servers.refused = set()
        await until(lambda: len(seen) == 3)
        assert [service.name for service in seen[-1].services] == ["odd", "web"]

    _run(test, monkeypatch)


def _older(answer: Any) -> Any:
    from msgspec.structs import replace

    return replace(answer, index=3)


def test_a_changed_registration_makes_a_new_snapshot_and_none_ends_the_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(_servers: _Servers, state: LocalState, seen: list[Any]) -> None:
        from msgspec.structs import replace

        await until(lambda: len(seen) == 1)
        state.add_service(replace(GATEWAY, port=9443))
        await until(lambda: len(seen) == 2)
        state.remove_service("gw")
        await asyncio.sleep(0.05)

    with pytest.raises(UnknownProxyError, match='unknown proxy ID "gw"'):
        _run(test, monkeypatch)


def test_only_mesh_gateways_are_served() -> None:
    async def run() -> None:
        state = LocalState("n", 0.0)
        state.add_service(c.NodeService(id="web", service="web"))
        source = ProxySource(identity("n"), _Servers(), state)
        for name, text in (("web", "only mesh gateways"), ("none", "unknown proxy")):
            with pytest.raises(UnknownProxyError, match=text):
                await anext(source.watch(name, ""))

    asyncio.run(run())


@pytest.mark.parametrize(("registered", "read_by"), [("of-gw", "of-gw"), ("", "default")])
def test_the_configuration_is_read_by_the_gateways_token(registered: str, read_by: str) -> None:
    """Whatever token its Envoy shows."""

    async def main() -> None:
        servers, state = _Servers(), LocalState("n", 0.0)
        state.add_service(GATEWAY, registered)

        async def allow(_token: str) -> Any:
            return SimpleNamespace(service_write=lambda name: name == GATEWAY.service)

        source = ProxySource(identity("n"), servers, state, lambda: "default", allow)
        snapshots: Any = source.watch("gw", "envoy's")
        async with asyncio.timeout(10), contextlib.aclosing(snapshots):
            await anext(snapshots)
        assert servers.tokens == {read_by}

    asyncio.run(main())


@pytest.mark.parametrize("reason", ["unknown token", "no right"])
def test_who_may_not_register_the_gateway_gets_nothing(reason: str) -> None:
    async def main() -> None:
        servers, state = _Servers(), LocalState("n", 0.0)
        state.add_service(GATEWAY)

        async def deny(_token: str) -> Any:
            if reason == "unknown token":
                raise AclNotFoundError
            return SimpleNamespace(service_write=lambda _name: False)

        source = ProxySource(identity("n"), servers, state, lambda: "", deny)
        with pytest.raises(ProxyDeniedError):
            await anext(source.watch("gw", "t"))
        assert servers.calls == []

    asyncio.run(main())
