from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from server_support import running, server_config

from proconsul.domain import catalog as c
from proconsul.domain import federation as f
from proconsul.domain.messages import MessageType
from proconsul.services.server.federation import next_change
from proconsul.services.server.server import Server
from proconsul.testing.waiting import until
from proconsul.util.errors import ConfigError
from proconsul.util.metrics import Metrics


def _run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(main())


def _upsert(datacenter: str) -> f.FederationStateRequest:
    state = f.FederationState(datacenter=datacenter)
    return f.FederationStateRequest(op=f.FEDERATION_UPSERT, datacenter="dc1", state=state)


def test_gateways_cannot_be_used_without_certificates() -> None:
    with pytest.raises(ConfigError, match="needs ca_file, cert_file and key_file"):
        Server(server_config("s1", mesh_gateway_federation=True), Metrics())


def test_the_leaders_federation_loops_see_their_server() -> None:
    async def test() -> None:
        server = Server(server_config("s1", federation_anti_entropy=False), Metrics())
        async with running(server):
            await until(lambda: server.ready_for_consistent_reads)
            port = server.federation_server
            assert (port.datacenter, port.primary_datacenter) == ("dc1", "dc1")
            assert port.primary_appeared is server.primary_appeared
            assert list(port.states()) == list(port.local_gateways()) == []
            loop = asyncio.get_running_loop()

            waiting = loop.create_task(port.wait_for_change(port.states, 10.0))
            await asyncio.sleep(0)
            await port.apply_locally(_upsert("dc2"))
            await waiting
            await port.apply_in_primary(_upsert("dc3"))
            answer = await port.fetch_from_primary(0)
            assert [s.datacenter for s in answer.states or ()] == ["dc2", "dc3"]

            waiting = loop.create_task(port.wait_for_change(port.local_gateways, 10.0))
            await asyncio.sleep(0)
            gateway = c.NodeService(id="gw", service="gw", kind=c.MESH_GATEWAY, port=8443)
            request = c.RegisterRequest(node="n", address="10.0.0.1", service=gateway)
            await server.apply(MessageType.REGISTER, request)
            await waiting
            assert [g.service.service for g in port.local_gateways()] == ["gw"]
            await port.wait_for_change(port.states, 0.01)  # nothing changed: time is up
            assert not port.knows_datacenter("dc9")

            watch = server.store.federation.all().watch
            await next_change([watch], 0.01)
            waiting = loop.create_task(next_change([watch], 10.0))
            await asyncio.sleep(0)
            await port.apply_locally(_upsert("dc4"))
            await waiting

    _run(test)
