"""Two federated datacenters of ours against two of real Consul 1.8.7, in the same kind of world.

    make bench [ARGS="-idle 20 -only proconsul"]

Network namespaces, one server a datacenter, one gateway each; real Consul's gateways are Envoys of
static configuration, since it cannot drive a current Envoy. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.http_load import Connection, latencies, throughput

from proconsul.app.worlds import netns, proof
from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.programs import Programs
from proconsul.app.worlds.spec import HTTP_PORT, Host, Software, WorldError, world_spec
from proconsul.app.worlds.static_envoy import registration
from proconsul.app.worlds.waiting import Missing, until
from proconsul.app.worlds.world import World

CONSUL = Path(".peers/root/usr/bin/consul")
POLL_S = 0.01
KEY = "bench/key"

ROWS: dict[str, tuple[str, str, bool]] = {
    "alive_s": ("second server started -> both sides alive, s", "not longer", False),
    "kv_s": ("second server started -> KV both ways, s", "3", False),
    "kv_median_ms": ("KV read across datacenters, median, ms", "not longer", False),
    "kv_p99_ms": ("KV read across datacenters, p99, ms", "not longer", False),
    "kv_rps": ("the same with 16 connections, req/s", "not fewer", True),
    "blocking_ms": ("blocking query, write to answer, median, ms", "not longer", False),
    "wan_bytes_s": ("idle WAN traffic, B/s", "not more", False),
    "wan_connections_min": ("idle, new connections a minute at a gateway", "not more", False),
    "restart_rpc_s": ("gateway killed and restarted -> RPC both ways, worst, s", "2", False),
    "restart_alive_s": ("gateway killed and restarted -> alive for good, worst, s", "5", False),
    "gateway_seen_ms": ("gateway registered -> in the other's Envoy, median, ms", "350", False),
    "rss_mib": ("resident memory of an idle server, MiB", "60", False),
    "cpu_percent": ("CPU of an idle server, % of a core", "0.5", False),
}
"""Key -> (what, goal, whether more is better)."""

Figures = dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-idle", type=float, default=60.0, help="seconds of watching idle worlds")
    parser.add_argument("-only", choices=[s.value for s in Software], help="one of the two")
    parser.add_argument("-json", type=Path, help="also write the figures to this file")
    parser.add_argument("-logs", action="store_true", help="agents log at DEBUG, and logs are kept")
    options = parser.parse_args()
    if reason := netns.why_not():
        sys.stderr.write(f"bench: no network namespaces: {reason}\n")
        return 1
    found: dict[str, Figures] = {}
    for software in Software:
        if options.only in {None, software.value}:
            found[software.value] = measure(software, options.idle, keep=options.logs)
    _print(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(software: Software, idle_s: float, *, keep: bool) -> Figures:
    """Everything about one kind of world."""
    consul = os.environ.get("PROCONSUL_CONSUL_BIN", str(CONSUL.resolve()))
    spec = world_spec(2, software=software, log_level="DEBUG" if keep else "INFO")
    figures: Figures = {}
    with World(spec, NetnsNetwork(), Programs(consul=consul), keep=keep) as world:
        _say(f"{software.value}: {world.directory}")
        steps: list[tuple[str, Callable[[], Figures]]] = [
            ("start", lambda: starting(world)),
            ("reads", lambda: reading(world)),
            ("blocking queries", lambda: blocking(world)),
            (f"idle, {idle_s:g} s", lambda: idling(world, idle_s)),
            ("gateways killed and restarted", lambda: restarting(world)),
        ]
        if software is Software.PROCONSUL:
            steps.append(("gateways registered", lambda: registering(world)))
        for title, step in steps:
            try:
                new = step()
            except (WorldError, OSError) as error:
                _say(f"  {title}: FAILED: {error}")
                continue
            figures |= new
            _say(f"  {title}: {', '.join(f'{k} {v:.3g}' for k, v in new.items())}")
    return figures


def starting(world: World) -> Figures:
    """dc1 whole and dc2's gateway there; then dc2's server."""
    world.build()
    late = world.servers("dc2")[0]
    for host in world.hosts:
        if host is not late:
            world.start_agent(host)
    for host in world.gateways():
        world.start_envoy(host)
    first = world.servers("dc1")[0]
    gateway = world.gateways("dc1")[0]

    def ready() -> None:
        if not world.api(first).get("/v1/status/leader"):
            raise Missing("a leader")
        if not world.api(first).get("/v1/catalog/service/mesh-gateway"):
            raise Missing("the gateway of dc1 in its catalog")
        if not world.api(first).get("/v1/internal/federation-states"):
            raise Missing("the federation state of dc1")
        world.network.connect(first, (gateway.lan, 8443), 1.0).close()

    until(ready, "dc1 is whole", 60)
    began = time.monotonic()
    world.start_agent(late)
    until(lambda: _alive(world), "both alive", 60, POLL_S)
    alive = time.monotonic() - began
    until(lambda: _kv_both_ways(world), "KV both ways", 60, POLL_S)
    return {"alive_s": alive, "kv_s": time.monotonic() - began}


def reading(world: World) -> Figures:
    """dc2's server is asked for a key of dc1."""
    _kv_both_ways(world)
    asked = world.servers("dc2")[0]
    path = f"/v1/kv/{KEY}?dc=dc1"
    connection = _open(world, asked)
    latencies(connection, path, 500)
    seconds = sorted(latencies(connection, path, 3000))
    sockets = [_open(world, asked).sock for _ in range(16)]
    rates = [throughput(sockets, path, 4.0) for _ in range(2)]
    return {
        "kv_median_ms": statistics.median(seconds) * 1e3,
        "kv_p99_ms": seconds[int(len(seconds) * 0.99)] * 1e3,
        "kv_rps": max(rates),
    }


