"""Requests to the agents of a world of namespaces, many at once: for load that is measured.

Asynchronous, unlike the rest of the worlds: one slow answer must not keep the next request waiting.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from proconsul.app.worlds import netns
from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.spec import Host

ANSWER_BYTES_MAX = 1 << 20


class NotSentError(OSError):
    """There was no connection: nobody has seen the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent answered."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


class Traffic:
    """Requests from within each host to its own agent, each on a connection of its own."""

    def __init__(self, network: NetnsNetwork, token: str = "") -> None:
        self._network = network
        self._token = f"X-Consul-Token: {token}\r\n" if token else ""

    async def request(
        self, host: Host, method: str, path: str, body: bytes = b"", timeout_s: float = 10.0
    ) -> Answer:
        """One request.

        Raises `NotSentError`; and where it is unknown what became of the request, other `OSError`s,
        of which `TimeoutError` is one.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        with netns.entered(self._network.namespace(host)):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with sock:
            try:
                async with asyncio.timeout_at(deadline):
                    await loop.sock_connect(sock, self._network.ports(host).http)
            except OSError as error:
                raise NotSentError(f"{host.name}: {error or 'timeout'}") from error
            head = f"{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n"
            head += f"{self._token}Content-Length: {len(body)}\r\n\r\n"
            async with asyncio.timeout_at(deadline):
                await loop.sock_sendall(sock, head.encode() + body)
                data = b""
                while piece := await loop.sock_recv(sock, 65536):
                    data += piece
                    if len(data) > ANSWER_BYTES_MAX:
                        raise OSError(f"{host.name}: the answer to {path} is too large")
        return _parsed(host, data)


def _parsed(host: Host, data: bytes) -> Answer:
    head, found, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    length = headers.get("content-length", "")
    if not found or not length.isdecimal() or len(body) != int(length):
        raise OSError(f"{host.name}: the connection ended within an answer: {data[:80]!r}")
    return Answer(int(first.split()[1]), headers, body)
