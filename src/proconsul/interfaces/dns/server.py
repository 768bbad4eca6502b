"""Messages in, messages out: what is answered, forwarded, refused or passed over in silence.

Follows miekg/dns's server and `ServeMux` with the handlers that `agent/dns.go` gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from proconsul.interfaces.dns.complaints import Complaints
from proconsul.interfaces.dns.kept import KeptAnswers
from proconsul.interfaces.dns.lookups import Lookups, MustWait
from proconsul.interfaces.dns.recursion import Recursion
from proconsul.interfaces.dns.reply import Reply
from proconsul.interfaces.dns.resolver import Ask, Resolver
from proconsul.interfaces.dns.settings import DnsAgent, DnsSettings, Exchange
from proconsul.util.clock import Rng
from proconsul.util.errors import WireError
from proconsul.wire import dns

QUERY, NOTIFY = 0, 4
_ADDITIONALS_MAX = 2
_SCOPELESS = frozenset({dns.NXDOMAIN, dns.SERVFAIL, dns.REFUSED, dns.NOTIMP})
"""Answers that are good for every client, whatever subnet was told."""

Outcome = bytes | None | Coroutine[Any, Any, bytes | None]


class DnsServer:
    """Answers messages. `token()` is the agent's token for users, `clock()` monotonic seconds."""

    def __init__(
        self,
        agent: DnsAgent,
        settings: DnsSettings,
        exchange: Exchange,
        token: Callable[[], str],
        rng: Rng,
        clock: Callable[[], float],
        unix_s: Callable[[], float],
    ) -> None:
        self._agent, self._exchange, self._token = agent, exchange, token
        self._rng, self._clock, self._unix_s = rng, clock, unix_s
        self._complaints = Complaints(clock)
        self.reconfigure(settings)

    def reconfigure(self, settings: DnsSettings) -> None:
        """Answer by other settings from now on."""
        self._settings = settings
        self._recursion = Recursion(settings, self._exchange, self._rng, self._complaints)
        self._resolver = Resolver(
            settings, self._recursion, self._rng, self._unix_s, self._complaints
        )
        self._labels = (("node", settings.node_name),)
        self._kept = KeptAnswers(self._agent, settings, self._token, self._rng, self._clock)

    def handle(self, data: bytes, source_ip: str, tcp: bool) -> Outcome:
        """The answer to a message; None for silence; else what gives it when run as a task."""
        if self._settings.allow_stale:
            started = self._clock()
            kept = self._kept.get(data, tcp)
            if kept is not None:
                self._timed("consul.dns.domain_query", started)
                return kept
        try:
            message_id, flags, counts = dns.peek_header(data)
        except WireError:
            return None
        if flags & dns.QR:
            return None
        opcode = (flags & dns.OPCODE_MASK) >> 11
        if opcode not in {QUERY, NOTIFY}:
            return dns.encode(message_id, _error_flags(flags, dns.NOTIMP, opcode), None)
        if counts.questions != 1 or max(counts[1:3]) > 1 or counts[3] > _ADDITIONALS_MAX:
            return dns.encode(message_id, _error_flags(flags, dns.FORMERR, QUERY), None)
        try:
            message = dns.decode(data)
        except WireError:
            return dns.encode(message_id, _error_flags(flags, dns.FORMERR, QUERY), None)
        if message.question is None:
            return dns.encode(message_id, _reply_flags(flags, dns.REFUSED), None)
        return self._answered(data, message, message.question, source_ip, tcp)

    def _answered(
        self, data: bytes, message: dns.Message, question: dns.Question, source: str, tcp: bool
    ) -> Outcome:
        settings = self._settings
        name = dns.lower(question.name)
        is_reverse = name[-1:] == (b"arpa",)
        is_ours = _within(name, settings.domain) or _within(name, settings.alt_domain)
        # A question for DS belongs to the parent's zone.
        parent = question.qtype == dns.DS and self._recursion.is_available
        if parent or not (is_reverse or is_ours):
            if not self._recursion.is_available:
                flags = _reply_flags(message.flags, dns.REFUSED)
                return dns.encode(message.id, flags, question, compress=False)
            return self._recursed(data, message, question, tcp)
        work = self._pointed if is_reverse and not is_ours else self._resolved
        for now in (True, False):
            lookups = Lookups(self._agent, settings, self._token(), now=now)
            ask = Ask(question, message.edns, tcp, source, lookups)
            running = work(data, message, ask)
            if not now:
                return running
            try:
                running.send(None)
            except StopIteration as done:
                answer: bytes | None = done.value
                return answer
            except MustWait:
                continue
            running.close()
        return None

    async def _resolved(self, data: bytes, message: dns.Message, ask: Ask) -> bytes | None:
        started = self._clock()
        reply = Reply(ask.question, not self._settings.disable_compression)
        is_global = await self._resolver.answer(ask, reply)
        self._timed("consul.dns.domain_query", started)
        answer = self._encoded(message, reply, is_global=is_global)
        if ask.lookups.now and reply.rcode != dns.SERVFAIL:
            self._kept.put(data, ask.tcp, reply, answer, message.edns)
        return answer

    async def _pointed(self, data: bytes, message: dns.Message, ask: Ask) -> bytes | None:
        started = self._clock()
        reply = Reply(ask.question, not self._settings.disable_compression)
        found = await self._resolver.pointer(ask, reply)
        self._timed("consul.dns.ptr_query", started)
        if found:
            return self._encoded(message, reply, is_global=True)
        if self._recursion.is_available and ask.lookups.now:
            raise MustWait
        return await self._recursed(data, message, ask.question, ask.tcp)

    async def _recursed(
        self, data: bytes, message: dns.Message, question: dns.Question, tcp: bool
    ) -> bytes | None:
        answer = await self._recursion.forward(data, question, tcp=tcp)
        if answer is not None:
            return answer
        additional = [dns.opt_record(message.edns)] if message.edns is not None else []
        flags = _reply_flags(message.flags, dns.SERVFAIL) | dns.RA
        return dns.encode(message.id, flags, question, ((), (), additional))

    def _encoded(self, message: dns.Message, reply: Reply, *, is_global: bool) -> bytes:
        edns = message.edns
        if edns is not None:
            everyone = is_global or reply.rcode in _SCOPELESS or edns.subnet is None
            scope = 0 if everyone or edns.subnet is None else edns.subnet.source_prefix
            reply.additional.append(dns.opt_record(edns, scope=scope))
        flags = _reply_flags(message.flags, reply.rcode) | dns.AA
        if self._recursion.is_available:
            flags |= dns.RA
        if reply.truncated:
            flags |= dns.TC
        sections = (reply.answer, reply.authority, reply.additional)
        try:
            return dns.encode(message.id, flags, reply.question, sections, compress=reply.compress)
        except WireError as error:
            self._complaints.warning("failed to respond: error=%s", error)
            return dns.encode(message.id, _reply_flags(message.flags, dns.SERVFAIL), reply.question)

    def _timed(self, name: str, started: float) -> None:
        self._agent.metrics.sample(name, (self._clock() - started) * 1000, self._labels)


def _within(name: dns.Name, domain: dns.Name) -> bool:
    return bool(domain) and name[-len(domain) :] == domain


def _reply_flags(flags: int, rcode: int) -> int:
    kept = flags & dns.OPCODE_MASK
    if not kept:
        kept = flags & (dns.RD | dns.CD)
    return dns.QR | kept | rcode


def _error_flags(flags: int, rcode: int, opcode: int) -> int:
    kept = flags & (dns.TC | dns.RD | dns.RA | dns.AD | dns.CD)
    return dns.QR | kept | opcode << 11 | rcode
