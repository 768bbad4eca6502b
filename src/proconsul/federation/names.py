"""Names in a federation: WAN node names and the SNI names that gateways route by.

WAN pool members are called `<node>.<datacenter>`. They are split at the *last* dot, so that dotted
node names work; Consul 1.8.7 demands exactly one dot (docs/divergence.md).
"""

from __future__ import annotations

from proconsul.util.errors import ProconsulError

ANY_NODE = "*"
"""The node part of the placeholder `*.<primary>`: any server of that datacenter."""

PLACEHOLDER_ADDRESS = ("192.0.2.2", 8302)
"""TEST-NET-1 (RFC 5737): stands for "through a gateway" and is never dialled."""


class NodeNameError(ProconsulError):
    """A WAN node name without a datacenter."""


def split_wan_name(name: str) -> tuple[str, str]:
    """`"s1.dc2"` -> `("s1", "dc2")`."""
    node, dot, datacenter = name.rpartition(".")
    if not dot or not node or not datacenter:
        raise NodeNameError(f"node name does not encode a datacenter: {name!r}")
    return node, datacenter


def server_name(node: str, datacenter: str, domain: str) -> str:
    """The SNI and certificate name of one server, or of any for `ANY_NODE` and the empty name."""
    suffix = f"server.{datacenter}.{domain.rstrip('.')}"
    return suffix if node in ("", ANY_NODE) else f"{node}.{suffix}"


def wan_join_address(datacenter: str) -> str:
    """What the WAN pool joins of a datacenter: a placeholder that its transport takes for a gateway."""
    host, port = PLACEHOLDER_ADDRESS
    return f"{ANY_NODE}.{datacenter}/{host}:{port}"
