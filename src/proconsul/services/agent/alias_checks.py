"""Alias checks: as healthy as another node or service is (`agent/checks/alias.go`).

Of this node, the local state is followed; of another one, its checks in the catalog.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import msgspec

from proconsul.domain.catalog import CRITICAL, PASSING, WARNING, HealthCheck
from proconsul.domain.options import NodeSpecificRequest
from proconsul.rpc.caller import RpcCaller
from proconsul.services.agent.check_probes import CheckSpec
from proconsul.services.agent.checks import Update
from proconsul.services.agent.local import LocalState
from proconsul.util.errors import ProconsulError
from proconsul.util.goquote import go_quote

REFRESH_S = 60.0
"""The local state is looked at so often even if nothing is heard of it."""
QUERY_NS = 60 * 10**9
MAX_STALE_NS = 15 * 10**9
FAILURES_MIN = 3
"""Attempts in a row before the next waits."""
BACKOFF_S_MAX = 60.0
EXISTENCE_ATTEMPTS = 4


class AliasChecks:
    """Follows what alias checks stand for, one `follow` for each."""

    def __init__(
        self,
        datacenter: str,
        state: LocalState,
        caller: Callable[[], RpcCaller],
        user_token: Callable[[], str],
        update: Update,
    ) -> None:
        self._datacenter, self._state, self._caller = datacenter, state, caller
        self._user_token, self._update = user_token, update

    async def follow(self, spec: CheckSpec) -> None:
        """Report to the check until cancelled."""
        if spec.alias_node:
            await self._follow_catalog(spec)
        else:
            await self._follow_local(spec)

    async def _follow_local(self, spec: CheckSpec) -> None:
        changed = asyncio.Event()
        unsubscribe = self._state.subscribe(changed.set)
        try:
            while True:
                changed.clear()
                others = [c for c in self._state.checks().values() if c.check_id != spec.check_id]
                status, output, found = judged(spec, others)
                if not found and self._state.service(spec.alias_service) is None:
                    status, output = _missing(spec)
                self._update(spec.check_id, status, output)
                try:
                    async with asyncio.timeout(REFRESH_S):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            unsubscribe()

    async def _follow_catalog(self, spec: CheckSpec) -> None:
        request = NodeSpecificRequest(
            datacenter=self._datacenter,
            node=spec.alias_node,
            token=spec.token or self._user_token(),
            allow_stale=True,
            max_query_time_ns=QUERY_NS,
            max_stale_duration_ns=MAX_STALE_NS,
        )
        index = failures = 0
        while True:
            if failures > FAILURES_MIN:
                await asyncio.sleep(min(2.0 ** (failures - FAILURES_MIN), BACKOFF_S_MAX))
            asked = msgspec.structs.replace(request, min_query_index=index)
            try:
                answer = await self._caller().call("Health.NodeChecks", asked)
            except (ProconsulError, TimeoutError) as error:
                failures += 1
                if failures > 1:
                    text = f"Failure checking aliased node or service: {error}"
                    self._update(spec.check_id, CRITICAL, text)
                else:
                    await asyncio.sleep(1)
                continue
            failures, index = 0, max(answer.index, 1)
            status, output, found = judged(spec, answer.health_checks or ())
            if not found and not await self._exists(request, spec.alias_service):
                status, output = _missing(spec)
            self._update(spec.check_id, status, output)

    async def _exists(self, request: NodeSpecificRequest, service_id: str) -> bool:
        """Whether the other node has the service; if nobody can tell, it is taken to be there."""
        for attempt in range(1, EXISTENCE_ATTEMPTS + 1):
            try:
                answer = await self._caller().call("Catalog.NodeServices", request)
            except (ProconsulError, TimeoutError):
                await asyncio.sleep(attempt)
                continue
            found = answer.node_services
            return found is not None and service_id in (found.services or {})
        return True


def judged(spec: CheckSpec, checks: Iterable[HealthCheck]) -> tuple[str, str, bool]:
    """(status, output, whether the service has a check of its own) of what is aliased."""
    status, output, found = PASSING, "No checks found.", False
    for check in checks:
        if spec.alias_node and check.node != spec.alias_node:
            continue
        own = check.service_id == spec.alias_service
        if check.service_id and not own:
            continue
        found = found or own
        if check.status in (CRITICAL, WARNING):
            status = check.status
            output = f"Aliased check {go_quote(check.name)} failing: {check.output}"
            if status == CRITICAL:
                break
        elif status == PASSING:
            output = "All checks passing."
    return status, output, found


def _missing(spec: CheckSpec) -> tuple[str, str]:
    return (
        CRITICAL,
        f"Service {spec.alias_service} could not be found on node {spec.alias_node}",
    )
