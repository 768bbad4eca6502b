"""What one Envoy has, wants and is owed: the delta xDS protocol without gRPC.

Follows envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol (incremental xDS). Everything that
changes a stream's state is in this file; `server` feeds it requests and snapshots, and sends what
`poll` returns.

Make before break: clusters are added and changed first, then endpoints, then listeners, and
clusters that are gone go last. A type has at most one unanswered response, so a burst of changes
is sent as one. Listeners wait until Envoy has the endpoints of the clusters they lead to, but not
for ever.

After a NACK nothing is repeated: what was refused counts as sent until it changes, and clusters
that a refused listener may still lead to are not taken away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from proconsul.mesh.resources import CLUSTER, ENDPOINT, LISTENER, Resource, ResourceSet
from proconsul.util.errors import WireError

NAMES_MAX = 100_000
"""Bound of the names that one stream may subscribe to, per type."""
TYPES_MAX = 16
LISTENER_WAIT_S_MAX = 1.0
WILDCARD = "*"


@dataclass(frozen=True, slots=True)
class Request:
    """A DeltaDiscoveryRequest, without its node."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None
    """Why Envoy refused the response `nonce`; None if it did not."""


@dataclass(frozen=True, slots=True)
class Response:
    """A DeltaDiscoveryResponse."""

    type_url: str
    nonce: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Envoy's NACK: its reason, and what it was about. For the log."""

    type_url: str
    reason: str
    names: tuple[str, ...]


@dataclass(slots=True)
class _Type:
    """One resource type of a stream."""

    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    sent: dict[str, str] = field(default_factory=dict)
    """Name -> version, of what Envoy has or was offered."""
    absent: set[str] = field(default_factory=set)
    """Subscribed by name and known by Envoy not to exist."""
    in_flight: Response | None = None
    answered: bool = False
    """Whether Envoy knows what there is: its start waits (15 s) for an answer, though it be empty."""
    refused: bool = False
    """Whether the last answered response was refused."""

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names

    def owed(self, target: Mapping[str, Resource]) -> list[Resource]:
        """What is new or changed, sorted by name."""
        names: Iterable[str] = target if self.wildcard else self.names & target.keys()
        return [target[n] for n in sorted(names) if self.sent.get(n) != target[n].version]

    def gone(self, target: Mapping[str, Resource]) -> list[str]:
        """What Envoy has or asked for by name, and what does not exist."""
        missing = self.names - target.keys() - self.absent
        return sorted(missing | (self.sent.keys() - target.keys()))


