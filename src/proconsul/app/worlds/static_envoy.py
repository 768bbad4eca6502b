"""A mesh gateway without control plane: Envoy with a configuration written by hand.

Real Consul 1.8.7 speaks xDS v2, which no current Envoy understands, so the datacenters that it
runs have this kind. Same routes as the control plane's: by SNI, TLS is never terminated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proconsul.app.worlds.spec import GATEWAY_PORT, GATEWAY_SERVICE, RPC_PORT, Host

_TYPE = "type.googleapis.com/envoy.extensions"


def write_static(
    path: Path,
    gateway: Host,
    hosts: Sequence[Host],
    binds: Sequence[str],
    admin: tuple[str, int],
) -> None:
    """Envoy's configuration file. It listens on `binds`; `hosts` are all of the world."""
    datacenter = gateway.datacenter.name
    servers = [h for h in hosts if h.is_server and h.datacenter.name == datacenter]
    clusters = [_cluster("servers", [(h.lan, RPC_PORT) for h in servers])]
    chains = [_chain([f"server.{datacenter}.consul"], "servers")]
    for server in servers:
        clusters.append(_cluster(server.label, [(server.lan, RPC_PORT)]))
        chains.append(_chain([f"{server.name}.server.{datacenter}.consul"], server.label))
    for other in dict.fromkeys(h.datacenter.name for h in hosts):
        if other != datacenter:
            gateways = [h for h in hosts if h.is_gateway and h.datacenter.name == other]
            clusters.append(_cluster(other, [(h.wan, GATEWAY_PORT) for h in gateways]))
            chains.append(_chain([f"server.{other}.consul", f"*.server.{other}.consul"], other))
    config = {
        "admin": {"address": _address(*admin)},
        "static_resources": {
            "clusters": clusters,
            "listeners": [_listener(f"gateway-{n}", a, chains) for n, a in enumerate(binds)],
        },
    }
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")


def registration(gateway: Host) -> Mapping[str, Any]:
    """What the gateway's agent is told of it (`/v1/agent/service/register`)."""
    return {
        "Kind": "mesh-gateway",
        "Name": GATEWAY_SERVICE,
        "ID": GATEWAY_SERVICE,
        "Address": gateway.lan,
        "Port": GATEWAY_PORT,
        "Meta": {"consul-wan-federation": "1"},
        "TaggedAddresses": {
            "lan": {"Address": gateway.lan, "Port": GATEWAY_PORT},
            "wan": {"Address": gateway.wan, "Port": GATEWAY_PORT},
        },
        "Check": {"TCP": f"{gateway.lan}:{GATEWAY_PORT}", "Interval": "10s"},
    }


def _listener(name: str, bind: str, chains: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return {
        "name": name,
        "address": _address(bind, GATEWAY_PORT),
        "listener_filters": [
            {
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": {
                    "@type": f"{_TYPE}.filters.listener.tls_inspector.v3.TlsInspector"
                },
            }
        ],
        "filter_chains": list(chains),
    }


def _chain(names: Sequence[str], cluster: str) -> Mapping[str, Any]:
    return {
        "filter_chain_match": {"server_names": list(names)},
        "filters": [
            {
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {
                    "@type": f"{_TYPE}.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": cluster,
                    "cluster": cluster,
                },
            }
        ],
    }


def _cluster(name: str, endpoints: Sequence[tuple[str, int]]) -> Mapping[str, Any]:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _address(*e)}} for e in endpoints]}
            ],
        },
    }


def _address(host: str, port: int) -> Mapping[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
