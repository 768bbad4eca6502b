"""A client agent's core: a member of the LAN pool whose calls go to one of the servers.

Which server is the router's business; one that fails goes to the end of its list
(agent/consul/client.go, agent/router/manager.go).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from proconsul.core.gossip.serf import MemberEvent, MemberEventKind
from proconsul.domain import errors
from proconsul.domain.base import decode, encode
from proconsul.domain.snapshot import SnapshotRequest, SnapshotResponse
from proconsul.drivers.gossip.pool import GossipPool, PoolEvent
from proconsul.drivers.gossip.transport import SocketTransport
from proconsul.drivers.scope import TaskScope
from proconsul.drivers.tls_config import TlsConfig, TlsContexts
from proconsul.rpc.dialer import HopError
from proconsul.rpc.direct_dialer import DirectDialer
from proconsul.rpc.forward import CALL_S
from proconsul.rpc.methods import METHODS
from proconsul.rpc.outcome import may_repeat, told
from proconsul.rpc.pool import ConnectionPool
from proconsul.rpc.router import AREA_LAN, Router
from proconsul.rpc.server_meta import ServerMeta
from proconsul.rpc.snapshot_stream import Answer
from proconsul.rpc.snapshot_stream import call as snapshot_call
from proconsul.rpc.token_resolver import TokenResolver
from proconsul.rpc.token_rows import Environment, NothingKnown
from proconsul.services.agent.call_limit import CallLimit
from proconsul.services.agent.config import ClientConfig
from proconsul.services.server.pools import make_pool
from proconsul.services.server.reconcile import server_of
from proconsul.services.server.tags import client_tags, lan_merge
from proconsul.util.address import host_port
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics
from proconsul.util.throttle import News

log = logging.getLogger("proconsul.client")

PING_S = 3.0
DIAL_S = 10.0
MEASURE_S = 5.0
LAN_SNAPSHOT = "serf/local.snapshot"


class Client:
    """`await start()`, later `await leave()`, `await aclose()`. Its `call` is an `RpcCaller`'s."""

    def __init__(
        self,
        config: ClientConfig,
        tls: TlsConfig,
        metrics: Metrics,
        on_member_event: Callable[[bool, PoolEvent], None] | None = None,
    ) -> None:
        self.config, self.metrics = config, metrics
        self._on_member_event = on_member_event
        identity = config.identity
        secured = tls.has_ca or tls.has_certificate or config.auto_encrypt
        self.tls = TlsContexts(tls) if secured else None
        self._rng = random.SystemRandom()
        self.router = Router(identity.datacenter, self._rng)
        self.router.add_area(AREA_LAN)
        self._dialer = DirectDialer(self.tls, identity.domain, config.rpc_source)
        self.pool = ConnectionPool(self._dialer, metrics)
        self.lan: GossipPool = make_pool(
            config.lan,
            SocketTransport(*config.lan.bind),
            client_tags(identity),
            lan_merge(identity),
            self._event,
            log_name="serf.lan",
            snapshot=config.data_dir / LAN_SNAPSHOT if config.data_dir else None,
            rejoin_after_leave=config.rejoin_after_leave,
            metrics=metrics,
        )
        self.wan: GossipPool | None = None
        self._scope = TaskScope("client")
        self.limit = CallLimit(metrics, config.rpc_rate, config.rpc_burst)
        self._servers_changed = asyncio.Event()
        self._failures = News()
        self.acl = TokenResolver(
            config.acl,
            NothingKnown(),
            Environment(
                identity.datacenter,
                identity.datacenter,  # its servers know the local tokens, too
                self.call,
                self._scope.spawn,
                time.monotonic,
                time.time_ns,
                metrics,
            ),
            may_be_disabled=True,
        )

    async def start(self) -> None:
        """Bind and become a member."""
        await self.lan.start()
        _ = self._scope.supervise("router", self._rebalance)
        _ = self._scope.supervise("metrics", self._measure)

    async def _measure(self) -> None:
        while True:
            self.lan.measure()
            await asyncio.sleep(MEASURE_S)

    async def _rebalance(self) -> None:
        await self.router.rebalance_forever(self._ping, lambda: len(self.lan.members()))

    async def _ping(self, server: ServerMeta) -> bool:
        deadline = asyncio.get_running_loop().time() + PING_S
        return await self.pool.ping(server.destination, deadline)

    async def leave(self) -> None:
        """Leave the pool."""
        await self.lan.leave()

    async def aclose(self) -> None:
        """Stop at once."""
        await self._scope.aclose()
        await self.lan.shutdown()
        await self.pool.aclose()

    def _event(self, event: PoolEvent) -> None:
        if isinstance(event, MemberEvent):
            for member in event.members:
                server = server_of(member)
                if server is None or server.datacenter != self.config.identity.datacenter:
                    continue
                if event.kind in (MemberEventKind.JOIN, MemberEventKind.UPDATE):
                    log.info("adding server: server=%s", member.name)
                    self.router.add_server(AREA_LAN, server)
                    self.pool.moved(server.destination)
                    self._servers_changed.set()
                else:
                    log.info("removing server: server=%s", member.name)
                    self.router.remove_server(AREA_LAN, server)
        if self._on_member_event is not None:
            self._on_member_event(False, event)

    async def call(self, method: str, request: Any) -> Any:
        """See `rpc.caller.RpcCaller.call`. Tries other servers for as long as `rpc_hold_timeout`."""
        self.metrics.incr("consul.client.rpc", 1)
        self.limit.admit()
        signature = METHODS[method]
        body = encode(request)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self.config.rpc_hold_s
        deadline = loop.time() + CALL_S + self._wait_s(request)
        while True:
            server = self.router.find_route(self.config.identity.datacenter)
            failure: ProconsulError = errors.NoServersError()
            if server is not None:
                try:
                    answer = await self.pool.rpc(server.destination, method, body, deadline)
                    return decode(answer, signature.response)
                except ProconsulError as error:
                    failure = error
                    repeat = may_repeat(signature, error)
                    if repeat or not getattr(error, "is_remote", False):
                        # One that answers, but knows no leader, may be cut off from the others.
                        self._failed(server, method, error)
                    if not repeat:
                        if (failure := told(signature, error)) is error:
                            raise
                        raise failure from error
            if loop.time() >= give_up:
                raise failure
            await self._pause(server is not None)

    def _failed(self, server: ServerMeta, method: str, error: ProconsulError) -> None:
        where = host_port(server.address)
        news = self._failures.is_news(f"{where} {error}", asyncio.get_running_loop().time())
        log.log(
            logging.ERROR if news else logging.DEBUG,
            "RPC failed to server: method=%s server=%s error=%s",
            method, where, error,
        )  # fmt: skip
        self.router.failed(server)

    async def snapshot(
        self, request: SnapshotRequest, body: AsyncIterator[bytes]
    ) -> tuple[SnapshotResponse, Answer]:
        """See `rpc.snapshot_stream.SnapshotCaller`. Tries servers until one can be dialled."""
        self.limit.admit()
        failure: ProconsulError = errors.NoServersError()
        for server in self.router.servers(self.config.identity.datacenter):
            deadline = asyncio.get_running_loop().time() + DIAL_S
            try:
                return await snapshot_call(
                    self._dialer, server.destination, request, body, deadline
                )
            except HopError as error:
                failure = error
                self.router.failed(server)
        raise failure

    @staticmethod
    def _wait_s(request: Any) -> float:
        if not getattr(request, "min_query_index", 0):
            return 0.0
        return min(request.max_query_time_ns / 1e9 or 300.0, 600.0) * (1 + 1 / 16)

    async def _pause(self, had_server: bool) -> None:
        step = self.config.rpc_hold_s / 16
        self._servers_changed.clear()
        try:
            async with asyncio.timeout(self._rng.uniform(step / 8, step)):
                if had_server:
                    await asyncio.sleep(step)
                await self._servers_changed.wait()
        except TimeoutError:
            return

    def stats(self) -> dict[str, dict[str, str]]:
        """For `consul info`."""
        known = len(self.router.servers(self.config.identity.datacenter))
        acl = "enabled" if self.config.acl.enabled else "disabled"
        return {
            "consul": {"server": "false", "known_servers": str(known), "acl": acl},
            "serf_lan": self.lan.stats(),
        }
