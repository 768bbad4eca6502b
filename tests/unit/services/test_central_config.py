"""Config entries overlaid onto proxies: the merge, and what follows changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from proconsul.domain.catalog import (
    ConnectProxyConfig,
    ExposeConfig,
    ExposePath,
    MeshGatewayConfig,
    NodeService,
    Upstream,
)
from proconsul.domain.config_entry_messages import ServiceConfigResponse, UpstreamConfig
from proconsul.domain.mesh_requests import ServiceConfigRequest, ServiceId
from proconsul.drivers.scope import TaskScope
from proconsul.services.agent.central_config import CentralConfig, merged
from proconsul.testing.waiting import until
from proconsul.util.errors import ProconsulError

PROXY = NodeService(
    id="p", service="web-proxy", kind="connect-proxy",
    proxy=ConnectProxyConfig(
        destination_service_name="web", destination_service_id="web1",
        config={"own": 1, "empty": "", "deep": {"x": 1, "zero": 0}},
        upstreams=[
            Upstream(destination_type="service", destination_name="db", config={"a": "b"}),
            Upstream(destination_type="prepared_query", destination_name="db"),
            Upstream(destination_name="other", mesh_gateway=MeshGatewayConfig("none")),
        ],
    ),
)  # fmt: skip
DEFAULTS = ServiceConfigResponse(
    index=7,
    proxy_config={"own": 2, "empty": "x", "deep": {"x": 2, "y": 3, "zero": 4}, "protocol": "grpc"},
    upstream_id_configs=[UpstreamConfig(ServiceId("db"), {"protocol": "http"})],
    mesh_gateway=MeshGatewayConfig("local"),
    expose=ExposeConfig(checks=True, paths=[ExposePath(path="/p")]),
)


def test_what_is_registered_stays_and_what_is_empty_is_filled() -> None:
    proxy = merged(PROXY, DEFAULTS).proxy
    assert proxy.config == {
        "own": 1, "empty": "x", "deep": {"x": 1, "y": 3, "zero": 4}, "protocol": "grpc",
    }  # fmt: skip
    assert proxy.mesh_gateway.mode == "local"
    assert proxy.expose == DEFAULTS.expose
    upstreams = proxy.upstreams or []
    db, query, other = upstreams
    assert (db.config, db.mesh_gateway.mode) == ({"a": "b", "protocol": "http"}, "local")
    assert query == (PROXY.proxy.upstreams or [])[1], "config entries say nothing of queries"
    assert (other.config, other.mesh_gateway.mode) == (None, "none")


def test_without_defaults_nothing_changes() -> None:
    assert merged(PROXY, None) is PROXY
    assert merged(PROXY, ServiceConfigResponse()) == PROXY


class Servers:
    """Answers as the servers would, and lets the test change the answer."""

    def __init__(self) -> None:
        self.answer = DEFAULTS
        self.asked: list[ServiceConfigRequest] = []
        self.error: Exception | None = None
        self.changed = asyncio.Event()

    async def call(self, method: str, request: ServiceConfigRequest) -> Any:
        assert method == "ConfigEntry.ResolveServiceConfig"
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        while request.min_query_index >= self.answer.index:
            self.changed.clear()
            await self.changed.wait()
        return self.answer


def central(
    test: Callable[[Servers, CentralConfig, list[NodeService]], Awaitable[None]],
    *,
    enabled: bool = True,
) -> None:
    async def main() -> None:
        servers, seen = Servers(), list[NodeService]()
        scope = TaskScope("test")
        config = CentralConfig(
            "dc1", servers.call, scope, lambda: "agent", lambda one, _: seen.append(one),
            enabled=enabled,
        )  # fmt: skip
        try:
            await test(servers, config, seen)
        finally:
            await scope.aclose()

    asyncio.run(main())


def test_a_proxy_is_registered_complete_and_follows_changes() -> None:
    async def test(servers: Servers, config: CentralConfig, seen: list[NodeService]) -> None:
        await config.fetch(PROXY, "token")
        assert config.registered(PROXY, "token") == merged(PROXY, DEFAULTS)
        request = servers.asked[0]
        assert (request.name, request.token, request.min_query_index) == ("web", "token", 0)
        assert [one.id for one in request.upstream_ids or ()] == ["db", "other"]
        await until(lambda: servers.asked[-1].min_query_index == 7)
        assert seen == []
        servers.answer = replace(DEFAULTS, index=9, mesh_gateway=MeshGatewayConfig("remote"))
        servers.changed.set()
        await until(lambda: seen)
        assert seen[0].proxy.mesh_gateway.mode == "remote"
        config.removed("p")
        count = len(servers.asked)
        servers.answer = replace(DEFAULTS, index=11)
        servers.changed.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(servers.asked) == count

    central(test)


def test_a_gateway_asks_by_its_own_name_with_the_agents_token() -> None:
    async def test(servers: Servers, config: CentralConfig, _: list[NodeService]) -> None:
        await config.fetch(NodeService(id="g", service="gw", kind="mesh-gateway"), "")
        assert (servers.asked[0].name, servers.asked[0].token) == ("gw", "agent")

    central(test)


def test_a_registration_waits_for_the_servers_and_fails_without() -> None:
    async def test(servers: Servers, config: CentralConfig, _: list[NodeService]) -> None:
        servers.error = ProconsulError("No known Consul servers")
        with pytest.raises(
            ProconsulError,
            match='could not retrieve initial service_defaults config for service "p": No known',
        ):
            await config.fetch(PROXY, "")
        config.registered(PROXY, "")  # from a file, at start: what comes later is added
        await until(lambda: len(servers.asked) > 1)
        servers.error = None
        await until(lambda: servers.asked[-1].min_query_index == 7)

    central(test)


@pytest.mark.parametrize("enabled", [True, False])
def test_other_services_are_none_of_its_business(enabled: bool) -> None:
    async def test(servers: Servers, config: CentralConfig, _: list[NodeService]) -> None:
        shared = replace(PROXY.proxy, destination_service_id="")
        plain = replace(PROXY, proxy=shared)
        one = plain if enabled else PROXY
        await config.fetch(one, "")
        assert config.registered(one, "") is one
        await asyncio.sleep(0)
        assert servers.asked == []

    central(test, enabled=enabled)
