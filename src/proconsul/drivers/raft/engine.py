"""The engine of a `RaftNode`: carries out the machine's outputs and feeds back what came of it.

Durable writes go to one worker thread, one transaction and one sync for all that is waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from proconsul.core.raft.machine import Raft
from proconsul.core.raft.types import (
    Channel,
    Diverged,
    Event,
    LeaderChanged,
    Output,
    RaftError,
    Reply,
    Role,
    RoleChanged,
    Send,
    Transferred,
    Verified,
)
from proconsul.drivers.raft.applier import Applier
from proconsul.drivers.raft.errors import Halted, WriteHeldUp
from proconsul.drivers.raft.store import DiskFull, Store
from proconsul.drivers.raft.transport import Transport
from proconsul.drivers.scope import TaskScope
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics
from proconsul.wire.raft import AppendEntriesRequest, InstallSnapshotRequest, Request, Response

log = logging.getLogger("proconsul.raft")

_FOR_ROOM = "for room"
ROOM_RETRY_S = 0.5
"""How often is tried whether a full disk has room again."""
HAND_OVER_PAUSE_S = 5.0
"""After a server that could not take the lead either: callers are told of the full disk meanwhile."""

_REPLICATION = "consul.raft.replication"
LEADER_ASKED_AFTER_S = (0.0, 0.02, 0.1)
"""Pauses before each time a silent leader's host is asked whether anybody listens."""


@dataclass(slots=True)
class Hooks:
    """Who is told. All are called on the event loop and may call back in."""

    on_leadership: Callable[[bool], None] | None = None
    on_leader: Callable[[str, str], None] | None = None
    on_failure: Callable[[Exception], None] | None = None


