"""DNS messages (RFC 1035), with EDNS0 (RFC 6891) and client subnets (RFC 7871), bounded.

What a name server needs of them, made to be fast: names are tuples of labels as they are on the wire, and
records carry their data in parts, so that an answer's names are compressed against each other when
it is written. The rules of compression, of escapes in text and of sizes are those of miekg/dns, by
which Consul decides how much of an answer fits.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from proconsul.util.errors import WireError

Name = tuple[bytes, ...]
"""Labels without the root's, in the case of letters they came in."""

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, OPT, AXFR, ANY, DS = (
    1, 2, 5, 6, 12, 16, 28, 33, 41, 252, 255, 43,
)  # fmt: skip
CLASS_IN = 1

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODE_MASK = 0x7800
RCODE_MASK = 0x000F

HEADER_BYTES = 12
MESSAGE_BYTES_MAX = 65535
NAME_BYTES_MAX = 255
LABEL_BYTES_MAX = 63
TEXT_BYTES_MAX = 255
"""Of one string within a TXT record."""
_POINTERS_MAX = 126
_POINTER_OFFSET_MAX = 1 << 14
_SUBNET_OPTION = 8
_QUESTION_POINTER = b"\xc0\x0c"

_HEADER = struct.Struct("!HHHHHH")
_TYPE_CLASS = struct.Struct("!HH")
_RECORD_HEAD = struct.Struct("!HHI")
_RECORD_TAIL = struct.Struct("!HHIH")
_SUBNET_HEAD = struct.Struct("!HBB")
_SPECIAL = re.compile(rb"""[^!-~]|[.'@;()"\\]""")
_ESCAPE = re.compile(r"\\(\d{3}|.)", re.DOTALL)


class Question(NamedTuple):
    """What is asked."""

    name: Name
    qtype: int
    qclass: int = CLASS_IN


class Subnet(NamedTuple):
    """The client subnet option. `address` is 4 or 16 bytes, empty for family 0."""

    family: int
    source_prefix: int
    address: bytes


class Edns(NamedTuple):
    """An OPT record."""

    udp_bytes: int
    subnet: Subnet | None = None


class Record(NamedTuple):
    """A resource record. A name of None is that of the question.

    The data are parts: bytes as they are, and names.
    """

    name: Name | None
    rtype: int
    ttl: int
    data: tuple[bytes | Name, ...]
    rclass: int = CLASS_IN


class Message(NamedTuple):
    """A decoded message. Records of types with names inside keep only CNAME's; see `decode`."""

    id: int
    flags: int
    question: Question | None
    answer: list[Record]
    edns: Edns | None

    @property
    def rcode(self) -> int:
        return self.flags & RCODE_MASK


class Counts(NamedTuple):
    """How many entries a header claims."""

    questions: int
    answers: int
    authorities: int
    additional: int


# --- names


def name_of(text: str) -> Name:
    r"""A name from text, with or without the final dot; `\.` and `\DDD` escape.

    Raises `WireError` if it has empty or long labels or is too long.
    """
    if text in {"", "."}:
        return ()
    if "\\" in text:
        labels = _split_escaped(text)
    else:
        labels = tuple(text.removesuffix(".").encode("utf-8", "surrogateescape").split(b"."))
    if not all(0 < len(label) <= LABEL_BYTES_MAX for label in labels):
        raise WireError(f"not a domain name: {text[:80]!r} has an empty or a too long label")
    if name_bytes(labels) > NAME_BYTES_MAX:
        raise WireError(f"not a domain name: {text[:80]!r} is too long")
    return labels


def _split_escaped(text: str) -> Name:
    # Escaped characters step aside while the dots are split at.
    kept: list[bytes] = []

    def keep(match: re.Match[str]) -> str:
        found = match[1]
        kept.append(
            bytes((int(found) & 0xFF,))
            if len(found) == 3
            else found.encode("utf-8", "surrogateescape")
        )
        return "\\"

    labels = _ESCAPE.sub(keep, text).removesuffix(".").split(".")
    kept.reverse()
    return tuple(
        b"".join(
            kept.pop() if c == "\\" and kept else c.encode("utf-8", "surrogateescape")
            for c in label
        )
        for label in labels
    )


def label_text(label: bytes) -> str:
    """A label as text, with miekg/dns's escapes."""
    if _SPECIAL.search(label) is None:
        return label.decode("ascii")
    return "".join(_escaped(byte) for byte in label)


def _escaped(byte: int) -> str:
    if byte in b".'@;()\"\\ ":
        return "\\" + chr(byte)
    return chr(byte) if 0x21 <= byte <= 0x7E else f"\\{byte:03d}"


def text_of(name: Name) -> str:
    """A name as text, with its final dot."""
    return "".join(f"{label_text(label)}." for label in name) or "."


