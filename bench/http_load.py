"""A lean HTTP client for measurements: bytes over sockets, no parsing beyond Content-Length."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence


class Connection:
    """One keep-alive connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def send(self, method: str, path: str, body: bytes = b"") -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: agent\r\nContent-Length: {len(body)}\r\n\r\n"
        self.sock.sendall(head.encode() + body)

    def receive(self) -> tuple[int, bytes, bytes]:
        """Status, head, body of the next answer. Raises OSError."""
        while (answer := self.feed(b"")) is None:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("the agent closed the connection")
            if (answer := self.feed(data)) is not None:
                break
        return answer

    def feed(self, data: bytes) -> tuple[int, bytes, bytes] | None:
        """The answer, once it is complete."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self._buffer[:end]
        at = head.lower().find(b"content-length:")
        if at < 0:
            raise ConnectionError("an answer without Content-Length")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return None
        body = self._buffer[end + 4 : end + 4 + length]
        self._buffer = self._buffer[end + 4 + length :]
        return int(head[9:12]), head, body


def latencies(connection: Connection, path: str, count: int) -> list[float]:
    """Seconds of `count` requests, one after the other. Raises OSError unless all are 200."""
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        connection.send("GET", path)
        status, _, body = connection.receive()
        seconds.append(time.perf_counter() - began)
        if status != 200:
            raise OSError(f"{status}: {body[:200]!r}")
    return seconds


def throughput(sockets: Sequence[socket.socket], path: str, duration_s: float) -> float:
    """Requests a second that all connections together complete. Raises OSError unless all are 200."""
    selector = selectors.DefaultSelector()
    request = f"GET {path} HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\n\r\n".encode()
    for sock in sockets:
        selector.register(sock, selectors.EVENT_READ, Connection(sock))
        sock.sendall(request)
    done, began = 0, time.perf_counter()
    deadline = began + duration_s
    while (now := time.perf_counter()) < deadline:
        for key, _ in selector.select(deadline - now):
            connection: Connection = key.data
            answer = connection.feed(connection.sock.recv(65536))
            if answer is None:
                continue
            if answer[0] != 200:
                raise OSError(f"{answer[0]}: {answer[2][:200]!r}")
            done += 1
            connection.sock.sendall(request)
    selector.close()
    return done / (time.perf_counter() - began)
