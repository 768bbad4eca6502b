"""Questions about other domains, passed on to recursors (`handleRecurse` in agent/dns.go)."""

from __future__ import annotations

import logging

from proconsul.interfaces.dns.complaints import Complaints
from proconsul.interfaces.dns.lookups import MustWait
from proconsul.interfaces.dns.settings import DnsSettings, Exchange
from proconsul.util.address import host_port
from proconsul.util.clock import Rng
from proconsul.util.errors import WireError
from proconsul.wire import dns
from proconsul.wire.dns import Name, Record

log = logging.getLogger("proconsul.dns")


class Recursion:
    """Asks the recursors in order, each for as long as `recursor_timeout`."""

    def __init__(
        self, settings: DnsSettings, exchange: Exchange, rng: Rng, complaints: Complaints
    ) -> None:
        self._settings, self._exchange, self._rng = settings, exchange, rng
        self._complaints = complaints

    @property
    def is_available(self) -> bool:
        """Whether there is any recursor."""
        return bool(self._settings.recursors)

    async def forward(self, request: bytes, question: dns.Question, *, tcp: bool) -> bytes | None:
        """The first recursor's answer that says something; None if none has one.

        The question goes out with an id of ours: that of the client is known to the client.
        """
        for recursor in self._settings.recursors:
            answer = await self._asked(request, question, recursor, tcp=tcp)
            if answer is None:
                continue
            rcode = answer[3] & dns.RCODE_MASK
            if rcode in {dns.NOERROR, dns.NXDOMAIN}:
                log.debug("recurse succeeded for question: recursor=%s", host_port(recursor))
                return request[:2] + answer[2:]
            log.debug("recurse failed: recursor=%s rcode=%d", host_port(recursor), rcode)
        self._complaints.error("all resolvers failed for question from client")
        return None

    async def addresses(self, name: Name, *, now: bool) -> list[Record]:
        """The records that the first reachable recursor has for an alias. Raises `MustWait`."""
        if not self._settings.recursors:
            return []
        if now:
            raise MustWait
        question = dns.Question(name, dns.A)
        request = dns.encode(0, dns.RD, question)
        for recursor in self._settings.recursors:
            answer = await self._asked(request, question, recursor, tcp=False)
            if answer is not None:
                return dns.decode(answer).answer
        self._complaints.error("all resolvers failed for name: name=%s", dns.text_of(name))
        return []

    async def _asked(
        self, request: bytes, question: dns.Question, recursor: tuple[str, int], *, tcp: bool
    ) -> bytes | None:
        own_id = self._rng.getrandbits(16).to_bytes(2, "big")
        timeout = self._settings.recursor_timeout_s
        try:
            answer = await self._exchange(own_id + request[2:], recursor, tcp, timeout)
            told = dns.decode(answer)
        except (OSError, TimeoutError, WireError) as error:
            self._complaints.error(
                "recurse failed: recursor=%s error=%s", host_port(recursor), error
            )
            return None
        asked = dns.lower(question.name), question.qtype, question.qclass
        if told.question is not None:
            name, qtype, qclass = told.question
            if (dns.lower(name), qtype, qclass) != asked:
                self._complaints.error(
                    "recurse failed: recursor=%s error=other question", host_port(recursor)
                )
                return None
        return answer
