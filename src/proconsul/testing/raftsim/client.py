"""Clients of the simulated servers. What they did and saw becomes the history to be checked."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from proconsul.testing.linearizability import Kind, Operation
from proconsul.testing.raftsim.server import Answer, SimServer

if TYPE_CHECKING:
    from proconsul.testing.raftsim.world import World

RETRY_S = 0.05


class Client:
    """One call at a time, to whichever server it believes to be the leader."""

    def __init__(
        self, world: World, name: str, keys: int, pause_s: float, *, knowing: bool = False
    ) -> None:
        self._world, self._name, self._keys, self._pause_s = world, name, keys, pause_s
        self._target = ""
        self._seen: dict[str, str] = {}
        """The last value read or written per key, which a CAS expects."""
        self._serial = 0
        self._knowing = knowing
        """It knows who leads, writes to the latest leader and reads from any that believes to."""
        self._timeout_s = 0.3 if knowing else world.rng.choice([0.5, 1.5, 4.0])
        self.stopped = False
        self._next()

    def _next(self) -> None:
        if not self.stopped:
            self._world.time.after(self._world.rng.expovariate(1 / self._pause_s), self._begin)

    def _begin(self) -> None:
        if self.stopped:
            return
        rng = self._world.rng
        kind = rng.choices([Kind.READ, Kind.WRITE, Kind.CAS, Kind.DELETE], [8, 6, 5, 1])[0]
        _Attempt(self, kind, f"k{rng.randrange(self._keys)}").send()

    def command(self, kind: Kind, key: str) -> tuple[bytes, object]:
        """(the log entry, the argument for the history); values are unique."""
        self._serial += 1
        new = f"{self._name}.{self._serial}"
        match kind:
            case Kind.CAS:
                old = self._seen.get(key, "")
                return f"cas {key} {old} {new}".encode(), (old or None, new)
            case Kind.DELETE:
                return f"set {key}  ".encode(), None
            case _:
                return f"set {key}  {new}".encode(), new

    def target(self, kind: Kind) -> SimServer:
        """Where to send the next try."""
        servers = self._world.servers
        if self._knowing and (leaders := self._world.leaders()):
            if kind is Kind.READ:
                return self._world.rng.choice(leaders)
            return max(leaders, key=lambda server: server.core.state.term)
        if self._target not in servers:
            self._target = self._world.rng.choice(list(servers))
        return servers[self._target]

    def turn_to(self, leader: str) -> None:
        """Believe a hint; without one, try anybody."""
        self._target = leader

    def done(self, operation: Operation, *, keep: bool) -> None:
        """The operation ended, one way or the other."""
        if keep:
            self._world.history.append(operation)
            if operation.returned is not None:
                self._learn(operation)
        self._next()

    def _learn(self, operation: Operation) -> None:
        value: object = None
        match operation.kind:
            case Kind.READ:
                value = operation.result
            case Kind.WRITE:
                value = operation.argument
            case Kind.CAS:
                assert isinstance(operation.argument, tuple)
                if not operation.result:
                    return
                value = operation.argument[1]
            case Kind.DELETE:
                value = None
        self._seen[operation.key] = str(value) if value is not None else ""

    @property
    def name(self) -> str:
        """In the history."""
        return self._name

    @property
    def world(self) -> World:
        """Where it lives."""
        return self._world

    @property
    def timeout_s(self) -> float:
        """How long it waits for an operation, over all tries."""
        return self._timeout_s


class _Attempt:
    """One operation, tried until it is answered, undecided or out of time."""

    def __init__(self, client: Client, kind: Kind, key: str) -> None:
        self._client, self._kind, self._key = client, kind, key
        self._data, self._argument = client.command(kind, key)
        if kind is Kind.READ:
            self._argument = None
        self._called = client.world.time.now
        self._deadline = self._called + client.timeout_s
        self._tries = 0
        self._ended = False
        client.world.time.after(client.timeout_s, self._timed_out)
        self._open = False
        """A try is under way, so a time-out leaves the outcome unknown."""

    def send(self) -> None:
        """Try."""
        if self._ended:
            return
        world, server = self._client.world, self._client.target(self._kind)
        self._tries += 1
        self._open = True
        for delay in world.network.transit_s(self._client.name, server.name)[:1]:
            world.time.after(delay, partial(self._arrive, server, self._tries))

    def _arrive(self, server: SimServer, number: int) -> None:
        time = self._client.world.time
        answer = partial(self._answer, server, number)
        if not server.life.alive:
            answer(Answer(False))  # connection refused
        elif server.life.paused_until > time.now:
            arrive = partial(self._arrive, server, number)
            time.at(server.life.paused_until, server.life, arrive)
        elif self._kind is Kind.READ:
            server.read(self._key, answer)
        else:
            server.propose(self._data, answer)

    def _answer(self, server: SimServer, number: int, answer: Answer) -> None:
        world = self._client.world
        for delay in world.network.transit_s(server.name, self._client.name)[:1]:
            world.time.after(delay, partial(self._returned, number, answer))

    def _returned(self, number: int, answer: Answer) -> None:
        if self._ended or number != self._tries:
            return
        self._open = False
        if answer.ok is False:
            self._client.turn_to(answer.leader)
            self._client.world.time.after(RETRY_S, self.send)
        elif answer.ok is None:
            self._end(None, known=False, keep=True)
        else:
            self._end(answer.result, known=True, keep=True)

    def _timed_out(self) -> None:
        if not self._ended:
            self._client.turn_to("")
            self._end(None, known=False, keep=self._open)

    def _end(self, result: object, *, known: bool, keep: bool) -> None:
        self._ended = True
        if self._kind is Kind.READ:
            keep = keep and known
            result = result.decode() if isinstance(result, bytes) else result
        elif self._kind is not Kind.CAS:
            result = None
        operation = Operation(
            self._client.name, self._key, self._kind, self._argument, result, self._called,
            self._client.world.time.now if known else None,
        )  # fmt: skip
        self._client.done(operation, keep=keep)
