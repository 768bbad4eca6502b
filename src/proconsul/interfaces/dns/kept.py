"""Answers that stay true until the next commit, encoded once and sent to all who ask the same.

What is asked for most is asked for again and again within moments. An answer without a choice is kept
as bytes; one that is a choice among equal addresses is kept as the pool they are drawn from. At most
a second old: rights may change without a commit here, and the zone's serial number is the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from proconsul.interfaces.dns.reply import Reply
from proconsul.interfaces.dns.settings import DnsAgent, DnsSettings
from proconsul.interfaces.dns.srv_pool import SrvPool, srv_pool
from proconsul.util.clock import Rng
from proconsul.wire import dns

ENTRIES_MAX = 1024
REQUEST_BYTES_MAX = 512
"""Longer questions are not worth their memory."""
POOL_MAX = 4096
BYTES_MAX = 4 << 20
"""Of all that is kept: those who ask choose how often and in how many spellings."""
_RECORD_BYTES = 400
"""Of memory, for one record of a pool."""


class Pool(NamedTuple):
    """`held` of the records, in any order, between what comes before and after them."""

    head: bytes
    records: list[bytes]
    held: int
    tail: bytes


class KeptAnswers:
    """By the question's bytes, without its id."""

    def __init__(
        self,
        agent: DnsAgent,
        settings: DnsSettings,
        token: Callable[[], str],
        rng: Rng,
        clock: Callable[[], float],
    ) -> None:
        self._agent, self._settings, self._token = agent, settings, token
        self._rng, self._clock = rng, clock
        self._of: tuple[int | None, int, str] = (-1, 0, "")
        """Version of the state, second, and token with which it was read."""
        self._answers: dict[tuple[bytes, bool], bytes | Pool | SrvPool | None] = {}
        """None: asked for once, and too dear to be kept for that."""
        self._room = BYTES_MAX

    def get(self, request: bytes, tcp: bool) -> bytes | None:
        """The answer, if it is known and still true."""
        of = (self._agent.state_version(), int(self._clock()), self._token())
        if of != self._of:
            self._of, self._room = of, BYTES_MAX
            self._answers.clear()
            return None
        found = self._answers.get((request[2:], tcp))
        if found is None:
            return None
        if type(found) is bytes:
            return request[:2] + found
        if isinstance(found, SrvPool):
            return request[:2] + found.draw(self._rng)
        assert isinstance(found, Pool)
        drawn = b"".join(self._rng.sample(found.records, found.held))
        return b"".join((request[:2], found.head, drawn, found.tail))

    def put(
        self, request: bytes, tcp: bool, reply: Reply, answer: bytes, edns: dns.Edns | None
    ) -> None:
        """Keep an answer that was had without waiting, if it may be given again."""
        if self._of[0] is None or not reply.is_repeatable or len(request) > REQUEST_BYTES_MAX:
            return
        key = request[2:], tcp
        kept: bytes | Pool | SrvPool | None = answer[2:]
        size = len(answer) + len(request)
        if len(reply.pool) > 1 or len(reply.instances) > 1:
            kept = None
            size += max(len(reply.pool), len(reply.instances)) * _RECORD_BYTES
            if key in self._answers and size <= self._room:
                kept = self._pool(reply, answer, tcp, edns)
        if size <= self._room and (len(self._answers) < ENTRIES_MAX or key in self._answers):
            self._room -= size if kept is not None else len(request)
            self._answers[key] = kept

    def _pool(
        self, reply: Reply, answer: bytes, tcp: bool, edns: dns.Edns | None
    ) -> Pool | SrvPool | None:
        if reply.pool:
            return _pool(reply, answer)
        flags = int.from_bytes(answer[2:4], "big")
        return None if tcp else srv_pool(reply, flags, self._settings, edns)


def _pool(reply: Reply, answer: bytes) -> Pool | None:
    """None where records are not all of one size, or what fits had to be found out."""
    held = len(reply.answer)
    records = [dns.short_record(record) for record in reply.pool]
    size = len(records[0])
    if not reply.compress or held != reply.drawn or len(records) > POOL_MAX:
        return None
    if any(len(record) != size for record in records):
        return None
    start = dns.HEADER_BYTES + dns.name_bytes(reply.question.name) + 4
    return Pool(answer[2:start], records, held, answer[start + held * size :])
