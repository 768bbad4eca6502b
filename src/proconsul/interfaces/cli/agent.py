"""`agent`: reads the configuration, says what it starts, and hands over to the composition root."""

from __future__ import annotations

import dataclasses
import gc
from importlib import import_module

from proconsul import CONSUL_VERSION, VERSION
from proconsul.config.agent_flags import agent_flags
from proconsul.config.goflags import Parsed
from proconsul.config.load import load_parsed
from proconsul.config.model import AgentConfig
from proconsul.config.node_id import resolve_node_id
from proconsul.interfaces.cli.command import Command, CommandError, out
from proconsul.util.errors import ConfigError


def run(parsed: Parsed) -> int:
    """Runs until the agent ends; its exit status."""
    try:
        config, warnings = load_parsed(parsed)
        node_id = resolve_node_id(config)
    except (ConfigError, OSError) as error:
        raise CommandError(f"==> {error}") from None
    for warning in warnings:
        out(f"==> {warning}")
    out("==> Starting Consul agent...")
    out(banner(config, node_id))
    out("\n==> Log data will now stream in as it occurs:\n")

    # Until it runs: what a start makes is kept, and looking through it again and again costs time
    gc.disable()
    # By name, as every command is found: the composition root stands above this row
    run_agent = import_module("proconsul.app.agent").run
    return int(run_agent(dataclasses.replace(config, node_id=node_id)))


def banner(config: AgentConfig, node_id: str) -> str:
    """The lines by which operators, and tests, know an agent."""
    ports, addresses = config.ports, config.addresses
    outgoing = config.tls.verify_outgoing
    rows = {
        "Version": f"'{CONSUL_VERSION}' (proconsul {VERSION})",
        "Node ID": f"'{node_id}'",
        "Node name": f"'{config.node_name}'",
        "Datacenter": f"'{config.datacenter}' (Segment: '{'<all>' if config.server else ''}')",
        "Server": f"{_bool(config.server)} (Bootstrap: {_bool(config.bootstrap)})",
        "Client Addr": f"[{' '.join(config.addresses.client)}] (HTTP: {ports.http},"
        f" HTTPS: {ports.https}, gRPC: {ports.grpc}, DNS: {ports.dns})",
        "Cluster Addr": f"{addresses.advertise} (LAN: {ports.serf_lan}, WAN: {ports.serf_wan})",
        "Encrypt": f"Gossip: {_bool(config.encrypt.key is not None)}, TLS-Outgoing:"
        f" {_bool(outgoing)}, TLS-Incoming: {_bool(config.tls.verifies_incoming_rpc)},"
        " Auto-Encrypt-TLS: false",
    }
    return "\n".join(f"{name:>16}: {value}" for name, value in rows.items())


def _bool(value: bool) -> str:
    return "true" if value else "false"


COMMAND = Command(
    usage="""
Usage: proconsul agent [options]

  Runs an agent, as a server with -server, else as a client, until it is told to
  end by a signal or by `proconsul leave`.

      $ proconsul agent -dev
      $ proconsul agent -config-dir /etc/consul.d""",
    run=run,
    flags=agent_flags(),
)
