"""SRV answers about many instances, drawn from records that are encoded once.

An SRV record's target is never compressed, and the records that go with it are named by it: so each
instance's bytes are the same wherever they stand, but for one pointer. What fits is found by adding
up, and is what `reply.trim` would find.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from proconsul.interfaces.dns.instances import Instance
from proconsul.interfaces.dns.reply import (
    BINARY_BEYOND,
    UDP_BYTES,
    UDP_SPARE,
    Reply,
    bytes_max,
    udp_answers_max,
)
from proconsul.interfaces.dns.settings import DnsSettings
from proconsul.util.clock import Rng
from proconsul.wire import dns

TOTAL_BYTES_MAX = 16_000
"""Pointers reach no further."""


class Entry(NamedTuple):
    """One instance: its SRV record, where the target is in it, and what goes with it, without names."""

    record: bytes
    target_at: int
    additional: tuple[bytes, ...]
    size: int
    """With the first of the additional records, which alone stays where some had to go."""
    whole: int
    """With all of them."""
    plain: int
    """As `size`, but without compression."""


class SrvPool(NamedTuple):
    """All that answers to one question have in common."""

    flags: int
    question: bytes
    entries: Sequence[Entry]
    tail: bytes
    tail_count: int
    nominal: int
    """Bytes that the client takes."""
    plain_max: int
    """How many are shown to who did not say what fits; then sizes count without compression."""
    truncates: bool

    def draw(self, rng: Rng) -> bytes:
        """An answer without its id."""
        entries, base = self.entries, dns.HEADER_BYTES + len(self.question)
        limit = self.nominal - UDP_SPARE
        if 0 < self.plain_max < len(entries):
            chosen = rng.sample(entries, self.plain_max)
            count = _fitting((entry.plain for entry in chosen), limit - base)
            return self._encoded(chosen[: max(count, 1)], whole=False)
        everything = base + sum(entry.whole for entry in entries)
        if everything <= limit:
            return self._encoded(rng.sample(entries, len(entries)), whole=True)
        most = len(entries) - (everything - self.nominal <= BINARY_BEYOND)
        chosen = rng.sample(entries, min(most, limit // min(e.size for e in entries) + 1))
        count = _fitting((entry.size for entry in chosen), limit - base)
        return self._encoded(chosen[: max(count, 1)], whole=False)

    def _encoded(self, chosen: Sequence[Entry], *, whole: bool) -> bytes:
        flags = self.flags
        if len(chosen) < len(self.entries) and self.truncates:
            flags |= dns.TC
        offset = dns.HEADER_BYTES + len(self.question)
        more: list[bytes] = []
        for entry in chosen:
            pointer = (0xC000 | offset + entry.target_at).to_bytes(2, "big")
            for record in entry.additional if whole else entry.additional[:1]:
                more += (pointer, record)
            offset += len(entry.record)
        counts = (1, len(chosen), 0, len(more) // 2 + self.tail_count)
        head = b"".join(number.to_bytes(2, "big") for number in (flags, *counts))
        records = [entry.record for entry in chosen]
        return b"".join((head, self.question, *records, *more, self.tail))


def _fitting(sizes: Iterable[int], room: int) -> int:
    count = 0
    for size in sizes:
        room -= size
        if room < 0:
            break
        count += 1
    return count


def srv_pool(
    reply: Reply, flags: int, settings: DnsSettings, edns: dns.Edns | None
) -> SrvPool | None:
    """The pool that a UDP answer was drawn from; None where instances are not as simple as that."""
    own = reply.question.name
    entries = [_entry(instance, own) for instance in reply.instances]
    nominal = bytes_max(edns, tcp=False)
    whole = [entry for entry in entries if entry is not None]
    if len(whole) < len(entries) or not reply.compress or not own:
        return None
    if len({instance.answer[0].data[-1] for instance in reply.instances}) < len(entries):
        return None  # two instances on one node share its address records
    base = dns.HEADER_BYTES + dns.name_bytes(own) + 4
    largest = max(entry.plain for entry in whole)
    total = base + sum(entry.whole for entry in whole)
    if base + largest > UDP_BYTES - UDP_SPARE or min(total, nominal) > TOTAL_BYTES_MAX:
        return None
    tail = [record for record in reply.additional if record.rtype == dns.OPT]
    question = dns.encode(0, 0, reply.question)[dns.HEADER_BYTES :]
    encoded_tail = dns.encode(0, 0, None, ((), (), tail))[dns.HEADER_BYTES :]
    plain_max = udp_answers_max(settings) if nominal == UDP_BYTES else 0
    if nominal == UDP_BYTES and plain_max < 1:
        return None
    return SrvPool(
        flags & ~dns.TC,
        question,
        whole,
        encoded_tail,
        len(tail),
        nominal,
        plain_max,
        settings.enable_truncate,
    )


def _entry(instance: Instance, own: dns.Name) -> Entry | None:
    record = instance.answer[0]
    head, target = record.data
    if instance.alias is not None or not isinstance(head, bytes) or isinstance(target, bytes):
        return None
    if any(one.name != target for one in instance.additional):
        return None
    packed = dns.srv_record(record.ttl, head, target)
    additional = tuple(dns.short_record(one)[2:] for one in instance.additional)
    size, whole = len(packed), len(packed) + sum(len(one) + 2 for one in additional)
    first = instance.additional[:1]
    plain = sum(dns.record_bytes(one, own) for one in (record, *first))
    size += sum(len(one) + 2 for one in additional[:1])
    return Entry(packed, len(packed) - dns.name_bytes(target), additional, size, whole, plain)
