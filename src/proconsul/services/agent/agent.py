"""The agent: what HTTP, xDS and the process see of a server or client.

Composes registrations, checks, anti-entropy and proxies around a core (`Server` or `Client`), and
implements `interfaces.http.ports.AgentPort` by structure.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from proconsul import CONSUL_VERSION
from proconsul.core.gossip.serf import Member, MemberEvent, MemberEventKind, SerfError, UserEvent
from proconsul.domain.acl import Authorizer
from proconsul.domain.catalog import HealthCheck, NodeService
from proconsul.domain.definitions import CheckDefinition, DefinitionError, ServiceDefinition
from proconsul.domain.snapshot import SnapshotRequest, SnapshotResponse
from proconsul.drivers.clock import SystemClock
from proconsul.drivers.gossip.pool import GossipPool, PoolEvent
from proconsul.drivers.scope import TaskScope
from proconsul.rpc.snapshot_stream import Answer
from proconsul.services.agent.access import Access
from proconsul.services.agent.alias_checks import AliasChecks
from proconsul.services.agent.anti_entropy import AntiEntropy, NodeIdentity
from proconsul.services.agent.cache import Cache
from proconsul.services.agent.call_limit import CallLimit
from proconsul.services.agent.central_config import CentralConfig
from proconsul.services.agent.check_probes import Probes
from proconsul.services.agent.checks import CheckRunner
from proconsul.services.agent.client import Client
from proconsul.services.agent.config import AgentSettings
from proconsul.services.agent.connect import AgentConnect
from proconsul.services.agent.coordinates import CoordinateSender
from proconsul.services.agent.events import UserEvent as FiredEvent
from proconsul.services.agent.events import UserEvents
from proconsul.services.agent.leaf import LeafManager
from proconsul.services.agent.local import LocalState
from proconsul.services.agent.proxies import ProxySource
from proconsul.services.agent.registrations import Registrations
from proconsul.services.agent.self_view import self_view
from proconsul.services.agent.tokens import KIND_BY_URL, AgentTokens, Kind
from proconsul.services.server.reconcile import server_of
from proconsul.services.server.tags import NEW_LEADER_EVENT
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics

if TYPE_CHECKING:
    from proconsul.services.server.server import Server

log = logging.getLogger("proconsul.agent")

FIRST_PROBES_S = 0.5
"""A restarted agent looks at its services before it tells the catalog anything about them."""
STATUS_S = 8.0
NEW_LEADER_S_MAX = 3.0
"""Agents compare what they have with a new leader within this time, not all at once."""


class Agent:
    """One running agent. `await start(...)`, then it lives until `stopped` is set."""

    def __init__(
        self,
        settings: AgentSettings,
        metrics: Metrics,
        make_core: Callable[[Callable[[bool, PoolEvent], None]], Server | Client],
        reload: Callable[[], Awaitable[None]],
        tokens: AgentTokens | None = None,
    ) -> None:
        """`make_core(on_member_event)` builds the server or client; `reload()` reads the
        configuration again."""
        self.settings, self.metrics = settings, metrics
        self.tokens = tokens or AgentTokens()
        self._reload = reload
        self._rng = random.SystemRandom()
        self._scope = TaskScope("agent")
        self._synchronising: asyncio.Task[None] | None = None
        self._departing: asyncio.Task[None] | None = None
        self.stopped = asyncio.Event()
        """Set once the agent was told to leave: the process ends."""
        identity = settings.identity
        self.local = LocalState(
            identity.node_name,
            settings.check_update_interval_s,
            discard_output=settings.discard_check_output,
        )
        self._clock = SystemClock()
        self.events = UserEvents(
            identity.node_name,
            lambda: self.local.services().values(),
            self._execute if settings.remote_exec else None,
        )
        aliases = AliasChecks(
            identity.datacenter,
            self.local,
            lambda: self.core,
            lambda: self.tokens.default,
            self._check_result,
        )
        probes = Probes(settings.check_tls, settings.grpc_probe)
        self._runner = CheckRunner(self._check_result, self._scope, self._rng, probes, aliases)
        self.registrations = Registrations(settings, self.local, self._runner, self._clock)
        self.core = make_core(self._member_event)
        core = self.core
        self.limit = (
            CallLimit(metrics, settings.rpc_rate, settings.rpc_burst)
            if not isinstance(core, Client)
            else core.limit
        )
        self.access = Access(identity.node_name, self.core.acl, self.tokens, self.local)
        self.central = CentralConfig(
            identity.datacenter,
            self.core.call,
            self._scope,
            lambda: self.tokens.agent,
            self.local.add_service,
            enabled=settings.central_service_config,
        )
        self.registrations.overlay = self.central.registered
        self.registrations.removed = self.central.removed
        self.cache = Cache(self.rpc, self._scope, self._rng, metrics, settings.cache)
        self.anti_entropy = AntiEntropy(
            NodeIdentity(
                identity.datacenter,
                identity.node_name,
                identity.node_id,
                settings.address,
                dict(settings.tagged_addresses),
                dict(settings.node_meta),
            ),
            self.local,
            self.core,
            self._rng,
            settings.anti_entropy_s,
            lambda: self.tokens.agent,
            lambda: self.tokens.default,
        )
        self.proxies = ProxySource(
            identity, self.core, self.local, lambda: self.tokens.default, self.authorizer
        )
        leaves = LeafManager(
            identity.datacenter, self.core, self.cache, self._scope, self._rng, self._clock.wall
        )
        self.connect = AgentConnect(identity, self.cache, leaves, self.authorizer)

    def reconfigure(self, settings: AgentSettings) -> None:
        """Take over what a reload may change of these."""
        self.settings = replace(
            self.settings,
            node_meta=settings.node_meta,
            discard_check_output=settings.discard_check_output,
            cache=settings.cache,
        )
        self.local.discard_output = settings.discard_check_output
        self.cache.reconfigure(settings.cache)
        self.anti_entropy.reconfigure(settings.node_meta)

    # -- life ------------------------------------------------------------------------------

    async def start(
        self, services: Sequence[ServiceDefinition], checks: Sequence[CheckDefinition]
    ) -> None:
        """Start the core, then everything around it. Raises `ProconsulError`, `OSError`."""
        await self.core.start()
        self.registrations.load(services, checks)
        supervise = self._scope.supervise
        self._synchronising = supervise("anti-entropy", self._synchronise)
        _ = supervise("reap-critical", self._reap_critical)
        if self.settings.coordinates:
            sender = CoordinateSender(
                self.settings, self.core.lan, self.core, self._rng, lambda: self.tokens.agent
            )
            _ = supervise("coordinates", sender.run)

    async def leave(self, token: str) -> None:
        """See `AgentPort.leave`."""
        await self.access.require_agent_write(token)
        # Whoever asked may wait for the end of it, as with Consul, or go away.
        await asyncio.shield(self.depart())

    def depart(self) -> asyncio.Task[None]:
        """Leave gracefully, in a task; sets `stopped` when done."""
        if self._departing is None:
            loop = asyncio.get_running_loop()
            self._departing = self._scope.spawn("leave", self._leave())
            # After those who wait for the task have been called, so that they get their answer.
            self._departing.add_done_callback(lambda _: loop.call_soon(self.stopped.set))
        return self._departing

    async def _leave(self) -> None:
        if self._synchronising is not None:
            # What leaves must not register itself again behind the leader that deregisters it.
            self._synchronising.cancel()
        try:
            await self.core.leave()
        except (ProconsulError, TimeoutError) as error:
            log.error("error during leave: %s", error)

    async def aclose(self) -> None:
        """Stop everything."""
        self.cache.close()
        await self._scope.aclose()
        await self.core.aclose()

    async def _synchronise(self) -> None:
        deadline = self._clock.monotonic() + FIRST_PROBES_S
        while (  # noqa: ASYNC110 - results come from many places, once in a process's life
            not self.registrations.first_results() and self._clock.monotonic() < deadline
        ):
            await asyncio.sleep(0.01)
        await self.anti_entropy.run()

    async def _reap_critical(self) -> None:
        while True:
            await asyncio.sleep(self.settings.check_reap_s)
            self.registrations.reap_critical()

    def _check_result(self, check_id: str, status: str, output: str) -> None:
        self.local.update_check(check_id, status, output, self._clock.monotonic())

    def _execute(self, event: FiredEvent) -> None:
        """A command that an operator wants run, as an event says."""
        from proconsul.services.agent.remote_exec import RemoteExec

        identity = self.settings.identity
        runner = RemoteExec(
            identity.datacenter, identity.node_name, self.core, lambda: self.tokens.agent
        )
        _ = self._scope.spawn("remote-exec", runner.run(event))

    def _member_event(self, is_wan: bool, event: PoolEvent) -> None:
        if is_wan:
            return
        if isinstance(event, UserEvent) and event.name == NEW_LEADER_EVENT:
            # The leader, or its whole datacenter, may come from an older state than we knew.
            delay = self._rng.uniform(0, NEW_LEADER_S_MAX)
            asyncio.get_running_loop().call_later(delay, self.anti_entropy.trigger_full)
        if isinstance(event, UserEvent):
            self.events.heard(event)
        if not isinstance(event, MemberEvent):
            return
        self.anti_entropy.cluster_size = len(self.core.lan.members())
        joined = event.kind is MemberEventKind.JOIN
        if joined and any(server_of(m) is not None for m in event.members):
            self.anti_entropy.trigger_full()

    # -- AgentPort: calls ------------------------------------------------------------------

    def try_rpc(self, method: str, request: Any) -> Any | None:
        """See `AgentPort.try_rpc`."""
        core = self.core
        if isinstance(core, Client):
            return None
        out = core.try_call(method, request)
        if out is not None:  # else `rpc` comes, and counts it
            self.limit.admit()
        return out

    def state_version(self) -> int | None:
        """See `interfaces.dns.settings.DnsAgent.state_version`."""
        core = self.core
        return None if isinstance(core, Client) else core.store.version

    async def rpc(self, method: str, request: Any) -> Any:
        """See `AgentPort.rpc`."""
        if not isinstance(self.core, Client):  # a client counts its attempts
            self.limit.admit()
        return await self.core.call(method, request)

    async def snapshot(
        self, request: SnapshotRequest, body: AsyncIterator[bytes]
    ) -> tuple[SnapshotResponse, Answer]:
        """See `AgentPort.snapshot`."""
        return await self.core.snapshot(request, body)

    @property
    def is_server(self) -> bool:
        """See `AgentPort.is_server`."""
        return self.settings.is_server

    # -- AgentPort: views ------------------------------------------------------------------

    async def self_info(self, token: str) -> Mapping[str, Any]:
        """See `AgentPort.self_info`."""
        await self.access.require_agent_read(token)
        return self_view(self.settings, self.core.lan, self.stats())

    def stats(self) -> dict[str, dict[str, str]]:
        """What `consul info` prints."""
        return {
            "agent": {**self.local.stats(), **self._runner.stats()},
            "build": {"prerelease": "", "revision": "", "version": CONSUL_VERSION},
            **self.core.stats(),
        }

    async def members(self, wan: bool, segment: str, token: str) -> Sequence[Member]:
        """See `AgentPort.members`."""
        pool = self.core.wan if wan else self.core.lan
        return await self.access.members(token, pool.members() if pool is not None else ())

    async def services(self, token: str) -> Mapping[str, NodeService]:
        """See `AgentPort.services`."""
        return await self.access.services(token, self.local.services())

    async def service(self, service_id: str, token: str) -> NodeService | None:
        """See `AgentPort.service`."""
        found = self.local.service(service_id)
        if found is None:
            await self.access.authorizer(token)  # a token that is none is refused first
        else:
            await self.access.require_service_read(token, found.service)
        return found

    async def services_named(self, name: str, token: str) -> list[NodeService]:
        """See `AgentPort.services_named`."""
        await self.access.require_service_read(token, name)
        found = self.local.services().items()
        return [service for _, service in sorted(found) if service.service == name]

    def checks_of(self, service_id: str) -> list[HealthCheck]:
        """See `AgentPort.checks_of`."""
        found = sorted(self.local.checks().items())
        return [check for _, check in found if check.service_id in ("", service_id)]

    async def service_changed(self, service_id: str, timeout_s: float) -> None:
        """See `AgentPort.service_changed`."""
        before = self.local.service(service_id)
        changed = asyncio.Event()

        def look() -> None:
            if self.local.service(service_id) != before:
                changed.set()

        unsubscribe = self.local.subscribe(look)
        try:
            async with asyncio.timeout(timeout_s):
                await changed.wait()
        except TimeoutError:
            return
        finally:
            unsubscribe()

    async def checks(self, token: str) -> Mapping[str, HealthCheck]:
        """See `AgentPort.checks`."""
        return await self.access.checks(token, self.local.checks())

    async def authorizer(self, token: str) -> Authorizer:
        """See `AgentPort.authorizer`."""
        return await self.access.authorizer(token)

    async def set_token(self, name: str, token: str) -> bool:
        """See `AgentPort.set_token`."""
        kind = KIND_BY_URL.get(name)
        if kind is None:
            return False
        if self.tokens.update(kind, token) and kind in (Kind.DEFAULT, Kind.AGENT):
            self.anti_entropy.trigger_full()
        await asyncio.to_thread(self.tokens.save)
        log.info("Updated agent's ACL token: token=%s", name)
        return True

    async def federation_status(self, token: str) -> Any:
        """See `AgentPort.federation_status`. A client asks nobody: only servers federate."""
        await self.access.require_federation_read(token)
        if isinstance(self.core, Client):
            raise DefinitionError(
                "federation status is known to servers alone: ask a server's HTTP address"
            )
        from proconsul.services.server.status_port import federation_status

        deadline = asyncio.get_running_loop().time() + STATUS_S
        return await federation_status(self.core, deadline)

    # -- AgentPort: registrations ----------------------------------------------------------

    async def add_service(
        self,
        definition: ServiceDefinition,
        *,
        persist: bool,
        replace_existing_checks: bool,
        token: str,
    ) -> None:
        """See `AgentPort.add_service`."""
        token = token or definition.token
        every = self.registrations.with_sidecar(msgspec.structs.replace(definition, token=token))
        for one in every:
            await self.access.vet_service(one.token, one.service)
        for one in every:
            await self.central.fetch(one.service, one.token)
            self.registrations.add_service(
                one, persist=persist, replace_existing_checks=replace_existing_checks
            )

    async def remove_service(self, service_id: str, token: str) -> None:
        """See `AgentPort.remove_service`."""
        await self.access.vet_service_update(token, service_id)
        self.registrations.remove_service(service_id)

    async def add_check(self, definition: CheckDefinition, *, persist: bool, token: str) -> None:
        """See `AgentPort.add_check`."""
        check = definition.health_check(self.settings.identity.node_name)
        await self.access.vet_check(token, check)
        definition = msgspec.structs.replace(definition, token=token or definition.token)
        self.registrations.add_check(definition, persist=persist)

    async def remove_check(self, check_id: str, token: str) -> None:
        """See `AgentPort.remove_check`."""
        await self.access.vet_check_update(token, check_id)
        self.registrations.remove_check(check_id)

    async def update_ttl(self, check_id: str, status: str, output: str, token: str) -> None:
        """See `AgentPort.update_ttl`."""
        await self.access.vet_check_update(token, check_id)
        self.registrations.heartbeat(check_id, status, output)

    async def service_maintenance(
        self, service_id: str, enable: bool, reason: str, token: str
    ) -> None:
        """See `AgentPort.service_maintenance`."""
        await self.access.vet_service_update(token, service_id)
        self.registrations.service_maintenance(service_id, enable=enable, reason=reason)

    async def node_maintenance(self, enable: bool, reason: str, token: str) -> None:
        """See `AgentPort.node_maintenance`."""
        await self.access.require_node_write(token)
        self.registrations.node_maintenance(enable=enable, reason=reason)

    # -- AgentPort: pools ------------------------------------------------------------------

    async def join(self, address: str, wan: bool, token: str) -> None:
        """See `AgentPort.join`."""
        await self.access.require_agent_write(token)
        await self._pool(wan).join([address])

    def _pool(self, wan: bool) -> GossipPool:
        pool = self.core.wan if wan else self.core.lan
        if pool is None:
            raise SerfError("Must be a server to join WAN cluster")
        return pool

    async def force_leave(self, node: str, prune: bool, token: str) -> None:
        """See `AgentPort.force_leave`."""
        await self.access.require_operator_write(token)
        known = {m.name for m in self.core.lan.members()}
        wan = self.core.wan
        wan_name = f"{node}.{self.settings.identity.datacenter}" if "." not in node else node
        wan_known = wan is not None and any(m.name == wan_name for m in wan.members())
        if node not in known and not wan_known:
            raise DefinitionError(f"agent: No node found with name '{node}'")
        if node in known:
            log.info("Force leaving node: node=%s", node)
            self.core.lan.force_leave(node, prune=prune)
        if wan is not None and wan_known:
            wan.force_leave(wan_name, prune=prune)

    async def reload(self, token: str) -> None:
        """See `AgentPort.reload`."""
        await self.access.require_agent_write(token)
        await self._reload()
