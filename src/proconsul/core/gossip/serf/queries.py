"""Questions to the cluster and their answers: serf 0.9.4 `query.go`, and `serf.go` in part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from proconsul.core.gossip.serf.config import SerfError
from proconsul.core.gossip.serf.context import Context
from proconsul.core.gossip.serf.events import QueryDone, QueryEvent, QueryReply
from proconsul.core.gossip.serf.lamport import LamportClock
from proconsul.core.gossip.serf.member import MemberStatus
from proconsul.core.gossip.serf.recent import RecentRing
from proconsul.domain.regexps import RegexpError, compile_regexp
from proconsul.util.errors import WireError
from proconsul.wire import serf as wire
from proconsul.wire.serf_decode import decode_filter

_NS: Final = 1_000_000_000
_TIMEOUT_S_MAX: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryParams:
    """Who shall answer a query and how. `timeout_s` None is the default for the cluster's size."""

    filter_nodes: tuple[str, ...] = ()
    filter_tags: Mapping[str, str] = field(default_factory=dict)
    """Tag -> regular expression, unanchored."""
    request_ack: bool = False
    relay_factor: int = 0
    timeout_s: float | None = None

    def encoded_filters(self) -> tuple[bytes, ...]:
        """As they travel in the query."""
        filters: list[bytes] = []
        if self.filter_nodes:
            filters.append(wire.encode_filter(wire.NodeFilter(tuple(self.filter_nodes))))
        filters += [
            wire.encode_filter(wire.TagFilter(tag, expression))
            for tag, expression in self.filter_tags.items()
        ]
        return tuple(filters)


@dataclass(slots=True)
class _Running:
    """A query of ours that still takes answers."""

    id: int
    ltime: int
    deadline: float
    replies_max: int
    acks: set[str] = field(default_factory=set)
    replies: set[str] = field(default_factory=set)


