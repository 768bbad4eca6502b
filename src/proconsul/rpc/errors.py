"""How a call to another server fails: it answered with an error, or no answer came."""

from __future__ import annotations

from proconsul.util.errors import ProconsulError


class RemoteError(ProconsulError):
    """The other server executed the call and answered with this text, kept as it was."""

    is_remote = True
    safe_to_retry = False


class TransportError(ProconsulError):
    """No answer: the connection failed. `safe_to_retry` if the call cannot have been executed."""

    is_remote = False

    def __init__(self, message: str, *, safe_to_retry: bool) -> None:
        super().__init__(message)
        self.safe_to_retry = safe_to_retry


class DeadlineError(TransportError):
    """No answer before the deadline; the call may have been executed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, safe_to_retry=False)
