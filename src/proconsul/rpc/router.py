"""Which server of which datacenter a call goes to.

Follows Consul's `agent/router`: a `ServerList` (its Manager) per area and datacenter, whose first
server gets the calls; one that fails goes to the end; from time to time the order is drawn anew, at
intervals that grow with the cluster, so that clients spread over the servers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from statistics import median

from proconsul.rpc.server_meta import ServerMeta
from proconsul.util.clock import Rng

log = logging.getLogger("proconsul.router")

AREA_LAN, AREA_WAN = "lan", "wan"

REUSE_S_MIN = 120.0
"""A client stays with a server at least so long, and up to half as long again."""
REUSE_JITTER_FRACTION = 2
NEW_CONNECTIONS_PER_S_PER_SERVER = 64
"""Rebalancing of a whole cluster must not cost a server more connections than this."""

Ping = Callable[[ServerMeta], Awaitable[bool]]


class ServerList:
    """The servers of one datacenter in one area, in the order in which they are tried."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._servers: list[ServerMeta] = []
        self.offline = True
        """No server is known, or none answered when the order was last drawn."""

    def __len__(self) -> int:
        return len(self._servers)

    def add(self, server: ServerMeta) -> None:
        """Append, or replace what is known under that name."""
        for index, known in enumerate(self._servers):
            if known.name == server.name:
                self._servers[index] = server
                break
        else:
            self._servers.append(server)
        self.offline = False

    def remove(self, name: str) -> None:
        """Forget a server."""
        self._servers = [server for server in self._servers if server.name != name]

    def fail(self, name: str) -> None:
        """Move a server to the end, if it is the one in use."""
        if len(self._servers) > 1 and self._servers[0].name == name:
            self._servers.append(self._servers.pop(0))
            log.debug("cycled away from server: server=%s", name)

    def first(self) -> ServerMeta | None:
        """The server to use; None if none is known."""
        return self._servers[0] if self._servers else None

    def all(self) -> list[ServerMeta]:
        """Every server, the one in use first."""
        return list(self._servers)

    async def rebalance(self, ping: Ping) -> None:
        """Draw a new order, led by a server that answers."""
        order = list(self._servers)
        self._rng.shuffle(order)
        leader: ServerMeta | None = None
        for server in order:
            if await ping(server):
                leader = server
                break
        self.offline = leader is None
        if leader is None:
            log.debug("No healthy servers during rebalance, aborting")
            return
        # Members may have come and gone while we pinged.
        known = {server.name: server for server in self._servers}
        if leader.name not in known:
            return
        ahead = order[: order.index(leader)]
        names = [server.name for server in order[len(ahead) :] + ahead]
        drawn = [known.pop(name) for name in names if name in known]
        self._servers = [*drawn, *known.values()]
        log.debug(
            "Rebalanced servers, new active server: number_of_servers=%d active_server=%s",
            len(self._servers), leader.name,
        )  # fmt: skip


def rebalance_interval_s(servers: int, nodes: int, rng: Rng) -> float:
    """Seconds until the order is drawn again, in a cluster of so many servers and nodes.

    At least 120-180 s, and so that a server sees no more than 64 new connections a second.
    """
    longest = nodes / max(1, servers * NEW_CONNECTIONS_PER_S_PER_SERVER)
    return max(longest, REUSE_S_MIN + rng.uniform(0, REUSE_S_MIN / REUSE_JITTER_FRACTION))


class Router:
    """Servers by area and datacenter. Fed by Serf's events; asked by whoever makes calls."""

    def __init__(self, local_datacenter: str, rng: Rng) -> None:
        self._local_datacenter, self._rng = local_datacenter, rng
        self._areas: dict[str, dict[str, ServerList]] = {}

    def add_area(self, area: str, servers: Iterable[ServerMeta] = ()) -> None:
        """Begin an area (LAN, WAN), with what is known already."""
        self._areas.setdefault(area, {})
        for server in servers:
            self.add_server(area, server)

    def remove_area(self, area: str) -> None:
        """End an area."""
        self._areas.pop(area, None)

    def add_server(self, area: str, server: ServerMeta) -> None:
        """A server joined, or changed."""
        lists = self._areas.setdefault(area, {})
        if server.datacenter not in lists:
            lists[server.datacenter] = ServerList(self._rng)
        lists[server.datacenter].add(server)

    def remove_server(self, area: str, server: ServerMeta) -> None:
        """A server left."""
        lists = self._areas.get(area, {})
        if (servers := lists.get(server.datacenter)) is not None:
            servers.remove(server.name)
            if not servers:
                del lists[server.datacenter]

    def fail_server(self, area: str, server: ServerMeta) -> None:
        """A server is suspected or a call to it failed: prefer others, but remember it."""
        if (servers := self._areas.get(area, {}).get(server.datacenter)) is not None:
            servers.fail(server.name)

    def failed(self, server: ServerMeta) -> None:
        """`fail_server` in every area."""
        for area in self._areas:
            self.fail_server(area, server)

    def find_route(self, datacenter: str) -> ServerMeta | None:
        """The server to send calls for `datacenter` to, an unhealthy one if there is no other."""
        # The reference gives no server at all while a list is offline, until the next rebalance
        # minutes later; trying costs little and notices at once that the way is open again.
        for servers in sorted(self._lists(datacenter), key=lambda candidate: candidate.offline):
            if (server := servers.first()) is not None:
                return server
        return None

    def servers(self, datacenter: str) -> list[ServerMeta]:
        """All servers of a datacenter, in the order to try them, each once."""
        found: dict[str, ServerMeta] = {}
        for servers in self._lists(datacenter):
            for server in servers.all():
                found.setdefault(server.node, server)
        return list(found.values())

    def server_at(self, datacenter: str, address: tuple[str, int]) -> ServerMeta | None:
        """The server with that RPC address."""
        return next((s for s in self.servers(datacenter) if s.address == address), None)

    def has_datacenter(self, datacenter: str) -> bool:
        """Whether any server of it is known."""
        return bool(self._lists(datacenter))

    def datacenters(self) -> list[str]:
        """Every datacenter with a known server, sorted by name."""
        return sorted({name for lists in self._areas.values() for name in lists})

    def datacenters_by_distance(
        self, round_trip_s: Callable[[ServerMeta], float | None]
    ) -> list[str]:
        """Datacenters by the median of their servers' round trip times, our own first.

        Those whose distance is unknown come last; equals are sorted by name.
        """

        def distance(datacenter: str) -> tuple[float, str]:
            if datacenter == self._local_datacenter:
                return (-1.0, datacenter)
            known = [
                time for s in self.servers(datacenter) if (time := round_trip_s(s)) is not None
            ]
            return (median(known) if known else float("inf"), datacenter)

        return sorted(self.datacenters(), key=distance)

    async def rebalance(self, ping: Ping) -> None:
        """Draw the order of every list anew."""
        for lists in list(self._areas.values()):
            for servers in list(lists.values()):
                await servers.rebalance(ping)

    async def rebalance_forever(self, ping: Ping, nodes: Callable[[], int]) -> None:
        """The loop for a supervisor: rebalance at intervals that fit a cluster of `nodes()`."""
        while True:
            servers = len(self.servers(self._local_datacenter))
            await asyncio.sleep(rebalance_interval_s(servers, nodes(), self._rng))
            await self.rebalance(ping)

    def _lists(self, datacenter: str) -> list[ServerList]:
        return [lists[datacenter] for lists in self._areas.values() if datacenter in lists]
