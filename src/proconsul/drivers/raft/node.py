"""`RaftNode`: one server's Raft, with its disk, its clock and its network.

The API of the Raft layer towards the rest of the server. `engine.Engine` drives the machine,
`applier.Applier` the state machine, `snapshotter.Snapshotter` the snapshots.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import BinaryIO, TypeVar

from proconsul.core.raft.machine import Raft
from proconsul.core.raft.membership import Change
from proconsul.core.raft.types import (
    ChangePending,
    Config,
    NotLeader,
    RaftError,
    Role,
)
from proconsul.drivers.raft import stats
from proconsul.drivers.raft.applier import Applier, Fsm
from proconsul.drivers.raft.engine import Engine, Hooks
from proconsul.drivers.raft.errors import ApplyTimeout
from proconsul.drivers.raft.loading import load
from proconsul.drivers.raft.snapshots import FileSnapshotStore, Snapshot
from proconsul.drivers.raft.snapshotter import Snapshotter
from proconsul.drivers.raft.store import DiskFull, Store
from proconsul.drivers.raft.transport import Transport
from proconsul.drivers.scope import TaskScope
from proconsul.drivers.stream import Stream
from proconsul.util.metrics import Metrics
from proconsul.wire.raft import (
    Configuration,
    InstallSnapshotRequest,
    LogType,
    Request,
    Response,
    Server,
)

T = TypeVar("T")

PROPOSALS_MAX = 65536
"""Calls of `apply` and `barrier` under way at once."""
_CHANGE_RETRY_S = 0.01


class RestoreUndecided(RaftError):
    """A snapshot from outside is this server's state now, but not known to be a quorum's."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Who this server is. `address` is its "ip:port" as the others dial it."""

    server_id: str
    address: str
    raft: Config = field(default_factory=Config)


