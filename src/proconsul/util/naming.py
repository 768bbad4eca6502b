"""Python attribute names <-> Go field names.

Every wire struct keeps Python names and passes `rename=go_name` to msgspec, so that the wire name
is stated once, by rule, and by exception only where Go's own source is irregular.
"""

from __future__ import annotations

from functools import cache

_INITIALISMS = frozenset(
    {
        "acl", "api", "ca", "dns", "grpc", "http", "https", "id", "ip", "ids", "kv", "lan", "rpc",
        "rtt", "sni", "tcp", "tls", "ttl", "udp", "ui", "uri", "url", "wan", "pem", "cas", "asn",
    }
)  # fmt: skip
_PLURAL = {"ids": "IDs"}
_IRREGULAR = {"grpc": "GRPC"}


@cache
def go_name(name: str) -> str:
    """`service_id` -> `ServiceID`, `deregister_critical_service_after` -> `Deregister...After`.

    A trailing underscore, which keeps a field off a Python keyword (`from_`), is dropped.
    """
    return "".join(
        _PLURAL.get(part) or _IRREGULAR.get(part)
        or (part.upper() if part in _INITIALISMS else part[:1].upper() + part[1:])
        for part in name.rstrip("_").split("_")
    )  # fmt: skip
