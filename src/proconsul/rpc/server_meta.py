"""What a Serf member's tags say about a server. Follows Consul's `agent/metadata/server.go`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from proconsul.rpc.dialer import Destination

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NUMBERS = frozenset({"expect", "wan_join_port", "raft_vsn"})
"""Tags that may be missing, but must be a number where they are not."""


@dataclass(frozen=True, slots=True)
class ServerMeta:
    """A server as its Serf tags describe it."""

    name: str
    """The Serf name: `<node>` in the LAN, `<node>.<datacenter>` in the WAN."""
    node: str
    datacenter: str
    address: tuple[str, int]
    """RPC address."""
    id: str = ""
    segment: str = ""
    build: str = ""
    version: int = 2
    raft_version: int = 0
    wan_join_port: int = 0
    bootstrap: bool = False
    expect: int = 0
    non_voter: bool = False
    use_tls: bool = False
    acls: str = ""
    feature_flags: Mapping[str, int] = field(default_factory=dict)
    segment_addresses: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def destination(self) -> Destination:
        """What to dial."""
        return Destination(self.datacenter, self.node, self.address)

    @property
    def build_tuple(self) -> tuple[int, int, int]:
        """The version of the software, for comparisons."""
        major, minor, patch = (int(part) for part in self.build.split("."))
        return (major, minor, patch)


def parse_server(name: str, address: str, tags: Mapping[str, str]) -> ServerMeta | None:
    """The server that a Serf member is; None if it is none, or its tags are malformed."""
    build = _VERSION.search(tags.get("build", ""))
    if tags.get("role") != "consul" or build is None:
        return None
    try:
        numbers = {key: int(tags[key]) for key in _NUMBERS if key in tags}
        features = {
            key.removeprefix("ft_"): int(value)
            for key, value in tags.items()
            if key.startswith("ft_")
        }
        segments = {
            key.removeprefix("sl_"): _host_port(value)
            for key, value in tags.items()
            if key.startswith("sl_")
        }
        port, version = int(tags["port"]), int(tags["vsn"])
    except (KeyError, ValueError):
        return None
    datacenter = tags.get("dc", "")
    return ServerMeta(
        name=name,
        node=name.removesuffix(f".{datacenter}"),
        datacenter=datacenter,
        address=(address, port),
        id=tags.get("id", ""),
        segment=tags.get("segment", ""),
        build=build[0],
        version=version,
        raft_version=numbers.get("raft_vsn", 0),
        wan_join_port=numbers.get("wan_join_port", 0),
        bootstrap="bootstrap" in tags,
        expect=numbers.get("expect", 0),
        non_voter="nonvoter" in tags,
        use_tls="use_tls" in tags,
        acls=tags.get("acls", ""),
        feature_flags=features,
        segment_addresses=segments,
    )


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return (host.strip("[]"), int(port))