class Engine:
    """Runs one machine. `core` is there from `start` on."""

    def __init__(
        self,
        scope: TaskScope,
        transport: Transport,
        store: Store,
        applier: Applier,
        hooks: Hooks,
        metrics: Metrics,
    ) -> None:
        self.scope, self.transport, self.applier = scope, transport, applier
        self._store, self._hooks, self._metrics = store, hooks, metrics
        self.disk = ThreadPoolExecutor(1, thread_name_prefix="raft-disk")
        self.core: Raft | None = None
        self.send_snapshot: Callable[[Send], Coroutine[Any, Any, None]] | None = None
        self._unwritten: list[Output] = []
        self._writing = self._pumping = self._leading = False
        self._asking: set[str] = set()
        """The addresses of leaders that may be gone."""
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0
        self._failure: Exception | None = None
        self.full: DiskFull | None = None
        """Why nothing can be written at the moment."""
        self.handing_over = False
        """Whether another server is to lead for that reason."""
        self._hand_over_at = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False

    def start(self, core: Raft) -> None:
        """Begin."""
        self.core = core
        core.start(self.now())
        self.pump()

    async def aclose(self) -> None:
        """Stop, and finish what is being written."""
        self._closed = True
        for timer in (self._timer, self._retry):
            if timer is not None:
                timer.cancel()
        await self.scope.aclose()
        await self.transport.aclose()
        await asyncio.to_thread(self.disk.shutdown)
        self.applier.fail_all(Halted("raft is shut down"))
        await asyncio.to_thread(self._store.close)
        self._leave_leadership()

    def halt(self, error: Exception) -> None:
        """Disk or state machine failed: neither vote nor answer any more."""
        if self.stopped:
            return
        self._failure = error
        if self._timer is not None:
            self._timer.cancel()
        self.applier.fail_all(Halted(f"raft halted: {error}"))
        self._leave_leadership()
        if self._hooks.on_failure is not None:
            self._hooks.on_failure(error)

    def _leave_leadership(self) -> None:
        if self._leading and self._hooks.on_leadership is not None:
            self._leading = False
            self._hooks.on_leadership(False)

    @property
    def stopped(self) -> bool:
        """Closed or halted."""
        return self._closed or self._failure is not None

    def running(self) -> Raft:
        """The machine, or `Halted`."""
        if self._failure is not None:
            raise Halted(f"raft halted: {self._failure}")
        if self.core is None or self._closed:
            raise Halted("raft is not running")
        return self.core

    @staticmethod
    def now() -> float:
        """The time as the machine counts it."""
        return asyncio.get_running_loop().time()

    def pump(self) -> None:
        """Carry out what the machine wants done; callbacks may call back in."""
        if self._pumping or self.stopped or self.core is None:
            return
        self._pumping = True
        try:
            while not self.stopped and (out := self.core.take_output()) is not None:
                self._carry_out(out)
        finally:
            self._pumping = False
        if not self.stopped:
            self._arm_timer()

    def _carry_out(self, out: Output) -> None:
        self._dispatch(out.send)
        if not self._store.blocking:
            self._store.write([out])
            self._written([out])
        elif out.writes or out.send_durable:
            self._unwritten.append(out)
            self._write()
        if out.commit_index:
            self.applier.committed(out.commit_index)
        for event in out.events:
            self._on_event(event)

    def _write(self) -> None:
        """Hand all that waits to the disk thread, as one transaction, unless it is at work."""
        if self._writing or self._retry is not None or not self._unwritten or self.stopped:
            return
        batch, self._unwritten = self._unwritten, []
        if not any(out.writes for out in batch):
            self._written(batch)
            return
        self._writing = True
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self.disk, self._store.write, batch)
        started = self.now()
        future.add_done_callback(lambda done: self._after_write(done, batch, started))

    def _after_write(self, done: asyncio.Future[None], batch: list[Output], started: float) -> None:
        self._writing = False
        name = "leader.dispatchLog" if self._leading else "rpc.appendEntries.storeLogs"
        self._metrics.sample(f"consul.raft.{name}", (self.now() - started) * 1000)
        if self.stopped or done.cancelled():
            return
        error = done.exception()
        if isinstance(error, DiskFull):
            self._unwritten[:0] = batch
            self._wait_for_room(error)
            return
        if error is not None:
            log.error("raft halted: %s", error)
            self.halt(error if isinstance(error, Exception) else Halted(str(error)))
            return
        if self.full is not None:
            log.warning("there is room again for the raft log: writes are accepted")
            self.full = None
        self._written(batch)
        self._write()
        self.pump()

    def _wait_for_room(self, error: DiskFull) -> None:
        """Try the same batch again and again; let another server lead meanwhile, if one can.

        Who waits for a write is told: it may happen when there is room.
        """
        if self.full is None:
            log.error("%s", error)
        self.full = error
        self.applier.give_up(WriteHeldUp(str(error)))
        self._retry = asyncio.get_running_loop().call_later(ROOM_RETRY_S, self._retry_write)
        if self._leading and self.now() >= self._hand_over_at:
            try:
                self.running().transfer(_FOR_ROOM, None, self.now())
                self.handing_over = True
            except RaftError as reason:
                log.debug("leadership stays here: %s", reason)
            self.pump()

    def _retry_write(self) -> None:
        self._retry = None
        self._write()

    def _refuses(self, request: Request) -> bool:
        """Whether it needs the full disk. Heartbeats do not, and a leader must hear of its end."""
        if self.full is None or self._leading or isinstance(request, InstallSnapshotRequest):
            return False
        return not (isinstance(request, AppendEntriesRequest) and request.is_heartbeat)

    def _written(self, batch: list[Output]) -> None:
        for out in batch:
            self._dispatch(out.send_durable)
        self.running().persisted(batch[-1].seq, self.now())

    def _dispatch(self, sends: list[Send | Reply]) -> None:
        for item in sends:
            if isinstance(item, Reply):
                token = item.token
                if isinstance(token, asyncio.Future) and not token.done():
                    token.set_result((item.response, item.error))
            elif item.channel is Channel.PIPELINE:
                assert isinstance(item.request, AppendEntriesRequest)
                self.transport.append(
                    self.scope, item.server_id, item.address, item.request, self._timed(item)
                )
            elif item.channel is Channel.DIRECT:
                _ = self.scope.spawn("call", self._call(item))
            elif self.send_snapshot is not None:
                _ = self.scope.spawn("send snapshot", self.send_snapshot(item))

    def _on_event(self, event: Event) -> None:
        match event:
            case RoleChanged(role, term):
                log.info("entering %s state, term %d", role.value.lower(), term)
                self._metrics.incr(f"consul.raft.state.{role.value.lower()}")
                was = self._leading
                self._leading = role is Role.LEADER
                if was and role is not Role.LEADER:
                    self.applier.lost_leadership()
                if was is not self._leading and self._hooks.on_leadership is not None:
                    self._hooks.on_leadership(self._leading)
            case LeaderChanged(leader):
                if self._hooks.on_leader is not None:
                    self._hooks.on_leader(*(leader or ("", "")))
            case Diverged(index, term):
                log.error(
                    "this server's state is a restored snapshot (up to %d, term %d) that no quorum "
                    "got: the leader's entries are refused until it sends a snapshot, which it can "
                    "do once it has taken one (consul snapshot save); or stop this server and move "
                    "its raft directory away", index, term,
                )  # fmt: skip
            case Verified(token, ok):
                if isinstance(token, asyncio.Future) and not token.done():
                    token.set_result(ok)
            case Transferred(token, error):
                if token is _FOR_ROOM:
                    self.handing_over = False
                    self._hand_over_at = self.now() + HAND_OVER_PAUSE_S if error else 0.0
                if isinstance(token, asyncio.Future) and not token.done():
                    token.set_result(error)

    def _arm_timer(self) -> None:
        at = self.running().get_timer()
        if self._timer is not None:
            # Not `TimerHandle.when`: for a time that is past uvloop gives a plain handle.
            if at is not None and self._timer_at <= at and not self._timer.cancelled():
                return  # it fires early, finds nothing to do and is set again: cheaper than moving
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = asyncio.get_running_loop().call_at(at, self._on_timer)
            self._timer_at = at

    def _on_timer(self) -> None:
        self._timer = None
        if self.stopped:
            return
        core, now = self.running(), self.now()
        at = core.get_timer()
        if self.full is not None and not self._leading:
            return  # who cannot write down a vote must not ask for any
        if at is not None and now >= at:
            core.handle_timer(now)
        self.pump()

    def done(self, rid: int) -> Callable[[Response | None], None]:
        """What to call with the answer to request `rid`, None if it failed."""

        def done(response: Response | None) -> None:
            if self.stopped or self.core is None:
                return
            if response is None:
                self.core.failed(rid, self.now())
            else:
                self.core.response(rid, response, self.now())
            self.pump()

        return done

    def _timed(self, send: Send) -> Callable[[Response | None], None]:
        """`done`, and in the metrics how long it took that follower, under hashicorp/raft's names."""
        done, request, started = self.done(send.rid), send.request, self.now()
        if not isinstance(request, AppendEntriesRequest):
            return done
        entries, follower = len(request.entries or ()), send.server_id

        def answered(response: Response | None) -> None:
            if response is not None:
                took_ms, metrics = (self.now() - started) * 1000, self._metrics
                if request.is_heartbeat:
                    metrics.sample(f"{_REPLICATION}.heartbeat.{follower}", took_ms)
                else:
                    metrics.sample(f"{_REPLICATION}.appendEntries.rpc.{follower}", took_ms)
                    metrics.incr(f"{_REPLICATION}.appendEntries.logs.{follower}", entries)
            done(response)

        return answered

    async def _call(self, send: Send) -> None:
        assert send.request is not None
        done = self._timed(send)
        response: Response | None = None
        try:
            response = await self.transport.call(
                send.server_id, send.address, send.request, self._patience_s(send.request)
            )
        except (ProconsulError, OSError, TimeoutError) as error:
            log.debug(
                "%s to %s at %s failed: %s", type(send.request).__name__, send.server_id,
                send.address, str(error) or "timeout",
            )  # fmt: skip
        done(response)

    def _patience_s(self, request: Request) -> float | None:
        """A heartbeat that is not answered in time for the next election is worth no more waiting."""
        if isinstance(request, AppendEntriesRequest):
            return self.running().state.config.heartbeat_timeout_s
        return None

    def connection_lost(self, leader: str) -> None:
        """A connection from the leader at this address ended: find out if its process is gone."""
        if self.stopped or leader in self._asking or self.core is None:
            return
        known = self.core.state.leader
        if known is not None and known[1] == leader:
            self._asking.add(leader)
            _ = self.scope.spawn("ask for the leader", self._ask_for(leader))

    async def _ask_for(self, leader: str) -> None:
        """A crash closes sockets one by one, and a leader that lives is soon heard again."""
        try:
            for pause_s in LEADER_ASKED_AFTER_S:
                await asyncio.sleep(pause_s)
                gone = await self.transport.refuses(leader)
                if self.stopped or self.core is None:
                    return
                known = self.core.state.leader
                if known is None or known[1] != leader:
                    return
                if gone:
                    log.warning("leader at %s is gone: nobody listens there any more", leader)
                    self.core.leader_died(leader, self.now())
                    self.pump()
                    return
        finally:
            self._asking.discard(leader)

    def handle(self, request: Request) -> asyncio.Future[tuple[Response | None, str]]:
        """Serve another server's request."""
        future: asyncio.Future[tuple[Response | None, str]]
        future = asyncio.get_running_loop().create_future()
        if self.stopped or self.core is None:
            future.set_result((None, "raft is shut down"))
        elif self._refuses(request):
            future.set_result((None, str(self.full)))
        else:
            self.core.request(future, request, self.now())
            self.pump()
        return future
