"""Where the servers of all datacenters lie in the WAN's coordinates (`Router.GetDatacenterMaps`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from proconsul.core.gossip.serf import Coordinate, Member, MemberStatus
from proconsul.domain import coordinate as co
from proconsul.drivers.gossip.pool import GossipPool
from proconsul.rpc.server_meta import ServerMeta
from proconsul.services.server.reconcile import server_of


def datacenter_maps(
    members: Iterable[Member], positions: Mapping[str, Coordinate]
) -> list[co.DatacenterMap]:
    """By datacenter; without servers that left, or whose position is not known yet."""
    found: dict[str, list[co.NodeCoordinate]] = {}
    for member in sorted(members, key=lambda member: member.name):
        server, position = server_of(member), positions.get(member.name)
        if server is None or position is None or member.status is MemberStatus.LEFT:
            continue
        coord = co.Coordinate(
            list(position.vec), position.error, position.adjustment, position.height
        )
        row = co.NodeCoordinate(node=server.node, coord=coord)
        found.setdefault(server.datacenter, []).append(row)
    return [co.DatacenterMap(datacenter=dc, coordinates=found[dc]) for dc in sorted(found)]


def wan_maps(wan: GossipPool) -> list[co.DatacenterMap]:
    """The maps of a WAN pool, this server's own coordinate included."""
    positions = wan.coordinates()
    if (here := wan.coordinate()) is not None:
        positions[wan.local().name] = here
    return datacenter_maps(wan.members(), positions)


def round_trip_s(wan: GossipPool, server: ServerMeta) -> float | None:
    """The estimated round trip to a server of the pool, in seconds; None if it is not known."""
    here = wan.coordinate()
    there = wan.coordinates().get(f"{server.node}.{server.datacenter}")
    return None if here is None or there is None else here.distance_to(there)
