"""A small stub resolver: questions to recursive name servers over UDP, over TCP where truncated.

The system's `getaddrinfo` (`lookup_host`) answers for plain host names, since it honours
/etc/hosts and everything else that is configured; this one is for record types that it cannot
give (SRV), and for asking a server of one's choice. RFC 1035, with EDNS0 (RFC 6891).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dnslib
from typing_extensions import override

from proconsul.util.errors import ProconsulError

RESOLV_CONF = Path("/etc/resolv.conf")
TIMEOUT_S = 2.0
"""For one server's answer, before the next one is asked."""
ATTEMPTS = 2
UDP_BYTES = 1232
"""Our EDNS0 buffer: never fragmented (DNS flag day 2020)."""
ALIASES_MAX = 16
RECORDS_MAX = 1024
NXDOMAIN = 3

Address = tuple[str, int]


class DnsError(ProconsulError):
    """No usable answer. `is_missing`: the name or its records do not exist."""

    def __init__(self, message: str, *, is_missing: bool = False) -> None:
        super().__init__(message)
        self.is_missing = is_missing


@dataclass(frozen=True, slots=True)
class SrvRecord:
    """RFC 2782. `target` without the final dot."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What resolv.conf(5) says."""

    servers: tuple[Address, ...] = (("127.0.0.1", 53),)
    search: tuple[str, ...] = ()
    ndots: int = 1


def read_resolv_conf(path: Path = RESOLV_CONF) -> ResolvConf:
    """The present settings; defaults where the file is missing."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ResolvConf()
    servers: list[Address] = []
    search: tuple[str, ...] = ()
    ndots = 1
    for line in text.splitlines():
        match line.split():
            case ["nameserver", host, *_]:
                servers.append((host, 53))
            case ["search" | "domain", *names]:
                search = tuple(names)
            case ["options", *options]:
                found = [o.removeprefix("ndots:") for o in options if o.startswith("ndots:")]
                ndots = int(found[-1]) if found and found[-1].isdigit() else ndots
            case _:
                continue
    return ResolvConf(tuple(servers[:3]) or ResolvConf().servers, search, ndots)


async def lookup_host(host: str, timeout_s: float = 5.0) -> list[str]:
    """Every address of `host` by the system's resolver, /etc/hosts included. Raises `DnsError`."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise DnsError(f"lookup {host}: i/o timeout") from None
    except (socket.gaierror, UnicodeError) as error:
        missing = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
        text = "no such host" if missing else str(error.args[-1])
        raise DnsError(f"lookup {host}: {text}", is_missing=missing) from None
    return list(dict.fromkeys(str(item[4][0]) for item in found))


class StubResolver:
    """Asks `servers`, or those of resolv.conf as it is at every question."""

    def __init__(self, servers: Sequence[Address] = (), timeout_s: float = TIMEOUT_S) -> None:
        self._servers, self._timeout_s = tuple(servers), timeout_s

    async def addresses(self, name: str, kind: str = "A") -> list[str]:
        """The A or AAAA records of `name`. Raises `DnsError`."""
        return [str(record) for record in await self._records(name, kind)]

    async def services(self, name: str) -> list[SrvRecord]:
        """The SRV records of `name`, best first. Raises `DnsError`."""
        found = [
            SrvRecord(r.priority, r.weight, r.port, str(r.target).rstrip("."))
            for r in await self._records(name, "SRV")
        ]
        return sorted(found, key=lambda r: (r.priority, -r.weight, r.target, r.port))

    async def _records(self, name: str, kind: str) -> list[dnslib.RD]:
        conf = await asyncio.to_thread(read_resolv_conf)
        error: DnsError | None = None
        for candidate in _candidates(name, conf):
            try:
                return await self._ask_servers(candidate, kind, self._servers or conf.servers)
            except DnsError as failure:
                error = error or failure
                if not failure.is_missing:
                    break
        raise error or DnsError(f"lookup {name}: no such host", is_missing=True)

    async def _ask_servers(
        self, name: str, kind: str, servers: Sequence[Address]
    ) -> list[dnslib.RD]:
        failure = "no name server"
        for server in list(servers) * ATTEMPTS:
            try:
                return _answers(await self._exchange(name, kind, server), name, kind)
            except TimeoutError:
                failure = f"on {server[0]}:{server[1]}: i/o timeout"
            except OSError as error:
                failure = f"on {server[0]}:{server[1]}: {error.strerror or error}".lower()
            except DnsError as error:
                if error.is_missing:
                    raise
                failure = f"on {server[0]}:{server[1]}: {error}"
        raise DnsError(f"lookup {name} {failure}")

    async def _exchange(self, name: str, kind: str, server: Address) -> dnslib.DNSRecord:
        try:
            question = dnslib.DNSRecord(
                dnslib.DNSHeader(id=secrets.randbelow(65536), rd=1),
                q=dnslib.DNSQuestion(name, getattr(dnslib.QTYPE, kind)),
                ar=[dnslib.EDNS0(udp_len=UDP_BYTES)],
            )
            packed = question.pack()
        except (ValueError, UnicodeError) as error:
            raise DnsError(f"lookup {name}: not a domain name") from error
        async with asyncio.timeout(self._timeout_s):
            answer = await _over_udp(question, packed, server)
            if answer.header.tc:
                answer = await _over_tcp(question, packed, server)
        return answer


