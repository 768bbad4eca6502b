"""Sessions (`agent/structs/structs.go`)."""

from __future__ import annotations

from proconsul.domain.base import GoStruct, Int64, Uint64
from proconsul.domain.options import QueryMeta, QueryOptions, WriteRequest

SESSION_CREATE = "create"
SESSION_DESTROY = "destroy"
BEHAVIOR_RELEASE = "release"
BEHAVIOR_DELETE = "delete"


_ID_LENGTH, _ID_HYPHENS = 36, 4
_HEX = frozenset("0123456789abcdefABCDEF")


def id_problem(session_id: str, lookup: str = "failed session lookup") -> str:
    """What Consul complains of in an id that is no UUID; empty for one that is."""
    size = len(session_id.encode("utf-8", "surrogateescape"))
    hyphens = session_id.count("-")
    problem = ""
    if size != _ID_LENGTH:
        problem = f"UUID must be {_ID_LENGTH} characters"
    elif hyphens > _ID_HYPHENS:
        problem = f'UUID should have maximum of {_ID_HYPHENS} "-"; got {hyphens}'
    elif hyphens % 2:
        problem = "Input (without hyphens) must be even length"
    else:
        for char in session_id:
            if char != "-" and char not in _HEX:
                problem = f"Invalid UUID: encoding/hex: invalid byte: U+{ord(char):04X} '{char}'"
                break
    return f"{lookup}: index error: {problem}" if problem else ""


class ServiceCheck(GoStruct, frozen=True, gc=False):
    id: str = ""
    namespace: str = ""


class Session(GoStruct, frozen=True, gc=False):
    """Ties the locks of a client to the health of checks."""

    id: str = ""
    name: str = ""
    node: str = ""
    lock_delay_ns: Int64 = 0
    behavior: str = ""
    ttl: str = ""
    node_checks: list[str] | None = None
    service_checks: list[ServiceCheck] | None = None
    checks: list[str] | None = None
    create_index: Uint64 = 0
    modify_index: Uint64 = 0

    def check_ids(self) -> list[str]:
        """Every check whose failure invalidates the session."""
        return [
            *(self.checks or ()),
            *(self.node_checks or ()),
            *(check.id for check in self.service_checks or ()),
        ]


class SessionRequest(WriteRequest, frozen=True, gc=False):
    datacenter: str = ""
    op: str = ""
    session: Session = Session()


class SessionSpecificRequest(QueryOptions, frozen=True, gc=False):
    datacenter: str = ""
    session_id: str = ""
    session: str = ""


class IndexedSessions(QueryMeta, frozen=True, gc=False):
    sessions: list[Session] | None = None
