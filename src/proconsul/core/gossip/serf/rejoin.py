"""Coming back: to the nodes of the snapshot at start, to failed members every now and then."""

from __future__ import annotations

from proconsul.core.gossip.serf.node import SerfNode
from proconsul.core.gossip.serf.snapshot import parse_address
from proconsul.util.address import host_port
from proconsul.util.errors import WireError


class Rejoiner:
    """Joins on memberlist's level, of which the owner of the machine hears nothing."""

    def __init__(self, node: SerfNode) -> None:
        self._node = node
        self._untried: list[tuple[str, str]] = []
        self._rejoin_sid: int | None = None

    def start(self) -> None:
        """Try the nodes of the snapshot one after the other, in random order, until one answers."""
        own = self._node.config.node_name
        self._untried = [item for item in self._node.snapshot.alive.items() if item[0] != own]
        self._node.rng.shuffle(self._untried)
        self._try_next()

    def join_done(self, sid: int, error: str | None) -> None:
        """The end of an attempt of ours."""
        if sid != self._rejoin_sid:
            return
        self._rejoin_sid = None
        if error is None:
            self._untried.clear()
            self._node.log.info("re-joined through a previously known node")
            return
        self._try_next()
        if self._rejoin_sid is None:
            self._node.log.warning("failed to re-join any previously known node")

    def _try_next(self) -> None:
        node = self._node
        while self._untried and self._rejoin_sid is None:
            name, text = self._untried.pop()
            try:
                address = parse_address(text)
            except WireError as error:
                node.log.warning("snapshot: %s", error)
                continue
            node.log.info("attempting re-join to previously known node %s: %s", name, text)
            self._rejoin_sid = node.memberlist.join(name, address, node.now)

    def reconnect(self) -> None:
        """Maybe try one failed member, such that the cluster tries each once per interval."""
        node = self._node
        failed = node.roster.failed()
        if not failed:
            return
        alive = len(node.roster) - len(failed) - node.roster.left_count
        if node.rng.random() > len(failed) / max(alive, 1):
            return
        member = node.rng.choice(failed)
        node.log.info("attempting reconnect to %s %s", member.name, host_port(member.address))
        node.memberlist.join(member.name, member.address, node.now)