def blocking(world: World) -> Figures:
    """dc2's server is asked to wait for a key of dc1, which is then written there."""
    waiting, writing = _open(world, world.servers("dc2")[0]), _open(world, world.servers("dc1")[0])
    waiting.send("GET", f"/v1/kv/{KEY}?dc=dc1")
    index = _index(waiting.receive()[1])
    seconds = []
    for number in range(60):
        waiting.send("GET", f"/v1/kv/{KEY}?dc=dc1&wait=30s&index={index}")
        time.sleep(0.03)
        began = time.perf_counter()
        writing.send("PUT", f"/v1/kv/{KEY}", str(number).encode())
        index = _index(waiting.receive()[1])
        seconds.append(time.perf_counter() - began)
        writing.receive()
    return {"blocking_ms": statistics.median(seconds[10:]) * 1e3}


def idling(world: World, idle_s: float) -> Figures:
    """What it costs when nobody wants anything."""
    time.sleep(min(10.0, idle_s))
    gateways, server = world.gateways(), world.servers("dc2")[0]
    network = world.network
    assert isinstance(network, NetnsNetwork)
    pid = world.agent(server).pid
    connections = [_gateway_connections(world, gateway) for gateway in gateways]
    carried, cpu, began = network.wan_bytes(gateways[1]), _cpu_s(pid), time.monotonic()
    time.sleep(idle_s)
    passed = time.monotonic() - began
    opened = [
        _gateway_connections(world, gateway) - before
        for gateway, before in zip(gateways, connections, strict=True)
    ]
    return {
        "wan_bytes_s": (network.wan_bytes(gateways[1]) - carried) / passed,
        "wan_connections_min": max(opened) * 60 / passed,
        "cpu_percent": (_cpu_s(pid) - cpu) / passed * 100,
        "rss_mib": _rss_mib(pid),
    }


