"""DNS from both sides, and prepared queries' templates, for `fuzz_targets`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import dnslib
from fuzz_inputs import Target

from proconsul.domain.prepared_query import PreparedQuery, QueryTemplateOptions, ServiceQuery
from proconsul.domain.query_template import (
    CompiledTemplate,
    TemplateError,
    UnsupportedTemplate,
)
from proconsul.drivers import dns_resolver
from proconsul.interfaces.dns.server import DnsServer
from proconsul.interfaces.dns.settings import DnsSettings
from proconsul.util.errors import WireError
from proconsul.util.metrics import Metrics
from proconsul.wire import dns


def dns_targets() -> list[Target]:
    """What is asked of us, what recursors and name servers answer, what operators store."""
    return [
        Target("DNS message", dns.decode, _dns_queries()),
        Target("DNS server", _dns_server(), _dns_queries(), ()),
        Target("query template", _template, [b"${name.full}-$${x}${match(2)}", b'${ "a" }${1}'],
               (TemplateError, UnsupportedTemplate)),
        Target("DNS answer", _dns_answer, _dns_samples(), (dns_resolver.DnsError,)),
    ]  # fmt: skip


def _dns_queries() -> list[bytes]:
    asked = [dnslib.DNSRecord.question(name, kind) for name, kind in (
        ("web.service.consul", "A"), ("_web._tcp.consul", "SRV"), ("c0a80001.addr.consul", "A"),
        ("4.0.1.10.in-addr.arpa", "PTR"), ("consul", "SOA"), ("example.com", "A"),
    )]  # fmt: skip
    for record in asked[:3]:
        record.add_ar(dnslib.EDNS0(udp_len=1232, opts=[dnslib.EDNSOption(8, b"\0\1\x18\0\1\2\3")]))
    return [bytes(record.pack()) for record in asked] + [_dns_samples()[1]]


def _dns_server() -> Callable[[bytes], object]:
    """All that an agent without a catalog answers at once."""

    class Nothing:
        metrics = Metrics()
        cache: Any = None

        def try_rpc(self, method: str, _request: Any) -> Any:
            raise WireError(f"no {method}")

        def state_version(self) -> int:
            return 0

        async def rpc(self, _method: str, _request: Any) -> Any: ...

    settings = DnsSettings("dc1", "here", (b"consul",), (b"alt",))

    async def nobody(*_: object) -> bytes:
        raise TimeoutError

    server = DnsServer(
        Nothing(), settings, nobody, lambda: "", random.Random(1), lambda: 0.0, lambda: 0.0
    )
    return lambda data: server.handle(data, "192.0.2.1", False)


def _template(data: bytes) -> object:
    text = data.decode("utf-8", "surrogateescape")
    service = ServiceQuery(service=text, tags=[text])
    template = QueryTemplateOptions(type="name_prefix_match", regexp="^a-(.*)$")
    return CompiledTemplate(PreparedQuery(template=template, service=service)).render(text)


def _dns_samples() -> list[bytes]:
    record = dnslib.DNSRecord.question("gw.example", "SRV").reply()
    record.add_answer(*dnslib.RR.fromZone("gw.example 60 SRV 1 2 8443 a.example"))
    aliased = dnslib.DNSRecord.question("gw.example", "A").reply()
    aliased.add_answer(*dnslib.RR.fromZone("gw.example 60 CNAME b.example"))
    aliased.add_answer(*dnslib.RR.fromZone("b.example 60 A 127.0.0.1"))
    return [bytes(record.pack()), bytes(aliased.pack())]


def _dns_answer(data: bytes) -> object:
    answer = dns_resolver._parse(data)
    return dns_resolver._answers(answer, "gw.example", "A")
