"""A name server for worlds of namespaces: answers A questions out of a table, in each namespace.

For tests in which a DNS name stands for the primary's gateways and later for others.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading

from dnslib import QTYPE, RCODE, RR, A, DNSRecord

from proconsul.app.worlds import netns

_POLL_S = 0.2


class NameServer:
    """One thread; a UDP socket in every namespace that it serves."""

    address = "127.0.0.53"

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        """Name (without the final dot) -> IPv4 addresses. May be changed at any time."""
        self._sockets: dict[str, socket.socket] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def serve(self, namespace: str) -> None:
        """Answer in this namespace, too."""
        if namespace in self._sockets:
            return
        with netns.entered(namespace):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((self.address, 53))
        self._sockets[namespace] = made
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="name-server", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for made in self._sockets.values():
            made.close()
        self._sockets.clear()

    def _run(self) -> None:
        while not self._closed.is_set():
            ready, _, _ = select.select(list(self._sockets.values()), [], [], _POLL_S)
            for made in ready:
                with contextlib.suppress(OSError):
                    data, sender = made.recvfrom(4096)
                    made.sendto(self._answer(data), sender)

    def _answer(self, data: bytes) -> bytes:
        question = DNSRecord.parse(data)
        reply = question.reply()
        addresses = self.records.get(str(question.q.qname).rstrip("."))
        if addresses is None:
            reply.header.rcode = RCODE.NXDOMAIN
        elif question.q.qtype == QTYPE.A:
            for address in addresses:
                reply.add_answer(RR(question.q.qname, QTYPE.A, rdata=A(address), ttl=1))
        return bytes(reply.pack())
