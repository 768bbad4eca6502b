"""Addresses and weights of instances, as answers show them (agent/translate_addr.go). Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from proconsul.domain.catalog import CheckServiceNode, HealthCheck, Node, NodeService
from proconsul.interfaces.dns.settings import DnsSettings
from proconsul.wire import dns

LAN_IPV4, LAN_IPV6 = "lan_ipv4", "lan_ipv6"
WAN, WAN_IPV4, WAN_IPV6 = "wan", "wan_ipv4", "wan_ipv6"
_ADDRESSES_KEPT = 4096
_NODE_MAINTENANCE = "_node_maintenance"
_SERVICE_MAINTENANCE = "_service_maintenance:"


@lru_cache(_ADDRESSES_KEPT)
def ip_bytes(text: str) -> bytes | None:
    """4 or 16 bytes of an IP literal (an IPv4 address within IPv6 is IPv4); None of all else."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id:
            return None
        return ip.ipv4_mapped.packed if ip.ipv4_mapped is not None else ip.packed
    return ip.packed


def _chosen(qtype: int, default: str, v4: str, v6: str) -> str:
    """A takes the tagged IPv4 address, AAAA the IPv6 one, all others either, IPv6 first."""
    if v6 and qtype != dns.A:
        return v6
    if v4 and qtype != dns.AAAA:
        return v4
    return default


def node_address(settings: DnsSettings, node: Node, qtype: int) -> str:
    """The address under which `node` is to be reached from here."""
    tagged = node.tagged_addresses or {}
    default, v4, v6 = node.address, tagged.get(LAN_IPV4, ""), tagged.get(LAN_IPV6, "")
    if settings.translate_wan_addrs and node.datacenter != settings.datacenter:
        default, v4 = tagged.get(WAN, default), tagged.get(WAN_IPV4, v4)
        v6 = tagged.get(WAN_IPV6, v6)
    return _chosen(qtype, default, v4, v6)


def service_address(settings: DnsSettings, dc: str, service: NodeService, qtype: int) -> str:
    """The service's own address, "" if it has none. `dc` is where it is."""
    tagged = {key: a.address for key, a in (service.tagged_addresses or {}).items()}
    default, v4, v6 = service.address, tagged.get(LAN_IPV4, ""), tagged.get(LAN_IPV6, "")
    if settings.translate_wan_addrs and dc != settings.datacenter:
        default, v4 = tagged.get(WAN, default), tagged.get(WAN_IPV4, v4)
        v6 = tagged.get(WAN_IPV6, v6)
    return _chosen(qtype, default, v4, v6)


def service_port(settings: DnsSettings, dc: str, service: NodeService) -> int:
    """The service's port, its WAN one for those far away."""
    if settings.translate_wan_addrs and dc != settings.datacenter:
        wan = (service.tagged_addresses or {}).get(WAN)
        if wan is not None and wan.port:
            return wan.port
    return service.port


def is_healthy(instance: CheckServiceNode, *, only_passing: bool) -> bool:
    """Whether the instance is shown at all."""
    return not any(
        check.status == "critical" or (only_passing and check.status != "passing")
        for check in instance.checks or ()
    )


def weight(instance: CheckServiceNode) -> int:
    """The weight of the state that its checks add up to (`findWeight`)."""
    service = instance.service
    passing, warning = 1, 1
    if service.weights is not None:
        passing, warning = service.weights.passing, service.weights.warning
    own = [c for c in instance.checks or () if c.service_name in (service.service, "")]
    match _aggregated(own):
        case "warning":
            return warning
        case "passing":
            return passing
        case "maintenance" | "critical":
            return 0
        case _:
            return 1


def _aggregated(checks: Iterable[HealthCheck]) -> str:
    found = set()
    for check in checks:
        if check.check_id == _NODE_MAINTENANCE or check.check_id.startswith(_SERVICE_MAINTENANCE):
            found.add("maintenance")
        elif check.status in {"passing", "warning", "critical"}:
            found.add(check.status)
        else:
            return ""
    order = ("maintenance", "critical", "warning")
    return next((status for status in order if status in found), "passing")
