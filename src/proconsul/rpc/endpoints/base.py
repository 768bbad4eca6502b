"""What endpoints are given: the server's state, its log, and the ways reads are answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from proconsul.domain.acl import Authorizer
from proconsul.domain.errors import DomainError
from proconsul.domain.messages import MessageType
from proconsul.domain.options import QueryMeta, QueryOptions
from proconsul.rpc.blocking import BlockingLimits, block, wait_s
from proconsul.rpc.shared_reads import SharedReads
from proconsul.state.store import Store
from proconsul.state.watch import Answer
from proconsul.util.clock import Rng
from proconsul.util.metrics import Metrics

T = TypeVar("T")
M = TypeVar("M", bound=QueryMeta)


class EndpointServer(Protocol):
    """The server that endpoints run on. Implemented by `services.server`."""

    @property
    def datacenter(self) -> str: ...

    @property
    def store(self) -> Store: ...

    @property
    def metrics(self) -> Metrics: ...

    @property
    def rng(self) -> Rng: ...

    @property
    def blocking_limits(self) -> BlockingLimits: ...

    @property
    def key_list_policy(self) -> bool:
        """Whether keys are listed for who has the right to list them only."""
        ...

    def lock_delayed(self, key: str) -> bool:
        """Whether a key must not be locked yet, since its last holder's session was invalidated."""
        ...

    def contact(self) -> tuple[bool, int]:
        """(is a leader known, nanoseconds since we heard from it; 0 on the leader itself)."""
        ...

    async def consistent_read(self) -> None:
        """Return once we are proved to be the leader and have applied all before. Raises."""
        ...

    async def apply(self, type_: MessageType, request: Any, *, may_ignore: bool = False) -> Any:
        """Commit a command; the FSM's result, of which an error is raised."""
        ...


class Sharing(NamedTuple):
    """Beside its fields, what makes two requests one question."""

    reads: SharedReads
    method: str
    authorizer: Authorizer

    def of(
        self,
        store: Store,
        options: QueryOptions,
        query: Callable[[], Answer[T]],
        build: Callable[[T], dict[str, Any]],
    ) -> Callable[[], Answer[dict[str, Any]]]:
        """`query` and `build` as one query, evaluated once for all who share it."""

        def evaluate() -> Answer[dict[str, Any]]:
            index, value, watch = query()
            return Answer(index, build(value), watch)

        return lambda: self.reads.shared(store, self.method, options, self.authorizer, evaluate)


class RequestError(DomainError):
    """A request that makes no sense; the text is Consul's."""


def meta(server: EndpointServer, index: int) -> dict[str, Any]:
    """The fields of `QueryMeta` for an answer given now."""
    known_leader, last_contact_ns = server.contact()
    return {"index": index, "known_leader": known_leader, "last_contact_ns": last_contact_ns}


async def read(
    server: EndpointServer,
    options: QueryOptions,
    query: Callable[[], Answer[T]],
    build: Callable[[T], dict[str, Any]],
    response: type[M],
    sharing: Sharing | None = None,
) -> M:
    """Answer a possibly blocking query; `build` gives the response's fields from the value.

    With `sharing`, all who ask the same share what `query` and `build` give.
    """
    server.metrics.incr("consul.rpc.query", 1)
    if options.require_consistent:
        server.metrics.incr("consul.rpc.consistentRead", 1)
        await server.consistent_read()
    if not options.min_query_index:
        return await _answered(server, options, query, build, response, sharing)
    server.metrics.shift("consul.rpc.queries_blocking", 1)
    try:
        return await _answered(server, options, query, build, response, sharing)
    finally:
        server.metrics.shift("consul.rpc.queries_blocking", -1)


async def _answered(
    server: EndpointServer,
    options: QueryOptions,
    query: Callable[[], Answer[T]],
    build: Callable[[T], dict[str, Any]],
    response: type[M],
    sharing: Sharing | None,
) -> M:
    if options.min_query_index:
        timeout = wait_s(options.max_query_time_ns, server.blocking_limits, server.rng)
    else:
        timeout = 0.0
    if sharing is None:
        index, value = await block(query, options.min_query_index, timeout)
        return response(**build(value), **meta(server, index))
    shared = sharing.of(server.store, options, query, build)
    index, fields = await block(shared, options.min_query_index, timeout)
    return response(**fields, **meta(server, index))
