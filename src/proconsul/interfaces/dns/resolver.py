"""Answers to questions about Consul's own domain (`agent/dns.go`): lookups turned into sections."""

from __future__ import annotations

import ipaddress
import logging
import re
import struct
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from proconsul.domain import catalog as c
from proconsul.domain.prepared_query import InAnyOrder
from proconsul.interfaces.dns import places
from proconsul.interfaces.dns.asked import (
    AddressLookup,
    NodeLookup,
    QueryLookup,
    ServiceLookup,
    lookup_of,
)
from proconsul.interfaces.dns.complaints import Complaints
from proconsul.interfaces.dns.instances import (
    Instance,
    Shape,
    address_record,
    instances_of,
    meta_records,
)
from proconsul.interfaces.dns.lookups import Lookups, rcode_of
from proconsul.interfaces.dns.recursion import Recursion
from proconsul.interfaces.dns.reply import (
    BYTES_BEYOND,
    SRV_BYTES_MIN,
    TCP_SRV_RECORDS_MAX,
    UDP_BYTES,
    Reply,
    bytes_max,
    srv_target,
    trim,
    udp_answers_max,
)
from proconsul.interfaces.dns.reverse import name_at
from proconsul.interfaces.dns.settings import DnsSettings
from proconsul.util.clock import Rng
from proconsul.util.errors import ProconsulError, WireError
from proconsul.util.goduration import parse_duration_ns
from proconsul.wire import dns
from proconsul.wire.dns import Name, Record

log = logging.getLogger("proconsul.dns")

LEVELS = 3
"""How often names of ours may lead to names of ours."""
NAMESERVERS_MAX = 3
RECURSED_RECORDS_MAX = 5
"""What an alias adds, for those without EDNS0."""
PREPARED_MAX = 512
_INVALID_NAME = re.compile(r"[^A-Za-z0-9\-]+")
_SOA_TIMES = struct.Struct("!IIIII")


class Ask(NamedTuple):
    """One question and who asks it."""

    question: dns.Question
    edns: dns.Edns | None
    tcp: bool
    source_ip: str
    lookups: Lookups
    level: int = LEVELS


class Prepared(NamedTuple):
    """The instances of an answer, made of `rows`."""

    rows: Any
    any_rows: bool
    """Whether any of them is healthy."""
    instances: list[Instance]
    plain: bool
    """Nothing but addresses, all different: any of them, in any order, are an answer."""


