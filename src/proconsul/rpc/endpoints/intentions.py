"""`Intention.*` (agent/consul/intention_endpoint.go).

A secondary that copies intentions sends writes to the primary.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from msgspec.structs import replace

from proconsul.domain import intention as ixn
from proconsul.domain import mesh_requests as m
from proconsul.domain import options as o
from proconsul.domain.acl import Authorizer
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.filter import create_filter
from proconsul.domain.messages import MessageType
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, read
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.util.goquote import go_quote

NOT_FOUND = "Intention not found"


class Intentions:
    """Who may connect to whom."""

    def __init__(
        self, server: EndpointServer, unix_ns: Callable[[], int], default_allow: Callable[[], bool]
    ) -> None:
        """`default_allow` says what holds for callers without a token, where nothing matches."""
        self._server, self._unix_ns, self._default_allow = server, unix_ns, default_allow

    async def apply(self, request: ixn.IntentionRequest, call: Call) -> str:
        one = request.intention or ixn.Intention()
        may = call.authorizer
        match request.op:
            case ixn.CREATE:
                one = self._created(one, may)
            case ixn.UPDATE:
                one = self._updated(one, may)
            case ixn.DELETE:
                self._existing(one.id, "delete", may)
            case other:
                raise RequestError(f"Invalid Intention operation: {other}")
        await self._server.apply(MessageType.INTENTION, replace(request, intention=one))
        return one.id

    def _created(self, one: ixn.Intention, may: Authorizer) -> ixn.Intention:
        if not ixn.can_write(one, may):
            raise PermissionDeniedError
        if one.id:
            raise RequestError("ID must be empty when creating a new intention")
        one = ixn.completed(replace(one, id=str(uuid.uuid4())).created(self._unix_ns()))
        ixn.validate(one)
        return ixn.with_hash(one)

    def _updated(self, one: ixn.Intention, may: Authorizer) -> ixn.Intention:
        if not ixn.can_write(one, may):
            raise PermissionDeniedError
        self._existing(one.id, "modify", may)
        one.check_raw()
        one = ixn.completed(one.updated(self._unix_ns()))
        ixn.validate(one)
        return ixn.with_hash(one)

    def _existing(self, intention_id: str, verb: str, may: Authorizer) -> None:
        """Raises unless it is there and may be written; a rename needs both names' rights."""
        if (problem := ixn.id_problem(intention_id)) is not None:
            raise RequestError(f"Intention lookup failed: {problem}")
        existing = self._server.store.mesh.intention(intention_id).value
        if existing is None:
            raise RequestError(f"Cannot {verb} non-existent intention: '{intention_id}'")
        if not ixn.can_write(existing, may):
            raise PermissionDeniedError

    async def get(self, request: m.IntentionQueryRequest, call: Call) -> ixn.IndexedIntentions:
        if (problem := ixn.id_problem(request.intention_id)) is not None:
            raise RequestError(problem)
        mesh = self._server.store.mesh

        def build(one: ixn.Intention | None) -> dict[str, list[ixn.Intention]]:
            if one is None:
                raise RequestError(NOT_FOUND)
            if not ixn.can_read(one, call.authorizer):
                raise PermissionDeniedError
            return {"intentions": [one]}

        return await read(
            self._server,
            request,
            lambda: mesh.intention(request.intention_id),
            build,
            ixn.IndexedIntentions,
        )

    async def list(self, request: o.DCSpecificRequest, call: Call) -> ixn.IndexedIntentions:
        may = call.authorizer
        wanted = create_filter(request.filter, ixn.Intention)

        def build(many: list[ixn.Intention]) -> dict[str, list[ixn.Intention]]:
            return {"intentions": wanted.rows([one for one in many if ixn.can_read(one, may)])}

        return await read(
            self._server, request, self._server.store.mesh.intentions, build, ixn.IndexedIntentions
        )

    async def match(
        self, request: m.IntentionQueryRequest, call: Call
    ) -> ixn.IndexedIntentionMatches:
        match = request.match
        if match is None or match.type not in {ixn.MATCH_SOURCE, ixn.MATCH_DESTINATION}:
            raise RequestError("must specify a match type of source or destination")
        entries = match.entries or []
        for entry in entries:
            if entry.name and not call.authorizer.intention_read(entry.name):
                raise PermissionDeniedError
        return await read(
            self._server,
            request,
            self._server.store.mesh.intentions,
            lambda many: {
                "matches": [ixn.matching(many, match.type, entry) or None for entry in entries]
            },
            ixn.IndexedIntentionMatches,
        )

    async def check(
        self, request: m.IntentionQueryRequest, call: Call
    ) -> ixn.IntentionQueryCheckResponse:
        """Whether a connection would be allowed; only the right to find the destination is needed."""
        query = request.check
        if query is None:
            raise RequestError("Check must be specified on args")
        if query.source_type != ixn.SOURCE_CONSUL:
            raise RequestError(f"unsupported SourceType: {go_quote(query.source_type)}")
        to = query.destination_name
        if to and not call.authorizer.service_read(to):
            raise PermissionDeniedError
        entry = m.IntentionMatchEntry(query.destination_namespace, to)
        many = self._server.store.mesh.intentions().value
        for one in ixn.matching(many, ixn.MATCH_DESTINATION, entry):
            decision = ixn.decides(one, query.source_namespace, query.source_name)
            if decision is not None:
                return ixn.IntentionQueryCheckResponse(decision)
        return ixn.IntentionQueryCheckResponse(self._default_allow())


def endpoints(
    server: EndpointServer,
    unix_ns: Callable[[], int],
    default_allow: Callable[[], bool],
    write_datacenter: str,
) -> list[Endpoint]:
    """All of `Intention`; writes are sent to `write_datacenter` unless it is empty."""
    it = Intentions(server, unix_ns, default_allow)

    def to_primary(request: ixn.IntentionRequest) -> ixn.IntentionRequest:
        return replace(request, datacenter=write_datacenter) if write_datacenter else request

    reads = Requires.INTENTION_READ
    return [
        Endpoint(
            METHODS["Intention.Apply"], Requires.INTENTION_WRITE, it.apply, prepare=to_primary
        ),
        Endpoint(METHODS["Intention.Get"], reads, it.get, token_last=True),
        Endpoint(METHODS["Intention.List"], reads, it.list),
        Endpoint(METHODS["Intention.Match"], reads, it.match),
        Endpoint(METHODS["Intention.Check"], Requires.SERVICE_READ, it.check),
    ]