class Queries:
    """Asks, hears, filters, answers and relays."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._config = context.config
        self.clock = LamportClock()
        self.recent: RecentRing[int] = RecentRing(context.config.query_buffer)
        self._running: dict[int, _Running] = {}

    # --- asking ---------------------------------------------------------------------------------

    def default_timeout_s(self) -> float:
        """GossipInterval * QueryTimeoutMult * log10(N + 1), rounded up."""
        interval_s = self._config.memberlist.gossip_interval_s
        nodes = self._context.alive_count()
        return (
            interval_s * self._config.query_timeout_mult * max(1, math.ceil(math.log10(nodes + 1)))
        )

    def ask(self, name: str, payload: bytes, params: QueryParams) -> wire.Query:
        """Start a query; its answers are emitted until its time is up. Raises `SerfError`."""
        context, config = self._context, self._config
        if config.protocol_version < 4:
            raise SerfError("queries need serf protocol version 4")
        timeout_s = params.timeout_s if params.timeout_s else self.default_timeout_s()
        query = wire.Query(
            ltime=self.clock.time,
            id=context.rng.getrandbits(31),
            address=context.local_address(),
            source=config.node_name,
            filters=params.encoded_filters(),
            flags=wire.FLAG_ACK if params.request_ack else 0,
            relay_factor=params.relay_factor,
            timeout_ns=int(timeout_s * _NS),
            name=name,
            payload=payload,
        )
        raw = wire.encode_query(query)
        if len(raw) > config.query_size_limit:
            raise SerfError(f"query exceeds limit of {config.query_size_limit} bytes")
        self._running[query.ltime] = _Running(
            query.id,
            query.ltime,
            context.now + timeout_s,
            replies_max=2 * len(context.roster) + 16,
        )
        self.hear(query)
        context.query_broadcasts.queue(raw)
        return query

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due."""
        if not self._running:
            return None
        return min(running.deadline for running in self._running.values())

    def handle_timer(self) -> list[int]:
        """Close the queries whose time is up; returns their ids."""
        over = [r for r in self._running.values() if r.deadline <= self._context.now]
        for running in over:
            del self._running[running.ltime]
            self._context.emit(QueryDone(running.id))
        return [running.id for running in over]

    def hear_response(self, response: wire.QueryResponse) -> None:
        """An answer from the net or from this very node."""
        running = self._running.get(response.ltime)
        if running is None or running.id != response.id:
            self._context.log.debug("reply from %s to no running query", response.sender)
            return
        seen = running.acks if response.ack else running.replies
        if response.sender in seen or len(seen) >= running.replies_max:
            return
        seen.add(response.sender)
        reply = QueryReply(running.id, response.sender, response.payload, response.ack)
        self._context.emit(reply)

    # --- answering ------------------------------------------------------------------------------

    def hear(self, query: wire.Query) -> bool:
        """A query that came by; True if it has to be passed on."""
        self.clock.witness(query.ltime)
        if not self.recent.add(query.ltime, query.id, self.clock.time):
            return False
        if self._wanted(query.filters):
            timeout_s = min(query.timeout_ns / _NS, _TIMEOUT_S_MAX)
            event = QueryEvent(
                ltime=query.ltime,
                id=query.id,
                name=query.name,
                payload=query.payload,
                source=query.source,
                address=query.address,
                relay_factor=query.relay_factor,
                deadline=self._context.now + timeout_s,
            )
            if query.ack:
                self._reply(event, wire.FLAG_ACK, b"")
            self._context.query_heard(event)
        return not query.no_broadcast

    def respond(self, event: QueryEvent, payload: bytes) -> None:
        """Answer a query. Raises `SerfError` if that is too late or too large."""
        if self._context.now > event.deadline:
            raise SerfError("response is past the deadline")
        self._reply(event, 0, payload)

    def response_fits(self, event: QueryEvent, payload: bytes) -> bool:
        """Would `respond` send this?"""
        size = len(wire.encode_query_response(self._response(event, 0, payload)))
        return size <= self._config.query_response_size_limit

    def _response(self, event: QueryEvent, flags: int, payload: bytes) -> wire.QueryResponse:
        own = self._config.node_name
        return wire.QueryResponse(event.ltime, event.id, own, flags, payload)

    def _reply(self, event: QueryEvent, flags: int, payload: bytes) -> None:
        response = self._response(event, flags, payload)
        raw = wire.encode_query_response(response)
        limit = self._config.query_response_size_limit
        if len(raw) > limit:
            raise SerfError(f"response exceeds limit of {limit} bytes")
        if event.source == self._config.node_name:
            self.hear_response(response)
            return
        self._context.send(event.source, event.address, raw)
        self._relay(event, raw)

    def _relay(self, event: QueryEvent, raw: bytes) -> None:
        """Send copies through `relay_factor` other members, if there are enough of them."""
        context, factor = self._context, event.relay_factor
        if factor == 0 or len(context.roster) < factor + 1:
            return
        message = wire.encode_relay(wire.Relay(event.address, event.source, raw))
        if len(message) > self._config.query_response_size_limit:
            context.log.warning("relayed response exceeds the limit, not relayed")
            return
        able = [
            member
            for member in context.roster.members()
            if member.status is MemberStatus.ALIVE
            and member.name != self._config.node_name
            and member.delegate_max >= 5
        ]
        for member in context.rng.sample(able, min(factor, len(able))):
            context.send(member.name, member.address, message)

    def _wanted(self, filters: tuple[bytes, ...]) -> bool:
        for raw in filters:
            try:
                condition = decode_filter(raw)
            except WireError as error:
                self._context.log.warning("%s", error)
                return False
            match condition:
                case wire.NodeFilter(names):
                    if self._config.node_name not in names:
                        return False
                case wire.TagFilter(tag, expression):
                    if not self._tag_matches(tag, expression):
                        return False
        return True

    def _tag_matches(self, tag: str, expression: str) -> bool:
        try:
            return compile_regexp(expression).matches(self._context.tags.get(tag, ""))
        except RegexpError as error:
            self._context.log.warning("failed to compile filter regex: %s", error)
            return False
