"""Endpoints on a real state without Raft, for the tests of each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from proconsul.domain import catalog as c
from proconsul.domain import operator as op
from proconsul.domain.acl import AllowAll, Authorizer
from proconsul.domain.autopilot import OperatorHealthReply
from proconsul.domain.messages import IGNORE_UNKNOWN_TYPE_FLAG, MessageType, encode_command
from proconsul.rpc.blocking import BlockingLimits
from proconsul.rpc.endpoints import catalog, federation, health, internal, kvs, operator, status
from proconsul.rpc.endpoints.internal import Coordinates
from proconsul.rpc.methods import RaftStats
from proconsul.rpc.table import Call, EndpointTable
from proconsul.state.errors import StateError
from proconsul.state.fsm import Fsm
from proconsul.state.store import Store
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics


class Only:
    """May do everything with names that begin with `ok`, and nothing else."""

    def __getattr__(self, _right: str) -> Callable[..., bool]:
        return lambda *names: bool(names) and names[0].startswith("ok")


class ServerInMemory:
    """`EndpointServer` and `RaftView` whose writes are committed at once."""

    def __init__(self) -> None:
        self.fsm, self.index = Fsm(), 10
        self.metrics, self.rng = Metrics(), random.Random(0)
        self.datacenter, self.blocking_limits = "dc1", BlockingLimits()
        self.consistent = 0
        self.refuses = 0
        self.removed: list[str] = []
        self.coordinates = Coordinates(self, list)
        self.table = EndpointTable(
            [
                *catalog.endpoints(self, list),
                *health.endpoints(self),
                *kvs.endpoints(self),
                *internal.endpoints(self, self.coordinates),
                *federation.endpoints(self, lambda: 1_600_000_000_000_000_000),
                *status.endpoints(self),
                *operator.endpoints(self, self, self),
            ]
        )

    @property
    def store(self) -> Store:
        return self.fsm.store

    def contact(self) -> tuple[bool, int]:
        return True, 5

    key_list_policy = False

    def lock_delayed(self, key: str) -> bool:
        return key == "resting"

    async def consistent_read(self) -> None:
        self.consistent += 1

    async def apply(self, type_: MessageType, request: Any, *, may_ignore: bool = False) -> Any:
        if self.refuses:
            self.refuses -= 1
            raise ProconsulError("not now")
        self.index += 1
        data = encode_command(type_, request)
        if may_ignore:
            data = bytes((data[0] | IGNORE_UNKNOWN_TYPE_FLAG,)) + data[1:]
        result = self.fsm.apply(self.index, data)
        if isinstance(result, StateError):
            raise result
        return result

    def leader_address(self) -> str:
        return "127.0.0.1:8300"

    def peers(self) -> op.RaftConfigurationResponse:
        return op.RaftConfigurationResponse(
            servers=[op.RaftServer(address="127.0.0.1:8300", id="i")]
        )

    async def remove_peer(self, server_id: str, _deadline: float) -> None:
        if self.refuses:
            raise ProconsulError("not now")
        self.removed.append(server_id)

    def health(self) -> OperatorHealthReply:
        return OperatorHealthReply(healthy=True)

    def log_position(self) -> RaftStats:
        return RaftStats(last_index=3)

    def call(self, method: str, request: Any, may: Authorizer | None = None) -> Any:
        endpoint = self.table[method]
        if endpoint.prepare is not None:
            request = endpoint.prepare(request)
        call = Call(may if may is not None else AllowAll(), None)
        return asyncio.run(endpoint.handler(request, call))  # type: ignore[arg-type]


def only_ok() -> Authorizer:
    return Only()


def registration(**fields: Any) -> c.RegisterRequest:
    given = {"datacenter": "dc1", "node": "ok-node", "address": "10.0.0.1", **fields}
    return c.RegisterRequest(**given)


def filled() -> ServerInMemory:
    server = ServerInMemory()
    for node in ("ok-node", "other"):
        for name in ("ok-web", "db"):
            check = c.HealthCheck(
                check_id=f"{name}-up", name="up", status=c.PASSING, service_id=name
            )
            service = c.NodeService(id=name, service=name, port=80, tags=["v1"])
            server.call(
                "Catalog.Register",
                registration(node=node, service=service, check=check, node_meta={"zone": node}),
            )
    return server
