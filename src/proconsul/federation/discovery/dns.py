"""Discovery by DNS, without any cloud: our `dns` and go-discover's `srv`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from proconsul.drivers.dns_resolver import TIMEOUT_S, DnsError, StubResolver, lookup_host
from proconsul.federation.discovery.provider import DiscoveryError
from proconsul.util.errors import ProconsulError
from proconsul.util.goduration import parse_duration

_KINDS = ("A", "AAAA", "SRV")


class DnsProvider:
    """`provider=dns host=... [type=A|AAAA|SRV] [port=N] [resolver=ip:port] [timeout=2s]`."""

    name = "dns"

    def help(self) -> str:
        """See `Provider.help`."""
        return """DNS:

    provider:  "dns"
    host:      The name to look up
    type:      "A", "AAAA" or "SRV". Without it every address that the system's resolver gives,
               /etc/hosts included
    port:      The port to add to addresses; SRV records bring their own
    resolver:  ip or ip:port of the DNS server to ask. Defaults to those of /etc/resolv.conf
    timeout:   How long one server may take, e.g. "2s"
"""

    async def addrs(self, args: Mapping[str, str]) -> list[str]:
        """See `Provider.addrs`."""
        host, kind = args.get("host", ""), args.get("type", "").upper()
        if not host:
            raise DiscoveryError("discover-dns: host is required")
        if kind and kind not in _KINDS:
            raise DiscoveryError(f"discover-dns: type {kind!r} is none of {', '.join(_KINDS)}")
        port = args.get("port", "")
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise DiscoveryError(f"discover-dns: port {port!r} is not a port")
        resolver = _resolver(args, "discover-dns")
        try:
            if kind == "SRV":
                return await self._services(resolver, host)
            if not kind and not args.get("resolver"):
                found = await lookup_host(host)
            else:
                found = await resolver.addresses(host, kind or "A")
        except DnsError as error:
            raise DiscoveryError(f"discover-dns: {error}") from error
        return [_with_port(address, port) for address in found]

    @staticmethod
    async def _services(resolver: StubResolver, name: str) -> list[str]:
        """Targets of SRV records as addresses; those without any are left out."""
        out: list[str] = []
        failure: DnsError | None = None
        for record in await resolver.services(name):
            for kind in ("A", "AAAA"):
                try:
                    found = await resolver.addresses(f"{record.target}.", kind)
                except DnsError as error:
                    failure = error
                else:
                    out += [_with_port(address, str(record.port)) for address in found]
        if not out and failure is not None:
            raise failure
        return list(dict.fromkeys(out))


class SrvProvider:
    """go-discover's `srv`: `_service._proto.domain`, names and ports as the records have them."""

    name = "srv"

    def help(self) -> str:
        """See `Provider.help`."""
        return """SRV:

    provider:   "srv"
    service:    The SRV service to filter on
    proto:      The protocol to filter on
    domain:     The SRV domain to filter on
    resolver:   ip or ip:port of the DNS server to ask (ours)
"""

    async def addrs(self, args: Mapping[str, str]) -> list[str]:
        """See `Provider.addrs`."""
        service, domain = args.get("service", ""), args.get("domain", "")
        if not service or not domain:
            raise DiscoveryError("discover-srv: service or domain is required")
        resolver = _resolver(args, "discover-srv")
        name = f"_{service}._{args.get('proto') or 'tcp'}.{domain}"
        try:
            found = await resolver.services(name)
        except DnsError as error:
            raise DiscoveryError(str(error)) from error
        return [f"{record.target}.:{record.port}" for record in found]


def _resolver(args: Mapping[str, str], who: str) -> StubResolver:
    timeout_s = TIMEOUT_S
    if text := args.get("timeout"):
        try:
            timeout_s = parse_duration(text)
        except (ProconsulError, ValueError) as error:
            raise DiscoveryError(f"{who}: timeout {text!r} is not a duration") from error
    server = args.get("resolver", "")
    if not server:
        return StubResolver((), timeout_s)
    host, colon, port = server.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = server, "53"
    try:
        literal = str(ipaddress.ip_address(host.strip("[]")))
        return StubResolver([(literal, int(port))], timeout_s)
    except ValueError:
        raise DiscoveryError(f"{who}: resolver {server!r} is not ip:port") from None


def _with_port(address: str, port: str) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
