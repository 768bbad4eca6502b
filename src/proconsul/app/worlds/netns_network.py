"""A world of network namespaces: one per host, a NAT router per datacenter, and a WAN between them.

Every datacenter has the same private subnet. The ports of the WAN bridge are isolated from each
other, so whatever crosses it is forwarded by the WAN's own rules (`netns_rules`).
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from proconsul.app.worlds import netns, netns_rules
from proconsul.app.worlds.network import Evidence, HostPorts
from proconsul.app.worlds.publish import Publisher
from proconsul.app.worlds.spec import (
    ENVOY_ADMIN_PORT,
    GRPC_PORT,
    HTTP_PORT,
    DatacenterSpec,
    Host,
    Role,
    WanAddress,
    WorldError,
    WorldSpec,
    node_name,
)

_LAN_ROUTER = "10.10.0.1"
_WAN_ROUTER = "198.51.100.254"
_LAN_FIRST = {Role.SERVER: 10, Role.GATEWAY: 20, Role.CLIENT: 30}
_worlds = itertools.count(1)


class NetnsNetwork:
    """Needs root. Namespaces carry this process's id, so several worlds can stand at once."""

    def __init__(self) -> None:
        self._prefix = f"pc{os.getpid()}-{next(_worlds)}"
        self._hosts: dict[str, Host] = {}
        self._namespaces: list[str] = []
        self._routers: dict[str, str] = {}
        self._moves = itertools.count(101)
        self._publisher = Publisher()
        self._published: dict[str, int] = {}

    @property
    def kind(self) -> str:
        return (
            f"network namespaces {self._prefix}-*: every host in its own, each datacenter behind a"
            " NAT router"
        )

    def plan(self, spec: WorldSpec, datacenter: DatacenterSpec, role: Role, number: int) -> Host:
        dc_number = spec.datacenters.index(datacenter) + 1
        server = role is Role.SERVER
        lan = f"10.10.0.{_LAN_FIRST[role] + number}"
        if role is Role.CLIENT:
            wan = lan
        elif not server:
            wan = f"198.51.100.{dc_number * 20 + number}"
        elif spec.wan_address is WanAddress.OWN or datacenter.routed:
            wan = f"203.0.113.{dc_number * 16 + number}"
        else:
            wan = lan
        name = node_name(spec, datacenter, role, number)
        return Host(name, role, datacenter, dc_number, number, lan, wan, datacenter.software)

    def build(self, hosts: Sequence[Host]) -> None:
        netns.remove_stale()
        wan = self._namespace("wan")
        netns.ip_batch(
            [
                "link add wan0 type bridge",
                f"addr add {_WAN_ROUTER}/24 dev wan0",
                "link set wan0 up",
            ],
            wan,
        )
        # Isolated ports answer for each other through the WAN's rules, never by a redirect
        self._sysctl(wan, "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0",
                     "net.ipv4.conf.wan0.send_redirects=0")  # fmt: skip
        gateways = [host for host in hosts if host.is_gateway]
        reachable = [host for host in hosts if host.is_gateway or host.routed]
        netns.run(netns.command(wan, ["iptables-restore"]), netns_rules.wan_rules(reachable))
        for name in dict.fromkeys(host.datacenter.name for host in hosts):
            self._add_router(name, [host for host in hosts if host.datacenter.name == name])
        for host in hosts:
            self._add_host(host)
        primary = [host for host in gateways if host.is_primary]
        for name, router in self._routers.items():
            members = [host for host in hosts if host.datacenter.name == name]
            rules = netns_rules.router_rules(members, primary, _router_wan(members[0].dc_number))
            netns.run(netns.command(router, ["iptables-restore"]), rules)

    def add(self, host: Host) -> None:
        router = self._routers[host.datacenter.name]
        self._add_host(host)
        if not host.is_gateway:
            if host.is_server:
                self._insert(router, netns_rules.server_rules(host))
            return
        netns.ip_batch([f"addr add {host.wan}/32 dev wan"], router)
        self._insert(self._prefix + "-wan", netns_rules.wan_gateway_rules(host))
        if host.is_primary:
            for name, other in self._routers.items():
                if name != host.datacenter.name:
                    self._insert(other, netns_rules.primary_gateway_rules(host))
        self._nat(host)

    def move(self, host: Host) -> None:
        name = self._name(host)
        old, host.lan = host.lan, f"10.10.0.{next(self._moves)}"
        if host.is_server and host.wan == old:
            host.wan = host.lan
        # The new address comes first: with the last one of an interface its routes would go
        netns.ip_batch(
            [
                f"addr add {host.lan}/24 dev eth0",
                f"addr del {old}/24 dev eth0",
                f"route replace default via {_LAN_ROUTER}",
            ],
            name,
        )
        if host.is_server:
            self._insert(self._routers[host.datacenter.name], netns_rules.server_rules(host))
        else:
            self._nat(host)

    def remove(self) -> None:
        self._publisher.close()
        for name in reversed(self._namespaces):
            netns.remove(name)
        self._namespaces.clear()

    def ports(self, host: Host) -> HostPorts:
        del host
        local = "127.0.0.1"
        return HostPorts(
            "0.0.0.0", (local, HTTP_PORT), (local, GRPC_PORT), (local, ENVOY_ADMIN_PORT)
        )

    def command(self, host: Host, argv: Sequence[str]) -> list[str]:
        return netns.command(self._name(host), argv)

    def connect(self, host: Host, address: tuple[str, int], timeout_s: float) -> socket.socket:
        return netns.connect(self._name(host), address, timeout_s)

    def publish(self, host: Host) -> int:
        port = self._published.get(host.label)
        if port is None:
            http = self.ports(host).http
            port = self._publisher.publish(lambda: self.connect(host, http, 5.0))
            self._published[host.label] = port
        return port

    def watch(self, pids: dict[int, Host]) -> None:
        """Nothing to watch: the kernel counts."""

    def evidence(self) -> Evidence:
        lines, isolated = [], True
        for name, router in self._routers.items():
            counts = self._counts(router)
            stray = counts[netns_rules.ELSEWHERE] + counts[netns_rules.INTO_SERVERS]
            isolated = isolated and stray == 0
            lines.append(
                f"router of {name}: {counts[netns_rules.TO_GATEWAYS]} packets from servers to the"
                f" primary's gateways, {counts[netns_rules.ELSEWHERE]} to anything else,"
                f" {counts[netns_rules.INTO_SERVERS]} stray ones to servers"
            )
        crossed = self._counts(self._prefix + "-wan")[netns_rules.NOT_GATEWAY]
        isolated = isolated and crossed == 0
        lines.append(f"WAN bridge: {crossed} packets that were not to or from a gateway")
        return Evidence(isolated, tuple(lines))

    def counters(self) -> dict[str, dict[str, int]]:
        """Packets per router ("dc1", ..., "wan") and chain of `netns_rules`."""
        found = {name: self._counts(router) for name, router in self._routers.items()}
        found["wan"] = self._counts(self._prefix + "-wan")
        return found

    def wan_bytes(self, host: Host) -> int:
        """Bytes that crossed the WAN side of the router of the host's datacenter, both ways."""
        router = self._routers[host.datacenter.name]
        script = "cat /sys/class/net/wan/statistics/rx_bytes /sys/class/net/wan/statistics/tx_bytes"
        return sum(map(int, netns.run(netns.command(router, ["sh", "-c", script])).split()))

    def blackhole(self, host: Host, direction: str, *, on: bool) -> None:
        """Drop silently what the router would carry `in` to or `out` of a host of its datacenter."""
        which = {"in": ["-d", host.lan, "-i", "wan"], "out": ["-s", host.lan, "-o", "wan"]}[
            direction
        ]
        router = self._routers[host.datacenter.name]
        argv = ["iptables", "-I" if on else "-D", "FORWARD", *which, "-j", "DROP"]
        netns.run(netns.command(router, argv))

    def cut(self, host: Host, direction: str, *, on: bool) -> None:
        """Drop silently everything that comes `in` to or goes `out` of the host itself."""
        chain = {"in": ["INPUT", "-i", "eth0"], "out": ["OUTPUT", "-o", "eth0"]}[direction]
        netns.run(self.command(host, ["iptables", "-I" if on else "-D", *chain, "-j", "DROP"]))

    def cut_wan(self, *, on: bool) -> None:
        """Drop silently everything between datacenters."""
        argv = ["iptables", "-I" if on else "-D", "FORWARD", "-j", "DROP"]
        netns.run(netns.command(self._prefix + "-wan", argv))

    def namespace(self, host: Host) -> str:
        """The name of the host's namespace."""
        return self._name(host)

    def use_resolver(self, host: Host, address: str) -> None:
        netns.resolver(self._name(host), address)

    def _add_router(self, datacenter: str, hosts: Sequence[Host]) -> None:
        router, wan = self._namespace(f"{datacenter}-r"), self._prefix + "-wan"
        self._routers[datacenter] = router
        addresses = [_router_wan(hosts[0].dc_number)]
        addresses += [host.wan for host in hosts if host.is_gateway]
        netns.ip_batch([
            f"link add {datacenter} netns {wan} type veth peer name wan netns {router}",
        ])  # fmt: skip
        netns.ip_batch([
            f"link set {datacenter} master wan0",
            f"link set {datacenter} type bridge_slave isolated on",
            f"link set {datacenter} up",
        ], wan)  # fmt: skip
        netns.ip_batch([
            "link add lan type bridge",
            f"addr add {_LAN_ROUTER}/24 dev lan",
            "link set lan up",
            *(f"addr add {address}/32 dev wan" for address in addresses),
            "link set wan up",
            f"route add {_WAN_ROUTER} dev wan src {addresses[0]}",
            f"route add default via {_WAN_ROUTER} src {addresses[0]}",
        ], router)  # fmt: skip
        self._sysctl(router, "net.ipv4.ip_forward=1")

    def _add_host(self, host: Host) -> None:
        name, router = self._namespace(host.label), self._routers[host.datacenter.name]
        self._hosts[name] = host
        netns.ip_batch(
            [f"link add eth0 netns {name} type veth peer name {host.label} netns {router}"]
        )
        netns.ip_batch([f"link set {host.label} master lan", f"link set {host.label} up"], router)
        addresses = [f"addr add {host.lan}/24 dev eth0"]
        if host.is_server and host.wan != host.lan:
            # On-link for the servers of the same datacenter, elsewhere for all others
            addresses.append(f"addr add {host.wan}/28 dev eth0")
        default = f"route add default via {_LAN_ROUTER}"
        if host.routed:
            default += f" src {host.wan}"
            netns.ip_batch([f"route add {host.wan} dev lan"], router)
            by = _router_wan(host.dc_number)
            netns.ip_batch([f"route add {host.wan} via {by}"], self._prefix + "-wan")
        netns.ip_batch([*addresses, "link set eth0 up", default], name)
        # So that a host can move: deleting its first address must not delete the others
        self._sysctl(name, "net.ipv4.conf.eth0.promote_secondaries=1")

    def _nat(self, gateway: Host) -> None:
        router = self._routers[gateway.datacenter.name]
        for rule in (
            f"-I PREROUTING -i wan -d {gateway.wan} -j DNAT --to-destination {gateway.lan}",
            f"-I POSTROUTING -o wan -s {gateway.lan} -j SNAT --to-source {gateway.wan}",
        ):
            netns.run(netns.command(router, ["iptables", "-t", "nat", *rule.split()]))

    def _insert(self, namespace: str, rules: Sequence[str]) -> None:
        """Put rules before the others of their chains."""
        for rule in rules:
            argv = ["iptables", *rule.replace("-A ", "-I ", 1).split()]
            netns.run(netns.command(namespace, argv))

    def _counts(self, namespace: str) -> dict[str, int]:
        save = netns.run(netns.command(namespace, ["iptables-save", "-c", "-t", "filter"]))
        counts = netns_rules.counted(save)
        if not counts:
            raise WorldError(f"no counters in {namespace}")
        return counts

    def _namespace(self, suffix: str) -> str:
        name = f"{self._prefix}-{suffix}"
        self._namespaces.append(name)
        netns.add(name)
        return name

    def _name(self, host: Host) -> str:
        return f"{self._prefix}-{host.label}"

    @staticmethod
    def _sysctl(namespace: str, *settings: str) -> None:
        script = "; ".join(
            f"echo {value} > /proc/sys/{Path(*key.split('.'))}"
            for key, value in (setting.split("=") for setting in settings)
        )
        netns.run(netns.command(namespace, ["sh", "-c", script]))


def _router_wan(dc_number: int) -> str:
    return f"198.51.100.{dc_number}"
