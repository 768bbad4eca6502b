"""The endpoint table: what can be called, with which types, where it runs, what it requires.

A `Method` is known to servers and clients alike; an `Endpoint` binds it to a handler on a server.
No endpoint can exist without naming what it requires of the caller's token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from proconsul.domain.acl import Authorizer
from proconsul.util.errors import ProconsulError


class Route(Enum):
    """Which server answers."""

    HERE = auto()
    """Whoever is asked."""
    DATACENTER = auto()
    """Any server of the request's datacenter."""
    LEADER = auto()
    """The leader of the request's datacenter; any server there if the request allows stale."""
    PRIMARY = auto()
    """As LEADER, always in the primary datacenter."""


class Requires(Enum):
    """What the caller's token must grant; the handler asks the authorizer in detail."""

    NOTHING = "nothing"
    A_TOKEN = "a token that exists"
    NODE_READ = "node:read, by filtering"
    NODE_WRITE = "node:write and service:write of what is registered"
    SERVICE_READ = "service:read, by filtering"
    KEY_READ = "key:read, by filtering"
    KEY_WRITE = "key:write"
    OPERATOR_READ = "operator:read"
    OPERATOR_WRITE = "operator:write"
    SESSION_READ = "session:read, by filtering"
    SESSION_WRITE = "session:write"
    EVENT_WRITE = "event:write"
    ACL_READ = "acl:read"
    ACL_WRITE = "acl:write"
    INTENTION_READ = "intentions:read of source or destination, by filtering"
    INTENTION_WRITE = "intentions:write of the destination"
    KEYRING = "keyring:read or keyring:write"
    QUERY_READ = "query:read, by filtering"
    QUERY_WRITE = "query:write"
    LEAF = "service:write or node:write of whom a certificate is for"


class UnknownMethod(ProconsulError):
    """No such endpoint; the text is Go's net/rpc's."""


@dataclass(frozen=True, slots=True)
class Method:
    """The signature of an endpoint. `request` and `response` are msgpack types."""

    name: str
    request: Any
    response: Any
    route: Route
    is_read: bool = True
    datacenter_field: str = "datacenter"
    """The request's field that says where it is to be answered."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler gets beside its request."""

    authorizer: Authorizer
    source: tuple[str, int] | None
    """The caller's address; None if the call came from this very agent."""


Handler = Callable[[Any, Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method with its handler on this server."""

    method: Method
    requires: Requires
    handler: Handler
    prepare: Callable[[Any], Any] | None = None
    """The request as it is to be answered or forwarded, for what a route cannot say: on every
    server that it passes, before anything else. Raises what refuses it at once."""
    resolves: Callable[[Any], bool] | None = None
    """Whether a request's token is looked up at all; None: always. Some calls must be answered to
    tokens that do not exist (yet), or have another token as their very subject."""
    token_last: bool = False
    """Whether Consul says what else is wrong with a request before that there is no such token."""


class EndpointTable:
    """All endpoints of a server, by name. Immutable once built."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        for endpoint in endpoints:
            name = endpoint.method.name
            if name in self._endpoints:
                raise ValueError(f"endpoint {name} is defined twice")
            self._endpoints[name] = endpoint
        self._services = {name.partition(".")[0] for name in self._endpoints}

    def __getitem__(self, name: str) -> Endpoint:
        """The endpoint. Raises `UnknownMethod` with the text that Go's clients know."""
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            service, dot, _ = name.rpartition(".")
            if not dot:
                raise UnknownMethod(f"rpc: service/method request ill-formed: {name}")
            if service in self._services:
                raise UnknownMethod(f"rpc: can't find method {name}")
            raise UnknownMethod(f"rpc: can't find service {name}")
        return endpoint

    def __iter__(self) -> Any:
        return iter(self._endpoints.values())
