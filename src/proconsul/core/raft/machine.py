"""The Raft machine: inputs and the time go in, one `Output` per step comes out.

    follower --election timeout--> candidate --majority--> leader
       ^  ^----- later term, or a leader is heard ----'       |
       '--------- later term, lease lost, removed ------------'

Every transition is in this file. Protocol and behaviour are hashicorp/raft 1.1.2's at protocol
version 3 (without PreVote; a server that knows a leader refuses votes, which does much of its job).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proconsul.core.raft import follower
from proconsul.core.raft.leader import Leadership, not_leader
from proconsul.core.raft.membership import Change, check, has_vote, quorum, voters
from proconsul.core.raft.state import State
from proconsul.core.raft.types import Channel, ConfigurationError, HardState, Role
from proconsul.wire.raft import (
    PROTOCOL_VERSION,
    UNSUPPORTED_PROTOCOL,
    AppendEntriesRequest,
    AppendEntriesResponse,
    Configuration,
    Entry,
    InstallSnapshotRequest,
    LogType,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
    encode_configuration,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proconsul.core.raft.log import Log
    from proconsul.core.raft.types import Config, Output, SnapshotMeta
    from proconsul.util.clock import Rng
    from proconsul.wire.raft import Request, Response

ORPHANED_FRACTION = 0.1
"""Of the heartbeat timeout: so long after one another orphaned followers begin elections."""

DEAF_ELECTIONS = 20
"""How many elections a leader that became isolated sits out, unless it hears of anybody."""


@dataclass(slots=True)
class _Candidacy:
    """One try to become leader."""

    seq: int
    """Our own vote counts once this output is durable."""
    votes: set[str] = field(default_factory=set)
    calls: dict[int, str] = field(default_factory=dict)


class Raft:
    """One server. Call an input, then `take_output` until None, then look at `get_timer`."""

    def __init__(
        self,
        config: Config,
        local_id: str,
        local_address: str,
        log: Log,
        hard: HardState,
        snapshot: SnapshotMeta | None,
        rng: Rng,
    ) -> None:
        self.state = State(config, local_id, local_address, log, hard, snapshot, rng)
        self._candidacy: _Candidacy | None = None
        self._leadership: Leadership | None = None
        self._installing = 0
        self._orphaned = False
        """The leader's process is gone, and nobody has been heard since."""
        self._deaf = 0
        """We led and lost our lease, and nobody has been heard since: elections to sit out."""

    # -- life cycle

    def start(self, now: float) -> None:
        """Begin. A lone voter elects itself at once: there is nobody it could wait for."""
        self.state.heard(now)
        self.state.last_contact = None
        self._elect_if_alone(now)

    def bootstrap(self, configuration: Configuration, now: float) -> None:
        """Give a fresh server its first configuration, as entry 1 of term 1."""
        state = self.state
        if state.log.last_index or state.term:
            raise ConfigurationError("bootstrap only works on new clusters")
        check(configuration)
        state.set_term(1)
        state.append([Entry(1, 1, LogType.CONFIGURATION, encode_configuration(configuration))])
        state.election_at = now + state.rng.uniform(0, state.config.heartbeat_timeout_s)
        self._elect_if_alone(now)

    def _elect_if_alone(self, now: float) -> None:
        if [s.id for s in voters(self.state.members.latest)] == [self.state.local_id]:
            self._campaign(now)

    def silences_s(self, now: float) -> list[float]:
        """For how many seconds each other voter has not answered; of a leader only, else empty."""
        leadership = self._leadership
        return [] if leadership is None else leadership.silences_s(now)

    # -- calls of this server's own users, for a leader only

    def propose(self, items: Sequence[tuple[LogType, bytes]], now: float) -> int:
        """Append entries; returns the first one's index. Raises `NotLeader`, `TransferInProgress`.

        They are committed when `Output.commit_index` reaches them while the term is the same.
        """
        index = self._leader().propose(items, now)
        self._settle(now)
        return index

    def change(
        self, change: Change, server_id: str, address: str, prev_index: int, now: float
    ) -> int:
        """Change the members; returns the entry's index. Raises `ConfigurationError` also.

        `prev_index`, if not 0, is the index of the only configuration that may be changed.
        """
        index = self._leader().change(change, server_id, address, prev_index, now)
        self._settle(now)
        return index

    def verify(self, token: object, now: float) -> None:
        """Find out if this server still leads; ends in a `Verified` event. Raises `NotLeader`."""
        self._leader().verify(token, now)

    def transfer(self, token: object, server_id: str | None, now: float) -> None:
        """Hand leadership over; ends in a `Transferred` event. Raises `NotLeader`."""
        self._leader().transfer(token, server_id, now)

    def begin_restore(self, index: int) -> SnapshotMeta:
        """Prepare to replace the state by a snapshot that ended at `index` where it was taken.

        Returns what it is to be stored as. Until `restored` or `cancel_restore` nothing new is
        taken. Raises `NotLeader`, `ConfigurationError`, `TransferInProgress`, `RestoreInProgress`.
        """
        return self._leader().begin_restore(index)

    def may_restore(self, meta: SnapshotMeta) -> bool:
        """Whether this server still leads the term that `begin_restore` was called in."""
        return self._leadership is not None and self.state.term == meta.term

    def cancel_restore(self, meta: SnapshotMeta) -> None:
        """Nothing came of it."""
        if self._leadership is not None and self.state.term == meta.term:
            self._leadership.end_restore()

    def restored(self, meta: SnapshotMeta, now: float) -> int:
        """The snapshot is durable and the state machine has it; only if `may_restore`.

        Returns the index of an entry that is committed once a quorum has the snapshot.
        """
        index = self._leader().restored(meta, now)
        self._settle(now)
        return index

    def _leader(self) -> Leadership:
        if self._leadership is None:
            raise not_leader(self.state)
        return self._leadership

    # -- requests of other servers

    def request(self, token: object, request: Request, now: float) -> None:
        """A request came in; its answer will be a `Reply` with `token`.

        An InstallSnapshot gets an answer only if it is refused: otherwise `receiving(token)` is
        true, and `snapshot_installed` or `snapshot_aborted` follows when its bytes have come.
        """
        state = self.state
        self._deaf = 0
        if not PROTOCOL_VERSION - 1 <= request.protocol_version <= PROTOCOL_VERSION:
            state.reply(token, None, UNSUPPORTED_PROTOCOL)
            return
        match request:
            case AppendEntriesRequest():
                self._on_append(token, request, now)
            case RequestVoteRequest():
                self._on_vote(token, request, now)
            case InstallSnapshotRequest():
                self._on_snapshot(token, request, now)
            case TimeoutNowRequest():
                state.reply(token, TimeoutNowResponse())
                if self._may_campaign() and self._leadership is None:
                    self._campaign(now, transfer=True)
        self._settle(now)

    def _on_append(self, token: object, request: AppendEntriesRequest, now: float) -> None:
        state = self.state
        if request.term < state.term:
            response = AppendEntriesResponse(state.term, state.log.last_index, success=False)
            state.reply(token, response)
            return
        if request.term > state.term or state.role is not Role.FOLLOWER:
            self._step_down(request.term, now)
        self._orphaned = False
        state.set_leader(state.leader_by_address(request.leader))
        follower.append_entries(state, token, request, now)

    def _on_vote(self, token: object, request: RequestVoteRequest, now: float) -> None:
        state = self.state
        if follower.has_other_leader(state, request, now) or request.term < state.term:
            state.reply(token, RequestVoteResponse(state.term, granted=False))
            return
        if request.term > state.term:
            self._orphaned = False
            self._step_down(request.term, now)
        if follower.request_vote(state, token, request, now):
            self._orphaned = False

    def _on_snapshot(self, token: object, request: InstallSnapshotRequest, now: float) -> None:
        state = self.state
        if (refusal := follower.snapshot_refusal(state, request)) is not None:
            state.reply(token, refusal)
            return
        if request.term > state.term or state.role is not Role.FOLLOWER:
            self._step_down(request.term, now)
        self._orphaned = False
        state.set_leader(state.leader_by_address(request.leader))
        state.heard(now)
        self._installing += 1

    def snapshot_wanted(self, meta: SnapshotMeta) -> bool:
        """Whether a received snapshot is news; if not, it may be dropped.

        One of a later term than ours that ends before ours proves that ours is of a history that
        no quorum got: it takes this server back.
        """
        log = self.state.log
        if meta.index <= log.snapshot_index:
            return meta.term > log.snapshot_term
        return meta.index > self.state.commit_index

    def snapshot_installed(self, meta: SnapshotMeta, now: float) -> None:
        """A received snapshot is durable and restored: it replaces what it covers of the log."""
        state = self.state
        self._installing -= 1
        state.heard(now)
        if self.snapshot_wanted(meta):
            state.restore(meta)

    def snapshot_aborted(self, now: float) -> None:
        """A snapshot did not arrive whole, or was not wanted."""
        self._installing -= 1
        self.state.heard(now)

    def compact(self, index: int, term: int) -> None:
        """A snapshot of our own up to `index` is durable: drop entries except the trailing ones."""
        state = self.state
        if index <= state.log.snapshot_index:
            return
        upto = state.log.compact(index, term, state.config.trailing_logs)
        state.out.delete_to = max(state.out.delete_to, upto)

    def leader_died(self, address: str, now: float) -> None:
        """The process of the leader at `address` is proven to be gone: do not wait out its silence.

        The election it starts carries the mark of a leadership transfer, which tells voters who
        have not noticed yet that no leader objects. What this claims need not be true: it decides
        when an election begins, and never who may win it.
        """
        state = self.state
        if state.role is not Role.FOLLOWER or self._installing or not self._may_campaign():
            return
        if state.leader is None or state.leader[1] != address:
            return
        state.set_leader(None)
        self._orphaned = True
        # One after the other, by their ids: two at once would both lose, and wait a whole timeout
        left = sorted(s.id for s in voters(state.members.latest) if s.address != address)
        turn = left.index(state.local_id) if state.local_id in left else len(left)
        spread = state.config.heartbeat_timeout_s * ORPHANED_FRACTION
        state.election_at = now + spread * (turn + state.rng.uniform(0, 0.3))

    # -- answers, time, durability

    def response(self, rid: int, response: Response | None, now: float) -> None:
        """The answer to a `Send`."""
        if response is not None:
            self._deaf = 0
        if self._leadership is not None:
            self._leadership.response(rid, response, now)
        elif self._candidacy is not None and isinstance(response, RequestVoteResponse):
            voter = self._candidacy.calls.pop(rid, None)
            if voter is not None and response.term > self.state.term:
                self._step_down(response.term, now)
            elif voter is not None and response.granted:
                self._candidacy.votes.add(voter)
        self._settle(now)

    def failed(self, rid: int, now: float) -> None:
        """A `Send` could not be delivered, or was not answered in time."""
        if self._leadership is not None:
            self._leadership.failed(rid, now)
            self._settle(now)

    def snapshot_sent(self, rid: int, term: int, success: bool, index: int, now: float) -> None:
        """The answer to a snapshot that was sent, which reached up to `index`."""
        if self._leadership is not None:
            self._leadership.snapshot_sent(rid, term, success, index, now)
            self._settle(now)

    def persisted(self, seq: int, now: float) -> None:
        """The output `seq` and all before it are durable."""
        durable = self.state.synced(seq)
        candidacy = self._candidacy
        if candidacy is not None and seq >= candidacy.seq:
            candidacy.votes.add(self.state.local_id)
        if self._leadership is not None:
            self._leadership.synced(durable)
        self._settle(now)

    def get_timer(self) -> float | None:
        """When `handle_timer` is needed next; None if only inputs can change anything."""
        if self._leadership is not None:
            return self._leadership.deadline()
        return None if self._installing else self.state.election_at

    def handle_timer(self, now: float) -> None:
        """Time has come to `get_timer()`."""
        if self._leadership is not None:
            self._leadership.tick(now)
        elif (at := self.get_timer()) is not None and now >= at:
            if self._deaf:
                # It could not win, and on its return its later term would depose who did.
                self._deaf -= 1
                timeout = self.state.config.election_timeout_s
                self.state.election_at = now + self.state.rng.uniform(timeout, 2 * timeout)
                self._ask_if_heard()
            elif self._may_campaign():
                self._campaign(now, transfer=self._orphaned)
            else:
                self.state.election_at = None
                self.state.set_leader(None)
        self._settle(now)

    def take_output(self) -> Output | None:
        """This step's output; None if there is nothing to do."""
        return self.state.take_output()

    # -- transitions

    def _may_campaign(self) -> bool:
        members = self.state.members
        if members.latest_index == 0:
            return False
        stable = members.latest_index == members.committed_index
        return not stable or has_vote(members.latest, self.state.local_id)

    def _campaign(self, now: float, *, transfer: bool = False) -> None:
        state = self.state
        term = state.term + 1
        timeout = state.config.election_timeout_s
        state.election_at = now + state.rng.uniform(timeout, 2 * timeout)
        self._candidacy = candidacy = _Candidacy(state.out.seq)
        self._orphaned = False
        if has_vote(state.members.latest, state.local_id):
            state.set_hard(HardState(term, term, state.candidate_name))
        else:
            state.set_term(term)
        state.set_role(Role.CANDIDATE)
        request = RequestVoteRequest(
            term, state.candidate_name, state.log.last_index, state.log.last_term, transfer
        )
        for server in voters(state.members.latest):
            if server.id != state.local_id:
                rid = state.send(server, request, Channel.DIRECT, durable=True)
                candidacy.calls[rid] = server.id

    def _ask_if_heard(self) -> None:
        """Make voters answer that may not campaign, for they would never be heard otherwise.

        One is fresh, or does not know yet that it is a voter. A request of a past term deposes
        nobody, and no answer to it counts as a vote.
        """
        state = self.state
        request = RequestVoteRequest(
            state.term - 1, state.candidate_name, state.log.last_index, state.log.last_term
        )
        for server in voters(state.members.latest):
            if server.id != state.local_id:
                state.send(server, request, Channel.DIRECT)

    def _step_down(self, term: int, now: float) -> None:
        leadership, self._leadership, self._candidacy = self._leadership, None, None
        follower.become_follower(self.state, term, now)
        if leadership is not None:
            leadership.stepped_down()

    def _settle(self, now: float) -> None:
        """Draw the consequences of a step: election won, entries committed, leadership lost."""
        state, candidacy = self.state, self._candidacy
        if candidacy is not None:
            latest = state.members.latest
            electors = {server.id for server in voters(latest)}
            if len(candidacy.votes & electors) >= quorum(latest):
                self._candidacy = None
                state.set_role(Role.LEADER)
                state.set_leader((state.local_id, state.local_address))
                self._leadership = Leadership(state, now)
                self._leadership.synced(state.log.durable_index)
        leadership = self._leadership
        if leadership is not None:
            if not leadership.deposed:
                leadership.commit(now)
            if leadership.deposed:
                isolated = leadership.known_term == state.term
                self._step_down(leadership.known_term, now)
                self._deaf = DEAF_ELECTIONS if isolated else 0
