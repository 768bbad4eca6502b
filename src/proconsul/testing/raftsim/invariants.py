"""What must never happen, checked as it happens, at a cost in proportion to what changed.

Ongaro's properties (Raft, figure 3). One trick makes them cheap: log matching is checked entry by
entry against one global record that includes each entry's predecessor. By induction two logs that
share an entry share everything before it, so one look at the newest committed entry tells whether
a leader has them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from proconsul.core.raft.log import Compacted
from proconsul.core.raft.membership import quorum, voters
from proconsul.core.raft.types import Output, Role, RoleChanged
from proconsul.wire.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Entry,
    LogType,
    Request,
    RequestVoteRequest,
    RequestVoteResponse,
    Response,
)

if TYPE_CHECKING:
    from proconsul.testing.raftsim.disk import Image
    from proconsul.testing.raftsim.server import SimServer


class Violation(AssertionError):
    """An invariant does not hold. The text names it."""


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise Violation(text)


class Invariants:
    """Sees every step of every server, and the disks."""

    def __init__(self) -> None:
        self._servers: dict[str, SimServer] = {}
        self.leaders: dict[int, str] = {}
        self._votes: dict[tuple[int, str], bytes] = {}
        self._entries: dict[tuple[int, int], tuple[LogType, bytes, int]] = {}
        """(index, term) -> (type, data, the predecessor's term)."""
        self._committed: dict[int, int] = {}
        """index -> term."""
        self._commits: list[tuple[int, int, int]] = []
        """(committed in term, index, the entry's term), all rising: what a leader must have."""
        self._digests: dict[tuple[int, int], int] = {}
        """(index, term) -> of all that led there: snapshots from outside may end anywhere."""
        self._commit_seen: dict[str, int] = {}
        self._pending_changes: dict[str, list[int]] = {}
        """Configuration entries above each server's commit index."""
        self.acknowledgements = 0

    @property
    def commit_index(self) -> int:
        """The highest index that was ever committed."""
        return self._commits[-1][1] if self._commits else 0

    # -- steps of a server

    def booted(self, server: SimServer) -> None:
        """A server starts from its disk."""
        self._servers[server.name] = server
        log = server.core.state.log
        self._commit_seen[server.name] = log.snapshot_index
        self._pending_changes[server.name] = [
            index
            for index in range(log.snapshot_index + 1, log.last_index + 1)
            if log.get(index).type is LogType.CONFIGURATION
        ]

    def output(self, server: SimServer, out: Output) -> None:
        """A machine's step, before any of it is carried out."""
        for event in out.events:
            if isinstance(event, RoleChanged) and event.role is Role.LEADER:
                self._elected(server, event.term)
        name, pending = server.name, self._pending_changes[server.name]
        if out.truncate_from:
            # A snapshot that fits nowhere replaces the log, and may do so at boot also
            commit, restored = self._commit_seen[name], server.core.state.log.snapshot_index
            _require(
                out.truncate_from > commit or commit == restored,
                f"{name} deletes its log from {out.truncate_from} on, below its commit index",
            )
            pending[:] = [index for index in pending if index < out.truncate_from]
        if out.append:
            self._appended(server, out.append)
        if out.append or out.truncate_from:
            latest = server.core.state.members.latest_index
            _require(
                latest == pending[-1] if pending else latest <= self._commit_seen[name],
                f"{name} goes by the members of entry {latest}, its log says {pending}",
            )

    def _appended(self, server: SimServer, entries: Sequence[Entry]) -> None:
        state = server.core.state
        prev = self._term_before(server, entries[0])
        for entry in entries:
            facts = (entry.type, entry.data, self._entry_prev(entry) if prev is None else prev)
            known = self._entries.setdefault((entry.index, entry.term), facts)
            _require(
                known == facts,
                f"log matching: {server.name} has another entry {entry.index} of term {entry.term}",
            )
            prev = entry.term
            if entry.type is LogType.CONFIGURATION:
                pending = self._pending_changes[server.name]
                pending.append(entry.index)
                if state.role is Role.LEADER and entry.term == state.term:
                    self._changing(server, pending)

    def _entry_prev(self, entry: Entry) -> int:
        known = self._entries.get((entry.index, entry.term))
        return known[2] if known is not None else 0

    @staticmethod
    def _term_before(server: SimServer, entry: Entry) -> int | None:
        try:
            return server.core.state.log.term(entry.index - 1)
        except Compacted:
            return None

    def _changing(self, server: SimServer, pending: list[int]) -> None:
        commit = self._commit_seen[server.name]
        uncommitted = [index for index in pending if index > commit]
        _require(bool(uncommitted), f"{server.name} appends below its commit index {commit}")
        _require(
            len(uncommitted) <= 1,
            f"{server.name} changes the members at {uncommitted[-1]} while the change at "
            f"{uncommitted[0]} is not committed",
        )
        state = server.core.state
        _require(
            state.log.term(min(commit, state.log.last_index)) == state.term,
            f"{server.name} changes the members before an entry of its term is committed",
        )

    def _elected(self, server: SimServer, term: int) -> None:
        """Election safety and leader completeness."""
        name, log = server.name, server.core.state.log
        other = self.leaders.setdefault(term, name)
        _require(other == name, f"election safety: {other} and {name} lead term {term}")
        for committed_in, index, entry_term in reversed(self._commits):
            if committed_in < term:
                _require(
                    (index <= log.snapshot_index and entry_term <= log.snapshot_term)
                    or log.contains(index, entry_term),
                    f"leader completeness: {name} leads term {term} without entry {index} of term "
                    f"{entry_term}",
                )
                break

    def committed(self, server: SimServer, commit: int) -> None:
        """A server commits up to `commit`: the same entries as everyone, held by a quorum."""
        name, state = server.name, server.core.state
        for index in range(self._commit_seen[name] + 1, commit + 1):
            term = state.log.term(index)
            known = self._committed.setdefault(index, term)
            _require(
                known == term,
                f"state machine safety: {name} commits entry {index} of term {term}, others one of "
                f"term {known}",
            )
        self._commit_seen[name] = max(commit, self._commit_seen[name])
        pending = self._pending_changes[name]
        while pending and pending[0] <= commit:
            del pending[0]
        if commit > self.commit_index:
            term = state.log.term(commit)
            if state.role is Role.LEADER:
                self._durable(server, commit, term)
                self._irrevocable(server, commit, term)
            self._commits.append((state.term, commit, term))

    def _durable(self, server: SimServer, index: int, term: int) -> None:
        latest = server.core.state.members.latest
        holders = [s.id for s in voters(latest) if self._servers[s.id].disk.holds(index, term)]
        _require(
            len(holders) >= quorum(latest),
            f"durability: {server.name} commits entry {index} of term {term}, which only {holders} "
            "have on disk",
        )

    def _irrevocable(self, server: SimServer, index: int, term: int) -> None:
        """Nobody without the entry could win an election, not even if all restarted now."""
        latest = server.core.state.members.latest
        lasts = [self._servers[voter.id].disk.last() for voter in voters(latest)]
        for voter, last in zip(voters(latest), lasts, strict=True):
            if not self._servers[voter.id].disk.holds(index, term):
                votes = sum(other <= last for other in lasts)
                _require(
                    votes < quorum(latest),
                    f"leader completeness: {server.name} commits entry {index} of term {term}, but "
                    f"{voter.id} could be elected without it",
                )

    def applied(self, server: SimServer, entry: Entry) -> None:
        """A server's state machine took an entry."""
        known = self._digests.setdefault((entry.index, entry.term), server.digest)
        _require(
            known == server.digest,
            f"state machine safety: {server.name} applied something else up to {entry.index}",
        )

    def restored(self, server: SimServer, image: Image) -> None:
        """A server replaced its state by a snapshot."""
        index = image.meta.index
        _require(
            self._digests.get((index, image.meta.term)) == image.digest,
            f"state machine safety: {server.name} restores a state nobody had at {index}",
        )
        self._commit_seen[server.name] = index
        pending = self._pending_changes[server.name]
        pending[:] = [i for i in pending if i > index]

    def restored_outside(self, server: SimServer, image: Image) -> None:
        """A leader replaced its state by one from outside: a new history begins there."""
        self._digests[image.meta.index, image.meta.term] = image.digest
        self.restored(server, image)

    def acknowledged(self, server: SimServer, entry: Entry, data: bytes) -> None:
        """A client is told that its write happened."""
        self.acknowledgements += 1
        _require(
            entry.data == data,
            f"{server.name} acknowledges {data!r}, but entry {entry.index} is {entry.data!r}",
        )

    # -- messages

    def requested(self, server: SimServer, request: Request) -> None:
        """What a request promises must be durable when it leaves."""
        name, hard = server.name, server.disk.hard
        if isinstance(request, RequestVoteRequest):
            _require(hard.term >= request.term, f"{name} asks for votes in a term not yet durable")
            if (hard.vote_term, hard.candidate) == (request.term, request.candidate):
                self._vote(name, request.term, request.candidate, server)
        elif isinstance(request, AppendEntriesRequest):
            leader = self.leaders.get(request.term)
            _require(leader == name, f"{name} sends entries of term {request.term}, not its own")
            _require(hard.term >= request.term, f"{name} leads a term that is not durable")

    def answered(self, server: SimServer, request: Request, response: Response) -> None:
        """What an answer promises must be durable when it leaves."""
        name, disk = server.name, server.disk
        if isinstance(request, RequestVoteRequest):
            if isinstance(response, RequestVoteResponse) and response.granted:
                self._vote(name, request.term, request.candidate, server)
        elif isinstance(request, AppendEntriesRequest) and not request.is_heartbeat:
            assert isinstance(response, AppendEntriesResponse)
            # A later leader may have replaced the entries in the same write: that is as if the
            # answer had left before it
            if response.success and disk.hard.term <= response.term:
                entries = request.entries
                index = request.prev_log_index + len(entries or ())
                term = entries[-1].term if entries else request.prev_log_term
                _require(
                    index == 0 or disk.holds(index, term),
                    f"durability: {name} confirms entry {index} of term {term} before it is durable",
                )

    def _vote(self, name: str, term: int, candidate: bytes, server: SimServer) -> None:
        hard = server.disk.hard
        durable = hard.vote_term == term and hard.candidate == candidate
        _require(
            durable or hard.vote_term > term,
            f"durability: {name} votes for {candidate!r} in term {term} before that is durable",
        )
        if durable:
            first = self._votes.setdefault((term, name), candidate)
            _require(
                first == candidate,
                f"{name} votes for {first!r} and for {candidate!r} in term {term}",
            )