def restarting(world: World, rounds: int = 2, watched_s: float = 25.0) -> Figures:
    """The Envoy of each gateway is killed and started again at once."""
    rpc, alive = [], []
    for gateway in world.gateways() * rounds:
        _kv_both_ways(world)
        world.envoy(gateway).kill()
        began = time.monotonic()
        world.envoy(gateway).start()
        until(lambda: _kv_both_ways(world, 1.0), "KV both ways", 60, POLL_S)
        rpc.append(time.monotonic() - began)
        last_bad = began
        while time.monotonic() < began + watched_s:
            try:
                _alive(world)
            except (Missing, OSError):
                last_bad = time.monotonic()
            time.sleep(0.05)
        alive.append(last_bad - began)
    return {"restart_rpc_s": max(rpc), "restart_alive_s": max(alive)}


def registering(world: World, rounds: int = 15) -> Figures:
    """A gateway is registered in dc1: when does dc2's Envoy know its address?"""
    gateway, watcher = world.gateways("dc1")[0], world.gateways("dc2")[0]
    agent, admin = world.api(gateway), world.envoy_admin(watcher)
    seconds = []
    for number in range(rounds):
        address = f"198.51.100.{180 + number}"
        new = dict(registration(gateway))
        new |= {"ID": f"bench-{number}", "Address": f"10.10.0.{180 + number}"}
        new["TaggedAddresses"] = {"wan": {"Address": address, "Port": 8443}}
        del new["Check"]

        def known(wanted: bool, address: str = address) -> None:
            _, _, body = admin.request("GET", "/clusters")
            if (address.encode() in body) != wanted:
                raise Missing(f"{address} in dc2's Envoy: {not wanted}")

        began = time.monotonic()
        agent.put("/v1/agent/service/register", new)
        until(lambda: known(True), "the new gateway is in dc2's Envoy", 30, 0.002)
        seconds.append(time.monotonic() - began)
        agent.put(f"/v1/agent/service/deregister/bench-{number}")
        until(lambda: known(False), "it is gone again", 30)
    return {"gateway_seen_ms": statistics.median(seconds) * 1e3}


def _alive(world: World) -> None:
    for server in world.servers():
        states = sorted(proof.wan_members(world, server).values())
        if states != [proof.ALIVE] * 2:
            raise Missing(f"{server.label}: {states}")


def _kv_both_ways(world: World, timeout_s: float = 5.0) -> None:
    first, second = world.servers("dc1")[0], world.servers("dc2")[0]
    for here, there in ((first, second), (second, first)):
        api = world.api(here, timeout_s)
        api.kv_put(KEY, "value", dc=there.datacenter.name)
        api.kv_get(KEY, dc=there.datacenter.name)


def _open(world: World, host: Host) -> Connection:
    return Connection(world.network.connect(host, ("127.0.0.1", HTTP_PORT), 40.0))


def _index(head: bytes) -> int:
    at = head.lower().index(b"x-consul-index:")
    return int(head[at + 15 :].split(b"\r\n", 1)[0])


def _gateway_connections(world: World, gateway: Host) -> int:
    """Connections that were routed; health checks, which match no route, are not among them."""
    _, _, body = world.envoy_admin(gateway).request("GET", "/stats?filter=downstream_cx_total")
    return sum(
        int(line.rpartition(": ")[2])
        for line in body.decode().splitlines()
        if line.startswith("tcp.")
    )


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def _print(found: Mapping[str, Figures]) -> None:
    consul, ours = found.get("consul", {}), found.get("proconsul", {})
    _say(f"\n{'':62}{'consul':>9}{'ours':>9}{'ours/consul':>13}  goal")
    for key, (what, goal, more) in ROWS.items():
        a, b = consul.get(key), ours.get(key)
        ratio = f"{b / a:.2f}" if a and b is not None else "-"
        arrow = " (more is better)" if more else ""
        _say(f"{what:<62}{_number(a):>9}{_number(b):>9}{ratio:>13}  {goal}{arrow}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
