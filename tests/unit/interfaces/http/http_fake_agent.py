"""An agent in memory: enough behind the HTTP interface to test it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec

from proconsul.domain import catalog as c
from proconsul.domain import federation as f
from proconsul.domain import kv
from proconsul.domain.acl import AllowAll, Authorizer
from proconsul.domain.definitions import UnknownIdError
from proconsul.domain.errors import DomainError, NoPathToDatacenterError
from proconsul.util.metrics import Metrics

META = {"index": 7, "known_leader": True}


class FakeAgent:
    def __init__(self, *, immediate: bool = True) -> None:
        self.metrics = Metrics()
        self.immediate = immediate
        self.entries: dict[str, kv.DirEntry] = {}
        self.index = 7
        self.changed = asyncio.Event()
        self.calls: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = {}
        self.local: dict[str, c.NodeService] = {}
        self.local_checks: dict[str, c.HealthCheck] = {}
        self.cancelled = 0

    def try_rpc(self, method: str, request: Any) -> Any | None:
        if not self.immediate or method not in {"KVS.Get", "KVS.List"} or request.min_query_index:
            return None
        return self._answer(method, request)

    async def rpc(self, method: str, request: Any) -> Any:
        try:
            while getattr(request, "min_query_index", 0) >= self.index:
                await self.changed.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self._answer(method, request)

    def _answer(self, method: str, request: Any) -> Any:
        self.calls.append((method, request))
        if getattr(request, "datacenter", "") == "nope":
            raise NoPathToDatacenterError
        if method == "KVS.Get":
            found = self.entries.get(request.key)
            return kv.IndexedDirEntries(entries=[found] if found else None, **self._meta())
        if method == "KVS.List":
            found = [e for k, e in sorted(self.entries.items()) if k.startswith(request.key)]
            return kv.IndexedDirEntries(entries=found or None, **self._meta())
        if method == "KVS.ListKeys":
            keys = [k for k in sorted(self.entries) if k.startswith(request.prefix)]
            return kv.IndexedKeyList(keys=keys or None, **self._meta())
        if method == "KVS.Apply":
            return self._apply(request)
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _meta(self) -> dict[str, Any]:
        return {"index": self.index, "known_leader": True}

    def _apply(self, request: kv.KVSRequest) -> bool:
        entry = request.dir_ent
        old = self.entries.get(entry.key)
        at = old.modify_index if old else 0
        if request.op in {kv.KV_CAS, kv.KV_DELETE_CAS} and entry.modify_index != at:
            return False
        self.index += 1
        if request.op in {kv.KV_DELETE, kv.KV_DELETE_CAS}:
            self.entries.pop(entry.key, None)
        elif request.op == kv.KV_DELETE_TREE:
            self.entries = {k: e for k, e in self.entries.items() if not k.startswith(entry.key)}
        else:
            self.entries[entry.key] = msgspec.structs.replace(
                entry, create_index=old.create_index if old else self.index, modify_index=self.index
            )
        self.changed.set()
        self.changed = asyncio.Event()
        return True

    async def self_info(self, token: str) -> Any:
        return {"Config": {"NodeName": "n1"}, "Member": (await self.members(False, "", token))[0]}

    async def members(self, wan: bool, segment: str, token: str) -> Any:
        if segment:
            raise DomainError("Network segments are not supported in this version of Consul")
        name = "n1.dc1" if wan else "n1"
        return [
            SimpleNamespace(
                name=name, address=("127.0.0.1", 8301), tags={"role": "consul", "dc": "dc1"},
                status=1, protocol_min=1, protocol_max=5, protocol_cur=2,
                delegate_min=2, delegate_max=5, delegate_cur=4,
            )
        ]  # fmt: skip

    async def services(self, token: str) -> Any:
        return self.local

    async def service(self, service_id: str, token: str) -> Any:
        return self.local.get(service_id)

    async def service_changed(self, service_id: str, timeout_s: float) -> None:
        try:
            await asyncio.wait_for(self.changed.wait(), timeout_s)
        except TimeoutError:
            pass

    async def services_named(self, name: str, token: str) -> Any:
        return [one for _, one in sorted(self.local.items()) if one.service == name]

    def checks_of(self, service_id: str) -> Any:
        found = sorted(self.local_checks.items())
        return [one for _, one in found if one.service_id in {"", service_id}]

    async def checks(self, token: str) -> Any:
        return self.local_checks

    async def add_service(self, definition: Any, **how: Any) -> None:
        self.calls.append(("add_service", (definition, how)))
        self.local[definition.service.id] = definition.service
        self.changed.set()

    async def remove_service(self, service_id: str, token: str) -> None:
        if self.local.pop(service_id, None) is None:
            raise UnknownIdError(f'Unknown service "{service_id}"')

    async def add_check(self, definition: Any, *, persist: bool, token: str) -> None:
        if definition.service_id and definition.service_id not in self.local:
            raise DomainError(f'ServiceID "{definition.service_id}" does not exist')
        check = definition.health_check("n1")
        self.local_checks[check.check_id] = check

    async def remove_check(self, check_id: str, token: str) -> None:
        self.local_checks.pop(check_id, None)

    async def update_ttl(self, check_id: str, status: str, output: str, token: str) -> None:
        if check_id not in self.local_checks:
            raise DomainError(f'CheckID "{check_id}" does not have associated TTL')
        self.local_checks[check_id] = msgspec.structs.replace(
            self.local_checks[check_id], status=status, output=output
        )

    async def service_maintenance(
        self, service_id: str, enable: bool, reason: str, token: str
    ) -> None:
        if service_id not in self.local:
            raise UnknownIdError(f'No service registered with ID "{service_id}"')

    async def node_maintenance(self, enable: bool, reason: str, token: str) -> None:
        self.calls.append(("node_maintenance", (enable, reason)))

    async def join(self, address: str, wan: bool, token: str) -> None:
        self.calls.append(("join", (address, wan)))

    async def leave(self, token: str) -> None:
        self.calls.append(("leave", token))

    async def force_leave(self, node: str, prune: bool, token: str) -> None:
        raise DomainError(f"agent: No node found with name '{node}'")

    async def reload(self, token: str) -> None:
        self.calls.append(("reload", token))

    async def authorizer(self, token: str) -> Authorizer:
        if token == "bad":
            raise DomainError("ACL not found")
        return AllowAll()

    async def federation_status(self, token: str) -> Any:
        return {"Datacenters": []}


def web_instance(tags: list[str] | None = None, status: str = "passing") -> c.CheckServiceNode:
    """One instance of `web`, as a query gives it."""
    return c.CheckServiceNode(
        node=c.Node(node="n1", address="1.1.1.1", datacenter="dc1", create_index=5, modify_index=5),
        service=c.NodeService(
            id="web", service="web", port=80, tags=tags, weights=c.DEFAULT_WEIGHTS,
            create_index=5, modify_index=5,
        ),
        checks=[
            c.HealthCheck(
                node="n1", check_id="c", name="c", status=status, create_index=5, modify_index=5
            )
        ],
    )  # fmt: skip


def dc1_state() -> f.FederationState:
    return f.FederationState(
        datacenter="dc1", raw_updated_at=f.raw_time(1_700_000_000_000_000_005),
        primary_modify_index=3, create_index=3, modify_index=3,
    )  # fmt: skip
