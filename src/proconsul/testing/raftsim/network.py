"""The network between simulated servers: delay, loss, duplication, reordering, cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from proconsul.core.raft.types import Channel, Reply, Role, Send
from proconsul.testing.raftsim.clock import Life, Timeline
from proconsul.wire.raft import InstallSnapshotRequest, Request, Response, encode_configuration

if TYPE_CHECKING:
    from proconsul.testing.raftsim.disk import Image
    from proconsul.testing.raftsim.invariants import Invariants
    from proconsul.testing.raftsim.server import SimServer
    from proconsul.util.clock import Rng


class _Call:
    """One request on its way, and its one answer."""

    __slots__ = ("answered", "image", "life", "request", "send", "source")

    def __init__(
        self, source: SimServer, send: Send, request: Request, image: Image | None
    ) -> None:
        self.source, self.life = source, source.life
        self.send, self.request, self.image = send, request, image
        self.answered = False


class Network:
    """Carries requests and answers. `servers` is filled by the world."""

    def __init__(self, time: Timeline, rng: Rng, checks: Invariants) -> None:
        self._time, self._rng, self._checks = time, rng, checks
        self.servers: dict[str, SimServer] = {}
        self.cut: set[tuple[str, str]] = set()
        """(from, to): one direction each."""
        self.loss = self.duplication = 0.0
        """Probability per message."""
        self.stragglers = 0.02
        """Probability that a message takes twenty times as long."""
        self.slow_links: dict[tuple[str, str], float] = {}
        """Seconds that a direction takes longer."""
        self.ordered = rng.random() < 0.5
        """Whether appends arrive in order, as on one connection."""
        self.rpc_timeout_s = rng.choice([0.3, 0.8, 2.0])
        self._last_arrival: dict[tuple[str, str], float] = {}

    def send(self, source: SimServer, items: Iterable[Send | Reply]) -> None:
        """Take what a server's machine sends."""
        for item in items:
            if isinstance(item, Send):
                self._request(source, item)
            else:
                assert isinstance(item.token, _Call)
                self._answer(item.token, item.response)

    def push_snapshot(self, source: SimServer, target: str) -> None:
        """A leader may send its snapshot at any time, needed or not; ours waits for no answer."""
        state, image = source.core.state, source.disk.image
        if image is not None and state.role is Role.LEADER and target != source.name:
            send = Send(0, target, target, None, Channel.SNAPSHOT)
            self._request(source, send)

    def transit_s(self, source: str, target: str) -> list[float]:
        """After how long a message arrives: once, twice or never."""
        rng, path = self._rng, (source, target)
        if path in self.cut or (self.loss and rng.random() < self.loss):
            return []
        delays = [self._delay(path)]
        if self.duplication and rng.random() < self.duplication:
            delays.append(self._delay(path) + rng.uniform(0, 0.5))
        return delays

    def _delay(self, path: tuple[str, str]) -> float:
        delay = 0.0005 + 0.01 * self._rng.random()
        if self._rng.random() < self.stragglers:
            delay *= 20
        return delay + self.slow_links.get(path, 0.0) if self.slow_links else delay

    def _request(self, source: SimServer, send: Send) -> None:
        request, image = send.request, None
        if send.channel is Channel.SNAPSHOT:
            image = source.disk.image
            assert image is not None, "a snapshot is sent that does not exist"
            request = _install(source, image)
        assert request is not None
        self._checks.requested(source, request)
        call = _Call(source, send, request, image)
        self._time.at(
            self._time.now + self.rpc_timeout_s, call.life, partial(self._end, call, None)
        )
        path = (source.name, send.server_id)
        for delay in self.transit_s(*path):
            when = self._time.now + delay
            if self.ordered and send.channel is Channel.PIPELINE:
                when = self._last_arrival[path] = max(when, self._last_arrival.get(path, 0.0))
            self._time.at(when, self._time.world, partial(self._arrive, call))

    def _arrive(self, call: _Call) -> None:
        target = self.servers.get(call.send.server_id)
        if target is None or not target.life.alive:
            return
        self._when_running(target.life, partial(target.serve, call, call.request, call.image))

    def _when_running(self, life: Life, action: Callable[[], None]) -> None:
        """What reaches a paused process waits in its socket."""
        if life.paused_until > self._time.now:
            self._time.at(life.paused_until, life, action)
        else:
            action()

    def _answer(self, call: _Call, response: Response | None) -> None:
        target = self.servers[call.send.server_id]
        if response is not None:
            self._checks.answered(target, call.request, response)
        for delay in self.transit_s(call.send.server_id, call.source.name):
            self._time.at(self._time.now + delay, call.life, partial(self._end, call, response))

    def answer(self, token: object, response: Response) -> None:
        """The answer to an InstallSnapshot that the machine left to its driver."""
        assert isinstance(token, _Call)
        self._answer(token, response)

    def _end(self, call: _Call, response: Response | None) -> None:
        if call.answered:
            return
        call.answered = True
        snapshot_index = call.image.meta.index if call.image is not None else None
        call.source.answered(call.send.rid, response, snapshot_index)


def _install(source: SimServer, image: Image) -> InstallSnapshotRequest:
    meta, state = image.meta, source.core.state
    return InstallSnapshotRequest(
        state.term, state.candidate_name, meta.index, meta.term,
        encode_configuration(meta.configuration), meta.configuration_index, 0,
    )  # fmt: skip
