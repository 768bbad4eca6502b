"""An agent's leaves: one for all who ask, renewed in time, never one that nobody trusts.

The servers are a CA on a state of its own; the clock is the test's, and leaves live an hour.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from authority_support import Datacenter, accepted

from proconsul.domain.acl import AllowAll
from proconsul.domain.options import DCSpecificRequest
from proconsul.drivers.mesh_keys import generate
from proconsul.drivers.scope import TaskScope
from proconsul.mesh.certificates import key_pem_of
from proconsul.rpc.endpoints.connect_ca import ConnectCa, ConnectSettings
from proconsul.rpc.table import Call
from proconsul.services.agent import leaf as module
from proconsul.services.agent.cache import Cache, CacheOptions
from proconsul.services.agent.leaf import LeafManager, LeafRequest
from proconsul.testing.waiting import until
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics

WEB = LeafRequest("dc1", service="web")
SHORT = {"LeafCertTTL": "1h", "SkipValidate": True, "CSRMaxPerSecond": 0}


class Agent:
    """A leaf manager on a cache whose servers are `primary`."""

    def __init__(self, primary: Datacenter, scope: TaskScope) -> None:
        self.primary, self.signed = primary, 0
        self.failure: Exception | None = None
        settings = ConnectSettings(enabled=True, is_primary=True)
        self._endpoint = ConnectCa(primary, primary.signer, settings)  # type: ignore[arg-type]
        rng = random.Random(1)
        cache = Cache(self.call, scope, rng, Metrics(time.time), CacheOptions())
        self.leaves = LeafManager("dc1", self, cache, scope, rng, self._wall)
        self._looks = 0

    def _wall(self) -> float:
        self._looks += 1
        return self.primary.now_ns / 1e9

    async def noticed(self) -> None:
        """When whoever keeps the one leaf has looked at the clock again."""
        looks = self._looks
        while self._looks < looks + 2:
            self.leaves._roots_changed.fire()
            await asyncio.sleep(0.001)

    @property
    def waiting(self) -> bool:
        return any(entry.waiting for entry in self.leaves._entries.values())

    async def call(self, method: str, request: Any) -> Any:
        if method == "ConnectCA.Sign":
            self.signed += 1
            await asyncio.sleep(0)
            if self.failure is not None:
                raise self.failure
            return await self._endpoint.sign(request, Call(AllowAll(), None))
        while True:
            answer = await self.primary.roots(request)
            if answer.index > request.min_query_index:
                return answer
            changed = asyncio.Event()
            _, _, watch = self.primary.store.connect.roots_and_config()
            watch.add(changed.set)
            await changed.wait()


def _run(test: Any, **settings: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20), TaskScope("test") as scope:
            primary = Datacenter("dc1", **{**SHORT, **settings})
            primary.now_ns = time.time_ns()
            await primary.ca.initialize_primary()
            await test(Agent(primary, scope))

    coming: Coroutine[Any, Any, None] = bounded()
    asyncio.run(coming)


def test_one_leaf_for_all_who_ask() -> None:
    async def test(agent: Agent) -> None:
        found = await asyncio.gather(*(agent.leaves.get(WEB) for _ in range(5)))
        assert agent.signed == 1
        assert {one.cert.cert_pem for one in found} == {found[0].cert.cert_pem}
        assert not found[0].hit
        again = await agent.leaves.get(WEB)
        assert again.hit
        assert again.cert == found[0].cert
        assert accepted(again.cert, again.cert.private_key_pem, agent.primary.roots_pem)
        other = await agent.leaves.get(LeafRequest("dc1", service="web", token="another"))
        assert other.cert != again.cert, "a leaf is its token's"
        assert agent.signed == 2
        assert "PRIVATE" not in repr(WEB)

    _run(test)


def test_it_is_renewed_after_half_of_its_life() -> None:
    async def test(agent: Agent) -> None:
        first = (await agent.leaves.get(WEB)).cert
        waiting = asyncio.create_task(agent.leaves.get(WEB, first.modify_index, 10))
        await until(lambda: agent.waiting)
        agent.primary.now_ns += 28 * 60 * 10**9
        await agent.noticed()
        (entry,) = agent.leaves._entries.values()
        assert entry.fetching is not None
        assert entry.fetching.done()
        agent.primary.now_ns += 27 * 60 * 10**9
        await agent.noticed()
        renewed = (await waiting).cert
        assert renewed.modify_index > first.modify_index
        assert renewed.private_key_pem != first.private_key_pem

    _run(test)


def test_an_expired_one_is_never_given() -> None:
    async def test(agent: Agent) -> None:
        first = (await agent.leaves.get(WEB)).cert
        agent.primary.now_ns += 2 * 3600 * 10**9
        assert (await agent.leaves.get(WEB)).cert != first
        agent.primary.now_ns += 2 * 3600 * 10**9
        agent.failure = ProconsulError("no servers")
        with pytest.raises(ProconsulError, match="no servers"):
            await agent.leaves.get(WEB)

    _run(test)


def test_a_rotation_brings_a_new_one_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(agent: Agent) -> None:
        monkeypatch.setattr(module, "SPREAD_S", 0.05)
        first = (await agent.leaves.get(WEB)).cert
        waiting = asyncio.create_task(agent.leaves.get(WEB, first.modify_index, 10))
        await until(lambda: agent.waiting)
        await agent.primary.rotate(PrivateKey=key_pem_of(generate()), **SHORT)
        clock = asyncio.create_task(_ticking(agent.primary))
        renewed = (await waiting).cert
        clock.cancel()
        new_root = agent.primary.ca.active_root().root_cert
        assert accepted(renewed, renewed.private_key_pem, new_root)

    _run(test)


async def _ticking(primary: Datacenter) -> None:
    while True:
        primary.now_ns += 5 * 10**6
        await asyncio.sleep(0.005)


def test_one_of_a_removed_root_is_replaced_before_it_is_given() -> None:
    async def test(agent: Agent) -> None:
        primary = agent.primary
        first = (await agent.leaves.get(WEB)).cert
        await primary.rotate(PrivateKey=key_pem_of(generate()), **SHORT)
        only = [root for root in primary.store.connect.roots().value if root.active]
        await primary.ca.set_roots(only)
        index = primary.store.connect.roots_index
        request = DCSpecificRequest(datacenter="dc1", min_query_index=index - 1)
        await agent.leaves._cache.get(module.CA_ROOTS, request)
        fresh = await agent.leaves.get(WEB)
        assert fresh.cert != first
        assert accepted(fresh.cert, fresh.cert.private_key_pem, only[0].root_cert)

    _run(test)


def test_a_refusal_keeps_the_present_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(agent: Agent) -> None:
        monkeypatch.setattr(module, "SPREAD_S", 0.02)
        first = (await agent.leaves.get(WEB)).cert
        agent.failure = ProconsulError(module.RATE_LIMITED)
        waiting = asyncio.create_task(agent.leaves.get(WEB, first.modify_index, 10))
        await until(lambda: agent.waiting)
        await agent.primary.rotate(PrivateKey=key_pem_of(generate()), **SHORT)
        clock = asyncio.create_task(_ticking(agent.primary))
        await until(lambda: agent.signed >= 4)
        assert (await agent.leaves.get(WEB)).cert == first
        agent.failure = None
        assert (await waiting).cert != first
        clock.cancel()

    _run(test)


def test_without_rights_there_is_none() -> None:
    async def test(agent: Agent) -> None:
        agent.failure = ProconsulError("Permission denied")
        for _ in range(2):
            with pytest.raises(ProconsulError, match="Permission denied"):
                await agent.leaves.get(WEB)
        assert not agent.leaves._entries, "what is refused is not kept"
        with pytest.raises(ProconsulError, match="URI must be either service or agent"):
            await agent.leaves.get(LeafRequest("dc1"))

    _run(test)
