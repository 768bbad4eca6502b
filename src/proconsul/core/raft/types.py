"""What goes into and comes out of the Raft machine.

The machine is data in, data out. `Output` is the one record per step: what must be durable before
which messages may leave (etcd-io/raft's `Ready` is the model).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from msgspec import Struct, field

from proconsul.util.errors import ProconsulError

if TYPE_CHECKING:
    from proconsul.wire.raft import Configuration, Entry, Request, Response


class RaftError(ProconsulError):
    """Base of Raft's errors. Texts are hashicorp/raft's where clients see them."""


class NotLeader(RaftError):
    """This server cannot serve the call. `leader` is (id, address) of who can, if known."""

    def __init__(self, leader: tuple[str, str] | None = None) -> None:
        super().__init__("node is not the leader")
        self.leader = leader


class LeadershipLost(RaftError):
    """Leadership was lost while the call was under way: it may or may not take effect."""

    def __init__(self) -> None:
        super().__init__("leadership lost while committing log")


class TransferInProgress(RaftError):
    """Leadership is being handed over; ask again."""

    def __init__(self) -> None:
        super().__init__("leadership transfer in progress")


class RestoreInProgress(RaftError):
    """The state is being replaced by a snapshot from outside; ask again."""

    def __init__(self) -> None:
        super().__init__("snapshot restore in progress")


class ConfigurationError(RaftError):
    """A membership change or bootstrap that is not allowed now, or never."""


class ChangePending(ConfigurationError):
    """The last change of members is not committed yet, or the leader is too fresh: try again."""

    def __init__(self) -> None:
        super().__init__("a configuration change is under way")


class Config(Struct, frozen=True):
    """Timings and limits; the defaults are Consul's at `raft_multiplier` 1."""

    heartbeat_timeout_s: float = 1.0
    """A follower that hears nothing for this long (up to twice) becomes a candidate."""
    election_timeout_s: float = 1.0
    """A candidate that does not win in this long (up to twice) starts again."""
    leader_lease_s: float = 0.5
    """A leader that reaches no quorum for this long steps down."""
    commit_timeout_s: float = 0.05
    """A follower learns of a commit after this long at the latest, without further writes."""
    append_entries_max: int = 64
    append_bytes_max: int = 1 << 20
    """An AppendEntries takes no further entry beyond this, but always one."""
    inflight_max: int = 64
    """AppendEntries on the way to one follower."""
    snapshot_threshold: int = 16384
    """A snapshot is taken once this many entries are newer than the last one."""
    snapshot_interval_s: float = 30.0
    """How often that is looked at (up to twice)."""
    trailing_logs: int = 10240
    """Entries kept behind a snapshot, so that a slow follower needs no snapshot."""

    def __post_init__(self) -> None:
        if not 0.005 <= self.leader_lease_s <= self.heartbeat_timeout_s <= self.election_timeout_s:
            raise ConfigurationError(
                "raft timings must be 5 ms <= leader lease <= heartbeat timeout <= election timeout"
            )

    @staticmethod
    def scaled(raft_multiplier: int = 5) -> Config:
        """Consul's defaults for a `raft_multiplier` of 1 to 10."""
        if not 1 <= raft_multiplier <= 10:
            raise ConfigurationError("performance.raft_multiplier must be between 1 and 10")
        return Config(1.0 * raft_multiplier, 1.0 * raft_multiplier, 0.5 * raft_multiplier)


class Role(Enum):
    """hashicorp/raft's three states, with its names."""

    FOLLOWER = "Follower"
    CANDIDATE = "Candidate"
    LEADER = "Leader"


class HardState(Struct, frozen=True):
    """What must survive a crash beside the log. `candidate` is who got our vote in `vote_term`."""

    term: int = 0
    vote_term: int = 0
    candidate: bytes = b""


class SnapshotMeta(Struct, frozen=True):
    """Where a snapshot ends, and the members at that point."""

    index: int
    term: int
    configuration: Configuration
    configuration_index: int


class Channel(Enum):
    """How a request should travel: appends keep their order, the others go past them."""

    PIPELINE = 0
    DIRECT = 1
    SNAPSHOT = 2


class Send(Struct, frozen=True):
    """A request to a server. Answer with `response(rid, ...)` or `failed(rid, ...)`.

    On the SNAPSHOT channel `request` is None: the driver sends its latest snapshot and answers
    with `snapshot_sent`.
    """

    rid: int
    server_id: str
    address: str
    request: Request | None
    channel: Channel


class Reply(Struct, frozen=True):
    """The answer to an incoming request, under the token it was handed in with."""

    token: object
    response: Response | None
    error: str = ""


class Verified(Struct, frozen=True):
    """The end of `verify`: whether this server still is the leader."""

    token: object
    ok: bool


class Transferred(Struct, frozen=True):
    """The end of `transfer`; `error` is empty on success."""

    token: object
    error: str = ""


class RoleChanged(Struct, frozen=True):
    """This server's role changed. On losing leadership, proposals under way are undecided."""

    role: Role
    term: int


class LeaderChanged(Struct, frozen=True):
    """The leader as seen from here: (id, address), None if unknown."""

    leader: tuple[str, str] | None


class Diverged(Struct, frozen=True):
    """A leader's log is another history than our snapshot up to `index` of `term`.

    That was one from outside which no quorum got. Only a snapshot of a later term takes us back.
    """

    index: int
    term: int


Event = Verified | Transferred | RoleChanged | LeaderChanged | Diverged


class Output(Struct):
    """One step's results, to be handled in this order.

    1. `send` may leave at once, in parallel with 2.
    2. Make durable, in this order, as one unit: `hard_state`, `truncate_from` (delete entries from
       there on), `append`, `delete_to` (delete entries up to there). Outputs are made durable in
       order; several may share one sync.
    3. Then `send_durable` may leave, and `persisted(seq)` is called.

    `commit_index` may be applied at once: a quorum holds it. The step that ends leadership may also
    commit entries of the next leader, so whoever waits for an index has to look at the term.
    """

    seq: int
    hard_state: HardState | None = None
    truncate_from: int = 0
    append: list[Entry] = field(default_factory=list)
    delete_to: int = 0
    send: list[Send | Reply] = field(default_factory=list)
    send_durable: list[Send | Reply] = field(default_factory=list)
    commit_index: int = 0
    events: list[Event] = field(default_factory=list)

    @property
    def writes(self) -> bool:
        """Whether anything must be made durable."""
        return bool(self.hard_state or self.truncate_from or self.append or self.delete_to)
