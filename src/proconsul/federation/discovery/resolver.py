"""Configured entries into addresses: the `Resolver` of `federation.retry_join`."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import TypeVar

from proconsul.drivers.dns_resolver import DnsError, lookup_host
from proconsul.drivers.scope import TaskScope
from proconsul.federation.discovery.args import ArgsError, describe, parse
from proconsul.federation.discovery.cloud import CLOUD_PROVIDERS
from proconsul.federation.discovery.dns import DnsProvider, SrvProvider
from proconsul.federation.discovery.provider import ENTRY_POINTS, DiscoveryError, Provider
from proconsul.federation.retry_join import GATEWAY_PORT_DEFAULT

log = logging.getLogger("proconsul.agent")

DISCOVER_S_MAX = 60.0
"""No provider may take longer than this."""
ADDRESSES_MAX = 1024

Address = tuple[str, int]
T = TypeVar("T")


def default_providers() -> list[Provider]:
    """Those built in. The clouds' need the extra `cloud`, which is looked for when they are used."""
    return [DnsProvider(), SrvProvider(), *(make() for make in CLOUD_PROVIDERS)]


def installed_providers() -> list[Provider]:
    """Third parties' providers: entry points of the group `proconsul.discovery`."""
    return [point.load()() for point in entry_points(group=ENTRY_POINTS)]


_INSTEAD = {
    "k8s": "provider=dns host=NAME.NAMESPACE.svc.cluster.local of a headless Service",
    "mdns": "provider=dns, or the addresses themselves",
}
"""Providers of go-discover that are not here, where there is something better than the general advice."""
_NOT_HERE = frozenset({"k8s", "mdns", "softlayer", "tencentcloud", "triton", "vsphere"})


def _unknown(name: str, known: Iterable[str]) -> str:
    text = f"discover: unknown provider {name}"
    if name not in _NOT_HERE:
        return f"{text}: there are {', '.join(known)}"
    instead = _INSTEAD.get(name, "a name that resolves to all addresses (provider=dns host=NAME)")
    return (
        f"{text}: go-discover has it, but it is not built in here; use {instead}, or install a "
        f"plugin (an entry point of the group {ENTRY_POINTS})"
    )


class Discover:
    """Answers `provider=...` strings (go-discover's `Discover`)."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._providers: Mapping[str, Provider] = {p.name: p for p in providers}

    @property
    def names(self) -> list[str]:
        """Providers that may be named."""
        return sorted(self._providers)

    def help(self) -> str:
        """Arguments of every provider."""
        return "\n".join(self._providers[name].help() for name in self.names)

    def provider(self, entry: str) -> tuple[Provider, dict[str, str]]:
        """Who answers an entry, and its arguments. Raises `DiscoveryError` with go-discover's texts."""
        try:
            args = parse(entry)
        except ArgsError as error:
            raise DiscoveryError(f"discover: {error}") from error
        name = args.get("provider", "")
        if not name:
            raise DiscoveryError("discover: no provider")
        provider = self._providers.get(name)
        if provider is None:
            raise DiscoveryError(_unknown(name, self.names))
        return provider, args

    async def addrs(self, entry: str) -> list[str]:
        """Addresses behind one entry. Raises `DiscoveryError`."""
        provider, args = self.provider(entry)
        name = provider.name
        log.debug('discover: Using provider "%s"', name)
        try:
            async with asyncio.timeout(DISCOVER_S_MAX):
                return (await provider.addrs(args))[:ADDRESSES_MAX]
        except TimeoutError:
            raise DiscoveryError(f"discover-{name}: no answer in {DISCOVER_S_MAX:g}s") from None


def installed_discover() -> Discover:
    """With the providers built in and third parties'."""
    return Discover([*default_providers(), *installed_providers()])


class DiscoveryResolver:
    """The `Resolver`. Everything is looked up again at every call."""

    def __init__(self, discover: Discover) -> None:
        self.discover = discover
        self._complaints: dict[str, str] = {}

    async def join_addresses(self, entries: Sequence[str]) -> list[str]:
        """See `Resolver.join_addresses`."""
        found = await _each(entries, self._expand)
        return list(dict.fromkeys(address for some in found for address in some))

    async def gateway_addresses(self, entries: Sequence[str]) -> list[Address]:
        """See `Resolver.gateway_addresses`."""
        found = await _each(await self.join_addresses(entries), self._resolve)
        return list(dict.fromkeys(address for some in found for address in some))

    async def _expand(self, entry: str) -> list[str]:
        if "provider=" not in entry:
            return [entry]
        try:
            found = await self.discover.addrs(entry)
        except DiscoveryError as error:
            self._complain(describe(entry), str(error))
            return []
        self._complaints.pop(describe(entry), None)
        log.info("Discovered addresses: address=%s found=%s", describe(entry), " ".join(found))
        return found

    async def _resolve(self, entry: str) -> list[Address]:
        try:
            host, port = split_host_port(entry, GATEWAY_PORT_DEFAULT)
            if _is_literal(host):
                return [(host, port)]
            found = await lookup_host(host)
        except (DnsError, ValueError) as error:
            self._complain(entry, str(error))
            return []
        self._complaints.pop(entry, None)
        return [(address, port) for address in found]

    def _complain(self, entry: str, reason: str) -> None:
        """Once per reason: entries are looked up every few seconds."""
        if self._complaints.get(entry) != reason:
            self._complaints[entry] = reason
            log.error("Cannot discover address: address=%s error=%s", entry, reason)


async def _each(
    items: Sequence[str], look_up: Callable[[str], Awaitable[list[T]]]
) -> list[list[T]]:
    """All at once, results in order: one slow name server must not delay the others."""
    async with TaskScope("discovery") as scope:
        tasks = [scope.spawn(f"entry-{i}", _call(look_up, item)) for i, item in enumerate(items)]
        return [await task for task in tasks]


async def _call(look_up: Callable[[str], Awaitable[list[T]]], item: str) -> list[T]:
    return await look_up(item)


def split_host_port(entry: str, default: int) -> Address:
    """`host`, `host:port`, `v6`, `[v6]`, `[v6]:port`. Raises ValueError."""
    text = entry.strip()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or not _is_literal(host):
            raise ValueError(f"{entry!r} is not a bracketed IPv6 address")
        return host, _port(rest[1:], entry) if rest else default
    if text.count(":") > 1:
        if not _is_literal(text):
            raise ValueError(f"{entry!r} has too many colons")
        return text, default
    host, colon, port = text.partition(":")
    if not host:
        raise ValueError(f"{entry!r} has no host")
    return host, _port(port, entry) if colon else default


def _port(text: str, entry: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError(f"{entry!r} has an invalid port")
    return int(text)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
