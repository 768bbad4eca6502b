"""Failures of a request, as Consul's HTTP layer translates them (`agent/http.go`, `wrap`)."""

from __future__ import annotations

from collections.abc import Iterable

from proconsul.util.errors import ProconsulError

# These texts cross RPC as plain strings; Consul, too, knows the errors by nothing else.
PERMISSION_DENIED = "Permission denied"
ACL_NOT_FOUND = "ACL not found"
RPC_RATE_EXCEEDED = "RPC rate limit exceeded"
RATE_LIMITED = "Rate limit reached, try again later"


class HttpError(ProconsulError):
    """End the request with this status and text."""

    def __init__(self, status: int, text: str = "", head: bytes = b"") -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.head = head


def bad_request(text: str) -> HttpError:
    """400 with the bare text, as most of Consul's handlers write it."""
    return HttpError(400, text)


def method_not_allowed(method: str, allowed: Iterable[str]) -> HttpError:
    """405 with the Allow header."""
    allow = ",".join(("OPTIONS", *allowed)).encode("ascii")
    return HttpError(405, f"method {method} not allowed", b"Allow: " + allow + b"\r\n")


def translate(error: Exception) -> HttpError:
    """The HTTP form of whatever a handler raised."""
    if isinstance(error, HttpError):
        return error
    text = str(error)
    if PERMISSION_DENIED in text or ACL_NOT_FOUND in text:
        return HttpError(403, text)
    if RPC_RATE_EXCEEDED in text:
        return HttpError(429, "")
    if text == RATE_LIMITED:
        return HttpError(429, text)
    return HttpError(500, text)
