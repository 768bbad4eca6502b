"""One HTTP/1.1 connection: parse, dispatch in order, answer.

A handler that returns a `Response` is answered within the same callback, without a task; one that
returns a coroutine gets a task in the server's scope. Requests of one connection are answered one
after the other, as pipelining demands. Messages that are ambiguous about their length are refused
by the parser (llhttp in its strict mode), so that no proxy in front can be tricked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import httptools
from typing_extensions import override

from proconsul.drivers.http.message import STATUS_LINES, Request, Response

if TYPE_CHECKING:
    from proconsul.drivers.http.server import HttpServer

log = logging.getLogger("proconsul.http")

Handler: TypeAlias = Callable[[Request], Response | Coroutine[Any, Any, Response]]
Admit: TypeAlias = Callable[[Request], Response | None]
"""Asked once the headers of a request with a body are in; a response refuses the body unread."""

OUT_BYTES_MAX = 256 * 1024
"""Answers to pipelined requests are collected up to this, then the client must take them."""
_TOO_MANY_SPOOLS = "Too many large requests are being received already: try again later"
_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"


class Phase(Enum):
    """Where the reading side is; which time limit applies follows from it."""

    IDLE = auto()
    HEADERS = auto()
    BODY = auto()


def plain_error(status: int, text: str = "") -> Response:
    """An error in the form of Go's server: text, and the connection closed."""
    return Response(status, (text or reason(status)).encode(), _TEXT, close=True)


def _not_kept(error: OSError) -> Response:
    log.error("request body cannot be kept: %s", error)
    return plain_error(507, f"request body cannot be kept: {error.strerror}")


def reason(status: int) -> str:
    """`400 Bad Request` for 400."""
    return STATUS_LINES[status][9:-2].decode()


