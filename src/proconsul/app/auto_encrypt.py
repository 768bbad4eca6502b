"""AutoEncrypt put together: which servers are asked, and where the certificate is shown."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress

from proconsul.app import build
from proconsul.config.model import AgentConfig
from proconsul.drivers.dns_resolver import DnsError, lookup_host
from proconsul.drivers.scope import TaskScope
from proconsul.federation.retry_join import Resolver
from proconsul.rpc.insecure import InsecureCaller
from proconsul.services.agent.agent import Agent
from proconsul.services.agent.auto_encrypt import Address, AutoEncrypt, AutoEncryptSettings

log = logging.getLogger("proconsul.agent.auto-config")


class ServerFinder:
    """RPC ports of servers: those that gossip knows, else those that the agent is to join."""

    def __init__(self, config: AgentConfig, agent: Agent, resolver: Callable[[], Resolver]) -> None:
        self._config, self._agent, self._resolver = config, agent, resolver

    async def __call__(self) -> list[Address]:
        config = self._config
        known = self._agent.core.router.servers(config.datacenter)
        if known:
            return [server.address for server in known]
        join = config.join_lan
        entries = list(join.retry_join)
        if any("provider=" in entry for entry in entries):
            entries = await self._resolver().join_addresses(entries)
        found: list[Address] = []
        for entry in (*join.start_join, *entries):
            try:
                addresses = await lookup_host(_host(entry))
            except DnsError as error:
                log.warning("IP resolution failed: host=%s error=%s", _host(entry), error)
                continue
            found.extend((address, config.ports.server) for address in addresses)
        return list(dict.fromkeys(found))


def _host(entry: str) -> str:
    """Without the port, which is gossip's."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    host, colon, rest = entry.rpartition(":")
    return host if colon and ":" not in host and rest.isdigit() else entry


def create(config: AgentConfig, agent: Agent, resolver: Callable[[], Resolver]) -> AutoEncrypt:
    """The agent's AutoEncrypt."""
    tls = agent.core.tls
    assert tls is not None, "a client with auto_encrypt.tls has contexts"
    settings = AutoEncryptSettings(
        identity=build.identity(config),
        dns_names=config.auto_encrypt.dns_san,
        addresses=config.auto_encrypt.ip_san,
        token=lambda: agent.tokens.agent,
        servers=ServerFinder(config, agent, resolver),
    )
    if not tls.config.has_ca:
        log.warning(
            "auto_encrypt.tls without ca_file: the first answer of the servers is not verified"
        )
    caller = InsecureCaller(tls, config.domain, config.addresses.rpc_bind[0])
    return AutoEncrypt(settings, tls, caller, random.SystemRandom())


async def obtain(automatic: AutoEncrypt, ended: asyncio.Event, scope: TaskScope) -> bool:
    """Get the first certificate; False if the process was told to end meanwhile."""
    getting = scope.spawn("auto-encrypt", automatic.obtain())
    ending = scope.spawn("ended", ended.wait())
    await asyncio.wait((getting, ending), return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if getting.done():
        getting.result()
        return True
    getting.cancel()
    with suppress(asyncio.CancelledError):
        await getting
    return False