def lower(name: Name) -> Name:
    """The name in lower case."""
    return tuple(label.lower() for label in name)


def name_bytes(name: Name) -> int:
    """Its size on the wire, not compressed."""
    return sum(map(len, name)) + len(name) + 1


# --- decoding


def peek_header(data: bytes) -> tuple[int, int, Counts]:
    """Id, flags and counts. Raises `WireError` if there is no whole header."""
    if len(data) < HEADER_BYTES:
        raise WireError("DNS message without a whole header")
    message_id, flags, *counts = _HEADER.unpack_from(data)
    return message_id, flags, Counts(*counts)


def decode(data: bytes) -> Message:
    """A query, or an answer to one of ours. Raises `WireError`.

    Of the answer's records A, AAAA, CNAME and TXT are kept; all others are checked for their bounds
    and skipped. At most one question is taken; the last OPT record among the additional ones counts.
    """
    message_id, flags, counts = peek_header(data)
    offset = HEADER_BYTES
    question = None
    if offset == len(data):  # some servers refuse with a bare header
        return Message(message_id, flags, None, [], None)
    if counts.questions > 1:
        raise WireError("DNS message with several questions")
    if counts.questions:
        name, offset = _name_at(data, offset)
        if offset + 4 > len(data):
            raise WireError("DNS question cut off")
        question = Question(name, *_TYPE_CLASS.unpack_from(data, offset))
        offset += 4
    if offset == len(data):
        return Message(message_id, flags, question, [], None)
    answer: list[Record] = []
    edns: Edns | None = None
    for section, count in enumerate(counts[1:]):
        for _ in range(count):
            if offset == len(data):
                break  # the count lied, as some do
            record, rdata, offset = _record_at(data, offset)
            if section == 0 and record.rtype in {A, AAAA, CNAME, TXT}:
                answer.append(record._replace(data=_kept(data, record, rdata)))
            elif section == 2 and record.rtype == OPT:
                edns = Edns(record.rclass, _subnet(data[rdata.start : rdata.stop]))
    return Message(message_id, flags, question, answer, edns)


def _name_at(data: bytes, offset: int) -> tuple[Name, int]:
    labels: list[bytes] = []
    budget, pointers, end = NAME_BYTES_MAX, 0, -1
    size = len(data)
    while True:
        if offset >= size:
            raise WireError("DNS name cut off")
        length = data[offset]
        offset += 1
        if length == 0:
            return tuple(labels), end if end >= 0 else offset
        if length <= LABEL_BYTES_MAX:
            budget -= length + 1
            if budget <= 0:
                raise WireError("DNS name too long")
            if offset + length > size:
                raise WireError("DNS name cut off")
            labels.append(data[offset : offset + length])
            offset += length
            continue
        if length < 0xC0:
            raise WireError("DNS label of an unknown kind")
        if offset >= size:
            raise WireError("DNS name cut off")
        pointers += 1
        if pointers > _POINTERS_MAX:
            raise WireError("too many pointers in a DNS name")
        if end < 0:
            end = offset + 1
        offset = (length & 0x3F) << 8 | data[offset]


def _record_at(data: bytes, offset: int) -> tuple[Record, slice, int]:
    name, offset = _name_at(data, offset)
    if offset + _RECORD_TAIL.size > len(data):
        raise WireError("DNS record cut off")
    rtype, rclass, ttl, size = _RECORD_TAIL.unpack_from(data, offset)
    offset += _RECORD_TAIL.size
    if offset + size > len(data):
        raise WireError("data of a DNS record cut off")
    return Record(name, rtype, ttl, (), rclass), slice(offset, offset + size), offset + size


def _kept(data: bytes, record: Record, rdata: slice) -> tuple[bytes | Name, ...]:
    if record.rtype == CNAME:
        target, end = _name_at(data, rdata.start)
        if end > rdata.stop:
            raise WireError("CNAME longer than its record")
        return (target,)
    found = data[rdata]
    if len(found) != {A: 4, AAAA: 16}.get(record.rtype, len(found)):
        raise WireError("address record of a wrong size")
    return (found,)


def _subnet(options: bytes) -> Subnet | None:
    offset, found = 0, None
    while offset < len(options):
        if offset + 4 > len(options):
            raise WireError("EDNS option cut off")
        code, size = _TYPE_CLASS.unpack_from(options, offset)
        offset += 4
        if offset + size > len(options):
            raise WireError("EDNS option cut off")
        if code == _SUBNET_OPTION:
            subnet = _subnet_option(options[offset : offset + size])
            found = found or subnet
        offset += size
    return found


