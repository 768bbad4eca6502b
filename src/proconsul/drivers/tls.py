"""TLS over any `PushStream`, on `ssl.SSLObject` and two memory BIOs.

asyncio's and uvloop's own TLS cannot half-close, which snapshot RPC needs; this one can:
`write_eof` sends close_notify and reading goes on. Records are decrypted in the socket's callback
and handed up at once. OpenSSL verifies the chain, `client_handshake` the peer's name, before any
application byte is read or written.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Sequence
from typing import cast

from proconsul.drivers.buffer import ReceiveBuffer, StreamError, again
from proconsul.drivers.stream import PeerInfo, PushStream, Receiver
from proconsul.drivers.tls_config import requested_name
from proconsul.drivers.tls_errors import (
    TlsAlpnError,
    TlsEofError,
    TlsError,
    TlsNameError,
    TlsTimeoutError,
    translate,
)

RECORD_BYTES = 16384
"""The most a TLS record holds: one read never gives more."""
READ_HIGH_WATER = 256 * 1024
READ_LOW_WATER = 64 * 1024
_CUT = "UNEXPECTED_EOF_WHILE_READING"


async def client_handshake(
    stream: PushStream,
    context: ssl.SSLContext,
    *,
    deadline: float,
    server_name: str | None = None,
    needed_name: str | None = None,
    alpn: str | None = None,
) -> TlsStream:
    """TLS as client on `stream`, with SNI `server_name`.

    `needed_name` must be among the names of the peer's certificate (`TlsNameError`), `alpn` is what
    `context` offers and the peer must choose (`TlsAlpnError`). Closes `stream` on failure, raising
    a `TlsError`.
    """
    tls = TlsStream(stream, context, server_side=False, server_name=server_name)
    try:
        await tls.handshake(deadline)
        if needed_name is not None and not name_matches(needed_name, tls.peer.dns_names):
            raise TlsNameError(needed_name, tls.peer.dns_names)
        if alpn is not None and tls.peer.alpn != alpn:
            raise TlsAlpnError(f"the peer did not agree on application protocol {alpn!r}")
    except BaseException:
        await _close_after_failure(tls)
        raise
    return tls


async def server_handshake(
    stream: PushStream, context: ssl.SSLContext, *, deadline: float, alpn: bool = False
) -> TlsStream:
    """TLS as server on `stream`; with `alpn` one of the context's protocols must be agreed on.

    Closes `stream` on failure, raising a `TlsError`.
    """
    tls = TlsStream(stream, context, server_side=True)
    try:
        await tls.handshake(deadline)
        if alpn and tls.peer.alpn is None:
            raise TlsAlpnError("the client offered no application protocol that is served here")
    except BaseException:
        await _close_after_failure(tls)
        raise
    return tls


async def _close_after_failure(tls: TlsStream) -> None:
    if isinstance(tls.failure, TlsTimeoutError):
        tls.abort()
    else:
        await tls.aclose()  # not `abort`: the peer shall read the alert that says why


def name_matches(needed: str, offered: Sequence[str]) -> bool:
    """True if `needed` is one of the DNS names; `*` stands for exactly the first label."""
    needed = needed.lower().rstrip(".")
    _, _, parent = needed.partition(".")
    wildcard = f"*.{parent}"
    for name in offered:
        candidate = name.lower().rstrip(".")
        if candidate == needed or (parent and candidate == wildcard):
            return True
    return False


class TlsStream:
    """One TLS connection as `PushStream`. Made by `client_handshake` and `server_handshake`."""

    def __init__(
        self,
        lower: PushStream,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_name: str | None = None,
    ) -> None:
        self._lower = lower
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name
        )
        self._server_side, self._server_name = server_side, server_name
        self._peer = lower.peer
        self._buffer = ReceiveBuffer(self._consumed)
        self._receiver: Receiver | None = None
        self._established: asyncio.Future[None] | None = None
        self._handshaking, self._heard = True, False
        self._eof_seen = self._eof_sent = self._closing = False
        self.failure: StreamError | None = None
        """Why the connection broke; None while it has not."""

    async def handshake(self, deadline: float) -> None:
        """Agree on keys before `deadline`. Raises `TlsError`."""
        self._established = asyncio.get_running_loop().create_future()
        try:
            self._lower.attach(self)
            if not self._server_side and self._handshaking:
                self._shake()
            async with asyncio.timeout_at(deadline):
                await self._established
        except TimeoutError:
            self.failure = TlsTimeoutError("TLS handshake timed out")
            raise self.failure from None
        finally:
            if self._established.done() and not self._established.cancelled():
                self._established.exception()  # seen, even if we were cancelled first
        if self.failure is not None:
            # TLS 1.3: the server judges our certificate after the handshake has ended for us.
            raise again(self.failure)

    # -- Receiver, called by the stream below

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._handshaking:
            self._heard = True
            self._shake()
            if self._handshaking:
                return
        self._pump()

    def eof_received(self) -> None:
        self._incoming.write_eof()
        if self._handshaking:
            self._fail(self._eof_in_handshake())
        elif not self._eof_seen:
            self._pump()
            if not self._eof_seen and self.failure is None:
                self._fail(TlsEofError("connection ended without close_notify"))

    def connection_lost(self, error: StreamError) -> None:
        if self._handshaking and self.failure is None:
            self._fail(self._eof_in_handshake(f": {error}"))
            return
        self._fail(error)

    # -- Stream

    @property
    def peer(self) -> PeerInfo:
        return self._peer

    async def peek(self) -> int | None:
        """The first byte, which stays to be read; None if the peer has closed."""
        return await self._buffer.peek()

    async def read(self, limit: int = 65536) -> bytes:
        return await self._buffer.read(limit)

    async def read_exactly(self, count: int) -> bytes:
        return await self._buffer.read_exactly(count)

    async def write(self, data: bytes) -> None:
        self.write_nowait(data)
        if self._lower.write_paused:
            await self._lower.drain()

    async def write_eof(self) -> None:
        if self.failure is not None or self._closing:
            raise StreamError("stream is closed")
        self._send_close_notify()

    async def aclose(self) -> None:
        if not self._closing:
            self._closing = True
            if self.failure is None and not self._handshaking:
                try:
                    self._send_close_notify()
                except StreamError:
                    pass  # lost meanwhile: nobody is left to notify
            self._buffer.fail(StreamError("stream is closed"), discard=True)
        await self._lower.aclose()

    def abort(self) -> None:
        self._closing = True
        self._buffer.fail(StreamError("stream is closed"), discard=True)
        self._lower.abort()

    # -- PushStream

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer.hand_over(receiver)
        self._lower.resume_reading()

    def write_nowait(self, data: bytes) -> None:
        if self.failure is not None:
            raise again(self.failure)
        if self._closing or self._eof_sent:
            raise StreamError("stream is closed")
        try:
            written = self._ssl.write(data)
            if written < len(data):
                view = memoryview(data)
                while written < len(data):
                    written += self._ssl.write(view[written:])
        except ssl.SSLError as error:
            self._fail(translate(error))
            raise StreamError(f"TLS write failed: {error.reason}") from error
        self._lower.write_nowait(self._outgoing.read())

    @property
    def write_paused(self) -> bool:
        return self._lower.write_paused

    @property
    def write_buffer_size(self) -> int:
        return self._lower.write_buffer_size

    async def drain(self) -> None:
        await self._lower.drain()

    def pause_reading(self) -> None:
        self._lower.pause_reading()

    def resume_reading(self) -> None:
        self._lower.resume_reading()

    def on_end(self, callback: Callable[[], None] | None) -> None:
        self._buffer.on_end = callback

    # -- inner workings

    def _shake(self) -> None:
        assert self._established is not None
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._flush()
            failure = translate(error)
            failure.__cause__ = error
            self._fail(failure)
            return
        self._handshaking = False
        self._peer = self._describe()
        self._flush()
        if not self._established.done():
            self._established.set_result(None)

    def _pump(self) -> None:
        """Decrypt what has come and pass it up."""
        decrypt, incoming = self._ssl.read, self._incoming
        try:
            while not self._closing and not self._eof_seen:
                data = decrypt(RECORD_BYTES)
                if not data:
                    self._peer_closed()
                    break
                if self._receiver is not None:
                    self._receiver.data_received(data)
                else:
                    self._buffer.feed(data)
                if not incoming.pending and not self._ssl.pending():
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._peer_closed()
        except ssl.SSLError as error:
            # Python 3.11.2 (Debian 12) has no class of its own for it
            is_cut = isinstance(error, ssl.SSLEOFError) or error.reason == _CUT
            cut = TlsEofError("connection ended without close_notify")
            self._fail(cut if is_cut else translate(error))
        if self._outgoing.pending:
            self._flush()
        if self._receiver is None and self._buffer.size > READ_HIGH_WATER:
            self._lower.pause_reading()

    def _peer_closed(self) -> None:
        if self._eof_seen:
            return
        self._eof_seen = True
        if self._receiver is not None:
            self._receiver.eof_received()
        else:
            self._buffer.feed_eof()

    def _flush(self) -> None:
        if self._outgoing.pending:
            try:
                self._lower.write_nowait(self._outgoing.read())
            except StreamError:
                pass  # `connection_lost` tells

    def _send_close_notify(self) -> None:
        if self._eof_sent:
            return
        self._eof_sent = True
        try:
            self._ssl.unwrap()
        except ssl.SSLError:
            pass  # usually "want read": OpenSSL also waits for the peer's close_notify, we do not
        self._flush()

    def _fail(self, error: StreamError) -> None:
        if self.failure is not None:
            return
        self.failure = error
        if self._handshaking:
            if self._established is not None and not self._established.done():
                self._established.set_exception(error)
            return
        if self._receiver is not None:
            self._receiver.connection_lost(error)
        self._buffer.fail(error, discard=False)

    def _eof_in_handshake(self, detail: str = "") -> TlsError:
        when = "within the handshake" if self._heard else "before any answer to the ClientHello"
        if self._server_side:
            when = "within the handshake"
        return TlsEofError(
            f"connection ended {when}{detail}",
            before_server_hello=not self._heard and not self._server_side,
        )

    def _consumed(self, _count: int) -> None:
        if self._buffer.size < READ_LOW_WATER and self._receiver is None:
            self._lower.resume_reading()

    def _describe(self) -> PeerInfo:
        """What the handshake proved about the peer."""
        names: tuple[str, ...] = ()
        identity = ""
        if certificate := self._ssl.getpeercert():  # empty unless it was verified
            pairs = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
            names = tuple(value for kind, value in pairs if kind == "DNS")
            binary = self._ssl.getpeercert(binary_form=True) or b""
            identity = hashlib.sha256(binary).hexdigest()
        return PeerInfo(
            address=self._lower.peer.address,
            dns_names=names,
            alpn=self._ssl.selected_alpn_protocol(),
            server_name=requested_name(self._ssl) if self._server_side else self._server_name,
            tls=True,
            certificate_id=identity,
        )
