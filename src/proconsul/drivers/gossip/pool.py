"""One gossip pool (LAN or WAN) of this agent: serf's machine on a transport, real time and a file.

The rest of the system sees `GossipPool` only. Nothing here polls: the machine runs when a packet,
stream bytes or a request arrives, or when its one timer is due.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from proconsul.core.gossip.memberlist import JoinDone, Keyring, LeaveDone
from proconsul.core.gossip.serf import (
    Coordinate,
    Member,
    MemberEvent,
    MemberStatus,
    QueryDone,
    QueryEvent,
    QueryParams,
    QueryReply,
    Serf,
    SerfConfig,
    SerfError,
    ShutdownRequired,
    SnapshotAppend,
    UserEvent,
)
from proconsul.core.gossip.serf.events import SerfOutput
from proconsul.drivers.gossip.pump import Pump
from proconsul.drivers.gossip.snapshot_file import SnapshotFile
from proconsul.drivers.gossip.targets import TargetError, parse_target, resolve
from proconsul.drivers.gossip.transport import Address, GossipTransport
from proconsul.drivers.scope import TaskScope
from proconsul.drivers.stream import Stream
from proconsul.util.clock import Rng
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Labels, Metrics

PoolEvent = MemberEvent | UserEvent | QueryEvent | ShutdownRequired
"""What `on_event` gets: synchronously, in order, on the loop. It must not block."""

JOINS_AT_ONCE = 8


class JoinError(ProconsulError):
    """Not one of the nodes could be joined. `failures` has (target, reason) for each."""

    def __init__(self, failures: Sequence[tuple[str, str]]) -> None:
        count = len(failures)
        lines = "".join(f"\n\t* Failed to join {target}: {reason}" for target, reason in failures)
        super().__init__(f"{count} error{'s' * (count != 1)} occurred:{lines}")
        self.failures = tuple(failures)


@dataclasses.dataclass(slots=True)
class QueryResult:
    """Who acknowledged a query, and who answered what."""

    acks: list[str] = dataclasses.field(default_factory=list)
    responses: dict[str, bytes] = dataclasses.field(default_factory=dict)


class GossipPool:
    """Start it once; after `shutdown` make a new one."""

    def __init__(
        self,
        config: SerfConfig,
        transport: GossipTransport,
        *,
        on_event: Callable[[PoolEvent], None] | None = None,
        snapshot_path: Path | None = None,
        default_port: int | None = None,
        rng: Rng | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`default_port`: for join targets without one (the bound port). An advertised port of 0
        becomes the bound one. Metrics carry the pool's name (`lan`, `wan`) as the label `network`.
        """
        self._metrics = metrics if metrics is not None else Metrics()
        self._labels: Labels = (("network", config.log_name.rpartition(".")[2]),)
        self._config, self._transport, self._on_event = config, transport, on_event
        self._default_port = default_port
        self._rng: Rng = rng if rng is not None else random.Random()
        self._log = logging.getLogger(f"proconsul.{config.log_name}")
        self._file: SnapshotFile | None = None
        if snapshot_path is not None:
            self._file = SnapshotFile(snapshot_path, rejoin_after_leave=config.rejoin_after_leave)
        self._pump: Pump | None = None
        self._scope = TaskScope(config.log_name)
        self._joins: dict[int, asyncio.Future[str | None]] = {}
        self._join_slots = asyncio.Semaphore(JOINS_AT_ONCE)
        self._leaving: asyncio.Future[None] | None = None
        self._queries: dict[int, tuple[asyncio.Future[None], Callable[[QueryReply], None]]] = {}
        self.left = False

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind, read the snapshot, become a member of a cluster of one, begin to rejoin.

        Raises `TransportError`, `ConfigError`, `SerfError`.
        """
        previous = await self._file.load() if self._file is not None else None
        await self._transport.start(self._packet, self._accept)
        memberlist = self._config.memberlist
        host, port = memberlist.advertise
        memberlist = dataclasses.replace(
            memberlist,
            advertise=(host, port or self._transport.address[1]),
            random_bytes=memberlist.random_bytes or os.urandom,
        )
        config = dataclasses.replace(
            self._config, memberlist=memberlist, snapshot=self._file is not None
        )
        self._pump = Pump(
            Serf(config, self._rng, previous),
            self._transport,
            self._scope,
            self._said,
            self._metrics,
            self._labels,
        )
        self._pump.start()

    def _packet(self, data: bytes, source: Address) -> None:
        if self._pump is not None:
            self._pump.packet(data, source)

    async def _accept(self, stream: Stream) -> None:
        if self._pump is not None:
            await self._pump.accept(stream)

    async def leave(self) -> None:
        """Tell everyone that we leave, and wait until it has spread (bounded). Idempotent."""
        if self.left or self._pump is None or self._pump.closed:
            return
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_future()
            self._machine().leave(self._now())
            self._run()
        config = self._config
        limit_s = (
            config.broadcast_timeout_s
            + config.memberlist.leave_timeout_s
            + config.leave_propagate_delay_s
            + 1.0
        )
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.shield(self._leaving)
        except TimeoutError:
            self._log.warning("leave did not finish within %.0f s", limit_s)
        self.left = True
        if self._file is not None:
            await self._file.flush(durable=True)

    async def shutdown(self) -> None:
        """Stop at once; without a `leave` before, the others see a failure. Idempotent."""
        if self._pump is not None:
            self._pump.close()
        for join in self._joins.values():
            if not join.done():
                join.set_result("the gossip pool was shut down")
        for done, _ in self._queries.values():
            if not done.done():
                done.set_result(None)
        await self._transport.aclose()
        await self._scope.aclose()
        if self._file is not None:
            file, self._file = self._file, None
            await file.aclose()

    # --- requests -----------------------------------------------------------------------------

    async def join(self, targets: Sequence[str], *, ignore_old: bool = False) -> int:
        """Join through each of the targets; returns through how many addresses it worked.

        Targets: `host`, `host:port`, `name/host:port`, `[v6]:port`. `ignore_old`: past user events
        are not delivered. Raises `JoinError` if none could be joined (and there was one).
        """
        failures: list[tuple[str, str]] = []
        places: list[tuple[str, Address]] = []
        default_port = self._default_port or self._transport.address[1]
        for text in targets:
            try:
                target = parse_target(text, default_port)
                places += [(target.node, address) for address in await resolve(target)]
            except TargetError as wrong:
                failures.append((text, str(wrong)))
        attempts = [
            self._scope.spawn("join", self._join_one(node, address, ignore_old))
            for node, address in places
        ]
        joined = 0
        for (node, (host, port)), attempt in zip(places, attempts, strict=True):
            error = await attempt
            if error is None:
                joined += 1
            else:
                place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                failures.append((f"{node}/{place}" if node else place, error))
        if joined == 0 and failures:
            raise JoinError(failures)
        for place, reason in failures:
            self._log.warning("failed to join %s: %s", place, reason)
        return joined

    async def _join_one(self, node: str, address: Address, ignore_old: bool) -> str | None:
        async with self._join_slots:
            try:
                sid = self._machine().join(node, address, self._now(), ignore_old=ignore_old)
            except SerfError as error:
                return str(error)
            done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
            self._joins[sid] = done
            try:
                self._run()
                return await done
            finally:
                del self._joins[sid]

    def force_leave(self, name: str, *, prune: bool = False) -> None:
        """Turn a failed member into one that left; `prune` forgets it. Raises `SerfError`."""
        self._machine().force_leave(name, self._now(), prune=prune)
        self._run()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Replace this node's tags. Raises `SerfError` if they are too long."""
        self._machine().set_tags(tags, self._now())
        self._run()

    async def user_event(self, name: str, payload: bytes, *, coalesce: bool = False) -> None:
        """Tell everyone, this node included. Raises `SerfError` if it is too large."""
        self._machine().user_event(name, payload, self._now(), coalesce=coalesce)
        self._run()

    async def query(
        self,
        name: str,
        payload: bytes = b"",
        params: QueryParams | None = None,
        on_reply: Callable[[QueryReply], None] | None = None,
        *,
        enough: int | None = None,
    ) -> QueryResult:
        """Ask everyone, and wait until the query's time is up. Raises `SerfError`.

        `enough` answers end it before.
        """
        result = QueryResult()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def collect(reply: QueryReply) -> None:
            if reply.ack:
                result.acks.append(reply.sender)
            else:
                result.responses[reply.sender] = reply.payload
            if on_reply is not None:
                on_reply(reply)
            if len(result.responses) == enough and not done.done():
                done.set_result(None)

        query_id, _ = self._machine().query(name, payload, self._now(), params)
        self._queries[query_id] = (done, collect)
        try:
            self._run()
            await done
        finally:
            del self._queries[query_id]
        return result

    def respond(self, event: QueryEvent, payload: bytes) -> None:
        """Answer a query that `on_event` brought. Raises `SerfError`: too late, too large."""
        self._machine().respond(event, payload, self._now())
        self._run()

    # --- views --------------------------------------------------------------------------------

    def members(self) -> list[Member]:
        """Everyone that is known, whatever status, this node included."""
        return self._machine().roster.members()

    def alive_count(self) -> int:
        """Nodes that memberlist believes alive, this one included."""
        return self._machine().node.alive_count()

    def local(self) -> Member:
        """This node."""
        member = self._machine().roster.get(self._config.node_name)
        if member is None:
            raise SerfError("the gossip pool is not started")
        return member

    def member(self, name: str) -> Member | None:
        """The member of that name."""
        return self._machine().roster.get(name)

    def coordinate(self) -> Coordinate | None:
        """This node's network coordinate; None if coordinates are off."""
        client = self._machine().node.coordinates
        return client.coordinate if client is not None else None

    def coordinates(self) -> dict[str, Coordinate]:
        """Last known coordinates by node name."""
        return dict(self._machine().node.positions)

    def stats(self) -> dict[str, str]:
        """Serf's own statistics, as `consul info` prints them."""
        return self._machine().stats()

    @property
    def keyring(self) -> Keyring | None:
        """The gossip keys; None without encryption. Key queries of other nodes change it."""
        return self._config.memberlist.keyring

    # --- what the machine says ----------------------------------------------------------------

    def _machine(self) -> Serf:
        if self._pump is None or self._pump.closed:
            raise SerfError("the gossip pool is not running")
        return self._pump.serf

    def _run(self) -> None:
        """Have done what the machine wants done after a request."""
        if self._pump is not None:
            self._pump.run()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _said(self, output: SerfOutput | JoinDone | LeaveDone) -> None:
        match output:
            case JoinDone(sid, error):
                if (join := self._joins.get(sid)) is not None and not join.done():
                    join.set_result(error)
            case LeaveDone():
                if self._leaving is not None and not self._leaving.done():
                    self._leaving.set_result(None)
            case SnapshotAppend(lines):
                if self._file is not None:
                    self._file.append(lines)
            case QueryReply():
                if (query := self._queries.get(output.id)) is not None:
                    query[1](output)
            case QueryDone(query_id):
                if (query := self._queries.get(query_id)) is not None and not query[0].done():
                    query[0].set_result(None)
            case MemberEvent() | UserEvent() | QueryEvent() | ShutdownRequired():
                self._tell(output)

    def measure(self) -> None:
        """Put into the metrics what is a state, not an event; call it every few seconds."""
        if self._pump is None or self._pump.closed:
            return
        stats, metrics, labels = self._pump.serf.stats(), self._metrics, self._labels
        for queue, name in (("event", "Event"), ("intent", "Intent"), ("query", "Query")):
            metrics.sample(f"consul.serf.queue.{name}", int(stats[f"{queue}_queue"]), labels)
        metrics.gauge("consul.memberlist.health.score", int(stats["health_score"]), labels)
        dropped = getattr(self._transport, "dropped", 0)
        metrics.gauge("consul.memberlist.udp.dropped", dropped, labels)
        counts = Counter(member.status for member in self.members())
        for status in MemberStatus:
            labelled = (*labels, ("status", status.name.lower()))
            metrics.gauge("consul.serf.members", counts[status], labelled)

    def _count(self, event: PoolEvent) -> None:
        match event:
            case MemberEvent(kind, members):
                name = f"consul.serf.member.{kind.name.lower()}"
                self._metrics.incr(name, len(members), self._labels)
            case UserEvent():
                self._metrics.incr("consul.serf.events", 1, self._labels)
            case QueryEvent():
                self._metrics.incr("consul.serf.queries", 1, self._labels)
            case ShutdownRequired():
                pass

    def _tell(self, event: PoolEvent) -> None:
        self._count(event)
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001 - whatever the owner got wrong, gossip goes on
            self._log.exception("handler of gossip events failed")
