"""The programs that a world runs: which command lines make an agent and a gateway."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proconsul.app.worlds.network import HostPorts
from proconsul.app.worlds.spec import (
    GATEWAY_PORT,
    GATEWAY_SERVICE,
    Host,
    Software,
    WorldError,
)
from proconsul.interfaces.cli.envoy_bootstrap import envoy_argv, find_envoy

_ENVOY_OPTIONS = (
    *("--concurrency", "1"),
    *("-l", "warning", "--component-log-level", "upstream:info,config:info"),
)


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the binaries are; what is empty is looked for."""

    consul: str = ""
    """Real Consul 1.8.7, where a datacenter is to be run by it."""
    envoy: str = ""
    profile: tuple[str, ...] = ()
    """Put before the agent's own command line, for measurements."""

    def proconsul(self) -> list[str]:
        """This very installation's command."""
        beside = Path(sys.executable).with_name("proconsul")
        if os.access(beside, os.X_OK):
            return [str(beside)]
        return [sys.executable, "-m", "proconsul.interfaces.cli.main"]

    def agent(self, software: Software, config: Path) -> list[str]:
        if software is Software.CONSUL:
            if not os.access(self.consul, os.X_OK):
                raise WorldError(f'no Consul at "{self.consul}"; scripts/get-consul fetches it')
            return [self.consul, "agent", "-config-file", str(config)]
        return [*self.profile, *self.proconsul(), "agent", "-config-file", str(config)]

    def static_gateway(self, config: Path) -> list[str]:
        return envoy_argv(find_envoy(self.envoy), str(config), _ENVOY_OPTIONS)

    def gateway(self, host: Host, ports: HostPorts, binds: Sequence[str]) -> list[str]:
        """`connect envoy`, which registers the gateway and becomes Envoy."""
        return [
            *self.proconsul(), "connect", "envoy", "-gateway=mesh", "-register",
            "-expose-servers",
            *("-service", GATEWAY_SERVICE),
            *("-address", f"{host.lan}:{GATEWAY_PORT}"),
            *("-wan-address", f"{host.wan}:{GATEWAY_PORT}"),
            *(f"-bind-address=bind{n}={bind}:{GATEWAY_PORT}" for n, bind in enumerate(binds)),
            *("-admin-bind", _join(ports.envoy_admin)),
            *("-http-addr", _join(ports.http)),
            *("-grpc-addr", _join(ports.grpc)),
            *("-envoy-binary", find_envoy(self.envoy)),
            *("--", *_ENVOY_OPTIONS),
        ]  # fmt: skip


def _join(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"
