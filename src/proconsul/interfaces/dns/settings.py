"""What the DNS interface is told, and what it needs of its agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from proconsul.services.agent.cache import Cache
from proconsul.util.metrics import Metrics
from proconsul.wire import dns

Recursor = tuple[str, int]
"""Address and port of a name server that is asked for other domains."""

Exchange = Callable[[bytes, Recursor, bool, float], Awaitable[bytes]]
"""(message, server, by TCP, seconds) -> its answer. Raises `OSError`, `TimeoutError`."""


class DnsAgent(Protocol):
    """An agent as DNS sees it."""

    metrics: Metrics
    cache: Cache

    def try_rpc(self, method: str, request: Any) -> Any | None:
        """What `rpc` gives, if it can be had without waiting; else None."""
        ...

    def state_version(self) -> int | None:
        """Changes with every change of what `try_rpc` answers from; None if it never does."""
        ...

    async def rpc(self, method: str, request: Any) -> Any:
        """Call an endpoint wherever it is served. Raises `ProconsulError`, `TimeoutError`."""
        ...


@dataclass(frozen=True)
class DnsSettings:
    """`dns_config` and what else shapes answers. TTLs in whole seconds, as they are on the wire."""

    datacenter: str
    node_name: str
    domain: dns.Name
    """In lower case."""
    alt_domain: dns.Name = ()
    """Empty: none."""
    recursors: tuple[Recursor, ...] = ()
    recursor_timeout_s: float = 2.0
    allow_stale: bool = True
    max_stale_ns: int = 87600 * 3600 * 10**9
    a_record_limit: int = 0
    udp_answer_limit: int = 3
    disable_compression: bool = False
    enable_truncate: bool = False
    only_passing: bool = False
    node_ttl: int = 0
    service_ttl: Mapping[str, int] = field(default_factory=dict)
    """By service; a key that ends with `*` is a prefix."""
    node_meta_txt: bool = True
    use_cache: bool = False
    cache_max_age_ns: int = 0
    soa_refresh: int = 3600
    soa_retry: int = 600
    soa_expire: int = 86400
    soa_min_ttl: int = 0
    translate_wan_addrs: bool = False

    @cached_property
    def domain_text(self) -> str:
        """With its final dot."""
        return dns.text_of(self.domain)

    @cached_property
    def _prefixes(self) -> list[tuple[str, int]]:
        found = [(k[:-1], ttl) for k, ttl in self.service_ttl.items() if k.endswith("*")]
        return sorted(found, key=lambda item: -len(item[0]))

    def ttl_of(self, service: str) -> int:
        """The service's own TTL, else that of the longest prefix, else 0."""
        if not self.service_ttl:
            return 0
        if not service.endswith("*") and (own := self.service_ttl.get(service)) is not None:
            return own
        return next((ttl for prefix, ttl in self._prefixes if service.startswith(prefix)), 0)
