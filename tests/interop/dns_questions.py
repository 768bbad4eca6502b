"""A catalog, and the questions over DNS that are asked about it."""

from __future__ import annotations

import itertools
from typing import Any

from dns_support import Ask


def _service(node: str, address: str, **service: Any) -> dict[str, Any]:
    checks = service.pop("checks", ())
    meta = service.pop("node_meta", None)
    tagged = service.pop("node_tagged", None)
    body: dict[str, Any] = {"Node": node, "Address": address, "Service": service}
    if meta:
        body["NodeMeta"] = meta
    if tagged:
        body["TaggedAddresses"] = tagged
    body["Checks"] = [
        {"CheckID": f"c{n}", "Name": "c", "Status": status, "ServiceID": service["ID"]}
        for n, status in enumerate(checks)
    ]
    return body


def catalog() -> list[dict[str, Any]]:
    meta = {"rack": "7", "rfc1035-txt": "v=spf1", "a=b": "x`y"}
    rows = [
        _service("n4", "10.1.0.4", ID="web1", Service="web", Port=80, Tags=["primary", "v.1"],
                 Weights={"Passing": 5, "Warning": 2}, checks=["passing"], node_meta=meta),
        _service("n6", "2001:db8::6", ID="web2", Service="web", Port=81, Tags=["second"],
                 Weights={"Passing": 5, "Warning": 2}, checks=["warning", "passing"]),
        _service("n7", "10.1.0.7", ID="web3", Service="web", Port=82, checks=["critical"]),
        _service("n4", "10.1.0.4", ID="db1", Service="db", Port=5432, Address="10.9.9.1"),
        _service("n6", "2001:db8::6", ID="db2", Service="db", Port=5432, Address="2001:db8::d"),
        _service("n7", "10.1.0.7", ID="ext", Service="ext", Port=1, Address="db.example.com"),
        _service("n7", "10.1.0.7", ID="exm", Service="exm", Port=1, Address="many.example.com"),
        _service("n7", "10.1.0.7", ID="int", Service="int", Port=1, Address="n4.node.consul"),
        _service("n7", "10.1.0.7", ID="self", Service="self", Port=1,
                 Address="self.service.consul"),
        _service("n7", "10.1.0.7", ID="l1", Service="loop", Port=1, Address="pool.service.consul"),
        _service("n7", "10.1.0.7", ID="l2", Service="pool", Port=1, Address="loop.service.consul"),
        _service("n7", "10.1.0.7", ID="mix1", Service="mix", Port=1, Address="www.example.com"),
        _service("n4", "10.1.0.4", ID="mix2", Service="mix", Port=2),
        _service("n4", "10.1.0.4", ID="dup1", Service="dup", Port=1),
        _service("n4", "10.1.0.4", ID="dup2", Service="dup", Port=2),
        _service("n4", "10.1.0.4", ID="dup3", Service="dup", Port=2),
        _service("host", "www.example.com", ID="hs", Service="hosted", Port=3, checks=["passing"]),
        _service("inner", "n4.node.consul", ID="is", Service="inner", Port=4),
        _service("a.b", "10.1.0.8", ID="dots", Service="dots", Port=5),
        _service("Big", "10.1.0.9", ID="Up", Service="Upper", Port=6, Tags=["Tag"]),
        _service("tag", "10.1.0.10", ID="t", Service="tagged", Port=7, Address="10.7.7.7",
                 node_tagged={"lan_ipv4": "10.1.1.10", "lan_ipv6": "2001:db8::10",
                              "wan": "192.0.2.200"},
                 TaggedAddresses={"lan_ipv4": {"Address": "10.7.7.8", "Port": 7},
                                  "lan_ipv6": {"Address": "2001:db8::77", "Port": 7}}),
        _service("tag", "10.1.0.10", ID="t2", Service="ontagged", Port=8,
                 node_tagged={"lan_ipv4": "10.1.1.10", "lan_ipv6": "2001:db8::10"}),
        _service("n4", "10.1.0.4", ID="px", Service="web-proxy", Kind="connect-proxy", Port=20,
                 Proxy={"DestinationServiceName": "web"}),
        _service("n7", "10.1.0.7", ID="sick", Service="sick", Port=9, checks=["critical"]),
        _service("n4", "10.1.0.4", ID="ttl", Service="ttl-one", Port=9),
        _service("n4", "10.1.0.4", ID="ttl2", Service="ttl-two", Port=9),
    ]  # fmt: skip
    rows += [
        _service(f"m{n}", f"10.2.0.{n}", ID="many", Service="many", Port=n) for n in range(1, 31)
    ]
    rows += [_service(f"m{n}", f"10.2.0.{n}", ID="few", Service="few", Port=n) for n in range(1, 7)]
    return rows


