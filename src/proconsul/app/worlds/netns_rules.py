"""The firewall rules of a world of namespaces, and the counters in them. Pure.

A datacenter's router translates addresses: its gateways have a WAN address each, everything else
leaves under the router's. It lets servers out to the primary's gateways alone, drops and counts
what else they send, and lets nothing new in to them. The WAN forwards what comes from or goes to
a gateway's WAN address, and drops and counts the rest. Servers that are `routed` are let through both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from proconsul.app.worlds.spec import Host

TO_GATEWAYS = "server-to-primary-gateway"
ELSEWHERE = "server-to-elsewhere"
INTO_SERVERS = "into-servers"
NOT_GATEWAY = "not-gateway"
_COUNT = re.compile(r"^\[(\d+):\d+\] -A (\S+) -j (?:DROP|ACCEPT)$", re.MULTILINE)


def router_rules(hosts: Sequence[Host], primary_gateways: Sequence[Host], wan_address: str) -> str:
    """Of the router of the datacenter that `hosts` are in, for iptables-restore."""
    nat = []
    for host in hosts:
        if host.is_gateway:
            nat.append(f"-A PREROUTING -i wan -d {host.wan} -j DNAT --to-destination {host.lan}")
            nat.append(f"-A POSTROUTING -o wan -s {host.lan} -j SNAT --to-source {host.wan}")
        elif host.routed:
            nat.append(f"-A POSTROUTING -o wan -s {host.wan} -j ACCEPT")
    nat.append(f"-A POSTROUTING -o wan -j SNAT --to-source {wan_address}")
    forward = ["-A FORWARD -i lan -o lan -j ACCEPT"]
    for host in hosts:
        if host.is_server and not host.routed:
            forward += server_rules(host)
    forward += ["-A FORWARD -i lan -o wan -j ACCEPT", "-A FORWARD -i wan -o lan -j ACCEPT"]
    secondary = any(not host.is_primary for host in hosts)
    for gateway in primary_gateways if secondary else ():
        forward += primary_gateway_rules(gateway)
    return _tables(nat, [
        *forward,
        f"-A from-servers -j {ELSEWHERE}",
        f"-A {TO_GATEWAYS} -j ACCEPT",
        f"-A {ELSEWHERE} -j DROP",
        f"-A to-servers -j {INTO_SERVERS}",
        f"-A {INTO_SERVERS} -j DROP",
    ], ["from-servers", "to-servers", TO_GATEWAYS, ELSEWHERE, INTO_SERVERS])  # fmt: skip


def server_rules(server: Host) -> list[str]:
    """What sends a server's packets through the chains that judge and count them."""
    return [
        rule
        for address in dict.fromkeys((server.lan, server.wan))
        for rule in (
            f"-A FORWARD -s {address} -o wan -j from-servers",
            f"-A FORWARD -d {address} -i wan -j to-servers",
        )
    ]


def primary_gateway_rules(gateway: Host) -> list[str]:
    """What lets the servers of a secondary reach a gateway of the primary."""
    return [
        f"-A from-servers -d {gateway.wan} -j {TO_GATEWAYS}",
        f"-A to-servers -s {gateway.wan} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
    ]


def wan_rules(hosts: Iterable[Host]) -> str:
    """Of the WAN: `hosts` are those that may be reached."""
    forward = [rule for host in hosts for rule in wan_gateway_rules(host)]
    return _tables(
        [],
        [*forward, f"-A FORWARD -j {NOT_GATEWAY}", f"-A {NOT_GATEWAY} -j DROP"],
        [NOT_GATEWAY],
    )


def wan_gateway_rules(gateway: Host) -> list[str]:
    return [f"-A FORWARD -s {gateway.wan} -j ACCEPT", f"-A FORWARD -d {gateway.wan} -j ACCEPT"]


def counted(save: str) -> dict[str, int]:
    """Packets per counting chain, out of the output of `iptables-save -c`."""
    return {
        chain: int(packets)
        for packets, chain in _COUNT.findall(save)
        if chain in {TO_GATEWAYS, ELSEWHERE, INTO_SERVERS, NOT_GATEWAY}
    }


def _tables(nat: Sequence[str], filters: Sequence[str], chains: Sequence[str]) -> str:
    return "\n".join([
        "*nat", ":PREROUTING ACCEPT", ":POSTROUTING ACCEPT", *nat, "COMMIT",
        "*filter", ":INPUT ACCEPT", ":OUTPUT ACCEPT", ":FORWARD DROP",
        *(f":{chain} -" for chain in chains), *filters, "COMMIT", "",
    ])  # fmt: skip
