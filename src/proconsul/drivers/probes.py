"""Health probes of checks: one TCP connect, one HTTP request. No connection is kept."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin, urlsplit

import httptools

from proconsul.util.errors import ProconsulError

ANSWER_BYTES_MAX = 1 << 20
"""Read at most this much of an answer, head and body, whatever of it is then kept."""
REDIRECTS_MAX = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_AS_IS = frozenset({307, 308})
USER_AGENT = "Consul Health Check"


class ProbeError(ProconsulError):
    """The probed thing cannot be reached; the text becomes the check's output."""


async def tcp_probe(host: str, port: int, timeout_s: float) -> None:
    """Connect and close. Raises `ProbeError`."""
    target = f"{host}:{port}"
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        raise ProbeError(f"dial tcp {target}: i/o timeout") from None
    except OSError as error:
        raise ProbeError(_dial_failure(target, error)) from error
    writer.transport.abort()


def _dial_failure(target: str, error: OSError) -> str:
    """As Go says it."""
    if isinstance(error, socket.gaierror):
        return f"dial tcp: lookup {target.rpartition(':')[0]}: no such host"
    if isinstance(error, ssl.SSLError) or not error.errno:
        return f"dial tcp {target}: {error}"
    return f"dial tcp {target}: connect: {os.strerror(error.errno).lower()}"


@dataclass(slots=True)
class HttpAnswer:
    """`body` is the end of what was sent, `output_max` bytes at most."""

    status: int = 0
    reason: str = ""
    body: bytearray = field(default_factory=bytearray)
    location: str = ""


class _Parser:
    """Callbacks of httptools."""

    def __init__(self, output_max: int) -> None:
        self.answer = HttpAnswer()
        self.has_head = self.complete = False
        self._output_max = output_max

    def on_status(self, status: bytes) -> None:
        self.answer.reason += status.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"location":
            self.answer.location = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, body: bytes) -> None:
        self.answer.body += body
        del self.answer.body[: -self._output_max]

    def on_message_complete(self) -> None:
        self.complete = True


async def http_probe(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, Sequence[str]] | None = None,
    body: str = "",
    tls_skip_verify: bool = False,
    context: ssl.SSLContext | None = None,
    server_name: str = "",
    timeout_s: float = 10.0,
    output_max: int = 4096,
) -> HttpAnswer:
    """Ask once, and where the answer redirects to, as Go's client does. Raises `ProbeError`.

    `context` is in place of the system's authorities; the certificate must be for `server_name` then.
    """
    try:
        async with asyncio.timeout(timeout_s):
            for _ in range(REDIRECTS_MAX):
                tls = context or _tls_context(tls_skip_verify)
                answer = await _ask(url, method, headers or {}, body, tls, server_name, output_max)
                if answer.status not in _REDIRECTS or not answer.location:
                    return answer
                url = urljoin(url, answer.location)
                if answer.status not in _REDIRECTS_AS_IS:
                    method, body = ("HEAD" if method == "HEAD" else "GET"), ""
    except TimeoutError:
        raise ProbeError(
            f'{method.capitalize()} "{url}": context deadline exceeded (Client.Timeout exceeded while '
            "awaiting headers)"
        ) from None
    except ssl.SSLError as error:
        raise ProbeError(f'{method.capitalize()} "{url}": {error}') from error
    except OSError as error:
        text = _dial_failure(_target(urlsplit(url)), error)
        raise ProbeError(f'{method.capitalize()} "{url}": {text}') from error
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        raise ProbeError(f'{method.capitalize()} "{url}": {error}') from error
    raise ProbeError(f'{method.capitalize()} "{url}": stopped after {REDIRECTS_MAX} redirects')


def _target(parts: SplitResult) -> str:
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


async def _ask(
    url: str,
    method: str,
    headers: Mapping[str, Sequence[str]],
    body: str,
    tls: ssl.SSLContext,
    server_name: str,
    output_max: int,
) -> HttpAnswer:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ProbeError(f"{url}: a URL with http:// or https:// and a host is needed")
    context = tls if parts.scheme == "https" else None
    name = server_name if context and server_name else None
    port = parts.port or (443 if context else 80)
    reader, writer = await asyncio.open_connection(
        parts.hostname, port, ssl=context, server_hostname=name
    )
    try:
        writer.write(_request(parts, method, headers, body))
        return await read_answer(reader, output_max)
    finally:
        writer.transport.abort()


@functools.cache
def _tls_context(skip_verify: bool) -> ssl.SSLContext:
    """Made once: reading the system's authorities takes tens of milliseconds."""
    context = ssl.create_default_context()
    if skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _request(
    parts: SplitResult, method: str, headers: Mapping[str, Sequence[str]], body: str
) -> bytes:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    named = {name.lower() for name in headers}
    data = body.encode()
    lines = [f"{method} {path} HTTP/1.1"]
    if "host" not in named:
        lines.append(f"Host: {parts.netloc.rpartition('@')[2]}")
    if "user-agent" not in named:
        lines.append(f"User-Agent: {USER_AGENT}")
    if "accept" not in named:
        lines.append("Accept: text/plain, text/*, */*")
    lines += [f"{name}: {value}" for name, values in headers.items() for value in values]
    lines += [f"Content-Length: {len(data)}", "Connection: close", "", ""]
    if any("\r" in line or "\n" in line for line in lines):
        raise ProbeError("a line break in the check's URL, method or headers is not allowed")
    return "\r\n".join(lines).encode("utf-8") + data


async def read_answer(reader: asyncio.StreamReader, output_max: int) -> HttpAnswer:
    """An HTTP answer up to its end. Raises `ProbeError`, `OSError`, httptools' errors."""
    parser = _Parser(output_max)
    http = httptools.HttpResponseParser(parser)
    received = 0
    while not parser.complete and received < ANSWER_BYTES_MAX:
        chunk = await reader.read(65536)
        if not chunk:
            break
        received += len(chunk)
        http.feed_data(chunk)
    if not parser.has_head:
        raise ProbeError("the connection was closed without an answer")
    parser.answer.status = http.get_status_code()
    return parser.answer