EXACT = [
    *(
        Ask(f"{name}.consul", kind)
        for name, kind in itertools.product(
            ("web.service", "db.service", "ext.service", "int.service", "self.service",
             "loop.service", "dup.service", "hosted.service", "inner.service", "tagged.service",
             "ontagged.service", "dots.service", "n4.node", "n6.node", "host.node", "inner.node",
             "tag.node", "nope.service", "nope.node", "sick.service"),
            ("A", "AAAA", "SRV", "ANY", "TXT"),
        )
    ),
    *(
        Ask(name, kind)
        for name, kind in (
            ("primary.web.service.consul", "A"), ("PRIMARY.Web.Service.Consul", "SRV"),
            ("v.1.web.service.consul", "A"), ("nope.web.service.consul", "A"),
            ("_web._tcp.service.consul", "SRV"), ("_web._primary.service.consul", "SRV"),
            ("_web._tcp.consul", "SRV"), ("_web._tcp.dc1.consul", "SRV"),
            ("_web._tcp.service.dc1.consul", "A"), ("_web._udp.service.consul", "SRV"),
            ("_web._tcp.consul", "A"), ("web.service.dc1.consul", "A"),
            ("web.service.dc2.consul", "A"), ("web.service.a.b.consul", "A"),
            ("web.connect.consul", "SRV"), ("web.connect.consul", "A"),
            ("web.connect.dc1.consul", "ANY"), ("web.ingress.consul", "A"),
            ("connect.consul", "A"), ("service.consul", "A"), ("node.consul", "A"),
            ("query.consul", "A"), ("nope.query.consul", "A"), ("nope.query.dc1.consul", "SRV"),
            ("nope.query.dc9.consul", "A"), ("consul", "A"), ("consul", "SOA"), ("consul", "NS"),
            ("web.service.consul", "SOA"), ("nope.consul", "NS"), ("consul", "AXFR"),
            ("web.service.consul", "MX"), ("n4.node.consul", "MX"), ("n4.node.dc1.consul", "A"),
            ("a.b.node.consul", "A"), ("big.node.consul", "A"), ("BIG.NODE.CONSUL", "ANY"),
            ("upper.service.consul", "SRV"), ("tag.upper.service.consul", "A"),
            ("c0a80001.addr.consul", "A"), ("c0a80001.addr.dc1.consul", "AAAA"),
            ("C0A80001.addr.consul", "ANY"), ("c0a800zz.addr.consul", "A"),
            ("20010db800000000000000000000000d.addr.consul", "AAAA"),
            ("c0a8.addr.consul", "A"), ("a.c0a80001.addr.consul", "A"), ("addr.consul", "A"),
            ("4.0.1.10.in-addr.arpa", "PTR"), ("1.9.9.10.in-addr.arpa", "PTR"),
            ("6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "PTR"),
            ("d.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "PTR"),
            ("4.0.1.10.in-addr.arpa", "SOA"), ("9.9.9.9.in-addr.arpa", "PTR"),
            ("10.in-addr.arpa", "PTR"), ("4.0.1.10.in-addr.arpa", "A"),
            ("www.example.com", "A"), ("db.example.com", "ANY"), ("nope.example.com", "A"),
            ("web.service.test.other", "A"), ("n4.node.test.other", "A"), ("test.other", "SOA"),
            ("addr.test.other", "A"), ("c0a80001.addr.test.other", "A"),
            ("ttl-one.service.consul", "A"), ("ttl-two.service.consul", "SRV"),
            ("vm.node.consul", "A"), ("consul.service.consul", "SRV"), ("web", "A"),
            ("mix.service.consul", "A"), ("mix.service.consul", "SRV")
        )
    ),
    *(
        Ask(name, kind, tcp, edns)
        for name, kind, (tcp, edns) in itertools.product(
            ("web.service.consul", "ext.service.consul", "exm.service.consul",
             "www.example.com", "nope.service.consul", "consul", "4.0.1.10.in-addr.arpa"),
            ("A", "SRV", "ANY"),
            ((True, 0), (False, 512), (False, 4096), (True, 4096)),
        )
    ),
    *(Ask("exm.service.consul", kind) for kind in ("A", "SRV")),
    *(Ask("many.service.consul", kind, True) for kind in ("A", "SRV", "ANY")),
    Ask("many.service.consul", "A", False, 4096),
    Ask("many.service.consul", "SRV", False, 8192),
    *(
        Ask(name, "A", False, 1400, bytes.fromhex(subnet))
        for name in ("web.service.consul", "nope.query.consul", "nope.service.consul")
        for subnet in ("0001180001020300"[:14], "000120000a010004", "00023800200108b8000000",
                       "00000000")
    ),
]  # fmt: skip
DRAWN = [
    *(Ask("many.service.consul", kind) for kind in ("A", "SRV", "ANY", "AAAA")),
    *(Ask("many.service.consul", kind, False, edns)
      for kind in ("A", "SRV", "ANY") for edns in (400, 512, 513, 600, 900, 1232, 2048)),
    Ask("few.service.consul"), Ask("few.service.consul", "SRV"),
    *(Ask("few.service.consul", "SRV", False, edns) for edns in (513, 700)),
]  # fmt: skip

RAW = [
    "",
    "00",
    "12340100000100000000",
    "123401000001000000000000",  # no header, no question
    "1234810000010000000000000377777700000100 01",  # an answer
    "12342800000100000000000003777777000001 0001",  # opcode 5, an update
    "12341000000100000000000003777777000001 0001",  # opcode 2, status
    "12342000000100000000000006636f6e73756c00000600 01",  # opcode 4, notify
    "123401000002000000000000 06636f6e73756c0000060001 06636f6e73756c0000060001",
    "12340100000100020000000006636f6e73756c00000600 01",
    "1234010000010000000000000663 6f6e",  # cut off
    "12340100000100000000000006636f6e73756c0000",  # no type
    "123401000001000000000000c00c00010001",  # a name that points to itself
    "123401000001000000000000 40 0000010001",  # a label of an unknown kind
    "1234011000010000000000000663 6f6e73756c 00 0006 0003",  # CH, with CD
]
