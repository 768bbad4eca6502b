"""`rtt`: the round trip between two nodes, estimated from coordinates (`command/rtt`)."""

from __future__ import annotations

from typing import Any

from proconsul.config.goflags import Parsed, bool_flag
from proconsul.interfaces.cli.client import Client
from proconsul.interfaces.cli.command import CLIENT_FLAGS, Command, CommandError, connect, err, out
from proconsul.util.goquote import go_quote

Pair = tuple[dict[str, Any] | None, dict[str, Any] | None]


def _run(parsed: Parsed) -> int:
    nodes = list(parsed.args)
    if not 1 <= len(nodes) <= 2:
        err(f"One or two node names must be specified\n\n{RTT.help()}")
        return 1
    client, wan = connect(parsed), parsed["wan"]
    if len(nodes) == 1:
        try:
            config = client.get("/v1/agent/self")["Config"]
        except CommandError as error:
            raise CommandError(f"Unable to look up agent info: {error}") from None
        own = config["NodeName"]
        nodes.append(f"{own}.{config['Datacenter']}" if wan else own)
    if wan and any(node.count(".") != 1 for node in nodes):
        raise CommandError("Node names must be specified as <node name>.<datacenter> with -wan")
    try:
        pair = _wan(client, nodes) if wan else _lan(client, nodes)
    except CommandError as error:
        raise CommandError(f"Error getting coordinates: {error}") from None
    for node, coordinate in zip(nodes, pair, strict=True):
        if coordinate is None:
            raise CommandError(f"Could not find a coordinate for node {go_quote(node)}")
    source = "WAN" if wan else "LAN"
    out(
        f"Estimated {nodes[0]} <-> {nodes[1]} rtt: {_distance_ms(*pair):.3f} ms "
        f"(using {source} coordinates)"
    )
    return 0


def _wan(client: Client, nodes: list[str]) -> Pair:
    """Coordinates of both in one area; across areas they cannot be compared."""
    wanted = [tuple(node.split(".")) for node in nodes]
    areas: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for datacenter in client.get("/v1/coordinate/datacenters") or ():
        area = areas.setdefault(datacenter["AreaID"], {})
        for entry in datacenter["Coordinates"] or ():
            area[entry["Node"], datacenter["Datacenter"]] = entry["Coord"]
    for area in areas.values():
        one, two = (area.get((node, dc)) for node, dc in wanted)
        if one is not None and two is not None:
            return one, two
    return None, None


def _lan(client: Client, nodes: list[str]) -> Pair:
    """Coordinates of both in one segment, of which a client's is the only one it is in."""
    sets: list[dict[str, dict[str, Any]]] = [{}, {}]
    for entry in client.get("/v1/coordinate/nodes") or ():
        for node, found in zip(nodes, sets, strict=True):
            if entry["Node"] == node:
                found[entry["Segment"]] = entry["Coord"]
    one, two = sets
    segment = next(iter(one), "") if len(one) == 1 else ""
    if len(two) == 1:
        segment = next(iter(two))
    return one.get(segment), two.get(segment)


def _distance_ms(one: dict[str, Any] | None, two: dict[str, Any] | None) -> float:
    from proconsul.core.gossip.serf.coordinate import Coordinate

    def position(view: dict[str, Any] | None) -> Coordinate:
        view = view or {}
        return Coordinate(tuple(view["Vec"]), view["Error"], view["Adjustment"], view["Height"])

    seconds = position(one).distance_to(position(two))
    return int(seconds * 1e9) / 1e6  # as Go, which keeps whole nanoseconds


RTT = Command(
    usage="""
Usage: proconsul rtt [options] node1 [node2]

  Estimates the round trip time between two nodes from their network coordinates;
  without a second one, between a node and the agent. With -wan the nodes are
  servers, named <node>.<datacenter>.""",
    run=_run,
    flags=(bool_flag("wan", "Use the servers' coordinates in the WAN pool."), *CLIENT_FLAGS),
)