class HttpConnection(asyncio.Protocol):
    """The server's side of one connection."""

    __slots__ = (
        "_announced", "_body", "_body_size", "_client", "_closing", "_current", "_eof",
        "_header_bytes", "_limits", "_out", "_out_bytes", "_parser", "_paused_reading", "_peer", "_phase",
        "_queue", "_refused", "_server", "_task", "_transport", "_url", "_writable", "deadline",
    )  # fmt: skip

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._limits = server.limits
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._peer = ("", 0)
        self._phase = Phase.IDLE
        self._queue: deque[Request] = deque()
        self._current: Request | None = None
        self._announced: list[tuple[bytes, bytes]] = []
        self._url = b""
        self._body: list[bytes] = []
        self._body_size = 0
        self._header_bytes = 0
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._task: asyncio.Task[Response] | None = None
        self._refused = False
        self._closing = False
        self._eof = False
        self._paused_reading = False
        self._writable: asyncio.Event | None = None
        self.deadline = 0.0

    @property
    def client(self) -> str:
        """The address that connection limits count by; "" for unix sockets."""
        return self._peer[0]

    # -- transport callbacks

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        if isinstance(name, tuple):
            self._peer = (name[0], name[1])
        self.deadline = self._server.now() + self._limits.idle_timeout_s
        if (refusal := self._server.connection_opened(self)) is not None:
            self._refused = True
            self._send(refusal, None)
            self._flush()

    @override
    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self._drop_queue()
        _forget(self._current)
        self._server.connection_closed(self)
        if self._task is not None:
            # Not before its first step: coroutines within it would be complained of as never awaited.
            asyncio.get_running_loop().call_soon(self._task.cancel)
        if self._writable is not None:
            self._writable.set()
        self._transport = None

    @override
    def eof_received(self) -> bool:
        self._eof = True
        if self._task is None:
            self._closing = True
            return False
        self.deadline = self._server.now() + self._limits.half_close_grace_s
        return True

    @override
    def pause_writing(self) -> None:
        self._writable = asyncio.Event()
        self.deadline = self._server.now() + self._limits.write_timeout_s
        self._pause_reading()

    @override
    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        self.deadline = self._server.now() + self._limits.idle_timeout_s
        self._next()
        self._flush()

    @override
    def data_received(self, data: bytes) -> None:
        if self._closing or self._refused:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # HTTP/1.1 goes on unchanged for a client that only offered an upgrade, but what follows
            # in the stream is not ours to parse: this request is the last.
            self._last_request()
        except httptools.HttpParserError:
            if not self._refused:
                self._refuse(plain_error(400))
        if self._phase is Phase.HEADERS and not self._refused:
            self._header_bytes += len(data)
            if self._header_bytes > self._limits.header_bytes_max:
                self._refuse(plain_error(431))
        self._flush()
        if self._queue:
            self._next()
            self._flush()

    # -- parser callbacks

    def on_message_begin(self) -> None:
        self._phase = Phase.HEADERS
        self._url = b""
        self._announced = []
        self._header_bytes = 0
        if self._task is None:
            self.deadline = self._server.now() + self._limits.header_timeout_s

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._announced.append((name, value))

    def on_headers_complete(self) -> None:
        parser, limits = self._parser, self._limits
        request = Request(parser.get_method().decode("ascii"), self._url, self._peer)
        request.headers = headers = self._announced
        request.keep_alive = parser.should_keep_alive()
        self._current = request
        self._phase = Phase.BODY
        self._body_size = 0
        size = len(self._url)
        expects = has_body = False
        for name, value in headers:
            size += len(name) + len(value) + 4
            length = len(name)
            if length == 14 and name.lower() == b"content-length":
                request.content_length = int(value)
                has_body = request.content_length > 0
            elif length == 17 and name.lower() == b"transfer-encoding":
                has_body = True
            elif length == 6 and name.lower() == b"expect":
                expects = value.lower() == b"100-continue"
        if size > limits.header_bytes_max or len(headers) > limits.headers_max:
            self._refuse(plain_error(431))
        elif has_body:
            self._announce_body(request, expects=expects)

    def on_body(self, body: bytes) -> None:
        if self._refused:
            return
        self._body_size += len(body)
        spool = self._current.spool if self._current is not None else None
        if self._body_size > self._body_max(spooled=spool is not None):
            self._refuse(plain_error(413))
        elif spool is None:
            self._body.append(body)
        else:
            spool.feed(body)
            if spool.full:  # the disk is slower than the client
                self._pause_reading()

    def on_message_complete(self) -> None:
        request, self._current = self._current, None
        self._phase = Phase.IDLE
        if request is None or self._refused:
            return
        if self._body:
            request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body = []
        if (
            self._task is None
            and not self._queue
            and self._writable is None
            and self._out_bytes < OUT_BYTES_MAX
        ):
            self._dispatch(request)
            return
        self._queue.append(request)
        if len(self._queue) >= self._limits.pipeline_max:
            self._pause_reading()

    def _body_max(self, *, spooled: bool) -> int:
        return self._limits.spooled_bytes_max if spooled else self._limits.body_bytes_max

    # -- dispatch and answer

    def _announce_body(self, request: Request, *, expects: bool) -> None:
        limits = self._limits
        spools = self._server.spools
        spooled = spools is not None and spools(request)
        admit = self._server.admit
        refusal = admit(request) if admit is not None else None
        if refusal is None and request.content_length > self._body_max(spooled=spooled):
            refusal = plain_error(413)
        elif refusal is None and spooled:
            refusal = self._open_spool(request)
        if refusal is not None:
            refusal.close = True
            self._refuse(refusal)
            return
        if self._task is None:
            self.deadline = self._server.now() + limits.body_timeout_s
            if expects and not self._queue:
                self._out.append(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _open_spool(self, request: Request) -> Response | None:
        """Have the body kept in a file; a response says why not."""
        try:
            request.spool = self._server.kept.open(request.content_length, self._kept)
        except OSError as error:
            return _not_kept(error)
        if request.spool is None:
            return plain_error(429, _TOO_MANY_SPOOLS)
        return None

    def _kept(self, error: OSError | None) -> None:
        """A part of a body was written, or could not be."""
        request = self._current
        if request is None or request.spool is None or self._refused:
            self._resume_reading()
            return
        if error is not None:
            self._refuse(_not_kept(error))
            self._flush()
            return
        # A body that large takes long: what counts is that it goes on.
        self.deadline = self._server.now() + self._limits.body_timeout_s
        self._resume_reading()

    def _dispatch(self, request: Request) -> None:
        try:
            answer = self._server.handler(request)
        except Exception:
            log.exception("handler of %s failed", request.method)
            _forget(request)
            self._send(plain_error(500), request)
            return
        if isinstance(answer, Response) and answer.stream is None:
            _forget(request)
            self._send(answer, request)
            return
        self.deadline = float("inf")
        self._task = self._server.scope.spawn("request", self._finish(answer, request))
        if request.spool is not None:
            self._task.add_done_callback(lambda _: _forget(request))
        self._task.add_done_callback(self._task_done)

    async def _finish(
        self, answer: Response | Coroutine[Any, Any, Response], request: Request
    ) -> Response:
        """Wait for the answer and send it; what remains of the queue follows in `_task_done`."""
        try:
            response = answer if isinstance(answer, Response) else await answer
        except asyncio.CancelledError:
            if self._server.closing and self._transport is not None:
                self._send(plain_error(503, "agent is shutting down"), request)
                self._flush()
            raise
        except Exception:
            log.exception("handler of %s failed", request.method)
            response = plain_error(500)
        if response.stream is None:
            self._send(response, request)
            self._flush()  # now: `_task_done` comes a turn of the loop later
        else:
            await self._send_stream(response, request)
        return response

    def _task_done(self, task: asyncio.Task[Response]) -> None:
        self._task = None
        if task.cancelled() or task.exception() is not None:
            self._close()
            return
        self._next()
        if self._eof and self._task is None:
            self._closing = True
        self._flush()

    def _next(self) -> None:
        """Answer what was read ahead, as far as that goes without waiting."""
        while self._queue and self._task is None and self._writable is None and not self._closing:
            self._dispatch(self._queue.popleft())
            if self._out_bytes >= OUT_BYTES_MAX:
                self._flush()
        self._resume_reading()

    def _resume_reading(self) -> None:
        """Read on, unless there is still a reason not to."""
        if not self._paused_reading or self._transport is None or self._closing:
            return
        spool = self._current.spool if self._current is not None else None
        if spool is not None and spool.full:
            return
        if len(self._queue) < self._limits.pipeline_max and self._writable is None:
            self._paused_reading = False
            self._transport.resume_reading()

    def _send(self, response: Response, request: Request | None) -> None:
        """Queue the whole response; `_flush` writes all that one callback produced at once."""
        close = response.close or request is None or not request.keep_alive or self._eof
        body = response.body
        self._out_bytes += len(body)
        self._out.append(
            b"%b%bDate: %b\r\n%bContent-Length: %d\r\n\r\n%b"
            % (
                STATUS_LINES[response.status],
                response.head,
                self._server.date(),
                b"Connection: close\r\n" if close else b"",
                len(body),
                body if request is None or request.method != "HEAD" else b"",
            )
        )
        if close:
            self._closing = True
            self._drop_queue()
        elif self._phase is Phase.IDLE:
            self.deadline = self._server.now() + self._limits.idle_timeout_s

    async def _send_stream(self, response: Response, request: Request) -> None:
        assert response.stream is not None
        old = not request.keep_alive
        framing = b"Connection: close\r\n" if old else b"Transfer-Encoding: chunked\r\n"
        date = self._server.date()
        self._out.append(
            b"%b%bDate: %b\r\n%b\r\n"
            % (STATUS_LINES[response.status], response.head, date, framing)
        )
        self._flush()
        try:
            async for chunk in response.stream:
                if chunk and request.method != "HEAD":
                    self._out.append(chunk if old else b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    self._flush()
                if self._writable is not None:
                    await self._writable.wait()
        finally:
            if (close := getattr(response.stream, "aclose", None)) is not None:
                await close()
        if old or response.close:
            self._closing = True
        if not old:
            self._out.append(b"0\r\n\r\n")

    def _flush(self) -> None:
        out, transport = self._out, self._transport
        if transport is None:
            out.clear()
            return
        if out:
            transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
            self._out_bytes = 0
        if self._closing and self._task is None:
            transport.close()

    # -- ends

    def _refuse(self, response: Response) -> None:
        """Answer a bad request after those before it, then read nothing more."""
        self._refused = True
        self._body = []
        _forget(self._current)
        if self._task is None and not self._queue:
            self._send(response, self._current)
            self._closing = True
            return
        # Requests before it are still being answered: they end the connection, without this answer.
        self._last_request()

    def _last_request(self) -> None:
        self._refused = True
        if self._queue:
            self._queue[-1].keep_alive = False
        elif self._task is not None:
            self._eof = True
        else:
            self._closing = True

    def _drop_queue(self) -> None:
        for request in self._queue:
            _forget(request)
        self._queue.clear()

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._paused_reading and not self._closing:
            self._paused_reading = True
            self._transport.pause_reading()

    def _close(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def expire(self) -> None:
        """A time limit has passed: say so if that is possible, and close."""
        transport = self._transport
        if transport is None:
            return
        if self._task is not None or self._writable is not None:
            if self._task is not None:
                self._task.cancel()
            transport.abort()
            return
        if self._phase is not Phase.IDLE:
            self._send(plain_error(408), None)
        self._closing = True
        self._flush()
        # A peer that does not take even this must not hold the connection.
        self.deadline = self._server.now() + self._limits.write_timeout_s
        if transport.is_closing() and transport.get_write_buffer_size():
            transport.abort()

    def shut(self, *, cancel: bool) -> None:
        """The server ends: idle connections now, busy ones after their answer or when cancelled."""
        if self._task is None:
            self._close()
            return
        self._eof = True
        self._drop_queue()
        if cancel:
            self._task.cancel()


def _forget(request: Request | None) -> None:
    """Delete the file that a request's body was kept in."""
    if request is not None and request.spool is not None:
        request.spool.close()
