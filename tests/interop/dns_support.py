"""Questions over DNS to agents, answers in a form that can be compared, and a recursor to forward to."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import dnslib

PORT = 8600
TIMEOUT_S = 5.0


class Ask(NamedTuple):
    """One question. `edns` is the buffer's size, 0 for none; `subnet` an option's bytes."""

    name: str
    kind: str = "A"
    tcp: bool = False
    edns: int = 0
    subnet: bytes = b""

    def packed(self) -> bytes:
        record = dnslib.DNSRecord(
            dnslib.DNSHeader(id=0x1234, rd=1),
            q=dnslib.DNSQuestion(self.name, getattr(dnslib.QTYPE, self.kind)),
        )
        if self.edns:
            options = [dnslib.EDNSOption(8, self.subnet)] if self.subnet else []
            record.add_ar(dnslib.EDNS0(udp_len=self.edns, opts=options))
        return bytes(record.pack())


def exchange(
    address: str,
    message: bytes,
    *,
    tcp: bool = False,
    port: int = PORT,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """The answer to a message; nothing if none comes within a moment."""
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(timeout_s)
        sock.connect((address, port))
        if not tcp:
            sock.send(message)
            return sock.recv(65535)
        sock.sendall(struct.pack("!H", len(message)) + message)
        with sock.makefile("rb") as stream:
            (size,) = struct.unpack("!H", stream.read(2))
            return stream.read(size)


def plain(data: bytes, own: str) -> dict[str, Any]:
    """What of an answer is the same however often it is asked for, and for every agent."""
    record = dnslib.DNSRecord.parse(data)
    header = record.header
    seen: dict[str, Any] = {
        "id": header.id,
        "rcode": header.rcode,
        "flags": header.bitmap & 0xFFF0,
        "question": [(str(q.qname), q.qtype, q.qclass) for q in record.questions],
    }
    for name, section in (("answer", record.rr), ("authority", record.auth), ("more", record.ar)):
        seen[name] = sorted(_shown(rr, own) for rr in section)
    return seen


def counted(data: bytes) -> dict[str, Any]:
    """Where answers are drawn by lot: how many records of each type, and the flags."""
    record = dnslib.DNSRecord.parse(data)
    sections = (record.rr, record.auth, record.ar)
    return {
        "flags": record.header.bitmap,
        "counts": [Counter(rr.rtype for rr in section) for section in sections],
    }


def _shown(rr: dnslib.RR, own: str) -> str:
    data = str(rr.rdata)
    if rr.rtype == dnslib.QTYPE.SOA:
        times = list(rr.rdata.times)
        times[0] = 0
        data = f"{rr.rdata.mname} {rr.rdata.rname} {times}"
    if rr.rtype == dnslib.QTYPE.OPT:
        data = " ".join(f"{option.code}={option.data.hex()}" for option in rr.rdata)
    text = f"{rr.rname} {rr.rtype} {rr.rclass} {rr.ttl} {data}"
    parts = own.split(".")
    backwards = ".".join(reversed(parts))
    packed = socket.inet_aton(own).hex()
    return text.replace(own, "OWN").replace(backwards, "SDRAWKCAB").replace(packed, "HEX")


ZONE = {
    "www.example.com.": [("A", "192.0.2.10"), ("A", "192.0.2.11")],
    "db.example.com.": [("CNAME", "db2.example.com."), ("A", "192.0.2.20")],
    "many.example.com.": [("A", f"192.0.2.{n}") for n in range(30, 42)],
    "six.example.com.": [("A", "192.0.2.9")],
}


class _Zone:
    def answer(self, data: bytes) -> bytes:
        question = dnslib.DNSRecord.parse(data)
        reply = question.reply()
        found = ZONE.get(str(question.q.qname).lower())
        if found is None:
            reply.header.rcode = dnslib.RCODE.NXDOMAIN
        for kind, text in found or ():
            rdata = getattr(dnslib, kind)(text)
            rtype = getattr(dnslib.QTYPE, kind)
            reply.add_answer(dnslib.RR(question.q.qname, rtype, ttl=77, rdata=rdata))
        return bytes(reply.pack())


class _Datagrams(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(_Zone().answer(data), self.client_address)


class _Streams(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while head := self.rfile.read(2):
            answer = _Zone().answer(self.rfile.read(int.from_bytes(head, "big")))
            self.wfile.write(len(answer).to_bytes(2, "big") + answer)


@contextmanager
def recursor(address: str = "127.0.0.1") -> Iterator[str]:
    """A name server for `ZONE`, NXDOMAIN for all else: its address and port."""
    with socketserver.ThreadingTCPServer((address, 0), _Streams) as streams:
        streams.daemon_threads = True
        where = streams.server_address
        with socketserver.ThreadingUDPServer(where, _Datagrams) as datagrams:
            threads = [
                threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
                for server in (streams, datagrams)
            ]
            for thread in threads:
                thread.start()
            try:
                yield f"{where[0]}:{where[1]}"
            finally:
                for server in (streams, datagrams):
                    server.shutdown()
                for thread in threads:
                    thread.join()