class Resolver:
    """Answers by one set of settings. `unix_s()` dates the zone."""

    def __init__(
        self,
        settings: DnsSettings,
        recursion: Recursion,
        rng: Rng,
        unix_s: Callable[[], float],
        complaints: Complaints,
    ) -> None:
        self.settings, self._complaints = settings, complaints
        self._recursion, self._rng, self._unix_s = recursion, rng, unix_s
        self._prepared: dict[Hashable, Prepared] = {}

    # -- by kind of question

    async def answer(self, ask: Ask, reply: Reply) -> bool:
        """Fill in the answer about a name of ours; whether it is valid for every client."""
        qtype = ask.question.qtype
        if qtype == dns.SOA:
            reply.answer = [self._soa()]
            reply.authority, reply.additional = await self._nameservers(ask, reply)
        elif qtype == dns.NS:
            reply.answer, reply.additional = await self._nameservers(ask, reply)
        elif qtype == dns.AXFR:
            reply.rcode = dns.NOTIMP
        else:
            return await self._dispatch(ask, reply)
        return True

    async def _dispatch(self, ask: Ask, reply: Reply) -> bool:
        name = dns.lower(ask.question.name)
        labels = self._without_domain(name)
        match lookup_of(labels, ask.question.qtype, self.settings.datacenter):
            case ServiceLookup() as lookup:
                await self._service(ask, lookup, reply)
            case NodeLookup() as lookup:
                await self._node(ask, lookup, reply)
            case QueryLookup() as lookup:
                reply.is_repeatable = False  # the asker's address may count
                await self._query(ask, lookup, reply)
                return False
            case AddressLookup(address):
                if address:
                    rtype = dns.A if len(address) == 4 else dns.AAAA
                    owner = labels + self.settings.domain
                    reply.answer.append(Record(owner, rtype, self.settings.node_ttl, (address,)))
            case None:
                log.debug("QName invalid: qname=%s", dns.text_of(labels))
                self._nothing(reply, dns.NXDOMAIN)
        return True

    def _without_domain(self, name: Name) -> Name:
        domain, alternative = self.settings.domain, self.settings.alt_domain
        for suffix in sorted((domain, alternative), key=dns.name_bytes, reverse=True):
            if suffix and name[-len(suffix) :] == suffix:
                return name[: -len(suffix)]
        return name

    def is_ours(self, name: Name) -> bool:
        """Whether a name (in lower case) is within our domains, not one of them itself."""
        return any(
            suffix and len(name) > len(suffix) and name[-len(suffix) :] == suffix
            for suffix in (self.settings.domain, self.settings.alt_domain)
        )

    async def _service(self, ask: Ask, lookup: ServiceLookup, reply: Reply) -> None:
        try:
            out = await ask.lookups.service(lookup)
        except (ProconsulError, TimeoutError) as error:
            self._failed(reply, error)
            return
        ttl = self.settings.ttl_of(lookup.service)
        shape = Shape(self.settings, lookup.datacenter, ask.question.qtype, ttl)
        await self._show(ask, shape, out.nodes, (lookup, ask.question.qtype), reply)

    async def _query(self, ask: Ask, lookup: QueryLookup, reply: Reply) -> None:
        subnet = ask.edns.subnet if ask.edns is not None else None
        source = _subnet_text(subnet) if subnet is not None else ask.source_ip
        try:
            out = await ask.lookups.query(lookup, source)
        except (ProconsulError, TimeoutError) as error:
            rcode = rcode_of(error)
            self._nothing(reply, rcode)
            return
        ttl = self.settings.ttl_of(out.service)
        if out.dns.ttl:
            try:
                ttl = parse_duration_ns(out.dns.ttl) // 10**9
            except ValueError:
                ttl = 0
        shape = Shape(self.settings, out.datacenter, ask.question.qtype, ttl)
        ordered = not isinstance(out.nodes, InAnyOrder)
        reply.is_repeatable = not ordered
        await self._show(ask, shape, out.nodes, None, reply, healthy=True, ordered=ordered)

    async def _show(
        self,
        ask: Ask,
        shape: Shape,
        rows: list[c.CheckServiceNode] | None,
        key: Hashable,
        reply: Reply,
        *,
        healthy: bool = False,
        ordered: bool = False,
    ) -> None:
        """Instances as an answer; whether they are known to be healthy, and shown in their order."""
        found = self._prepare(shape, rows, key, healthy=healthy, ordered=ordered)
        if not found.any_rows:
            self._nothing(reply, dns.NXDOMAIN)
            return
        instances, dropped = found.instances, False
        if found.plain:
            reply.pool = [one.answer[0] for one in instances]
            instances, dropped = self._drawn(ask, instances)
            reply.drawn = len(instances)
        elif not ordered:
            if ask.question.qtype == dns.SRV:
                reply.instances = instances
            else:
                reply.is_repeatable = len(instances) <= 1
            instances = self._rng.sample(instances, len(instances))
        if ask.question.qtype == dns.SRV:
            dropped = await self._srv(ask, shape, instances, reply)
        else:
            await self._addresses(ask, shape, instances, reply)
        trim(reply, self.settings, ask.edns, tcp=ask.tcp, dropped=dropped)
        if not reply.answer and not reply.truncated:
            reply.authority.append(self._soa())

    def _prepare(
        self,
        shape: Shape,
        rows: list[c.CheckServiceNode] | None,
        key: Hashable,
        *,
        healthy: bool,
        ordered: bool,
    ) -> Prepared:
        """What the healthy ones of `rows` add.

        The rows of an unchanged state are the same object, so that this is done once per change.
        """
        if key is not None and (kept := self._prepared.get(key)) and kept.rows is rows:
            return kept
        only_passing = self.settings.only_passing
        shown = [
            r for r in rows or () if healthy or places.is_healthy(r, only_passing=only_passing)
        ]
        instances = instances_of(shape, shown)
        plain = not ordered and shape.qtype != dns.SRV
        plain = plain and all(one.alias is None for one in instances)
        if plain:
            instances = list({one.key: one for one in instances}.values())
        prepared = Prepared(rows, bool(shown), instances, plain)
        if key is not None and shown:
            if len(self._prepared) >= PREPARED_MAX:
                self._prepared.clear()
            self._prepared[key] = prepared
        return prepared

    def _drawn(self, ask: Ask, instances: list[Instance]) -> tuple[list[Instance], bool]:
        """As many as the answer can hold, in random order, and whether others were left out."""
        limit = self.settings.a_record_limit
        count = len(instances) if limit <= 0 else min(len(instances), limit)
        held = count
        if not ask.tcp and (ask.edns is None or ask.edns.udp_bytes <= UDP_BYTES):
            held = min(count, max(udp_answers_max(self.settings), 0))
        return self._rng.sample(instances, held), held < count

    async def _addresses(
        self, ask: Ask, shape: Shape, instances: list[Instance], reply: Reply
    ) -> None:
        seen: set[Hashable] = set()
        aliased: list[Record] = []
        count = 0
        for found in instances:
            instance = _not_itself(ask.question.name, found)
            if not instance.answer or instance.key in seen:
                continue
            seen.add(instance.key)
            if instance.alias is not None:
                # Only where there is nothing but aliases, and then the first one with all it adds
                if not aliased:
                    added = await self._alias(ask, instance.alias, shape.ttl)
                    aliased = [*instance.answer, *added]
                continue
            reply.answer.extend(instance.answer)
            count += 1
            if count == self.settings.a_record_limit:
                return
        if not reply.answer:
            reply.answer = aliased

    async def _srv(self, ask: Ask, shape: Shape, instances: list[Instance], reply: Reply) -> bool:
        """Whether instances were left out that cannot fit by any reckoning."""
        seen: set[Hashable] = set()
        room = bytes_max(ask.edns, tcp=ask.tcp) + BYTES_BEYOND
        for found in instances:
            if found.key in seen:
                continue
            seen.add(found.key)
            instance = _not_itself(ask.question.name, found)
            room -= SRV_BYTES_MIN + dns.name_bytes(srv_target(instance.answer[0]))
            if room < 0:
                return len(reply.answer) < TCP_SRV_RECORDS_MAX
            reply.answer.extend(instance.answer)
            if instance.alias is not None:
                reply.additional.extend(await self._alias(ask, instance.alias, shape.ttl))
            reply.additional.extend(instance.additional)
        return False

    async def _alias(self, ask: Ask, alias: Name, ttl: int) -> list[Record]:
        """What an alias leads to, with our TTL."""
        found = [
            record._replace(ttl=ttl)
            for record in await self._follow(ask, alias)
            if record.rtype in {dns.CNAME, dns.A, dns.AAAA}
        ]
        return found if ask.edns is not None else found[:RECURSED_RECORDS_MAX]

    async def _follow(self, ask: Ask, alias: Name) -> list[Record]:
        """The records that `alias` leads to: our own, or a recursor's."""
        if not self.is_ours(dns.lower(alias)):
            return await self._recursion.addresses(alias, now=ask.lookups.now)
        if ask.level < 1:
            self._complaints.error(
                "Infinite recursion detected for name, won't perform any CNAME resolution: name=%s",
                dns.text_of(alias),
            )
            return []
        question = dns.Question(alias, dns.ANY)
        inner = Ask(question, None, False, "", ask.lookups, ask.level - 1)
        reply = Reply(question)
        await self._dispatch(inner, reply)
        return [r if r.name is not None else r._replace(name=alias) for r in reply.answer]

    async def _node(self, ask: Ask, lookup: NodeLookup, reply: Reply) -> None:
        qtype, settings = ask.question.qtype, self.settings
        if qtype not in {dns.ANY, dns.A, dns.AAAA, dns.TXT}:
            return
        try:
            node = await ask.lookups.node(lookup)
        except (ProconsulError, TimeoutError) as error:
            self._failed(reply, error)
            return
        if node is None:
            self._nothing(reply, dns.NXDOMAIN)
            return
        if qtype != dns.TXT:
            reply.answer.extend(await self._node_records(ask, node, qtype, None))
        if settings.node_meta_txt or qtype in {dns.TXT, dns.ANY}:
            target = reply.answer if qtype in {dns.TXT, dns.ANY} else reply.additional
            target.extend(meta_records(None, node, settings.node_ttl))

    async def _node_records(
        self, ask: Ask, node: c.Node, qtype: int, name: Name | None
    ) -> list[Record]:
        ttl = self.settings.node_ttl
        ip = places.ip_bytes(places.node_address(self.settings, node, qtype))
        if ip is not None:
            record = address_record(name, ip, qtype, ttl)
            return [] if record is None else [record]
        try:
            alias = dns.name_of(node.address)
        except WireError:
            return []
        return [Record(name, dns.CNAME, ttl, (alias,)), *await self._follow(ask, alias)]

    async def _nameservers(self, ask: Ask, reply: Reply) -> tuple[list[Record], list[Record]]:
        """Up to three servers as NS records, and their addresses."""
        settings = self.settings
        try:
            out = await ask.lookups.service(ServiceLookup("consul", settings.datacenter))
        except (ProconsulError, TimeoutError) as error:
            self._complaints.warning("Unable to get list of servers: error=%s", error)
            return [], []
        rows = [
            r for r in out.nodes or () if places.is_healthy(r, only_passing=settings.only_passing)
        ]
        if not rows:
            self._complaints.warning("no servers found")
        reply.is_repeatable = len(rows) == 1
        self._rng.shuffle(rows)
        records: list[Record] = []
        glue: list[Record] = []
        for row in rows:
            if _INVALID_NAME.search(row.node.node):
                self._complaints.warning(
                    "Skipping invalid node for NS records: node=%s", row.node.node
                )
                continue
            text = f"{row.node.node}.node.{row.node.datacenter}.{settings.domain_text}"
            name = dns.name_of(text.lower())
            records.append(Record(settings.domain, dns.NS, settings.node_ttl, (name,)))
            glue.extend(await self._node_records(ask, row.node, dns.ANY, name))
            if len(records) >= NAMESERVERS_MAX:
                break
        return records, glue

    async def pointer(self, ask: Ask, reply: Reply) -> bool:
        """The name at a reverse address; whether there is one."""
        if ask.question.qtype == dns.SOA:
            reply.authority.append(self._soa())
        name = await name_at(self.settings, ask.lookups, dns.lower(ask.question.name))
        if name is not None:
            reply.answer.append(Record(None, dns.PTR, 0, (name,)))
        return name is not None

    # -- parts

    def _soa(self) -> Record:
        settings = self.settings
        times = _SOA_TIMES.pack(
            int(self._unix_s()) & 0xFFFFFFFF,
            settings.soa_refresh & 0xFFFFFFFF,
            settings.soa_retry & 0xFFFFFFFF,
            settings.soa_expire & 0xFFFFFFFF,
            settings.soa_min_ttl & 0xFFFFFFFF,
        )
        domain = settings.domain
        names = ((b"ns", *domain), (b"hostmaster", *domain))
        return Record(domain, dns.SOA, settings.soa_min_ttl, (*names, times))

    def _failed(self, reply: Reply, error: Exception) -> None:
        self._complaints.error("rpc error: error=%s", error)
        self._nothing(reply, rcode_of(error))
        reply.is_repeatable = False

    def _nothing(self, reply: Reply, rcode: int) -> None:
        reply.is_repeatable = reply.is_repeatable and rcode == dns.NXDOMAIN
        if rcode == dns.NXDOMAIN:
            reply.authority.append(self._soa())
        reply.rcode = rcode


def _not_itself(asked: Name, instance: Instance) -> Instance:
    """The instance at its node's address, if its own is the alias that is asked for."""
    if instance.alias == asked and instance.own_address is not None:
        return instance.own_address
    return instance


def _subnet_text(subnet: dns.Subnet) -> str:
    return str(ipaddress.ip_address(subnet.address)) if subnet.address else "0.0.0.0"
