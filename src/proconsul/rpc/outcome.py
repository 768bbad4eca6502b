"""What a failed call says about its write: it was not carried out, or nobody knows.

Follows `canRetry` in agent/consul/rpc.go, and goes further where that cannot do harm: a server that
says that it does not lead, or is just handing leadership over, has not touched its log. A write of
which nobody knows is never sent again, and its error says so.
"""

from __future__ import annotations

from proconsul.core.raft.types import LeadershipLost, NotLeader, TransferInProgress
from proconsul.domain import errors
from proconsul.drivers.raft.errors import ApplyTimeout, Halted
from proconsul.rpc.dialer import HopError
from proconsul.rpc.table import Method
from proconsul.util.errors import ProconsulError

_UNTOUCHED = (str(NotLeader()), str(TransferInProgress()))
_UNDECIDED = (
    str(LeadershipLost()),
    str(ApplyTimeout("apply")),
    "raft is already shutdown",
)
"""Texts of errors after they crossed an RPC, from our servers and from Consul's."""
_LOST = ("EOF", "stream closed", "stream reset", "session shutdown", "connection reset", "timeout")
"""In the errors of a Consul server that had passed the call on and lost the connection."""
_EOF, _ENDED = ": EOF", ("stream closed", "session shutdown")
"""A server lost the connection to the one that it had passed a read on to (`lib.IsErrEOF`)."""
_CALLING = "rpc error making call: "
_DIALLING = "rpc error getting client: "
"""Of a Consul server that could not pass a call on: the connection was never there."""


def not_done(error: BaseException) -> bool:
    """Whether the call was certainly not carried out by whom it was sent to, and may be by others."""
    if errors.is_no_leader(error) or isinstance(error, HopError | NotLeader | TransferInProgress):
        return True
    if getattr(error, "is_remote", False):
        text = str(error).removeprefix(_CALLING)
        return text in _UNTOUCHED or text.startswith(_DIALLING)
    return bool(getattr(error, "safe_to_retry", False))


def may_repeat(method: Method, error: BaseException) -> bool:
    """Whether trying again cannot execute a write twice."""
    if not_done(error):
        return True
    if not method.is_read:
        return False
    if getattr(error, "is_remote", False):
        text = str(error)
        return text.endswith(_EOF) or any(ended in text for ended in _ENDED)
    return _undecided(error)


def told(method: Method, error: ProconsulError | TimeoutError) -> ProconsulError:
    """The error for the caller: of a write that may have happened it says so."""
    if isinstance(error, ProconsulError):
        failure = error
    else:
        text = f"RPC deadline exceeded: {error}" if str(error) else "RPC deadline exceeded"
        failure = ProconsulError(text)
    if method.is_read or not _undecided(error) or errors.is_outcome_unknown(error):
        return failure
    return errors.OutcomeUnknownError(str(failure))


def _undecided(error: BaseException) -> bool:
    if getattr(error, "is_remote", False):
        text = str(error)
        lost = text.startswith(_CALLING) and any(part in text for part in _LOST)
        return lost or any(part in text for part in _UNDECIDED)
    if isinstance(error, TimeoutError | LeadershipLost | ApplyTimeout | Halted):
        return True
    return not getattr(error, "safe_to_retry", True)
