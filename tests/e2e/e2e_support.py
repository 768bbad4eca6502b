"""What the end-to-end tests of the federation share: measuring, Envoy's view, single RPCs."""

from __future__ import annotations

import itertools
import json
import os
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from proconsul.app.worlds import netns, netns_rules
from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.spec import GATEWAY_PORT, Host
from proconsul.app.worlds.waiting import Missing, until
from proconsul.app.worlds.world import World
from proconsul.domain.base import encode
from proconsul.domain.federation import FederationState, FederationStateRequest
from proconsul.wire.netrpc import encode_request, response_decoder

T = TypeVar("T")

HEALED_S = 30.0
"""What the federation may take to be whole again."""
LEAVE_S = 30.0
"""A leave is answered once it is done, the drain included."""
RPC_PORT = 8300


def measured(what: str, condition: Callable[[], T], timeout_s: float = HEALED_S) -> T:
    """`until`, and how long it took goes to the test's output."""
    started = time.monotonic()
    result = until(condition, what, timeout_s)
    print(f"[measured] {what}: {time.monotonic() - started:.2f} s")
    return result


def proven(what: str, prove: Callable[[World, float], object], world: World) -> float:
    """A step of `worlds.proof` within HEALED_S; the seconds it took."""
    started = time.monotonic()
    prove(world, HEALED_S)
    took = time.monotonic() - started
    print(f"[measured] {what}: {took:.2f} s")
    return took


def first_servers(world: World) -> list[Host]:
    """One per datacenter."""
    return [world.servers(d.name)[0] for d in world.spec.datacenters]


def pairs(world: World) -> Iterator[tuple[Host, Host]]:
    """First servers of every two different datacenters, in both orders."""
    return itertools.permutations(first_servers(world), 2)


def envoy_endpoints(world: World, gateway: Host, cluster: str) -> set[str]:
    """Addresses ("ip:port") that the gateway's Envoy uses in a cluster. Raises OSError, Missing.

    Gateways with a critical check stay in the cluster for the case that no other is left.
    """
    found = world.envoy_admin(gateway).get("/clusters", format="json")
    for status in found.get("cluster_statuses", ()):
        if status["name"] == cluster:
            out = set()
            for host in status.get("host_statuses", ()):
                if host.get("health_status", {}).get("eds_health_status") == "UNHEALTHY":
                    continue
                address = host["address"]["socket_address"]
                out.add(f"{address['address']}:{address['port_value']}")
            return out
    raise Missing(f"the Envoy of {gateway.label} has no cluster {cluster}")


def envoys_agree(world: World) -> None:
    """Every Envoy has exactly the gateways of every other datacenter. Raises Missing, OSError."""
    for gateway in world.gateways():
        for datacenter in world.spec.datacenters:
            if datacenter.name == gateway.datacenter.name:
                continue
            wanted = {f"{g.wan}:8443" for g in world.gateways(datacenter.name)}
            found = envoy_endpoints(world, gateway, f"server.{datacenter.name}.consul")
            if found != wanted:
                raise Missing(f"{gateway.label} has {sorted(found)} of {datacenter.name}")


def cluster_stat(world: World, gateway: Host, pattern: str) -> int:
    """The sum of Envoy's counters whose names match the regular expression."""
    path = f"/stats?filter={quote(pattern)}"
    text = world.envoy_admin(gateway).request("GET", path)[2].decode()
    return sum(int(line.rsplit(":", 1)[1]) for line in text.splitlines() if ": " in line)


def counter(world: World, host: Host, name: str, labels: Mapping[str, str] | None = None) -> float:
    """The total of a counter of an agent, over all labels but those given, from its Prometheus
    metrics.

    They need `telemetry.prometheus_retention_time`.
    """
    texts = [f'{label}="{value}"' for label, value in (labels or {}).items()]
    status, _, body = world.api(host).request("GET", "/v1/agent/metrics?format=prometheus")
    text = body.decode()
    assert status == 200, text
    wanted = name.replace(".", "_")
    total = 0.0
    for line in text.splitlines():
        metric, _, value = line.rpartition(" ")
        if metric.partition("{")[0] in {wanted, f"{wanted}_total"} and all(
            text in metric for text in texts
        ):
            total += float(value)
    return total


def federation_status(world: World, host: Host) -> dict[str, Any]:
    """As the command `federation status -json` gets it."""
    report: dict[str, Any] = world.api(host, 15.0).get("/v1/internal/federation-status")
    return report


def status_command(world: World, host: Host, *flags: str) -> tuple[int, str]:
    """Exit status and output of `federation status` against the host's agent."""
    return command(world, host, "federation", "status", *flags)


def command(world: World, host: Host, *words: str) -> tuple[int, str]:
    """Exit status and output of a command against the host's agent."""
    done = subprocess.run(
        [*world.programs.proconsul(), *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "CONSUL_HTTP_ADDR": world.url(host)},
    )
    return done.returncode, done.stdout + done.stderr


def breaks_connections(world: World, server: Host) -> None:
    """Break all connections that the server has to gateways (Linux with INET_DIAG_DESTROY)."""
    network = world.network
    assert isinstance(network, NetnsNetwork)
    for _ in range(2):  # what was being made when the first one looked
        killed = ["ss", "-K", "-Htn", f"dport = :{GATEWAY_PORT}"]
        netns.run(network.command(server, killed))


def status_row(report: dict[str, Any], datacenter: str) -> dict[str, Any]:
    """The row of one datacenter. Raises Missing."""
    for row in report["Datacenters"]:
        if row["Datacenter"] == datacenter:
            return dict(row)
    raise Missing(f"no row of {datacenter} in {json.dumps(report)[:300]}")


def server_rpc(world: World, server: Host, method: str, body: bytes) -> bytes:
    """One RPC to a server as another server of its datacenter would send it. Raises OSError."""
    keys = world.pki.keys(server)
    context = ssl.create_default_context(cafile=str(keys.ca))
    context.load_cert_chain(keys.certificate, keys.key)
    context.set_alpn_protocols(["consul/rpc-single"])
    raw = world.network.connect(server, (server.lan, RPC_PORT), 5.0)
    name = f"server.{server.datacenter.name}.consul"
    with raw, context.wrap_socket(raw, server_hostname=name) as stream:
        stream.sendall(encode_request(method, 1, body))
        decoder = response_decoder(1 << 20)
        while (answer := decoder.next()) is None:
            data = stream.recv(65536)
            if not data:
                raise OSError("the server closed the connection")
            decoder.feed(data)
    if answer.error:
        raise OSError(answer.error)
    return answer.body


def apply_federation_state(world: World, server: Host, op: str, datacenter: str) -> None:
    """Upsert or delete a federation state without gateways, in the primary."""
    state = FederationState(datacenter=datacenter, mesh_gateways=[])
    primary = world.spec.primary.name
    request = FederationStateRequest(datacenter=primary, op=op, state=state)
    server_rpc(world, server, "FederationState.Apply", encode(request))


def nothing_exchanged(world: World) -> None:
    """Nothing arrived from one datacenter's servers at another's.

    `proof.isolated` is stricter, but `federation status` also asks the gateways of other datacenters
    directly when it looks for what fails, and their routers count and drop that.
    """
    assert isinstance(world.network, NetnsNetwork)
    counters = world.network.counters()
    strays = {name: counts.get(netns_rules.INTO_SERVERS, 0) for name, counts in counters.items()}
    assert not any(strays.values()), strays
    assert counters["wan"][netns_rules.NOT_GATEWAY] == 0
