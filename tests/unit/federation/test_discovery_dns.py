"""Discovery by DNS against a name server on loopback, and the resolver of configured entries."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import dnslib
import pytest
from federation_support import closed_port, run

from proconsul.drivers import dns_resolver
from proconsul.drivers.dns_resolver import DnsError, StubResolver, lookup_host, read_resolv_conf
from proconsul.federation.discovery import Discover, DiscoveryError, DiscoveryResolver
from proconsul.federation.discovery.dns import DnsProvider, SrvProvider
from proconsul.federation.discovery.resolver import default_providers, split_host_port

Address = tuple[str, int]
ZONE = """
gw.example.        60 IN A     192.0.2.11
gw.example.        60 IN A     192.0.2.12
gw.example.        60 IN AAAA  2001:db8::1
alias.example.     60 IN CNAME gw.example.
loop.example.      60 IN CNAME loop.example.
_mesh._tcp.example. 60 IN SRV  10 5 8443 gw.example.
_mesh._tcp.example. 60 IN SRV  20 5 8444 gone.example.
_x._udp.example.   60 IN SRV   1 1 53 gw.example.
"""


class NameServer:
    """Answers from a zone, over UDP and TCP on the same port."""

    def __init__(self, zone: str = ZONE) -> None:
        self.records = list(dnslib.RR.fromZone(zone))
        self.truncate = self.silent = self.forge = False
        self.rcode = 0
        self.over_tcp = 0

    def answer(self, data: bytes) -> bytes:
        request = dnslib.DNSRecord.parse(data)
        reply = request.reply()
        name = str(request.q.qname).lower()
        for _ in range(3):
            for record in self.records:
                if str(record.rname) == name and record.rtype in (request.q.qtype, 5):
                    reply.add_answer(record)
            alias = [r for r in self.records if str(r.rname) == name and r.rtype == 5]
            if not alias:
                break
            name = str(alias[0].rdata.label)
        if self.rcode:
            reply.header.rcode = self.rcode
        elif not any(str(r.rname) == name for r in self.records):
            reply.header.rcode = dns_resolver.NXDOMAIN
        return bytes(reply.pack())

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        outer = self

        class Udp(asyncio.DatagramProtocol):
            transport: asyncio.DatagramTransport

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport  # type: ignore[assignment]

            def datagram_received(self, data: bytes, addr: object) -> None:
                if outer.silent:
                    return
                reply = dnslib.DNSRecord.parse(outer.answer(data))
                if outer.truncate:
                    reply.header.tc = 1
                    reply.rr = []
                if outer.forge:
                    forged = dnslib.DNSRecord.parse(reply.pack())
                    forged.header.id ^= 1
                    self.transport.sendto(b"\x00", addr)  # type: ignore[arg-type]
                    self.transport.sendto(forged.pack(), addr)  # type: ignore[arg-type]
                self.transport.sendto(reply.pack(), addr)  # type: ignore[arg-type]

        transport, _ = await loop.create_datagram_endpoint(Udp, local_addr=("127.0.0.1", port))
        try:
            yield f"127.0.0.1:{port}"
        finally:
            transport.close()
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.over_tcp += 1
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        reply = self.answer(await reader.readexactly(length))
        writer.write(struct.pack(">H", len(reply)) + reply)
        await writer.drain()
        writer.close()


async def ask(at: str, **args: str) -> list[str]:
    return await DnsProvider().addrs({"provider": "dns", "resolver": at, **args})


def test_records_of_each_kind() -> None:
    async def main() -> None:
        async with NameServer().listening() as at:
            assert sorted(await ask(at, host="gw.example.")) == ["192.0.2.11", "192.0.2.12"]
            assert await ask(at, host="gw.example.", type="aaaa", port="9") == ["[2001:db8::1]:9"]
            found = await ask(at, host="alias.example.", port="8443")
            assert sorted(found) == ["192.0.2.11:8443", "192.0.2.12:8443"]
            found = await ask(at, host="_mesh._tcp.example.", type="SRV")
            assert sorted(found) == ["192.0.2.11:8443", "192.0.2.12:8443", "[2001:db8::1]:8443"]

    run(main)


def test_truncated_answers_are_asked_for_again_over_tcp() -> None:
    async def main() -> None:
        server = NameServer()
        server.truncate = True
        async with server.listening() as at:
            assert len(await ask(at, host="gw.example.")) == 2
            assert server.over_tcp == 1

    run(main)


def test_forged_and_malformed_datagrams_are_dropped() -> None:
    async def main() -> None:
        server = NameServer()
        server.forge = True
        async with server.listening() as at:
            assert len(await ask(at, host="gw.example.")) == 2

    run(main)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"host": "no.example."}, "no such host"),
        ({"host": "gw.example.", "type": "SRV"}, "no SRV records"),
        ({"host": "loop.example."}, "no A records"),
        ({"host": ""}, "host is required"),
        ({"host": "x.", "type": "MX"}, "is none of A, AAAA, SRV"),
        ({"host": "x.", "port": "0"}, "not a port"),
        ({"host": "x.", "timeout": "soon"}, "not a duration"),
        ({"host": "x.", "resolver": "ns.example:53"}, "is not ip:port"),
        ({"host": "x" * 64 + "."}, "not a domain name"),
    ],
)
def test_errors(args: Mapping[str, str], text: str) -> None:
    async def main() -> None:
        async with NameServer().listening() as at:
            with pytest.raises(DiscoveryError, match=text):
                await ask(**{"at": at, **args}) if "resolver" not in args else await ask(
                    args["resolver"], host="x."
                )

    run(main)


def test_another_server_is_asked_when_one_fails() -> None:
    async def main() -> None:
        broken, silent, good = NameServer(), NameServer(), NameServer()
        broken.rcode = 2
        silent.silent = True
        async with broken.listening() as a, silent.listening() as b, good.listening() as c:
            servers = [split_host_port(s, 53) for s in (a, b, c)]
            found = await StubResolver(servers, 0.1).addresses("gw.example.")
            assert len(found) == 2
            with pytest.raises(DnsError, match="SERVFAIL"):
                await StubResolver(servers[:1], 0.1).addresses("gw.example.")
            with pytest.raises(DnsError, match="timeout"):
                await StubResolver(servers[1:2], 0.1).addresses("gw.example.")
        with pytest.raises(DnsError, match="refused"):
            await StubResolver([closed_port()], 0.5).addresses("gw.example.")

    run(main)


def test_srv_as_go_discover_has_it() -> None:
    async def main() -> None:
        async with NameServer().listening() as at:
            args = {"provider": "srv", "service": "mesh", "domain": "example.", "resolver": at}
            found = await SrvProvider().addrs(args)
            assert found == ["gw.example.:8443", "gone.example.:8444"]
            assert await SrvProvider().addrs({**args, "service": "x", "proto": "udp"}) == [
                "gw.example.:53"
            ]
            with pytest.raises(DiscoveryError, match="service or domain is required"):
                await SrvProvider().addrs({"provider": "srv", "service": "mesh"})

    run(main)


def test_resolv_conf_and_its_search_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# x\nnameserver 192.0.2.53\nsearch example.\noptions ndots:2 timeout:1\n")
    conf = read_resolv_conf(path)
    assert conf.servers == (("192.0.2.53", 53),)
    assert (conf.search, conf.ndots) == (("example.",), 2)
    assert read_resolv_conf(tmp_path / "none").servers == (("127.0.0.1", 53),)
    monkeypatch.setattr(dns_resolver, "read_resolv_conf", lambda: conf)

    async def main() -> None:
        async with NameServer().listening() as at:
            assert len(await ask(at, host="gw")) == 2
            assert len(await ask(at, host="gw.example")) == 2

    run(main)


def test_entries_of_all_kinds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def hosts(host: str) -> list[str]:
        if host == "many.example":
            return ["192.0.2.1", "2001:db8::2"]
        raise DnsError(f"lookup {host}: no such host", is_missing=True)

    monkeypatch.setattr("proconsul.federation.discovery.resolver.lookup_host", hosts)

    async def main() -> None:
        async with NameServer().listening() as at:
            resolver = DiscoveryResolver(Discover(default_providers()))
            entries = [
                "192.0.2.7",
                "192.0.2.7:443",
                "[2001:db8::7]:443",
                "2001:db8::7",
                "many.example",
                "many.example:443",
                "none.example",
                "bad:port",
                f"provider=dns host=gw.example. port=444 resolver={at}",
            ]
            found = await resolver.gateway_addresses(entries)
            assert found[:8] == [
                ("192.0.2.7", 8443),
                ("192.0.2.7", 443),
                ("2001:db8::7", 443),
                ("2001:db8::7", 8443),
                ("192.0.2.1", 8443),
                ("2001:db8::2", 8443),
                ("192.0.2.1", 443),
                ("2001:db8::2", 443),
            ]
            assert sorted(found[8:]) == [("192.0.2.11", 444), ("192.0.2.12", 444)]
            assert await resolver.join_addresses(["many.example", "[::1]:8301"]) == [
                "many.example",
                "[::1]:8301",
            ]
            await resolver.gateway_addresses(entries)

    with caplog.at_level(logging.ERROR, "proconsul.agent"):
        run(main)
    complaints = [r.getMessage() for r in caplog.records]
    assert len(complaints) == 2, "once per reason, however often entries are resolved"
    assert "none.example" in complaints[0] or "none.example" in complaints[1]


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ("provider=vsphere", "discover: unknown provider vsphere: go-discover has it"),
        ("provider=k8s", "host=NAME.NAMESPACE.svc.cluster.local"),
        ("provider=nope a=b", "discover: unknown provider nope: there are aliyun, aws,"),
        ("provider= ", "discover: provider: missing value"),
        ("xprovider=a", "discover: no provider"),
        ("provider=dns x", "discover: x: missing '='"),
    ],
)
def test_errors_of_discover_begin_as_go_discovers(entry: str, error: str) -> None:
    async def main() -> None:
        with pytest.raises(DiscoveryError) as caught:
            await Discover(default_providers()).addrs(entry)
        assert error in str(caught.value)

    run(main)


def test_names_and_help() -> None:
    discover = Discover(default_providers())
    assert discover.names == [
        "aliyun", "aws", "azure", "digitalocean", "dns", "gce", "linode", "os", "packet",
        "scaleway", "srv",
    ]  # fmt: skip
    assert "tag_key" in discover.help()


def test_a_plugin() -> None:
    class Fixed:
        name = "fixed"

        def help(self) -> str:
            return "fixed"

        async def addrs(self, args: Mapping[str, str]) -> list[str]:
            return [args["address"]]

    async def main() -> None:
        resolver = DiscoveryResolver(Discover([Fixed()]))
        assert await resolver.gateway_addresses(["provider=fixed address=192.0.2.1:7"]) == [
            ("192.0.2.1", 7)
        ]

    run(main)


def test_plain_names_honour_the_hosts_file() -> None:
    async def main() -> None:
        assert "127.0.0.1" in await lookup_host("localhost")
        with pytest.raises(DnsError):
            await lookup_host("a..b")

    run(main)


@pytest.mark.parametrize(
    "entry", ["[::1", "[x]:1", "1:2:x", ":1", "a:", "a:0", "a:65536", "[::1]1"]
)
def test_entries_that_are_no_addresses(entry: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        split_host_port(entry, 1)