def _subnet_option(option: bytes) -> Subnet:
    if len(option) < _SUBNET_HEAD.size:
        raise WireError("client subnet cut off")
    family, source, scope = _SUBNET_HEAD.unpack_from(option)
    size = {0: 0, 1: 4, 2: 16}.get(family)
    if size is None:
        raise WireError("client subnet of an unknown family")
    if source > size * 8 or (family and scope > size * 8):
        raise WireError("client subnet with a wrong prefix length")
    address = option[_SUBNET_HEAD.size :][:size]
    return Subnet(family, source, address.ljust(size, b"\0"))


# --- encoding


def opt_record(edns: Edns, *, scope: int = 0) -> Record:
    """The OPT record that answers `edns`."""
    options = b""
    if edns.subnet is not None:
        family, source, address = edns.subnet
        whole = (source + 7) // 8
        kept = bytearray(address[:whole])
        if kept and source % 8:
            kept[-1] &= 0xFF << (8 - source % 8) & 0xFF
        option = _SUBNET_HEAD.pack(family, source, scope) + kept
        options = _TYPE_CLASS.pack(_SUBNET_OPTION, len(option)) + option
    return Record((), OPT, 0, (options,), edns.udp_bytes)


def text_record(name: Name | None, ttl: int, text: str) -> Record:
    """A TXT record; a long text is several strings."""
    raw = text.encode("utf-8", "surrogateescape")
    pieces = [raw[at : at + TEXT_BYTES_MAX] for at in range(0, len(raw), TEXT_BYTES_MAX)] or [b""]
    return Record(name, TXT, ttl, (b"".join(bytes((len(p),)) + p for p in pieces),))


def encode(
    message_id: int,
    flags: int,
    question: Question | None,
    sections: Sequence[Sequence[Record]] = ((), (), ()),
    *,
    compress: bool = True,
) -> bytes:
    """A message. Raises `WireError` if it is larger than one can be."""
    answer, authority, additional = sections
    counts = (question is not None, len(answer), len(authority), len(additional))
    out = bytearray(_HEADER.pack(message_id, flags, *counts))
    seen: dict[Name, int] | None = {} if compress and any(counts[1:]) else None
    if question is not None:
        _put_name(out, question.name, seen, compress=True)
        out += _TYPE_CLASS.pack(question.qtype, question.qclass)
    own = question.name if question is not None else ()
    for section in sections:
        for record in section:
            _put_record(out, record, own, seen)
    if len(out) > MESSAGE_BYTES_MAX:
        raise WireError(f"DNS message of {len(out)} bytes")
    return bytes(out)


def _put_record(out: bytearray, record: Record, own: Name, seen: dict[Name, int] | None) -> None:
    name, rtype, ttl, data, rclass = record
    if name is not None:
        _put_name(out, name, seen, compress=True)
    elif seen is not None and own:
        out += _QUESTION_POINTER
    else:
        _put_name(out, own, seen, compress=True)
    out += _RECORD_HEAD.pack(rtype, rclass, ttl)
    if len(data) == 1 and type(data[0]) is bytes:
        out += len(data[0]).to_bytes(2, "big")
        out += data[0]
        return
    at = len(out)
    out += b"\0\0"
    for part in data:
        if isinstance(part, bytes):
            out += part
        else:
            _put_name(out, part, seen, compress=rtype != SRV)
    out[at : at + 2] = (len(out) - at - 2).to_bytes(2, "big")


def _put_name(out: bytearray, name: Name, seen: dict[Name, int] | None, *, compress: bool) -> None:
    for position, label in enumerate(name):
        if seen is not None:
            rest = name[position:]
            known = seen.get(rest)
            if known is None:
                if len(out) < _POINTER_OFFSET_MAX:
                    seen[rest] = len(out)
            elif compress:
                out += (0xC000 | known).to_bytes(2, "big")
                return
        out.append(len(label))
        out += label
    out.append(0)


def short_record(record: Record) -> bytes:
    """A record of the question's own name with plain data, as it is in a compressed message."""
    data = b"".join(part for part in record.data if isinstance(part, bytes))
    head = _RECORD_TAIL.pack(record.rtype, record.rclass, record.ttl, len(data))
    return _QUESTION_POINTER + head + data


def srv_record(ttl: int, head: bytes, target: Name) -> bytes:
    """An SRV record of the question's own name, as it is in a compressed message."""
    name = b"".join(bytes((len(label),)) + label for label in target) + b"\0"
    size = len(head) + len(name)
    return _QUESTION_POINTER + _RECORD_TAIL.pack(SRV, CLASS_IN, ttl, size) + head + name


def record_bytes(record: Record, own: Name) -> int:
    """The record's size in a message that is not compressed."""
    size = name_bytes(own if record.name is None else record.name) + _RECORD_TAIL.size
    for part in record.data:
        size += len(part) if isinstance(part, bytes) else name_bytes(part)
    return size
