"""The DNS interface of an agent: built, listening, reloaded."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import logging
import os
import random
import socket
import time
from collections.abc import Callable

from proconsul.config.model import AgentConfig
from proconsul.drivers.dns_server import DnsListener, exchange
from proconsul.interfaces.dns.server import DnsServer
from proconsul.interfaces.dns.settings import DnsAgent, DnsSettings, Recursor
from proconsul.util.address import host_port
from proconsul.util.errors import ConfigError
from proconsul.wire import dns

log = logging.getLogger("proconsul.agent")

DNS_PORT = 53


class DnsInterface:
    """All DNS listeners of an agent. Build it by `start_dns`."""

    def __init__(self, server: DnsServer, listener: DnsListener, settings: DnsSettings) -> None:
        self._server, self._listener, self._settings = server, listener, settings

    async def reload(self, config: AgentConfig) -> None:
        """Answer by other settings; the domains stay. Raises `ConfigError`."""
        settings = await dns_settings(config)
        self._settings = dataclasses.replace(
            settings, domain=self._settings.domain, alt_domain=self._settings.alt_domain
        )
        self._server.reconfigure(self._settings)

    async def aclose(self) -> None:
        """Stop listening."""
        await self._listener.aclose()


async def start_dns(
    agent: DnsAgent, config: AgentConfig, token: Callable[[], str]
) -> DnsInterface | None:
    """Listen on all of `addresses.dns`; None where DNS is off. Raises `ConfigError`."""
    if not config.addresses.dns:
        return None
    settings = await dns_settings(config)
    clock = asyncio.get_running_loop().time
    server = DnsServer(agent, settings, exchange, token, random.Random(), clock, time.time)
    listener = DnsListener(server.handle)
    try:
        for address in config.addresses.dns:
            try:
                await listener.listen(*address)
            except OSError as error:
                raise ConfigError(
                    f"ports.dns: cannot listen on {host_port(address)}:"
                    f" {os.strerror(error.errno or 0)}; is another agent or name server running"
                    " here? Change ports.dns, addresses.dns or client_addr"
                ) from error
            log.info("Started DNS server: address=%s network=udp+tcp", host_port(address))
    except ConfigError:
        await listener.aclose()
        raise
    return DnsInterface(server, listener, settings)


async def dns_settings(config: AgentConfig) -> DnsSettings:
    """The settings of the DNS interface, recursors resolved. Raises `ConfigError`."""
    own = config.dns
    return DnsSettings(
        datacenter=config.datacenter,
        node_name=config.node_name,
        domain=dns.lower(dns.name_of(own.domain)),
        alt_domain=dns.lower(dns.name_of(own.alt_domain)),
        recursors=tuple([await _recursor(text) for text in own.recursors]),
        recursor_timeout_s=own.recursor_timeout_s,
        allow_stale=own.allow_stale,
        max_stale_ns=int(own.max_stale_s * 1e9),
        a_record_limit=own.a_record_limit,
        udp_answer_limit=own.udp_answer_limit,
        disable_compression=own.disable_compression,
        enable_truncate=own.enable_truncate,
        only_passing=own.only_passing,
        node_ttl=int(own.node_ttl_s),
        service_ttl={name: int(ttl) for name, ttl in own.service_ttl_s.items()},
        node_meta_txt=own.enable_additional_node_meta_txt,
        use_cache=own.use_cache,
        cache_max_age_ns=int(own.cache_max_age_s * 1e9),
        soa_refresh=own.soa.refresh,
        soa_retry=own.soa.retry,
        soa_expire=own.soa.expire,
        soa_min_ttl=own.soa.min_ttl,
        translate_wan_addrs=config.translate_wan_addrs,
    )


async def _recursor(text: str) -> Recursor:
    """`host`, `host:port`, `::1` or `[::1]:port`; the port is 53 unless given."""
    host, port = text, DNS_PORT
    try:
        if text.startswith("["):
            host, _, rest = text[1:].partition("]")
            port = int(rest.removeprefix(":")) if rest else DNS_PORT
        elif text.count(":") == 1:
            host, _, rest = text.partition(":")
            port = int(rest)
        if not 0 < port < 65536:
            raise ValueError("invalid port")
    except ValueError as error:
        raise ConfigError(
            f"recursors: Invalid recursor address: {text}: {error}; give address or address:port"
        ) from None
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"recursors: Invalid recursor address: lookup {host}: {error}; give an IP address"
        ) from None
    address = found[0][4]
    return str(address[0]), port
