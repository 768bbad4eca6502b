"""One simulated server: the machine, its disk, its clock, and a key-value state machine.

It does what `drivers.raft` does: carries out outputs in their order, one write at a time for all
that waits, applies what is committed, answers clients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proconsul.core.raft.log import Log
from proconsul.core.raft.machine import Raft
from proconsul.core.raft.membership import of_entry
from proconsul.core.raft.types import Output, RaftError, Role, RoleChanged, SnapshotMeta, Verified
from proconsul.testing.raftsim.clock import Life
from proconsul.testing.raftsim.disk import Image, SimDisk
from proconsul.wire.raft import (
    Configuration,
    Entry,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    LogType,
    Request,
    Response,
)

if TYPE_CHECKING:
    from proconsul.testing.raftsim.world import World


@dataclass(frozen=True, slots=True)
class Answer:
    """To a client. `ok` False: it certainly did not happen; None: it may have."""

    ok: bool | None
    result: object = None
    leader: str = ""
    """Where to try instead."""


Answerer = Callable[[Answer], None]
UNKNOWN = Answer(None)


class SimServer:
    """A name, a disk and a clock for ever; the rest begins anew with each boot."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.disk = SimDisk(world.rng)
        self._rate = world.rng.uniform(1 / world.drift, world.drift)
        """Seconds of its clock per second."""
        self._origin = world.rng.uniform(0, 1000)
        self.life = Life()
        self.life.alive = False

    def now(self) -> float:
        """The time on this server's own clock."""
        return self._origin + self.world.time.now * self._rate

    # -- life

    def boot(self) -> None:
        """Start from what is on the disk."""
        world, disk = self.world, self.disk
        self.life = Life()
        self._unwritten: list[Output] = []
        self._writing: list[Output] = []
        self._armed: float | None = None
        self._waiting: dict[int, tuple[int, bytes, Answerer]] = {}
        """index -> term and data of the entry that is waited for, and who waits."""
        self._taking = False
        self.read_only = False
        """The last write found the disk full."""
        meta = SnapshotMeta(0, 0, Configuration(), 0) if disk.image is None else disk.image.meta
        self._restore(disk.image, meta)
        log = Log(disk, meta.index, meta.term)
        snapshot = meta if disk.image is not None else None
        self.core = Raft(world.config, self.name, self.name, log, disk.hard, snapshot, world.rng)
        world.checks.booted(self)
        self.core.start(self.now())
        self.pump()

    def crash(self) -> None:
        """Power off: of what was being written, something or nothing is there."""
        self.life.alive = False
        self.disk.crashed(self._writing)

    def pause(self, duration_s: float) -> None:
        """Stop the process (SIGSTOP) for a while."""
        self.life.paused_until = self.world.time.now + duration_s

    # -- outputs

    def pump(self) -> None:
        """Carry out what the machine wants, then set its timer."""
        world, core = self.world, self.core
        while self.life.alive and (out := core.take_output()) is not None:
            world.checks.output(self, out)
            world.network.send(self, out.send)
            if out.writes or out.send_durable:
                self._unwritten.append(out)
                self._write()
            if out.commit_index:
                self._apply(out.commit_index)
            for event in out.events:
                if isinstance(event, RoleChanged):
                    self._role_changed(event)
                elif isinstance(event, Verified):
                    assert callable(event.token)
                    event.token(event.ok)
        at = core.get_timer() if self.life.alive else None
        if at is not None and (self._armed is None or at < self._armed):
            self._armed = at
            when = max((at - self._origin) / self._rate, world.time.now)
            world.time.at(when, self.life, lambda: self._tick(at))

    def _tick(self, armed: float) -> None:
        if armed != self._armed:
            return
        self._armed = None
        now = max(self.now(), armed)
        at = self.core.get_timer()
        if at is not None and now >= at:
            self.core.handle_timer(now)
            after = self.core.get_timer()
            assert after is None or after > now, "the timer spins"
        self.pump()

    def _role_changed(self, event: RoleChanged) -> None:
        if event.role is Role.LEADER:
            self.world.note(f"{self.name} leads term {event.term}")
            self.world.faults.on_leader(self)
            return
        if event.role is Role.CANDIDATE:
            self.world.faults.on_candidate(self)
        waiting, self._waiting = self._waiting, {}
        for _, _, answer in waiting.values():
            answer(UNKNOWN)

    def _write(self) -> None:
        """Give the disk all that waits, as one batch, unless it is at work."""
        if self._writing or not self._unwritten:
            return
        self._writing, self._unwritten = self._unwritten, []
        if any(out.writes for out in self._writing):
            time = self.world.time
            time.at(time.now + self.disk.write_s(), self.life, self._sync)
        else:
            self._written()

    def _sync(self) -> None:
        disk, time = self.disk, self.world.time
        if disk.failing:
            disk.failing = False
            self.world.note(f"{self.name} halts: sync failed")
            self.restart()
        elif disk.full:
            self.read_only = True
            time.at(time.now + 0.2, self.life, self._sync)
        else:
            self.read_only = False
            disk.write(self._writing)
            if not self._unlucky("after a sync"):
                self._written()
                self.pump()

    def _unlucky(self, when: str) -> bool:
        """A crash at a moment where it hurts, in worlds that have such."""
        if self.world.rng.random() >= self.world.unlucky:
            return False
        self.world.note(f"{self.name} crashes {when}")
        self._writing = []
        self.restart()
        return True

    def restart(self) -> None:
        """Crash, and boot a little later."""
        self.crash()
        self.world.time.after(self.world.rng.uniform(0.2, 2), self._reboot)

    def _reboot(self) -> None:
        if not self.life.alive:
            self.boot()

    def _written(self) -> None:
        batch, self._writing = self._writing, []
        for out in batch:
            self.world.network.send(self, out.send_durable)
        self.core.persisted(batch[-1].seq, self.now())
        self._write()

    # -- other servers

    def serve(self, token: object, request: Request, image: Image | None) -> None:
        """A request arrived."""
        if isinstance(request, InstallSnapshotRequest):
            stale = request.term < self.core.state.term
            self.core.request(token, request, self.now())
            self.pump()
            if not stale and image is not None and self.life.alive:
                time = self.world.time
                when = time.now + self.world.rng.uniform(0.005, 0.3)
                time.at(when, self.life, lambda: self._received(token, image, request.term))
            return
        self.core.request(token, request, self.now())
        self.pump()

    def _received(self, token: object, image: Image, term: int) -> None:
        core, ok = self.core, True
        if not core.snapshot_wanted(image.meta):
            core.snapshot_aborted(self.now())
        elif core.state.term != term or core.state.role is Role.LEADER or self.disk.full:
            core.snapshot_aborted(self.now())
            ok = False
        else:
            self.disk.image = image
            if self._unlucky("with a new snapshot"):
                return
            self._restore(image, image.meta)
            self.world.checks.restored(self, image)
            core.snapshot_installed(image.meta, self.now())
        self.pump()
        self.world.network.answer(token, InstallSnapshotResponse(core.state.term, ok))

    def answered(self, rid: int, response: Response | None, snapshot_index: int | None) -> None:
        """The answer to a request of ours; None is a failure."""
        core, now = self.core, self.now()
        if response is None:
            core.failed(rid, now)
        elif snapshot_index is not None:
            assert isinstance(response, InstallSnapshotResponse)
            core.snapshot_sent(rid, response.term, response.success, snapshot_index, now)
        else:
            core.response(rid, response, now)
        self.pump()

    # -- state machine

    def _restore(self, image: Image | None, meta: SnapshotMeta) -> None:
        self.values = dict(image.values) if image is not None else {}
        self.digest = image.digest if image is not None else 0
        self.applied_index, self._applied_term = meta.index, meta.term
        self._members, self._members_index = meta.configuration, meta.configuration_index

    def _apply(self, commit: int) -> None:
        self.world.checks.committed(self, commit)
        log = self.core.state.log
        while self.applied_index < commit:
            entry = log.get(self.applied_index + 1)
            result = self._applied(entry)
            waiter = self._waiting.pop(entry.index, None)
            if waiter is not None:
                term, data, answer = waiter
                if term != entry.term:
                    answer(UNKNOWN)  # in the step that made us a follower
                    continue
                self.world.checks.acknowledged(self, entry, data)
                answer(Answer(True, result))

    def _applied(self, entry: Entry) -> object:
        self.applied_index, self._applied_term = entry.index, entry.term
        self.digest = hash((self.digest, entry.index, entry.term, entry.data))
        self.world.checks.applied(self, entry)
        if entry.type is LogType.CONFIGURATION:
            configuration = of_entry(entry)
            assert configuration is not None
            self._members, self._members_index = configuration, entry.index
            return None
        if entry.type is not LogType.COMMAND:
            return None
        verb, key, old, new = entry.data.decode().split(" ")
        if verb == "cas" and self.values.get(key, b"").decode() != old:
            return False
        if new:
            self.values[key] = new.encode()
        else:
            self.values.pop(key, None)
        return True

    def take_snapshot(self) -> None:
        """Freeze the state now; the snapshot is durable a little later."""
        if self._taking or self.disk.full or self.applied_index == 0:
            return
        self._taking = True
        meta = SnapshotMeta(
            self.applied_index, self._applied_term, self._members, self._members_index
        )
        image = Image(meta, dict(self.values), self.digest)

        def durable() -> None:
            self._taking = False
            old = self.disk.image.meta if self.disk.image is not None else None
            if old is None or (meta.index > old.index and meta.term >= old.term):
                self.disk.image = image
                self.core.compact(meta.index, meta.term)
                self.pump()

        time = self.world.time
        time.at(time.now + self.world.rng.uniform(0.005, 0.3), self.life, durable)

    def restore_outside(self) -> None:
        """An operator restores a snapshot: the state as it is when it is durable, but further on.

        So clients see nothing of it, but that writes that are not committed yet never happen.
        """
        if self._taking or self.disk.full:
            return
        rng, last = self.world.rng, self.core.state.log.last_index
        try:
            meta = self.core.begin_restore(last + rng.randint(0, 30))
        except RaftError:
            return
        self._taking = True
        self.world.note(f"{self.name} restores a snapshot as {meta.index} of term {meta.term}")
        time = self.world.time
        time.at(time.now + rng.uniform(0.005, 0.3), self.life, lambda: self._replaced(meta))

    def _replaced(self, meta: SnapshotMeta) -> None:
        self._taking = False
        if not self.core.may_restore(meta):
            return
        self.disk.image = Image(meta, dict(self.values), hash((self.digest, meta.index, meta.term)))
        self.world.checks.restored_outside(self, self.disk.image)
        if self._unlucky("with a snapshot from outside"):
            return
        self._restore(self.disk.image, meta)
        waiting, self._waiting = self._waiting, {}
        for _, _, answer in waiting.values():
            answer(UNKNOWN)
        self.core.restored(meta, self.now())
        self.pump()

    # -- clients

    def propose(self, data: bytes, answer: Answerer) -> None:
        """Commit a command; `answer` comes once, unless the server dies before."""
        if self.read_only:
            answer(Answer(False))
            return
        try:
            index = self.core.propose([(LogType.COMMAND, data)], self.now())
        except RaftError:
            answer(Answer(False, leader=self._leader()))
            return
        self._waiting[index] = (self.core.state.log.term(index), data, answer)
        self.pump()

    def read(self, key: str, answer: Answerer) -> None:
        """A `consistent` read: confirmed by a quorum after a first commit of our own."""
        state = self.core.state

        def verified(ok: object) -> None:
            answer(Answer(True, self.values.get(key)) if ok else Answer(False))

        if state.role is not Role.LEADER or state.log.term(state.commit_index) != state.term:
            answer(Answer(False, leader=self._leader()))
            return
        self.core.verify(verified, self.now())
        self.pump()

    def _leader(self) -> str:
        leader = self.core.state.leader
        return leader[0] if leader is not None else ""
