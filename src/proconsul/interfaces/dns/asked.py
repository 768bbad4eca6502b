"""What a name within Consul's domain asks for (`doDispatch` in agent/dns.go). Pure."""

from __future__ import annotations

import binascii
from dataclasses import dataclass

from proconsul.wire import dns

_KINDS = frozenset({"service", "connect", "ingress", "node", "query", "addr"})


@dataclass(frozen=True, slots=True)
class ServiceLookup:
    """`[tag.]name.service[.dc]`, `_name._tag[.service][.dc]`, `name.connect`, `name.ingress`."""

    service: str
    datacenter: str
    tag: str = ""
    connect: bool = False
    ingress: bool = False


@dataclass(frozen=True, slots=True)
class NodeLookup:
    """`name.node[.dc]`."""

    node: str
    datacenter: str


@dataclass(frozen=True, slots=True)
class QueryLookup:
    """`name.query[.dc]`."""

    query: str
    datacenter: str


@dataclass(frozen=True, slots=True)
class AddressLookup:
    """`c0a80001.addr[.dc]`: an address that stands in its own name; empty for other lengths."""

    address: bytes


Lookup = ServiceLookup | NodeLookup | QueryLookup | AddressLookup


def lookup_of(labels: dns.Name, qtype: int, datacenter: str) -> Lookup | None:
    """What `labels` (without the domain, in lower case) ask for; None if nothing has this form.

    `datacenter` is the agent's own, for names without one.
    """
    texts = [dns.label_text(label) for label in labels]
    for at in range(len(texts) - 1, -1, -1):
        if texts[at] in _KINDS:
            return _of_kind(texts[at], texts[:at], texts[at + 1 :], datacenter)
        # In questions for SRV records the word "service" may be left out.
        if qtype == dns.SRV and texts[at].startswith("_"):
            return _of_kind("service", texts[: at + 1], texts[at + 1 :], datacenter)
    return None


def _of_kind(kind: str, parts: list[str], suffixes: list[str], datacenter: str) -> Lookup | None:
    if kind == "addr":
        return _address(parts)
    if not parts or len(suffixes) > 1:
        return None
    datacenter = suffixes[0] if suffixes else datacenter
    match kind:
        case "service":
            return _service(parts, datacenter)
        case "connect":
            return ServiceLookup(parts[-1], datacenter, connect=True)
        case "ingress":
            return ServiceLookup(parts[-1], datacenter, ingress=True)
        case "node":
            return NodeLookup(".".join(parts), datacenter)
        case _:
            return QueryLookup(".".join(parts), datacenter)


def _service(parts: list[str], datacenter: str) -> ServiceLookup:
    if len(parts) == 2 and parts[0].startswith("_") and parts[1].startswith("_"):  # RFC 2782
        tag = parts[1][1:]
        return ServiceLookup(parts[0][1:], datacenter, tag="" if tag == "tcp" else tag)
    return ServiceLookup(parts[-1], datacenter, tag=".".join(parts[:-1]))


def _address(parts: list[str]) -> AddressLookup | None:
    if len(parts) != 1:
        return None
    if len(parts[0]) // 2 not in {4, 16}:
        return AddressLookup(b"")
    try:
        return AddressLookup(binascii.unhexlify(parts[0]))
    except (binascii.Error, ValueError):
        return None