def _candidates(name: str, conf: ResolvConf) -> list[str]:
    """The names to try, as resolv.conf(5)'s search list has it."""
    bare = name.rstrip(".")
    if name.endswith("."):
        return [bare]
    searched = [f"{bare}.{suffix.strip('.')}" for suffix in conf.search if suffix.strip(".")]
    return [bare, *searched] if bare.count(".") >= conf.ndots else [*searched, bare]


def _parse(data: bytes) -> dnslib.DNSRecord:
    try:
        return dnslib.DNSRecord.parse(data)
    except (dnslib.DNSError, ValueError) as error:
        raise DnsError("malformed answer") from error


def _answers(answer: dnslib.DNSRecord, name: str, kind: str) -> list[dnslib.RD]:
    if answer.header.rcode == NXDOMAIN:
        raise DnsError(f"lookup {name}: no such host", is_missing=True)
    if answer.header.rcode:
        code = answer.header.rcode
        raise DnsError(f"server answered {dnslib.RCODE.get(code, code)}")
    wanted = getattr(dnslib.QTYPE, kind)
    names = {_canonical(name)}
    for _ in range(ALIASES_MAX):
        aliases = {
            _canonical(str(rr.rdata.label))
            for rr in answer.rr
            if rr.rtype == dnslib.QTYPE.CNAME and _canonical(str(rr.rname)) in names
        }
        if aliases <= names:
            break
        names |= aliases
    found = [rr for rr in answer.rr if rr.rtype == wanted and _canonical(str(rr.rname)) in names]
    if not found:
        raise DnsError(f"lookup {name}: no {kind} records", is_missing=True)
    return [rr.rdata for rr in found[:RECORDS_MAX]]


def _canonical(name: str) -> str:
    return name.rstrip(".").lower()


def _is_answer_to(question: dnslib.DNSRecord, answer: dnslib.DNSRecord) -> bool:
    return (
        answer.header.qr == 1
        and answer.header.id == question.header.id
        and len(answer.questions) == 1
        and answer.q.qtype == question.q.qtype
        and _canonical(str(answer.q.qname)) == _canonical(str(question.q.qname))
    )


class _Datagrams(asyncio.DatagramProtocol):
    """Waits for the one datagram that answers; others are dropped, as forgeries would be."""

    def __init__(self, question: dnslib.DNSRecord) -> None:
        self._question = question
        self.answer: asyncio.Future[dnslib.DNSRecord]
        self.answer = asyncio.get_running_loop().create_future()

    @override
    def datagram_received(self, data: bytes, _addr: object) -> None:
        try:
            record = _parse(data)
        except DnsError:
            return
        if _is_answer_to(self._question, record) and not self.answer.done():
            self.answer.set_result(record)

    @override
    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _over_udp(question: dnslib.DNSRecord, packed: bytes, server: Address) -> dnslib.DNSRecord:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Datagrams(question), remote_addr=server
    )
    try:
        transport.sendto(packed)
        return await protocol.answer
    finally:
        transport.close()


async def _over_tcp(question: dnslib.DNSRecord, packed: bytes, server: Address) -> dnslib.DNSRecord:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(struct.pack(">H", len(packed)) + packed)
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        data = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        raise DnsError("connection ended within the answer") from None
    finally:
        writer.close()
    answer = _parse(data)
    if not _is_answer_to(question, answer):
        raise DnsError("answer to another question")
    return answer
