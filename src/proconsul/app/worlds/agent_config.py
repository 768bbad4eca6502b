"""The configuration file of each agent of a world: everything is verified and encrypted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from proconsul.app.worlds.network import HostPorts
from proconsul.app.worlds.pki import Pki
from proconsul.app.worlds.spec import GATEWAY_PORT, AclSpec, Host, WorldSpec


def agent_config(
    spec: WorldSpec, host: Host, hosts: Sequence[Host], ports: HostPorts, pki: Pki, data: Path
) -> Mapping[str, object]:
    """As JSON values. `hosts` are all of the world, for joining."""
    keys = pki.keys(host)
    servers = [h for h in hosts if h.is_server and h.datacenter.name == host.datacenter.name]
    config: dict[str, object] = {
        "datacenter": host.datacenter.name,
        "primary_datacenter": spec.primary.name,
        "node_name": host.name,
        "server": host.is_server,
        "data_dir": str(data),
        "log_level": spec.log_level,
        "bind_addr": ports.bind,
        "advertise_addr": host.lan,
        "client_addr": ports.http[0],
        "addresses": {"http": ports.http[0], "grpc": ports.grpc[0]},
        "ports": {"http": ports.http[1], "grpc": ports.grpc[1], "dns": -1},
        "retry_join": [server.lan for server in servers if server is not host],
        "retry_interval": "1s",
        "leave_on_terminate": False,
        "disable_update_check": True,
        "encrypt": pki.gossip_key,
        "encrypt_verify_incoming": True,
        "encrypt_verify_outgoing": True,
        "ca_file": str(keys.ca),
        "cert_file": str(keys.certificate),
        "key_file": str(keys.key),
        "verify_incoming": True,
        "verify_outgoing": True,
        "verify_server_hostname": True,
    }
    if host.is_server:
        config |= _server(spec, host, hosts)
        if host.number <= host.datacenter.servers:
            # Who comes later joins a Raft that is there
            config["bootstrap_expect"] = host.datacenter.servers
    if spec.acl is not None:
        config["acl"] = _acl(spec.acl, host)
    return {**config, **spec.agent_config, **host.datacenter.agent_config}


def _server(spec: WorldSpec, host: Host, hosts: Sequence[Host]) -> Mapping[str, object]:
    federated = len(spec.datacenters) > 1
    gateways = federated and host.datacenter.gateways > 0
    config: dict[str, object] = {
        "advertise_addr_wan": host.wan,
        "connect": {"enabled": True, "enable_mesh_gateway_wan_federation": gateways},
        "performance": {"raft_multiplier": 1},
    }
    if federated and not gateways:
        others = [h.wan for h in hosts if h.is_server and h.dc_number != host.dc_number]
        config |= {"retry_join_wan": others, "retry_interval_wan": "1s"}
    elif not host.is_primary:
        config["primary_gateways"] = primary_gateways(spec, hosts)
    return config


def _acl(acl: AclSpec, host: Host) -> Mapping[str, object]:
    tokens = {"agent": acl.agent}
    if acl.open_reads:
        tokens["default"] = acl.agent
    if host.is_server:
        tokens["replication"] = acl.replication
        if host.is_primary:
            tokens["master"] = acl.master
    return {
        "enabled": True,
        "default_policy": "deny",
        "down_policy": "extend-cache",
        "enable_token_replication": host.is_server,
        "tokens": tokens,
    }


def primary_gateways(spec: WorldSpec, hosts: Sequence[Host]) -> list[str]:
    """How the servers of secondaries are told of the primary's gateways."""
    if spec.primary_gateway_name:
        return [f"{spec.primary_gateway_name}:{GATEWAY_PORT}"]
    return [f"{h.wan}:{GATEWAY_PORT}" for h in hosts if h.is_primary and h.is_gateway]


def write_config(path: Path, config: Mapping[str, object]) -> None:
    """The file holds the gossip key, so it is for its owner alone."""
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
