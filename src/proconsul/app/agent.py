"""The composition root: a configuration in, a running agent out.

Builds the core, the agent around it, and its interfaces; then runs until a signal or a leave.
SIGHUP reloads, SIGINT and SIGTERM end (gracefully where so configured), a second one ends at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from proconsul.app import build
from proconsul.app.watches import Watches
from proconsul.config.load import load_config
from proconsul.config.model import AgentConfig, ListenAddress
from proconsul.config.reload import reloadable
from proconsul.drivers import logs
from proconsul.drivers.gossip.pool import PoolEvent
from proconsul.drivers.http import HttpServer
from proconsul.drivers.runtime import RuntimeMetrics
from proconsul.drivers.scope import TaskScope
from proconsul.federation.retry_join import Resolver, RetryJoinError, retry_join
from proconsul.interfaces.http.routes import build_api
from proconsul.services.agent.agent import Agent
from proconsul.services.agent.client import Client
from proconsul.services.agent.tokens import AgentTokens
from proconsul.util.address import host_port
from proconsul.util.errors import ConfigError, ProconsulError
from proconsul.util.metrics import Metrics

if TYPE_CHECKING:
    from proconsul.app.dns import DnsInterface
    from proconsul.interfaces.xds.server import XdsServer
    from proconsul.services.agent.auto_encrypt import AutoEncrypt
    from proconsul.services.server.server import Server

log = logging.getLogger("proconsul.agent")

LEAVE_S_MAX = 30.0
XDS_POLL_S = 0.05


def run(config: AgentConfig) -> int:
    """Run an agent until it ends; its exit status."""
    try:
        logs.setup(
            config.log.level,
            as_json=config.log.json,
            file=config.log.file,
            rotate_bytes=config.log.rotate_bytes,
            rotate_duration_s=config.log.rotate_duration_s,
            rotate_max_files=config.log.rotate_max_files,
        )
        return uvloop.run(_Process(config).run())
    except (ProconsulError, OSError) as error:
        log.error("Error starting agent: %s", error)
        return 1


class _Process:
    """One agent process."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._metrics = Metrics(time.time)
        self._tokens = AgentTokens(build.tokens_directory(config))
        self._scope = TaskScope("process")
        self._ended = asyncio.Event()
        self._exit_status = 0
        self._signals = 0
        self._failure: Exception | None = None
        self._resolver: Resolver | None = None
        self._http: HttpServer | None = None
        self._watches: Watches | None = None
        self._automatic: AutoEncrypt | None = None
        self._dns: DnsInterface | None = None

    async def run(self) -> int:
        self._tokens.load(build.agent_tokens(self._config), self._tokens.read())
        agent = Agent(
            build.agent_settings(self._config),
            self._metrics,
            self._core,
            self._reload,
            self._tokens,
        )
        self._agent = agent
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._hangup)
        try:
            services, checks = build.definitions(self._config)
            if self._config.auto_encrypt.tls and not await self._get_certificate(agent):
                return self._exit_status
            await agent.start(services, checks)
            await self._serve_http(agent)
            await self._serve_dns(agent)
            self._start_loops(agent)
            self._write_pid()
            log.info("agent: Consul agent running! node=%s", self._config.node_name)
            # What is loaded by now stays: collections need not look at it again.
            gc.freeze()
            gc.enable()
            await self._until_end(agent)
        finally:
            if self._http is not None:
                await self._http.aclose()
            if self._dns is not None:
                await self._dns.aclose()
            await self._scope.aclose()
            await agent.aclose()
            self._remove_pid()
        log.info("Exit code: code=%d", self._exit_status)
        return self._exit_status

    # -- composition -----------------------------------------------------------------------

    def _core(self, on_member_event: Callable[[bool, PoolEvent], None]) -> Server | Client:
        config = self._config
        if config.server:
            # Clients, of which there are many, do without: it is most of the program.
            from proconsul.services.server.server import Server

            return Server(
                build.server_config(config, lambda: self._tokens.replication),
                self._metrics,
                on_member_event,
                self._core_failed,
            )
        return Client(
            build.client_config(config), build.tls_config(config), self._metrics, on_member_event
        )

    def _core_failed(self, error: Exception) -> None:
        """Disk or state machine failed: going on would diverge from the other servers."""
        log.error("shutting down: %s", error)
        self._exit_status = 1
        self._ended.set()

    async def _serve_http(self, agent: Agent) -> None:
        config = self._config
        plans = build.watch_plans(config)
        api = build_api(agent, build.http_config(config, lambda: self._tokens.default))
        self._watches = Watches(api, self._scope)
        server = self._http = HttpServer(
            api,
            admit=api.admit,
            spools=api.spools,
            metrics=self._metrics,
            limits=build.http_limits(config),
        )
        for address in config.addresses.http:
            await self._listen(server, address, None, "http")
        if config.addresses.https:
            context = self._https_context()
            for address in config.addresses.https:
                await self._listen(server, address, context, "https")
        self._watches.run(plans)

    async def _get_certificate(self, agent: Agent) -> bool:
        """False if the process was told to end before there was one."""
        from proconsul.app import auto_encrypt

        self._automatic = auto_encrypt.create(self._config, agent, self._discovery)
        return await auto_encrypt.obtain(self._automatic, self._ended, self._scope)

    def _https_context(self) -> ssl.SSLContext:
        automatic, config = self._automatic, self._config
        if automatic is None:
            return build.https_context(config.tls)
        context = build.https_context(config.tls, automatic.shown)
        automatic.on_change = lambda auto: build.show_on_https(context, config.tls, auto)
        return context

    async def _serve_dns(self, agent: Agent) -> None:
        if self._config.addresses.dns:
            from proconsul.app.dns import start_dns

            token = lambda: self._tokens.default  # noqa: E731
            self._dns = await start_dns(agent, self._config, token)

    async def _listen(
        self, server: HttpServer, address: ListenAddress, tls: ssl.SSLContext | None, name: str
    ) -> None:
        try:
            if isinstance(address, str):
                mode = self._config.http.unix_socket_mode
                await server.listen_unix(address, mode=int(mode, 8) if mode else 0o755)
                return
            timeout = self._config.limits.https_handshake_timeout_s
            await server.listen_tcp(*address, tls=tls, handshake_timeout_s=timeout)
        except OSError as error:
            where = address if isinstance(address, str) else host_port(address)
            raise ConfigError(
                f"ports.{name}: cannot listen on {where}: {os.strerror(error.errno or 0)}; is "
                f"another agent running here? Change ports.{name}, addresses.{name} or client_addr"
            ) from error

    def _start_loops(self, agent: Agent) -> None:
        config, scope = self._config, self._scope
        _ = scope.supervise("runtime-metrics", RuntimeMetrics(self._metrics).run)
        if self._automatic is not None:
            self._automatic.start(agent.connect.leaves, agent.cache, scope)
        _ = scope.spawn("join-lan", self._join_lan(agent))
        core = agent.core
        if not isinstance(core, Client):
            if core.federation is None:
                _ = scope.spawn("join-wan", self._join_wan(core))
            elif not config.is_primary:
                core.federation.refresh_primary_gateways(
                    config.primary_gateways,
                    self._discovery(),
                    config.primary_gateways_interval_s,
                    scope,
                )
        if config.addresses.grpc:
            _ = scope.supervise("xds", lambda: self._serve_xds(agent))

    async def _join_lan(self, agent: Agent) -> None:
        join = self._config.join_lan
        if join.start_join:
            try:
                count = await agent.core.lan.join(join.start_join)
                log.info("(LAN) joined: number_of_nodes=%d", count)
            except ProconsulError as error:
                self._end(f"failed to join LAN: {error}")
                return
        await self._retry("LAN", agent.core.lan.join, join)

    async def _join_wan(self, core: Server) -> None:
        join = self._config.join_wan
        if core.wan is None:
            return
        if join.start_join:
            try:
                await core.wan.join(join.start_join)
            except ProconsulError as error:
                self._end(f"failed to join WAN: {error}")
                return
        await self._retry("WAN", core.wan.join, join)

    async def _retry(
        self, cluster: str, join: build.JoinCall, settings: build.JoinSettings
    ) -> None:
        if not settings.retry_join:
            return
        try:
            await retry_join(
                cluster,
                settings.retry_join,
                join,
                self._discovery(),
                interval_s=settings.retry_interval_s,
                attempts_max=settings.retry_max,
            )
        except RetryJoinError as error:
            self._end(str(error))

    def _discovery(self) -> Resolver:
        """Made on demand: most agents are given addresses, and providers cost memory."""
        if self._resolver is None:
            from proconsul.federation.discovery import DiscoveryResolver, installed_discover

            self._resolver = DiscoveryResolver(installed_discover())
        return self._resolver

    def _end(self, reason: str) -> None:
        log.error("%s", reason)
        self._exit_status = 1
        self._ended.set()

    async def _serve_xds(self, agent: Agent) -> None:
        """Serve proxies, but load gRPC (tens of MB) only once one is registered."""
        changed = asyncio.Event()
        unsubscribe = agent.local.subscribe(changed.set)
        try:
            while not any(service.kind for service in agent.local.services().values()):
                changed.clear()
                await changed.wait()
        finally:
            unsubscribe()
        from proconsul.interfaces.xds.server import XdsConfig, XdsServer

        binds = [build.grpc_bind(address) for address in self._config.addresses.grpc]
        server: XdsServer = XdsServer(XdsConfig(binds=binds), agent.proxies)
        await server.start()
        log.info("Started gRPC server: addresses=%s", ", ".join(binds))
        try:
            await self._ended.wait()
        finally:
            await server.stop()

    # -- life ------------------------------------------------------------------------------

    def _stop(self, number: signal.Signals) -> None:
        self._signals += 1
        log.info("Caught: signal=%s", signal.Signals(number).name.lower())
        graceful = (
            not self._config.skip_leave_on_interrupt
            if number == signal.SIGINT
            else self._config.leave_on_terminate
        )
        if graceful and self._signals == 1:
            log.info("Gracefully shutting down agent...")
            _ = self._agent.depart()
            asyncio.get_running_loop().call_later(LEAVE_S_MAX, self._leave_too_slow)
            return
        self._exit_status = 0 if self._signals == 1 else 1
        self._ended.set()

    def _leave_too_slow(self) -> None:
        if not self._ended.is_set():
            log.error("Timeout on graceful leave.")
            self._exit_status = 1
            self._ended.set()

    async def _until_end(self, agent: Agent) -> None:
        left = self._scope.spawn("left", agent.stopped.wait())
        ended = self._scope.spawn("ended", self._ended.wait())
        await asyncio.wait((left, ended), return_when=asyncio.FIRST_COMPLETED)
        self._ended.set()

    def _hangup(self) -> None:
        log.info("Caught: signal=hangup")
        _ = self._scope.spawn("reload", self._reload_logged())

    async def _reload_logged(self) -> None:
        try:
            await self._reload()
        except ProconsulError as error:
            log.error("Failed to reload configs: %s", error)

    async def _reload(self) -> None:
        """Read the configuration again and take over what may change."""
        log.info("Reloading configuration...")
        old = self._config
        loaded = await asyncio.to_thread(load_config, old.argv)
        new = loaded.config
        services, checks = build.definitions(
            new
        )  # before anything is taken over: they may be wrong
        plans = build.watch_plans(new)
        changes = reloadable(old, new)
        for path in changes.needs_restart:
            log.warning("changed setting needs a restart of the agent to take effect: %s", path)
        self._tokens.load(build.agent_tokens(new), await asyncio.to_thread(self._tokens.read))
        core = self._agent.core
        if core.tls is not None:
            core.tls.reload(build.tls_config(new))
        logs.set_level(new.log.level)
        if self._http is not None:
            self._http.limits = build.http_limits(new)
        if not isinstance(core, Client):
            core.limit_connections(new.limits.rpc_max_conns_per_client)
        self._agent.limit.change(new.limits.rpc_rate, new.limits.rpc_max_burst)
        if self._dns is not None:
            await self._dns.reload(new)
        self._agent.reconfigure(build.agent_settings(new))
        if (
            not isinstance(core, Client)
            and core.federation is not None
            and core.federation.refresher
        ):
            core.federation.refresher.reload(new.primary_gateways)
        self._agent.registrations.reload(services, checks)
        if self._watches is not None:
            self._watches.run(plans)
        self._agent.anti_entropy.trigger_full()
        self._config = build.after_reload(old, new)

    def _write_pid(self) -> None:
        if self._config.pid_file:
            try:
                Path(self._config.pid_file).write_text(str(os.getpid()), encoding="ascii")
            except OSError as error:
                raise ConfigError(
                    f"pid_file: cannot write {self._config.pid_file}: {error}"
                ) from error

    def _remove_pid(self) -> None:
        if self._config.pid_file:
            Path(self._config.pid_file).unlink(missing_ok=True)
