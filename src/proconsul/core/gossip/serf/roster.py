"""Who is in the cluster, and in what state. All changes of a member's status live in this file.

Follows serf 0.9.4 `serf.go`, handleNode{Join,Leave,Update}, handleNode{Join,Leave}Intent, reap.

                 notify_join            leave intent           notify_leave
    (unknown) ---------------> ALIVE ----------------> LEAVING -------------> LEFT
                                 |  <---------------- (newer join intent)       |
                    notify_leave |                                              | tombstone timeout
                                 v    leave intent (force-leave)                v
                               FAILED ------------------------> LEFT       (forgotten)
                                 | reconnect timeout -> (forgotten)

notify_join brings any state back to ALIVE. Memberlist says who is reachable, intents (ordered by
Lamport time) say who meant to go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

import msgspec

from proconsul.core.gossip.serf.config import SerfConfig
from proconsul.core.gossip.serf.events import MemberEvent, MemberEventKind
from proconsul.core.gossip.serf.member import Member, MemberStatus
from proconsul.util.address import host_port

INTENTS_MAX = 4096
"""Intents kept for unknown names; a flood of made-up names must not grow memory."""


class IntentKind(Enum):
    """What a node is said to have done."""

    JOIN = auto()
    LEAVE = auto()


class Verdict(Enum):
    """What to do with an intent after it was applied."""

    OLD = auto()
    NEWS = auto()
    """Pass it on."""
    REFUTE = auto()
    """It says that we left, and we did not."""


class Seen(Protocol):
    """What memberlist knows of a node, as a `Member` in whatever status."""

    def __call__(self, status: MemberStatus) -> Member: ...


@dataclass(slots=True)
class _State:
    member: Member
    status_ltime: int = 0
    gone_at: float = 0.0
    """When it failed or left, on the machine's clock."""


@dataclass(slots=True, frozen=True)
class _Intent:
    kind: IntentKind
    ltime: int
    heard_at: float