class RaftNode:
    """One member of a Raft cluster. Use from one event loop; callbacks run on it, synchronously.

    `on_leadership(True)` comes when an election is won (use `barrier` before relying on the state),
    `on_leader(id, address)` on every change of the leader, with empty strings if there is none, and
    `on_failure(error)` if disk or state machine fail, after which every call raises `Halted`.
    """

    def __init__(
        self,
        config: NodeConfig,
        fsm: Fsm,
        transport: Transport,
        store: Store,
        snapshots: FileSnapshotStore,
        *,
        on_leadership: Callable[[bool], None] | None = None,
        on_leader: Callable[[str, str], None] | None = None,
        on_failure: Callable[[Exception], None] | None = None,
        metrics: Metrics | None = None,
        seed: int | None = None,
    ) -> None:
        self._config, self._store, self._snapshots = config, store, snapshots
        self._rng = random.Random(seed)
        self._metrics = metrics if metrics is not None else Metrics()
        self._applier = Applier(fsm, self._failed, self._metrics)
        hooks = Hooks(on_leadership, on_leader, on_failure)
        self._engine = Engine(
            TaskScope("raft"), transport, store, self._applier, hooks, self._metrics
        )
        self._snapshotter = Snapshotter(self._engine, snapshots, self._rng)
        self._engine.send_snapshot = self._snapshotter.send
        self._proposals: list[tuple[LogType, bytes, asyncio.Future[object]]] = []
        self._closed = False
        self._held = 0
        """Restores under way: proposals wait for their end."""

    # -- life cycle

    async def start(self) -> None:
        """Load what is on disk, restore the state machine, begin.

        Raises `StoreError`, `SnapshotError`, or `Compacted` if log and snapshot do not fit.
        """
        loop = asyncio.get_running_loop()
        engine = self._engine
        snapshot, hard, raft_log = await loop.run_in_executor(
            engine.disk, load, self._store, self._snapshots
        )
        if snapshot is not None:
            reader = await asyncio.to_thread(self._snapshots.open, snapshot)
            with reader:
                self._applier.restore(snapshot, await self._applier.load(reader))
        self._applier.start(raft_log)
        me, meta = self._config, snapshot.meta if snapshot else None
        engine.start(Raft(me.raft, me.server_id, me.address, raft_log, hard, meta, self._rng))
        _ = engine.scope.supervise("snapshots", self._snapshotter.loop)

    async def aclose(self) -> None:
        """Stop, finish what is being written, close transport and stores. Idempotent."""
        if not self._closed:
            self._closed = True
            await self._engine.aclose()
            await asyncio.to_thread(self._snapshots.close)

    def _failed(self, error: Exception) -> None:
        self._engine.halt(error)

    # -- what the rest of the server asks

    @property
    def is_leader(self) -> bool:
        """Whether this server leads, as far as it knows; `verify_leader` makes sure."""
        core = self._engine.core
        return core is not None and not self._engine.stopped and core.state.role is Role.LEADER

    @property
    def leader(self) -> tuple[str, str] | None:
        """(id, address) of the leader, None if unknown. The id is empty for a stranger's."""
        core = self._engine.core
        return None if core is None or self._engine.stopped else core.state.leader

    @property
    def has_state(self) -> bool:
        """Whether there is a log, a term or a snapshot: such a server must not be bootstrapped."""
        state = self._engine.running().state
        return bool(state.log.last_index or state.term)

    @property
    def applied_index(self) -> int:
        """The last entry the state machine has seen."""
        return self._applier.index

    @property
    def last_index(self) -> int:
        """The last entry in the log or snapshot."""
        return self._engine.running().state.log.last_index

    @property
    def last_contact_s(self) -> float | None:
        """Seconds since a leader was heard; 0 on the leader, None if never."""
        if self.is_leader:
            return 0.0
        heard = self._engine.running().state.last_contact
        return None if heard is None else asyncio.get_running_loop().time() - heard

    def measure(self) -> None:
        """Put into the metrics what is a state, not an event; call it every few seconds."""
        core, metrics = self._engine.core, self._metrics
        if core is None or self._engine.stopped:
            return
        for silence_s in core.silences_s(self._engine.now()):
            metrics.sample("consul.raft.leader.lastContact", silence_s * 1000)
        metrics.gauge("consul.raft.last_index", core.state.log.last_index)
        metrics.gauge("consul.raft.applied_index", self._applier.index)
        metrics.gauge("consul.raft.fsm.pending", max(self._applier.pending, 0))

    def configuration(self) -> tuple[Configuration, int]:
        """The latest members and the index of the entry that says so."""
        members = self._engine.running().state.members
        return members.latest, members.latest_index

    def stats(self) -> dict[str, str]:
        """hashicorp/raft's `Stats`, which Consul shows in `info` and `/v1/agent/self`."""
        return stats.collect(self._engine.running().state, self._applier, self.last_contact_s)

    def bootstrap(self, servers: list[Server]) -> None:
        """Give a fresh cluster its first members: the same list on every one of them.

        Raises `ConfigurationError` if there is state already.
        """
        self._engine.running().bootstrap(Configuration(tuple(servers)), self._engine.now())
        self._engine.pump()

    async def apply(self, data: bytes, deadline: float) -> object:
        """Replicate a command; returns what the state machine returned for it.

        `deadline` is absolute on the loop's clock. Raises `NotLeader`, `TransferInProgress`,
        `Halted`, and with the outcome undecided `LeadershipLost` and `ApplyTimeout`. Calls made at
        the same time share one sync and one AppendEntries.
        """
        return await self._propose(LogType.COMMAND, data, deadline, "apply")

    async def barrier(self, deadline: float) -> None:
        """Wait until everything committed so far is applied here. Raises as `apply` does."""
        await self._propose(LogType.BARRIER, b"", deadline, "barrier")

    async def verify_leader(self, deadline: float) -> None:
        """Make sure by a quorum that this server leads now. Raises `NotLeader`, `ApplyTimeout`."""
        self._metrics.incr("consul.raft.verify_leader")
        future: asyncio.Future[bool] = self._future()
        self._engine.running().verify(future, self._engine.now())
        self._engine.pump()
        if not await self._wait(future, deadline, "leader verification"):
            raise NotLeader(self.leader)

    async def add_voter(
        self, server_id: str, address: str, deadline: float, prev_index: int = 0
    ) -> int:
        """Add a voter, or change its address; returns the entry's index.

        Raises as `apply`, and `ConfigurationError`. With `prev_index`, only if the latest
        configuration is the one of that index.
        """
        return await self._change(Change.ADD_VOTER, server_id, address, deadline, prev_index)

    async def add_nonvoter(
        self, server_id: str, address: str, deadline: float, prev_index: int = 0
    ) -> int:
        """Add a server that replicates without a vote."""
        return await self._change(Change.ADD_NONVOTER, server_id, address, deadline, prev_index)

    async def demote_voter(self, server_id: str, deadline: float, prev_index: int = 0) -> int:
        """Take a server's vote."""
        return await self._change(Change.DEMOTE_VOTER, server_id, "", deadline, prev_index)

    async def remove_server(self, server_id: str, deadline: float, prev_index: int = 0) -> int:
        """Remove a server; removing the leader makes it step down once that is committed."""
        return await self._change(Change.REMOVE_SERVER, server_id, "", deadline, prev_index)

    async def leadership_transfer(self, deadline: float, server_id: str | None = None) -> None:
        """Hand leadership to a server, by default the most up to date one. Raises `RaftError`."""
        future: asyncio.Future[str] = self._future()
        self._engine.running().transfer(future, server_id, self._engine.now())
        self._engine.pump()
        if error := await self._wait(future, deadline, "leadership transfer"):
            raise RaftError(error)

    async def snapshot(self) -> Snapshot | None:
        """Write a snapshot now and truncate the log behind it; None if there is nothing new."""
        return await self._snapshotter.take()

    async def open_snapshot(self) -> tuple[Snapshot, BinaryIO]:
        """The state as of now at the earliest: takes a snapshot if anything is new.

        Raises `SnapshotError`, also where there is nothing yet.
        """
        return await self._snapshotter.open()

    async def restore(self, index: int, source: BinaryIO, deadline: float) -> None:
        """Replace the state of all servers by a snapshot's bytes; `index` is where it was taken.

        Writes meanwhile wait. Returns when a quorum has it. Raises `RestoreUndecided` if that is
        not so in time; whatever else it raises (`RaftError`) leaves everything as it was.
        """
        future: asyncio.Future[object] = self._future()
        self._held += 1
        try:
            await self._snapshotter.restore(index, source, future)
        finally:
            self._held -= 1
            if self._proposals:
                self._flush_proposals()
        try:
            await self._wait(future, deadline, "restore")
        except RaftError as error:
            raise RestoreUndecided(str(error)) from error

    # -- the network side

    async def serve(self, stream: Stream) -> None:
        """Serve another server's connection until it ends."""
        await self._engine.transport.serve(stream, self)

    def handle(self, request: Request) -> asyncio.Future[tuple[Response | None, str]]:
        """Serve one request (`transport.Handler`)."""
        return self._engine.handle(request)

    async def install(
        self, request: InstallSnapshotRequest, chunks: AsyncIterator[bytes]
    ) -> tuple[Response | None, str]:
        """Receive a snapshot (`transport.Handler`)."""
        return await self._snapshotter.install(request, chunks)

    def connection_lost(self, leader: str) -> None:
        """A leader's connection ended (`transport.Handler`)."""
        self._engine.connection_lost(leader)

    # -- proposals

    @staticmethod
    def _future() -> asyncio.Future[T]:
        return asyncio.get_running_loop().create_future()

    async def _wait(self, future: asyncio.Future[T], deadline: float, what: str) -> T:
        try:
            async with asyncio.timeout_at(deadline):
                return await future
        except TimeoutError:
            raise ApplyTimeout(what) from None

    async def _propose(self, kind: LogType, data: bytes, deadline: float, what: str) -> object:
        if not self.is_leader:
            self._engine.running()
            raise NotLeader(self.leader)
        self._check_room()
        if len(self._applier) + len(self._proposals) >= PROPOSALS_MAX:
            raise RaftError("too many raft proposals under way, try again later")
        future: asyncio.Future[object] = self._future()
        if not self._proposals and not self._held:
            asyncio.get_running_loop().call_soon(self._flush_proposals)
        self._proposals.append((kind, data, future))
        self._metrics.incr(
            "consul.raft.apply" if kind is LogType.COMMAND else "consul.raft.barrier"
        )
        started = self._engine.now()
        result = await self._wait(future, deadline, what)
        self._metrics.sample("consul.raft.commitTime", (self._engine.now() - started) * 1000)
        return result

    def _check_room(self) -> None:
        """Take nothing that cannot be written down; what is handed over is tried elsewhere."""
        full = self._engine.full
        if full is not None and not self._engine.handing_over:
            raise DiskFull(str(full))

    def _flush_proposals(self) -> None:
        if self._held:
            return
        proposals, self._proposals = self._proposals, []
        try:
            items = [(kind, data) for kind, data, _ in proposals]
            first = self._engine.running().propose(items, self._engine.now())
        except RaftError as error:
            for _, _, future in proposals:
                if not future.done():
                    future.set_exception(error)
            return
        self._metrics.gauge("consul.raft.leader.dispatchNumLogs", len(proposals))
        for i, (_, _, future) in enumerate(proposals):
            self._applier.wait(first + i, future)
        self._engine.pump()

    async def _change(
        self, change: Change, server_id: str, address: str, deadline: float, prev_index: int
    ) -> int:
        self._check_room()
        while (index := self._try_change(change, server_id, address, prev_index)) is None:
            if self._engine.now() >= deadline:
                raise ChangePending
            await asyncio.sleep(_CHANGE_RETRY_S)
        future: asyncio.Future[object] = self._future()
        self._applier.wait(index, future)
        self._engine.pump()
        await self._wait(future, deadline, "configuration change")
        return index

    def _try_change(
        self, change: Change, server_id: str, address: str, prev_index: int
    ) -> int | None:
        """The new entry's index, None while the change before it is under way."""
        core, now = self._engine.running(), self._engine.now()
        try:
            return core.change(change, server_id, address, prev_index, now)
        except ChangePending:
            return None
