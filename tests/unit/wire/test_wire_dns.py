"""DNS messages: names and their escapes, compression, bounds; checked against dnslib."""

from __future__ import annotations

import dnslib
import pytest

from proconsul.util.errors import WireError
from proconsul.wire import dns

WEB = dns.name_of("web.service.consul.")


def test_names_as_text() -> None:
    assert dns.name_of("a.b.") == dns.name_of("a.b") == (b"a", b"b")
    assert dns.name_of(".") == dns.name_of("") == ()
    assert dns.text_of(()) == "."
    odd = (b"a.b", b"c d", b"\xff\\", b"'")
    assert dns.text_of(odd) == r"a\.b.c\ d.\255\\.\'."
    assert dns.name_of(dns.text_of(odd)) == odd
    assert dns.name_of("straße.x")[0] == "straße".encode()


@pytest.mark.parametrize("text", ["a..b", ".a", "x" * 64, ".".join(["x" * 60] * 5)])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(WireError, match="not a domain name"):
        dns.name_of(text)


def test_a_message_is_read_as_it_was_written() -> None:
    question = dns.Question(WEB, dns.SRV)
    target = dns.name_of("n1.node.dc1.consul")
    sections = (
        [dns.Record(None, dns.SRV, 7, (b"\0\1\0\2\0\3", target))],
        [dns.Record(dns.name_of("consul"), dns.NS, 0, (target,))],
        [
            dns.Record(target, dns.A, 7, (bytes((10, 0, 0, 1)),)),
            dns.text_record(target, 7, "k=" + "v" * 300),
            dns.opt_record(dns.Edns(1232, dns.Subnet(1, 20, bytes((1, 2, 255, 4)))), scope=20),
        ],
    )
    data = dns.encode(5, dns.QR | dns.AA, question, sections)
    read = dnslib.DNSRecord.parse(data)
    assert str(read.q.qname) == "web.service.consul."
    assert [str(rr.rdata) for rr in read.rr] == ["1 2 3 n1.node.dc1.consul."]
    assert str(read.auth[0].rdata) == "n1.node.dc1.consul."
    assert [str(rr.rname) for rr in read.ar] == ["n1.node.dc1.consul."] * 2 + ["."]
    assert b"".join(read.ar[1].rdata.data) == b"k=" + b"v" * 300
    assert read.ar[2].rdata[0].data == bytes.fromhex("000114140102f0")
    plain = dns.encode(5, dns.QR | dns.AA, question, sections, compress=False)
    assert len(plain) > len(data)
    sizes = sum(dns.record_bytes(record, WEB) for section in sections for record in section)
    assert len(plain) == 12 + dns.name_bytes(WEB) + 4 + sizes
    assert str(dnslib.DNSRecord.parse(plain)) == str(read)


def test_a_query_is_decoded() -> None:
    query = dnslib.DNSRecord.question("Web.Service.Consul", "A")
    query.add_ar(dnslib.EDNS0(udp_len=4096, opts=[dnslib.EDNSOption(8, b"\0\1\x18\0\1\2\3")]))
    found = dns.decode(bytes(query.pack()))
    assert found.question == dns.Question((b"Web", b"Service", b"Consul"), dns.A)
    assert found.edns == dns.Edns(4096, dns.Subnet(1, 24, bytes((1, 2, 3, 0))))


def test_answers_of_recursors_are_decoded() -> None:
    reply = dnslib.DNSRecord.question("a.example", "A").reply()
    reply.add_answer(*dnslib.RR.fromZone("a.example 5 CNAME b.example\nb.example 6 A 1.2.3.4"))
    reply.add_answer(*dnslib.RR.fromZone("b.example 6 AAAA ::1\nb.example 6 MX 5 m.example"))
    found = dns.decode(bytes(reply.pack()))
    assert [(record.rtype, record.ttl) for record in found.answer] == [(5, 5), (1, 6), (28, 6)]
    assert found.answer[0].data == ((b"b", b"example"),)
    assert found.answer[1].name == (b"b", b"example")


@pytest.mark.parametrize(
    "text",
    [
        "0001010000010000",  # no whole header
        "000101000001000000000000 c00c 0001 0001",  # a pointer to itself
        "000101000001000000000000 c00e c00c 0001 0001",  # two that point to each other
        "000101000001000000000000 03 6161",  # cut off
        "000101000001000000000000 41 61 00 0001 0001",  # an unknown kind of label
        "000101000001000000000000 00 0001",  # no class
        "000101000002000000000000 00 0001 0001 00 0001 0001",  # two questions
        "000101000001000000000001 00 0001 0001 00 0029 1000 00000000 0004 0008 0004",  # option
        "000101000001000000000001 00 0001 0001 00 0029 1000 00000000 0007 0008 0003 000118",
        "000101000001000000000001 00 0001 0001 00 0029 1000 00000000 0008 0008 0004 0003 1800",
        "000101000001000000000001 00 0001 0001 00 0029 1000 00000000 0008 0008 0004 0001 2100",
        "000101000001000100000000 00 0001 0001 00 0001 0001 00000000 0003 010203",  # an A record
        "000101000001000100000000 00 0001 0001 00 0001 0001 00000000 0004 010203",
    ],
)
def test_malformed_messages_are_refused(text: str) -> None:
    with pytest.raises(WireError):
        dns.decode(bytes.fromhex(text.replace(" ", "")))


def test_a_chain_of_pointers_ends() -> None:
    labels = b"".join(b"\x01a" + b"\xc0" + bytes((at,)) for at in range(12, 250, 4))
    with pytest.raises(WireError):
        dns.decode(bytes.fromhex("000101000001000000000000") + labels)


def test_what_is_too_large_is_not_sent() -> None:
    records = [dns.Record(None, dns.A, 0, (b"\1\2\3\4",))] * 5000
    with pytest.raises(WireError, match="DNS message of"):
        dns.encode(1, 0, dns.Question(WEB, dns.A), (records, (), ()))
