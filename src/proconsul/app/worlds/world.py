"""A world: its hosts, what runs on them, and what a test or a demo may do to them.

    with World(world_spec(2), NetnsNetwork()) as world:
        world.start()
        world.api(world.servers("dc1")[0]).kv_put("key", "value")

Everything is undone at the end: programs, namespaces and, unless `keep`, the directory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from proconsul.app.worlds.acl import make_tokens
from proconsul.app.worlds.agent_config import agent_config, write_config
from proconsul.app.worlds.api import Api
from proconsul.app.worlds.dns import NameServer
from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.network import Network
from proconsul.app.worlds.pki import Pki
from proconsul.app.worlds.process import Process, end_all
from proconsul.app.worlds.programs import Programs
from proconsul.app.worlds.spec import (
    Host,
    Role,
    Software,
    WorldError,
    WorldSpec,
)
from proconsul.app.worlds.static_envoy import registration, write_static
from proconsul.app.worlds.waiting import until


@dataclass(frozen=True, slots=True)
class Running:
    """What runs on a host."""

    agent: Process
    envoy: Process | None
    """On gateway hosts."""


class World:
    """`start` builds it and starts everything; `stop` undoes it. One thread uses it."""

    def __init__(
        self,
        spec: WorldSpec,
        network: Network,
        programs: Programs | None = None,
        directory: Path | None = None,
        *,
        keep: bool = False,
    ) -> None:
        self.spec, self.network = spec, network
        self.programs = programs or Programs()
        self.keep = keep
        self._own_directory = directory is None
        self.directory = directory or _temporary(keep=keep)
        self.pki = Pki(self.directory / "tls")
        self.hosts: list[Host] = []
        self.names = NameServer()
        self._running: dict[str, Running] = {}
        self._numbers: dict[tuple[str, Role], int] = {}
        try:
            for datacenter in spec.datacenters:
                for role, count in (
                    (Role.SERVER, datacenter.servers),
                    (Role.GATEWAY, datacenter.gateways),
                    (Role.CLIENT, datacenter.clients),
                ):
                    for number in range(1, count + 1):
                        self.hosts.append(network.plan(spec, datacenter, role, number))
        except WorldError:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def build(self) -> None:
        """The network alone, and the hosts' files."""
        self.network.build(self.hosts)
        self._publish_gateways()
        for host in self.hosts:
            self._prepare(host)

    def start(self) -> None:
        """Build and start everything. Returns when every program has been started."""
        self.build()
        if self.spec.acl is None:
            self._start(self.hosts)
            return
        # Secondaries know tokens from the primary: found without one, Consul's look for it again
        # after up to 30 s
        primary = self._of(self.spec.primary.name)
        for host in primary:
            self.start_agent(host)
        make_tokens(self.api(primary[0], 2.0), self.spec.acl)
        self._start(primary)
        self._start([host for host in self.hosts if host not in primary])

    def stop(self) -> None:
        """Ends all programs and takes the network away. May be called twice."""
        processes = [
            process
            for running in self._running.values()
            for process in (running.envoy, running.agent)
            if process is not None
        ]
        end_all(processes)
        self._running.clear()
        self.names.close()
        self.network.remove()
        if not self.keeps_files:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def keeps_files(self) -> bool:
        return self.keep or not self._own_directory

    # Who is there

    def servers(self, datacenter: str = "") -> list[Host]:
        return [h for h in self._of(datacenter) if h.is_server]

    def gateways(self, datacenter: str = "") -> list[Host]:
        return [h for h in self._of(datacenter) if h.is_gateway]

    def clients(self, datacenter: str = "") -> list[Host]:
        """Client agents without a gateway."""
        return [h for h in self._of(datacenter) if h.role is Role.CLIENT]

    def host(self, label: str) -> Host:
        """By its label, such as `dc1-s1` or `dc2-g1`."""
        return next(host for host in self.hosts if host.label == label)

    def agent(self, host: Host) -> Process:
        return self._running[host.label].agent

    def envoy(self, host: Host) -> Process:
        envoy = self._running[host.label].envoy
        if envoy is None:
            raise WorldError(f"{host.name} is no gateway")
        return envoy

    def processes(self) -> list[Process]:
        return [p for r in self._running.values() for p in (r.agent, r.envoy) if p is not None]

    # How they are reached

    def api(self, host: Host, timeout_s: float = 10.0, token: str | None = None) -> Api:
        """The HTTP API of the host's agent, with the token that may do everything or this one."""
        http = self.network.ports(host).http
        if token is None:
            token = self.spec.acl.master if self.spec.acl else ""
        return Api(lambda limit: self.network.connect(host, http, limit), timeout_s, token)

    def envoy_admin(self, host: Host) -> Api:
        """Envoy's admin interface."""
        admin = self.network.ports(host).envoy_admin
        return Api(lambda limit: self.network.connect(host, admin, limit))

    def url(self, host: Host) -> str:
        """The agent's HTTP API, from this machine."""
        return f"http://127.0.0.1:{self.network.publish(host)}"

    # What may be done to them

    def start_agent(self, host: Host) -> None:
        """(Re)start it, with a configuration for the world as it now is."""
        self._configure(host)
        self.agent(host).start()
        if host.is_server:
            self._tell_watch()

    def start_envoy(self, host: Host, timeout_s: float = 30.0) -> None:
        """(Re)start the gateway, once the host's agent answers."""
        until(lambda: self._agent_answers(host), f"the agent of {host.name} answers", timeout_s)
        if host.software is Software.CONSUL:
            ports = self.network.ports(host)
            binds = [host.lan] if ports.bind == "0.0.0.0" else [host.lan, host.wan]
            path = self._directory(host) / "envoy.json"
            write_static(path, host, self.hosts, binds, ports.envoy_admin)
            self.api(host).put("/v1/agent/service/register", registration(host))
        self.envoy(host).start()

    def start_host(self, host: Host) -> None:
        self.start_agent(host)
        if host.is_gateway:
            self.start_envoy(host)

    def become(self, host: Host, software: Software) -> None:
        """The host's agent, which must have ended, is of this make when it starts again.

        Its data stays, but for Raft's: neither program reads the other's log.
        """
        shutil.rmtree(self._directory(host) / "data" / "raft", ignore_errors=True)
        host.software = software
        self._prepare(host)

    def kill_host(self, host: Host) -> None:
        """kill -9 of everything on it."""
        running = self._running[host.label]
        for process in (running.envoy, running.agent):
            if process is not None:
                process.kill()

    def add_gateway(self, datacenter: str, *, start: bool = True) -> Host:
        """Another gateway host, with addresses that nobody had before."""
        return self._add(datacenter, Role.GATEWAY, start=start)

    def add_server(self, datacenter: str, *, start: bool = True) -> Host:
        """Another server, which joins those that are there."""
        return self._add(datacenter, Role.SERVER, start=start)

    def retire(self, host: Host) -> None:
        """kill -9, and nobody is told of it any more. Its addresses are not used again."""
        self.kill_host(host)
        self.hosts.remove(host)
        self._publish_gateways()

    def move(self, host: Host) -> None:
        """Kill everything on the host and give it another LAN address; start it again yourself."""
        self.kill_host(host)
        self.network.move(host)
        self._prepare(host)

    # Within

    def _start(self, hosts: Sequence[Host]) -> None:
        for host in hosts:
            self.start_agent(host)
        for host in hosts:
            if host.is_gateway:
                self.start_envoy(host, 90.0 if self.spec.acl else 30.0)

    def _add(self, datacenter: str, role: Role, *, start: bool) -> Host:
        found = next(d for d in self.spec.datacenters if d.name == datacenter)
        planned = found.servers if role is Role.SERVER else found.gateways
        number = self._numbers.get((datacenter, role), planned) + 1
        self._numbers[datacenter, role] = number
        host = self.network.plan(self.spec, found, role, number)
        self.network.add(host)
        self.hosts.append(host)
        self._publish_gateways()
        self._prepare(host)
        if start:
            self.start_host(host)
        return host

    def _of(self, datacenter: str) -> list[Host]:
        return [h for h in self.hosts if datacenter in {"", h.datacenter.name}]

    def _prepare(self, host: Host) -> None:
        directory = self._directory(host)
        directory.mkdir(exist_ok=True)
        argv = self.programs.agent(host.software, directory / "agent.json")
        argv = self.network.command(host, argv)
        agent = Process(f"{host.label} agent", argv, directory / "agent.log")
        envoy = None
        if host.is_gateway:
            argv = self.network.command(host, self._gateway_command(host))
            token = {"CONSUL_HTTP_TOKEN": self.spec.acl.master} if self.spec.acl else {}
            envoy = Process(f"{host.label} envoy", argv, directory / "envoy.log", token)
        self._running[host.label] = Running(agent, envoy)

    def _gateway_command(self, host: Host) -> list[str]:
        if host.software is Software.CONSUL:
            return self.programs.static_gateway(self._directory(host) / "envoy.json")
        ports = self.network.ports(host)
        # Behind NAT a gateway has only its LAN address; on loopback it has both
        binds = [host.lan] if ports.bind == "0.0.0.0" else [host.lan, host.wan]
        return self.programs.gateway(host, ports, binds)

    def _configure(self, host: Host) -> None:
        ports = self.network.ports(host)
        data = self._directory(host) / "data"
        config = agent_config(self.spec, host, self.hosts, ports, self.pki, data)
        write_config(self._directory(host) / "agent.json", config)
        if self.spec.primary_gateway_name and isinstance(self.network, NetnsNetwork):
            self.names.serve(self.network.namespace(host))
            self.network.use_resolver(host, self.names.address)

    def _agent_answers(self, host: Host) -> None:
        if not self.agent(host).running:
            raise WorldError(f"the agent of {host.name} has ended:\n{self.agent(host).tail()}")
        # What a token may do is known in a secondary only once the primary is reached
        self.api(host, 2.0).get("/v1/acl/token/self" if self.spec.acl else "/v1/agent/self")

    def _publish_gateways(self) -> None:
        if self.spec.primary_gateway_name:
            gateways = self.gateways(self.spec.primary.name)
            self.names.records[self.spec.primary_gateway_name] = [h.wan for h in gateways]

    def _tell_watch(self) -> None:
        pids = {self.agent(h).pid: h for h in self.servers() if h.label in self._running}
        self.network.watch({pid: host for pid, host in pids.items() if pid})

    def _directory(self, host: Host) -> Path:
        return self.directory / host.label


def _temporary(*, keep: bool) -> Path:
    """A new directory; those of worlds whose process was killed are removed."""
    prefix = "proconsul-kept-" if keep else "proconsul-world-"
    for stale in Path(tempfile.gettempdir()).glob("proconsul-world-*-*"):
        pid = stale.name.split("-")[2]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(stale, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
