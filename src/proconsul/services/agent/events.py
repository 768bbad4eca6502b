"""User events: firing them, and the agent's memory of the last ones (`agent/user_event.go`).

An event travels in gossip as msgpack under the name `consul:event:<name>`. Each agent decides by
the event's filters whether it is meant.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec
from msgspec import Raw, field

from proconsul.core.gossip.serf import UserEvent as GossipEvent
from proconsul.domain.base import NIL, bytes_of, decode, raw_bytes
from proconsul.domain.errors import DomainError
from proconsul.domain.ops import USER_EVENT_PREFIX
from proconsul.domain.regexps import RegexpError, compile_regexp
from proconsul.domain.watches import event_index
from proconsul.util.errors import WireError

log = logging.getLogger("proconsul.agent")

EVENTS_MAX = 256
VERSION_MAX = 1
REMOTE_EXEC = "_rexec"


class UserEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event. `ltime` is gossip's clock, which does not travel within."""

    id: str = field(default="", name="ID")
    name: str = field(default="", name="n")
    node_filter: str = field(default="", name="nf")
    raw_payload: Raw = field(default=NIL, name="p")
    service_filter: str = field(default="", name="sf")
    tag_filter: str = field(default="", name="tf")
    version: int = field(default=0, name="v")

    @property
    def payload(self) -> bytes:
        """What the user sent along."""
        return bytes_of(self.raw_payload)

    @property
    def index(self) -> int:
        """The index of a list that ends with this event."""
        return event_index(self.id)


class HeardEvent(msgspec.Struct, frozen=True):
    """An event and when gossip says it was fired."""

    event: UserEvent
    ltime: int


class Service(Protocol):
    """`domain.catalog.NodeService`, as far as filters look at it."""

    @property
    def service(self) -> str: ...
    @property
    def tags(self) -> list[str] | None: ...


def encode_event(event: UserEvent) -> bytes:
    """As agents decode it. Payloads are binary, as in the reference's encoding."""
    payload = event.payload
    raw = Raw(msgspec.msgpack.encode(payload)) if payload else NIL
    return msgspec.msgpack.encode(msgspec.structs.replace(event, raw_payload=raw))


def decode_event(data: bytes) -> UserEvent:
    """Raises `WireError`, also for an id that is none."""
    event = decode(data, UserEvent)
    event = msgspec.structs.replace(event, raw_payload=raw_bytes(bytes_of(event.raw_payload)))
    digits = event.id.replace("-", "")
    if len(event.id) != 36 or len(digits) != 32 or not set(digits.lower()) <= _HEX:
        raise WireError("a user event without a proper id")
    return event


_HEX = frozenset("0123456789abcdef")


def check_event(event: UserEvent) -> None:
    """Raises `DomainError` with Consul's text for an event that must not be fired."""
    if not event.name:
        raise DomainError("User event missing name")
    if event.tag_filter and not event.service_filter:
        raise DomainError("Cannot provide tag filter without service filter")
    filters = ("node", event.node_filter), ("service", event.service_filter)
    for what, expression in (*filters, ("tag", event.tag_filter)):
        try:
            compile_regexp(expression)
        except RegexpError as error:
            raise DomainError(f"Invalid {what} filter: {error}") from None


class UserEvents:
    """The last events that were meant for this agent, oldest first."""

    def __init__(
        self,
        node_name: str,
        services: Callable[[], Iterable[Service]],
        remote_exec: Callable[[UserEvent], None] | None,
    ) -> None:
        """`remote_exec` runs a command that an event asks for; None ignores such events."""
        self._node, self._services, self._remote_exec = node_name, services, remote_exec
        self._recent: deque[HeardEvent] = deque(maxlen=EVENTS_MAX)
        self._changed = asyncio.Event()

    def recent(self) -> list[HeardEvent]:
        """Oldest first."""
        return list(self._recent)

    def changed(self) -> asyncio.Event:
        """Set once another event has come."""
        return self._changed

    def heard(self, said: GossipEvent) -> None:
        """Take in what gossip brought, if it is a user's event and we are meant."""
        if not said.name.startswith(USER_EVENT_PREFIX):
            return
        try:
            event = decode_event(said.payload)
        except WireError as error:
            log.error("Failed to decode event: error=%s", error)
            return
        if event.version > VERSION_MAX:
            log.warning(
                "Event version may have unsupported features: version=%d event=%s",
                event.version,
                event.name,
            )
        try:
            meant = self._meant(event)
        except RegexpError as error:
            log.error("Failed to parse filter for event: event=%s error=%s", event.name, error)
            return
        if not meant:
            return
        if event.name == REMOTE_EXEC:
            if self._remote_exec is None:
                log.info("ignoring remote exec event, disabled.: event_id=%s", event.id)
            else:
                self._remote_exec(event)
            return
        log.debug("new event: event_name=%s event_id=%s", event.name, event.id)
        self._recent.append(HeardEvent(event, said.ltime))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _meant(self, event: UserEvent) -> bool:
        """Raises `RegexpError` for a filter that is none."""
        if event.node_filter and not compile_regexp(event.node_filter).matches(self._node):
            return False
        if not event.service_filter:
            return True
        service = compile_regexp(event.service_filter)
        tag = compile_regexp(event.tag_filter) if event.tag_filter else None
        return any(
            service.matches(one.service)
            and (tag is None or any(tag.matches(given) for given in one.tags or ()))
            for one in self._services()
        )
