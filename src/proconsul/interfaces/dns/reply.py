"""An answer while it is made, and how it is cut to size (`trimDNSResponse` in agent/dns.go). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from proconsul.interfaces.dns.instances import Instance
from proconsul.interfaces.dns.settings import DnsSettings
from proconsul.util.errors import WireError
from proconsul.wire import dns
from proconsul.wire.dns import Name, Record

UDP_ANSWERS_MAX = 8
"""Records of an answer over UDP without EDNS0, whatever the settings say."""
UDP_BYTES = 512
TCP_BYTES = 65523
TCP_RECORDS_MAX = 4096
TCP_SRV_RECORDS_MAX = 1024
"""More SRV records never fit."""
SRV_BYTES_MIN = 18
"""Of an SRV record beside its target, whose name is never compressed."""
BYTES_BEYOND = 256
"""By so much an answer is allowed to be too large before it is cut."""
BINARY_BEYOND = 100
"""So far beyond the limit records are not taken away one by one."""
_ROUGHNESS = 64
UDP_SPARE = 7


@dataclass(slots=True)
class Reply:
    """The sections of one answer; `question` names its records that have no name of their own."""

    question: dns.Question
    compress: bool = True
    rcode: int = dns.NOERROR
    truncated: bool = False
    answer: list[Record] = field(default_factory=list)
    authority: list[Record] = field(default_factory=list)
    additional: list[Record] = field(default_factory=list)
    is_repeatable: bool = True
    """Whether everyone who asks the same may have it until the state changes."""
    pool: list[Record] = field(default_factory=list)
    """What the answer was drawn from by lot, if it consists of nothing else."""
    drawn: int = 0
    """How many were drawn."""
    instances: Sequence[Instance] = ()
    """Of an answer of SRV records, what was shuffled."""

    def size(self, compress: bool, at_most: int) -> int:
        """Bytes of the message; exact only where it does not fit `at_most` without compression."""
        own = self.question.name
        total = dns.HEADER_BYTES + dns.name_bytes(own) + 4
        sections = (self.answer, self.authority, self.additional)
        total += sum(dns.record_bytes(record, own) for part in sections for record in part)
        if not compress or total <= at_most:
            return total
        try:
            return len(dns.encode(0, 0, self.question, sections))
        except WireError:
            return dns.MESSAGE_BYTES_MAX + 1


def udp_answers_max(settings: DnsSettings) -> int:
    """Records of an answer over UDP to who did not say what fits."""
    return min(UDP_ANSWERS_MAX, settings.udp_answer_limit)


def bytes_max(edns: dns.Edns | None, *, tcp: bool) -> int:
    """How large an answer may be."""
    if tcp:
        return TCP_BYTES
    return max(UDP_BYTES, edns.udp_bytes if edns is not None else 0)


def trim(
    reply: Reply, settings: DnsSettings, edns: dns.Edns | None, *, tcp: bool, dropped: bool
) -> None:
    """Take away what does not fit, and say so if wanted. `dropped`: some was left out before."""
    before = len(reply.answer)
    if tcp:
        srv = reply.question.qtype == dns.SRV
        del reply.answer[TCP_SRV_RECORDS_MAX if srv else TCP_RECORDS_MAX :]
        # As in Consul, what this limit took does not count as truncation.
        before = len(reply.answer)
        _fit(reply, TCP_BYTES, TCP_BYTES, reply.compress)
    else:
        at_most = bytes_max(edns, tcp=False)
        compress = reply.compress
        limit = udp_answers_max(settings)
        if at_most == UDP_BYTES and before > limit:
            compress = False
            known = _Additional(reply)
            del reply.answer[max(limit, 0) :]
            known.sync(reply)
        _fit(reply, at_most - UDP_SPARE, at_most, compress)
    trimmed = dropped or len(reply.answer) < before
    if trimmed and settings.enable_truncate:
        reply.truncated = True


def _fit(reply: Reply, limit: int, nominal: int, compress: bool) -> None:
    """At least one record stays, whatever its size."""
    if len(reply.answer) <= 1 or reply.size(False, 0) <= limit:
        return
    known = _Additional(reply)
    while len(reply.answer) > 1:
        over = _roughly(reply, compress) - nominal
        if over <= BINARY_BEYOND + _ROUGHNESS:
            over = reply.size(compress, limit) - nominal
            if over <= limit - nominal:
                return
        count = _most(reply, nominal, known, compress) if over > BINARY_BEYOND else -1
        del reply.answer[count:]
        known.sync(reply)


def _roughly(reply: Reply, compress: bool) -> int:
    """The size, if all names but those within data were found before; a lower bound in practice."""
    if not compress:
        return reply.size(False, 0)
    sections = (reply.answer, reply.authority, reply.additional)
    return _empty_bytes(reply) + sum(_short_bytes(r) for part in sections for r in part)


def _empty_bytes(reply: Reply) -> int:
    return dns.HEADER_BYTES + dns.name_bytes(reply.question.name) + 4


def _short_bytes(record: Record) -> int:
    return dns.record_bytes(record._replace(name=()), ()) + 1


def _most(reply: Reply, at_most: int, known: _Additional, compress: bool) -> int:
    """How many records fit with what they refer to: a guess, put right by what it comes to."""
    whole = reply.answer

    def size(count: int) -> int:
        reply.answer = whole[:count]
        known.sync(reply)
        return reply.size(compress, 0)

    count, room = 0, at_most - _empty_bytes(reply)
    for record in whole:
        room -= sum(_short_bytes(one) for one in (record, *known.needed([record])))
        if room < 0:
            break
        count += 1
    try:
        while count > 0 and size(count) > at_most:
            count -= 1
        while count < len(whole) and size(count + 1) <= at_most:
            count += 1
    finally:
        reply.answer = whole
    return count


class _Additional:
    """The additional records by name, of each name the first; only what answers refer to stays."""

    def __init__(self, reply: Reply) -> None:
        self._by_name: dict[Name, Record] = {}
        for record in reply.additional:
            name = reply.question.name if record.name is None else record.name
            self._by_name.setdefault(dns.lower(name), record)

    def sync(self, reply: Reply) -> None:
        if self._by_name:
            reply.additional = list(self.needed(reply.answer))

    def needed(self, answer: Iterable[Record]) -> Iterable[Record]:
        """What the records refer to, each once."""
        resolved: set[Name] = set()
        for record in answer:
            if record.rtype != dns.SRV:
                continue
            target = dns.lower(srv_target(record))
            while target not in resolved:
                resolved.add(target)
                found = self._by_name.get(target)
                if found is None:
                    break
                yield found
                if found.rtype != dns.CNAME:
                    break
                target = dns.lower(srv_target(found))


def srv_target(record: Record) -> Name:
    """The name that an SRV or CNAME record leads to."""
    last = record.data[-1]
    return last if isinstance(last, tuple) else ()
