"""What is logged of a failed request, in the form of Consul's `wrap` (`agent/http.go`) and hclog.

Tokens are hidden wherever they stand, also those that came escaped.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from proconsul.drivers.http.message import Request
from proconsul.util.address import host_port

_HIDDEN = "<hidden>"
_SECRET_IN_PATH = re.compile(r"^(/v1/acl/(?:create|update|destroy|info|clone|list)/)[^?]+")
"""Legacy tokens are named by their secrets."""
_SPACE = re.compile(r"[ \t\n\r]")


def failed_request(request: Request, reason: str) -> str:
    """The line about a request that failed for `reason`."""
    return (
        f"Request error: method={request.method} url={shown_url(request.target)}"
        f" from={_shown(_peer(request))} error={_shown(reason)}"
    )


def shown_url(target: bytes) -> str:
    """A request's target without its secrets."""
    url, _, _ = target.partition(b"#")[0].decode("latin-1").partition(" ")
    path, mark, query = url.partition("?")
    parts, tokens = re.split(r"([&;])", query), set[str]()
    for index, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if unquote_plus(key) == "token":
            tokens |= {value, unquote_plus(value)}
            parts[index] = f"{key}{equals}{_HIDDEN}"
    shown = _SECRET_IN_PATH.sub(rf"\1{_HIDDEN}", path) + mark + "".join(parts)
    for token in sorted(tokens - {""}, key=len, reverse=True):
        shown = _HIDDEN.join(piece.replace(token, _HIDDEN) for piece in shown.split(_HIDDEN))
    return shown


def _peer(request: Request) -> str:
    """Of clients on a Unix socket Go says `@`."""
    return host_port(request.peer) if request.peer[0] else "@"


def _shown(value: str) -> str:
    """As hclog prints a value: in quotes if there is space in it, which it does not escape."""
    return f'"{value}"' if _SPACE.search(value) else value