class Subscriptions:
    """The state of one ADS stream. `now` is on any monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._types: dict[str, _Type] = {}
        self._target: ResourceSet | None = None
        self._last_nonce = 0
        self._listener_deadline: float | None = None

    def update(self, target: ResourceSet) -> None:
        """The proxy shall have exactly these resources."""
        self._target = target

    def handle(self, request: Request) -> Refusal | None:
        """Take a request; returns what Envoy refused, if the request says so.

        Raises `WireError` if the peer exceeds a bound.
        """
        state = self._types.get(request.type_url)
        first = state is None
        if state is None:
            if len(self._types) >= TYPES_MAX:
                raise WireError(f"more than {TYPES_MAX} resource types on one stream")
            state = self._types[request.type_url] = _Type()
            if len(request.initial_versions) > NAMES_MAX:
                raise WireError(f"more than {NAMES_MAX} initial resource versions")
            state.sent.update(request.initial_versions)
            state.answered = bool(request.initial_versions)
            # No names at all in the first request mean all of them, for these two types alone.
            state.wildcard = not request.subscribe and request.type_url in {CLUSTER, LISTENER}
        self._subscribe(state, request, first)
        return self._answered(state, request)

    def _subscribe(self, state: _Type, request: Request, first: bool) -> None:
        for name in request.subscribe:
            if name == WILDCARD:
                state.wildcard = True
                continue
            state.names.add(name)
            state.absent.discard(name)
            # Subscribing again asks for the resource again: Envoy does so for a cluster's
            # endpoints when it builds the cluster anew.
            if not first:
                state.sent.pop(name, None)
        for name in request.unsubscribe:
            if name == WILDCARD:
                state.wildcard = False
                continue
            state.names.discard(name)
            state.absent.discard(name)
            if not state.wildcard:
                state.sent.pop(name, None)
        if len(state.names) > NAMES_MAX:
            raise WireError(f"more than {NAMES_MAX} names subscribed to of {request.type_url}")

    def _answered(self, state: _Type, request: Request) -> Refusal | None:
        response = state.in_flight
        if response is None or request.nonce != response.nonce:
            return None
        state.in_flight = None
        state.refused = request.error is not None
        if request.error is None:
            return None
        names = tuple(resource.name for resource in response.resources) + response.removed
        return Refusal(request.type_url, request.error, names)

    def get_timer(self) -> float | None:
        """When `poll` has to be called again even if nothing happens."""
        return self._listener_deadline

    def poll(self, now: float) -> list[Response]:
        """What can be sent now, in this order."""
        if self._target is None:
            return []
        responses = [
            self._offer(CLUSTER, removals=False),
            self._offer(ENDPOINT, removals=False),
        ]
        if self._listeners_may_go(now):
            responses.append(self._offer(LISTENER, removals=True))
            if self._settled(LISTENER):
                responses.append(self._offer(CLUSTER, removals=True))
        # Types that nothing is served of still learn that what they asked for is not there.
        others = sorted(self._types.keys() - {CLUSTER, ENDPOINT, LISTENER})
        responses += [self._offer(type_url, removals=True) for type_url in others]
        return [response for response in responses if response is not None]

    def _offer(self, type_url: str, *, removals: bool) -> Response | None:
        """The next response of a type, now in flight; None if there is none or one is in flight.

        Endpoints are never removed by themselves: Envoy drops them together with their cluster.
        """
        state = self._types.get(type_url)
        if state is None or state.in_flight is not None or self._target is None:
            return None
        target = self._target.of_type(type_url)
        owed = state.owed(target)
        gone = state.gone(target) if removals else []
        if not owed and not gone and (state.answered or not state.wildcard):
            return None
        state.answered = True
        if type_url == CLUSTER:
            self._expect_endpoints_again(owed, state)
        state.sent.update((resource.name, resource.version) for resource in owed)
        for name in gone:
            state.sent.pop(name, None)
        state.absent.update(state.names.intersection(gone))
        self._last_nonce += 1
        response = Response(type_url, f"{self._last_nonce:08x}", tuple(owed), tuple(gone))
        state.in_flight = response
        return response

    def _expect_endpoints_again(self, clusters: list[Resource], state: _Type) -> None:
        """A cluster that changes is warmed anew, for which Envoy waits for its endpoints."""
        endpoints = self._types.get(ENDPOINT)
        if endpoints is None:
            return
        for cluster in clusters:
            if cluster.name in state.sent:
                endpoints.sent.pop(cluster.name, None)

    def _settled(self, type_url: str) -> bool:
        """Nothing in flight, nothing owed, the last response accepted. So is an unused type."""
        state = self._types.get(type_url)
        if state is None or self._target is None:
            return True
        owed = state.owed(self._target.of_type(type_url))
        return state.in_flight is None and not state.refused and not owed

    def _listeners_may_go(self, now: float) -> bool:
        """Whether every endpoint that Envoy should have is there, or has taken too long."""
        listeners, clusters = self._types.get(LISTENER), self._types.get(CLUSTER)
        if listeners is None or clusters is None or self._target is None:
            return True
        target = self._target.of_type(LISTENER)
        if not listeners.owed(target) and not listeners.gone(target):
            # Removing clusters still waits for their listeners to be settled.
            self._listener_deadline = None
            return True
        if self._endpoints_known(clusters):
            self._listener_deadline = None
            return True
        if self._listener_deadline is None:
            self._listener_deadline = now + LISTENER_WAIT_S_MAX
        if now < self._listener_deadline:
            return False
        self._listener_deadline = None
        return True

    def _endpoints_known(self, clusters: _Type) -> bool:
        assert self._target is not None
        if clusters.in_flight is not None or clusters.owed(self._target.clusters):
            return False
        endpoints = self._types.get(ENDPOINT)
        if endpoints is None:
            return not self._target.endpoints
        return endpoints.in_flight is None and all(
            endpoints.sent.get(name) == resource.version
            for name, resource in self._target.endpoints.items()
            if clusters.wants(name)
        )
