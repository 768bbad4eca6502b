"""Names at addresses: in-addr.arpa and ip6.arpa (`handlePtr` in agent/dns.go)."""

from __future__ import annotations

import ipaddress
import logging

from proconsul.interfaces.dns import places
from proconsul.interfaces.dns.lookups import Lookups
from proconsul.interfaces.dns.settings import DnsSettings
from proconsul.util.errors import ProconsulError
from proconsul.wire import dns
from proconsul.wire.dns import Name

log = logging.getLogger("proconsul.dns")

_IPV4_ARPA, _IPV6_ARPA = (b"in-addr", b"arpa"), (b"ip6", b"arpa")


async def name_at(settings: DnsSettings, lookups: Lookups, asked: Name) -> Name | None:
    """The node, else the service, at the address that `asked` (in lower case) stands for.

    Errors count as nothing found, as in Consul.
    """
    ip = reverse_address(asked)
    if not ip:
        return None
    packed = places.ip_bytes(ip)
    try:
        for node in (await lookups.nodes()).nodes or ():
            if places.ip_bytes(node.address) == packed:
                suffix = f"node.{settings.datacenter}.{settings.domain_text}"
                return dns.name_of(f"{node.node}.{suffix}")
    except (ProconsulError, TimeoutError) as error:
        log.debug("no nodes for a reverse lookup: %s", error)
    try:
        for row in await lookups.service_at(ip):
            suffix = f"service.{row.datacenter}.{settings.domain_text}"
            return dns.name_of(f"{row.service_name}.{suffix}")
    except (ProconsulError, TimeoutError) as error:
        log.debug("no services for a reverse lookup: %s", error)
    return None


def reverse_address(name: Name) -> str:
    """The IP address of a name (in lower case) under in-addr.arpa or ip6.arpa, "" of others."""
    labels, zone = name[:-2][::-1], name[-2:]
    try:
        if zone == _IPV4_ARPA and len(labels) == 4:
            return str(ipaddress.IPv4Address(b".".join(labels).decode("ascii")))
        if zone == _IPV6_ARPA and len(labels) == 32 and all(len(one) == 1 for one in labels):
            digits = b"".join(labels).decode("ascii")
            return str(ipaddress.IPv6Address(bytes.fromhex(digits)))
    except ValueError:
        pass
    return ""
