"""Errors that cross Consul's RPC as text. Clients match on these words: never change them."""

from __future__ import annotations

from proconsul.util.errors import ProconsulError

NO_LEADER = "No cluster leader"
NO_PATH_TO_DATACENTER = "No path to datacenter"
DC_NOT_AVAILABLE = "Remote DC has no server currently reachable"
NO_SERVERS = "No known Consul servers"
OUTCOME_UNKNOWN = "the write may or may not have taken effect"
NOT_READY_FOR_CONSISTENT_READS = "Not ready to serve consistent reads"
SEGMENTS_NOT_SUPPORTED = "Network segments are not supported in this version of Consul"
RPC_RATE_EXCEEDED = "RPC rate limit exceeded"
SERVICE_NOT_FOUND = "Service not found: "
QUERY_NOT_FOUND = "Query not found"
PERMISSION_DENIED = "Permission denied"
ACL_NOT_FOUND = "ACL not found"
ACL_DISABLED = "ACL support disabled"
ACL_ROOT_DENIED = "Cannot resolve root ACL"


class DomainError(ProconsulError):
    """An answer of the system, not a fault: its text goes to the client as it is."""


class NoLeaderError(DomainError):
    def __init__(self) -> None:
        super().__init__(NO_LEADER)


class OutcomeUnknownError(DomainError):
    """A write failed in a way that does not tell whether it happened: look before repeating it."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"{cause}; {OUTCOME_UNKNOWN}")


class NoPathToDatacenterError(DomainError):
    """The datacenter is unknown here. `detail` says which, and which hop failed."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(f"{NO_PATH_TO_DATACENTER}: {detail}" if detail else NO_PATH_TO_DATACENTER)


class DatacenterNotAvailableError(DomainError):
    def __init__(self) -> None:
        super().__init__(DC_NOT_AVAILABLE)


class NoServersError(DomainError):
    def __init__(self) -> None:
        super().__init__(NO_SERVERS)


class NotReadyForConsistentReadsError(DomainError):
    def __init__(self) -> None:
        super().__init__(NOT_READY_FOR_CONSISTENT_READS)


class RateExceededError(DomainError):
    def __init__(self) -> None:
        super().__init__(RPC_RATE_EXCEEDED)


class PermissionDeniedError(DomainError):
    def __init__(self, cause: str = "") -> None:
        super().__init__(f"{PERMISSION_DENIED}: {cause}" if cause else PERMISSION_DENIED)


class AclNotFoundError(DomainError):
    def __init__(self) -> None:
        super().__init__(ACL_NOT_FOUND)


def is_no_leader(error: BaseException) -> bool:
    """Also true of the error's text after it crossed an RPC."""
    return NO_LEADER in str(error)


def is_outcome_unknown(error: BaseException) -> bool:
    """Also true of the error's text after it crossed an RPC."""
    return OUTCOME_UNKNOWN in str(error)


def is_no_path_to_datacenter(error: BaseException) -> bool:
    """Also true of the error's text after it crossed an RPC."""
    return NO_PATH_TO_DATACENTER in str(error)


def is_rate_exceeded(error: BaseException) -> bool:
    """Also true of the error's text after it crossed an RPC."""
    return RPC_RATE_EXCEEDED in str(error)


def is_permission_denied(error: BaseException) -> bool:
    """Also true of the error's text after it crossed an RPC."""
    return PERMISSION_DENIED in str(error)
