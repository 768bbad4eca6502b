"""Bounds of the HTTP server. Consul has names for few of them; the rest are our defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds on what a client may send, hold and delay."""

    header_bytes_max: int = 64 * 1024
    headers_max: int = 200
    body_bytes_max: int = 8 << 20
    spooled_bytes_max: int = 64 << 30
    """Of a body that is kept in a temporary file, where the disk has room for it."""
    spools_max: int = 2
    """Such bodies at once; more are refused."""
    pipeline_max: int = 16
    """Requests read ahead on one connection before reading stops."""
    connections_max: int = 16_384
    connections_per_client_max: int = 200
    header_timeout_s: float = 10.0
    """From the first byte of a request to the end of its headers."""
    body_timeout_s: float = 60.0
    """For a body, or for the next 256 KiB of one that is kept in a temporary file."""
    idle_timeout_s: float = 300.0
    write_timeout_s: float = 60.0
    """How long a client may leave our answer unread once the socket's buffers are full."""
    half_close_grace_s: float = 5.0
    """A client that closed its side may still want the answer (`nc`), or may be gone: how long a
    request that was not answered at once goes on."""