class Roster:
    """The members and the intents about names that are not members yet."""

    def __init__(
        self, config: SerfConfig, emit: Callable[[MemberEvent], None], log: logging.Logger
    ) -> None:
        self._config, self._emit_event, self._log = config, emit, log
        self._states: dict[str, _State] = {}
        self._failed: dict[str, _State] = {}
        self._left: dict[str, _State] = {}
        self._intents: dict[str, _Intent] = {}
        self._prunes: dict[str, float] = {}
        self.flaps = 0

    def __len__(self) -> int:
        return len(self._states)

    # --- queries ---------------------------------------------------------------------------

    def members(self) -> list[Member]:
        """Everyone, whatever status."""
        return [state.member for state in self._states.values()]

    def get(self, name: str) -> Member | None:
        """The member of that name."""
        state = self._states.get(name)
        return state.member if state else None

    def failed(self) -> list[Member]:
        """Those that reconnect attempts are for."""
        return [state.member for state in self._failed.values()]

    def left_names(self) -> list[str]:
        """The tombstones that push/pull passes on."""
        return list(self._left)

    @property
    def failed_count(self) -> int:
        return len(self._failed)

    @property
    def left_count(self) -> int:
        return len(self._left)

    def status_ltimes(self) -> dict[str, int]:
        """Lamport time of the last status change, by name."""
        return {name: state.status_ltime for name, state in self._states.items()}

    def others_alive(self) -> bool:
        """Is anyone but this node alive?"""
        own = self._config.node_name
        return any(
            name != own and state.member.status is MemberStatus.ALIVE
            for name, state in self._states.items()
        )

    # --- what memberlist reports --------------------------------------------------------------

    def joined(self, name: str, seen: Seen, now: float) -> None:
        """The node is reachable (again)."""
        state = self._states.get(name)
        if state is None:
            status, ltime = MemberStatus.ALIVE, 0
            if (intent := self._intents.pop(name, None)) is not None:
                ltime = intent.ltime
                if intent.kind is IntentKind.LEAVE:
                    status = MemberStatus.LEAVING
            state = self._states[name] = _State(seen(status), ltime)
        else:
            was = state.member.status
            if was is MemberStatus.FAILED and now - state.gone_at < self._config.flap_timeout_s:
                self.flaps += 1
            state.member, state.gone_at = seen(MemberStatus.ALIVE), 0.0
        self._failed.pop(name, None)
        self._left.pop(name, None)
        self._prunes.pop(name, None)
        self._emit(MemberEventKind.JOIN, state.member)

    def left(self, name: str, now: float) -> None:
        """The node is unreachable: it left if it said so before, else it failed."""
        state = self._states.get(name)
        if state is None:
            return
        match state.member.status:
            case MemberStatus.LEAVING:
                self._set_status(state, MemberStatus.LEFT)
                self._left[name] = state
                kind = MemberEventKind.LEAVE
            case MemberStatus.ALIVE:
                self._set_status(state, MemberStatus.FAILED)
                self._failed[name] = state
                kind = MemberEventKind.FAILED
            case status:
                self._log.warning("member %s went away in status %s", name, status)
                return
        state.gone_at = now
        self._emit(kind, state.member)

    def updated(self, name: str, seen: Seen) -> None:
        """Address, tags or versions changed."""
        if (state := self._states.get(name)) is not None:
            state.member = seen(state.member.status)
            self._emit(MemberEventKind.UPDATE, state.member)

    # --- intents ------------------------------------------------------------------------------

    def join_intent(self, name: str, ltime: int, now: float) -> Verdict:
        """`name` says that it joined at `ltime`."""
        state = self._states.get(name)
        if state is None:
            return self._buffer(IntentKind.JOIN, name, ltime, now)
        if ltime <= state.status_ltime:
            return Verdict.OLD
        state.status_ltime = ltime
        if state.member.status is MemberStatus.LEAVING:
            self._set_status(state, MemberStatus.ALIVE)
        return Verdict.NEWS

    def leave_intent(
        self, name: str, ltime: int, now: float, *, prune: bool = False, staying: bool = False
    ) -> Verdict:
        """`name` says that it leaves at `ltime`; `staying`: this node itself has no such plan."""
        state = self._states.get(name)
        if state is None:
            return self._buffer(IntentKind.LEAVE, name, ltime, now)
        if ltime <= state.status_ltime:
            return Verdict.OLD
        if name == self._config.node_name and staying:
            return Verdict.REFUTE
        # Also without a change of status: else two nodes that know of two leaves of the same
        # node would pass them to each other for ever (hashicorp/consul#8179).
        state.status_ltime = ltime
        match state.member.status:
            case MemberStatus.ALIVE:
                self._set_status(state, MemberStatus.LEAVING)
            case MemberStatus.FAILED:
                self._set_status(state, MemberStatus.LEFT)
                del self._failed[name]
                # Among those that left, so that the next push/pull tells the others.
                self._left[name] = state
                self._emit(MemberEventKind.LEAVE, state.member, "forced")
            case _:
                pass
        if prune:
            self._prune(name, state, now)
        return Verdict.NEWS

    def _buffer(self, kind: IntentKind, name: str, ltime: int, now: float) -> Verdict:
        known = self._intents.get(name)
        if known is not None and ltime <= known.ltime:
            return Verdict.OLD
        if known is None and len(self._intents) >= INTENTS_MAX:
            return Verdict.OLD
        self._intents[name] = _Intent(kind, ltime, now)
        return Verdict.NEWS

    # --- forgetting ---------------------------------------------------------------------------

    def next_prune(self) -> float | None:
        """When `handle_prunes` is due."""
        return min(self._prunes.values()) if self._prunes else None

    def handle_prunes(self, now: float) -> None:
        """Erase those whose leave has had its time to spread."""
        for name in [name for name, at in self._prunes.items() if at <= now]:
            del self._prunes[name]
            state = self._states.get(name)
            if state and state.member.status in {MemberStatus.LEAVING, MemberStatus.LEFT}:
                self._erase(name, state, "forced")

    def reap(self, now: float) -> None:
        """Forget those that have been gone for too long, and old intents."""
        config = self._config
        override = config.reconnect_timeout_override
        for name, state in list(self._failed.items()):
            timeout_s = config.reconnect_timeout_s
            if override is not None:
                timeout_s = override(state.member, timeout_s)
            if now - state.gone_at > timeout_s:
                self._erase(name, state)
        for name, state in list(self._left.items()):
            if now - state.gone_at > config.tombstone_timeout_s:
                self._erase(name, state)
        horizon = now - config.recent_intent_timeout_s
        for name in [name for name, i in self._intents.items() if i.heard_at < horizon]:
            del self._intents[name]

    def _prune(self, name: str, state: _State, now: float) -> None:
        if state.member.status is MemberStatus.LEAVING:
            wait_s = self._config.broadcast_timeout_s + self._config.leave_propagate_delay_s
            self._prunes.setdefault(name, now + wait_s)
        else:
            self._erase(name, state, "forced")

    def _erase(self, name: str, state: _State, how: str = "") -> None:
        for table in (self._states, self._failed, self._left):
            table.pop(name, None)
        self._prunes.pop(name, None)
        self._emit(MemberEventKind.REAP, state.member, how)

    def _set_status(self, state: _State, status: MemberStatus) -> None:
        state.member = msgspec.structs.replace(state.member, status=status)

    def _emit(self, kind: MemberEventKind, member: Member, how: str = "") -> None:
        self._log.info(
            "%s%s: %s %s",
            kind.value,
            how and f" ({how})",
            member.name,
            host_port(member.address),
        )
        self._emit_event(MemberEvent(kind, (member,)))
