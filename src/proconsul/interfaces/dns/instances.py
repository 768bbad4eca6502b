"""Instances of a service as records (`nodeServiceRecords` and around it in agent/dns.go). Pure."""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from proconsul.domain.catalog import CheckServiceNode, Node
from proconsul.interfaces.dns import places
from proconsul.interfaces.dns.settings import DnsSettings
from proconsul.util.errors import WireError
from proconsul.wire import dns
from proconsul.wire.dns import Name, Record

_EITHER = frozenset({dns.SRV, dns.ANY, dns.NS, dns.TXT})
_SRV = struct.Struct("!HHH")
PRIORITY = 1


class Instance(NamedTuple):
    """What one instance adds to an answer. `key` is the same for those that are shown once.

    With an `alias` the records are still to be completed by what the alias leads to.
    """

    answer: tuple[Record, ...]
    additional: tuple[Record, ...]
    key: Hashable
    alias: Name | None = None
    own_address: Instance | None = None
    """What stands in its place where the alias is the very name that is asked for."""


_NOTHING = Instance((), (), None)


class Shape(NamedTuple):
    """What is the same for all instances of an answer."""

    settings: DnsSettings
    datacenter: str
    qtype: int
    ttl: int


def address_record(name: Name | None, ip: bytes, qtype: int, ttl: int) -> Record | None:
    """The A or AAAA record, if the question is one that it answers."""
    rtype = dns.A if len(ip) == 4 else dns.AAAA
    return Record(name, rtype, ttl, (ip,)) if qtype == rtype or qtype in _EITHER else None


def node_name(shape: Shape, node: Node) -> Name:
    """`<node>.node.<dc>.<domain>`. Raises `WireError`."""
    return dns.name_of(f"{node.node}.node.{shape.datacenter}.{shape.settings.domain_text}")


def instances_of(shape: Shape, rows: Iterable[CheckServiceNode]) -> list[Instance]:
    """What each row adds; rows that add nothing, or cannot be named, are left out."""
    found = []
    for row in rows:
        try:
            instance = _instance(shape, row)
        except (WireError, struct.error):
            continue  # a node or host name that no DNS message can hold
        if instance is not None:
            found.append(instance)
    return found


def _instance(shape: Shape, row: CheckServiceNode) -> Instance | None:
    settings, qtype = shape.settings, shape.qtype
    own = places.service_address(settings, shape.datacenter, row.service, qtype)
    of_node = places.node_address(settings, row.node, qtype)
    if not own and not of_node:
        return None
    node_ip = places.ip_bytes(of_node)
    if not own:
        if node_ip is None:
            return _aliased(shape, row, of_node, None)
        if row.node.address != of_node:
            return _at_address(shape, row, node_ip)
        return _at_node(shape, row, node_ip)
    ip = places.ip_bytes(own)
    if ip is not None:
        return _at_address(shape, row, ip)
    return _aliased(shape, row, own, node_ip)


def _at_node(shape: Shape, row: CheckServiceNode, ip: bytes) -> Instance | None:
    if shape.qtype != dns.SRV:
        return _plain(shape, ip)
    return _srv_instance(shape, row, node_name(shape, row.node), ip)


def _at_address(shape: Shape, row: CheckServiceNode, ip: bytes) -> Instance | None:
    if shape.qtype != dns.SRV:
        return _plain(shape, ip)
    name = dns.name_of(f"{ip.hex()}.addr.{shape.datacenter}.{shape.settings.domain_text}")
    return _srv_instance(shape, row, name, ip)


def _plain(shape: Shape, ip: bytes) -> Instance | None:
    record = address_record(None, ip, shape.qtype, shape.ttl)
    return None if record is None else Instance((record,), (), ip)


def _srv_instance(shape: Shape, row: CheckServiceNode, target: Name, ip: bytes) -> Instance:
    address = address_record(target, ip, dns.SRV, shape.ttl)
    own = () if address is None else (address,)
    meta = _meta(shape, row.node)
    return Instance((_srv(shape, row, target),), own + meta, _srv_key(shape, row))


def _srv(shape: Shape, row: CheckServiceNode, target: Name) -> Record:
    port = places.service_port(shape.settings, shape.datacenter, row.service)
    head = _SRV.pack(PRIORITY, places.weight(row) & 0xFFFF, port & 0xFFFF)
    return Record(None, dns.SRV, shape.ttl, (head, target))


def _srv_key(shape: Shape, row: CheckServiceNode) -> Hashable:
    settings, dc = shape.settings, shape.datacenter
    address = places.service_address(settings, dc, row.service, dns.ANY)
    return row.node.node, address, places.service_port(settings, dc, row.service)


def _aliased(
    shape: Shape, row: CheckServiceNode, host: str, node_ip: bytes | None
) -> Instance | None:
    alias = dns.name_of(host)
    fallback = None if node_ip is None else _at_node(shape, row, node_ip) or _NOTHING
    if shape.qtype == dns.SRV:
        meta = _meta(shape, row.node)
        key = _srv_key(shape, row)
        return Instance((_srv(shape, row, alias),), meta, key, alias, fallback)
    record = Record(None, dns.CNAME, shape.ttl, (alias,))
    return Instance((record,), (), alias, alias, fallback)


def _meta(shape: Shape, node: Node) -> tuple[Record, ...]:
    if not shape.settings.node_meta_txt or not node.meta:
        return ()
    return tuple(meta_records(node_name(shape, node), node, shape.ttl))


def meta_records(name: Name | None, node: Node, ttl: int) -> list[Record]:
    """The node's metadata; as `key=value` of RFC 1464 unless the key begins with `rfc1035-`."""
    return [
        dns.text_record(
            name, ttl, value if key.lower().startswith("rfc1035-") else rfc1464(key, value)
        )
        for key, value in (node.meta or {}).items()
    ]


def rfc1464(key: str, value: str) -> str:
    """`key=value` with the quotes of RFC 1464."""
    key = key.replace("`", "``").replace("=", "`=")
    bare = key.lstrip(" ")
    key = "` " * (len(key) - len(bare)) + bare
    bare = key.rstrip(" ")
    # A key of blanks alone has had them quoted; the last one of each pair is a blank again.
    key = bare + "` " * (len(key) - len(bare))
    return key + "=" + value.replace("`", "``")
