"""What passes between the HTTP driver and whoever answers: one request, one response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus

from proconsul.drivers.http.spool import Spool

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
# Go's phrases, where Python's differ.
STATUS_LINES[413] = b"HTTP/1.1 413 Request Entity Too Large\r\n"
STATUS_LINES[414] = b"HTTP/1.1 414 Request URI Too Long\r\n"


class Request:
    """One HTTP request, its body complete.

    `target` is the request line's, undecoded. Header names keep the case they came in.
    """

    __slots__ = (
        "body", "content_length", "headers", "keep_alive", "method", "peer", "spool", "target",
    )  # fmt: skip

    def __init__(self, method: str, target: bytes, peer: tuple[str, int]) -> None:
        self.method = method
        self.target = target
        self.peer = peer
        """(host, port) of the client; ("", 0) on a unix socket."""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.spool: Spool | None = None
        """The body where `HttpServer` was told to keep it out of memory; `body` is then empty."""
        self.content_length = -1
        """As declared; -1 without, as for chunked bodies."""
        self.keep_alive = True

    def header(self, name: bytes) -> str:
        """The first value of the header `name` (lower case), "" without it."""
        for key, value in self.headers:
            if len(key) == len(name) and key.lower() == name:
                return value.decode("latin-1")
        return ""


class Response:
    """One HTTP response. `head` is header lines, each ended by CRLF, without Date and length."""

    __slots__ = ("body", "close", "head", "status", "stream")

    def __init__(
        self,
        status: int = 200,
        body: bytes = b"",
        head: bytes = b"",
        *,
        stream: AsyncIterator[bytes] | None = None,
        close: bool = False,
    ) -> None:
        self.status = status
        self.body = body
        self.head = head
        self.stream = stream
        """A body of unknown length, sent in chunks; `body` is then ignored."""
        self.close = close
        """Close the connection after this response."""
