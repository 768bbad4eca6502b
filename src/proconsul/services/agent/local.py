"""What this agent has registered: services and checks, and how far the catalog agrees.

The agent is the authority for its own node; `services.agent.anti_entropy` brings the catalog in
line (Consul's `agent/local/state.go`). Everything that changes an agent's registrations goes through
here. Subscribers are told of every change, synchronously.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from proconsul.domain.catalog import CRITICAL, HealthCheck, NodeService
from proconsul.util.errors import ProconsulError


class LocalStateError(ProconsulError):
    """A registration that does not fit what is registered. Text as Consul's, for HTTP."""


@dataclass(slots=True)
class ServiceEntry:
    """A service of this node. `in_sync`: the catalog has it as it is here."""

    service: NodeService
    token: str = ""
    in_sync: bool = False
    deleted: bool = False


@dataclass(slots=True)
class CheckEntry:
    """A check of this node or of one of its services."""

    check: HealthCheck
    token: str = ""
    in_sync: bool = False
    deleted: bool = False
    critical_since: float | None = None
    """On the monotonic clock; None while not critical."""
    deferred_until: float | None = None
    """A mere change of output is sent no earlier (`check_update_interval`)."""


class LocalState:
    """Services and checks by id. `now` arguments are seconds on the monotonic clock."""

    def __init__(
        self, node: str, update_interval_s: float, *, discard_output: bool = False
    ) -> None:
        self._node = node
        self._update_interval_s = update_interval_s
        self.discard_output = discard_output
        self._services: dict[str, ServiceEntry] = {}
        self._checks: dict[str, CheckEntry] = {}
        self._subscribers: list[Callable[[], None]] = []
        self.node_in_sync = False
        self.version = 0
        """Grows with every change; what blocking readers compare."""

    # -- reading ---------------------------------------------------------------------------

    def services(self) -> dict[str, NodeService]:
        """Registered services by id."""
        return {i: e.service for i, e in self._services.items() if not e.deleted}

    def service(self, service_id: str) -> NodeService | None:
        """One service."""
        entry = self._services.get(service_id)
        return None if entry is None or entry.deleted else entry.service

    def service_token(self, service_id: str) -> str:
        """The token a service was registered with, "" for none."""
        entry = self._services.get(service_id)
        return entry.token if entry else ""

    def checks(self) -> dict[str, HealthCheck]:
        """Registered checks by id."""
        return {i: e.check for i, e in self._checks.items() if not e.deleted}

    def check(self, check_id: str) -> HealthCheck | None:
        """One check."""
        entry = self._checks.get(check_id)
        return None if entry is None or entry.deleted else entry.check

    def checks_of(self, service_id: str) -> list[HealthCheck]:
        """The checks of one service."""
        return [c for c in self.checks().values() if c.service_id == service_id]

    def critical_for(self, now: float) -> Iterator[tuple[HealthCheck, float]]:
        """Checks that are critical, and for how many seconds."""
        for entry in self._checks.values():
            if not entry.deleted and entry.critical_since is not None:
                yield entry.check, now - entry.critical_since

    def stats(self) -> dict[str, str]:
        """For `consul info`."""
        return {"services": str(len(self.services())), "checks": str(len(self.checks()))}

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback()` after every change; returns what ends that."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    # -- changing --------------------------------------------------------------------------

    def add_service(self, service: NodeService, token: str = "") -> None:
        """Register or replace."""
        old = self._services.get(service.id)
        unchanged = (
            old is not None
            and not old.deleted
            and old.service.is_same(service)
            and old.token == token
        )
        if unchanged:
            return
        self._services[service.id] = ServiceEntry(service, token)
        self._changed()

    def remove_service(self, service_id: str) -> None:
        """Deregister a service and its checks. Raises `LocalStateError` if there is none."""
        entry = self._services.get(service_id)
        if entry is None or entry.deleted:
            raise LocalStateError(
                f'Unknown service "{service_id}". Ensure that the service ID is passed, '
                "not the service name."
            )
        entry.deleted, entry.in_sync = True, False
        for check in self._checks.values():
            if check.check.service_id == service_id:
                check.deleted, check.in_sync = True, False
        self._changed()

    def add_check(self, check: HealthCheck, token: str = "", *, now: float) -> None:
        """Register or replace. Raises `LocalStateError` if its service does not exist."""
        if check.service_id:
            service = self.service(check.service_id)
            if service is None:
                raise LocalStateError(f'ServiceID "{check.service_id}" does not exist')
            check = msgspec.structs.replace(
                check, service_name=service.service, service_tags=service.tags
            )
        check = msgspec.structs.replace(
            check, node=self._node, output="" if self.discard_output else check.output
        )
        entry = CheckEntry(check, token)
        if check.status == CRITICAL:
            entry.critical_since = now
        self._checks[check.check_id] = entry
        self._changed()

    def remove_check(self, check_id: str) -> None:
        """Deregister. Raises `LocalStateError` if there is none."""
        entry = self._checks.get(check_id)
        if entry is None or entry.deleted:
            raise LocalStateError(f'Unknown check "{check_id}"')
        entry.deleted, entry.in_sync = True, False
        self._changed()

    def update_check(self, check_id: str, status: str, output: str, now: float) -> None:
        """Record a check's result. Unknown checks are ignored: they raced with a removal."""
        entry = self._checks.get(check_id)
        if entry is None or entry.deleted:
            return
        if status == CRITICAL:
            entry.critical_since = now if entry.critical_since is None else entry.critical_since
        else:
            entry.critical_since = None
        if self.discard_output:
            output = ""
        if entry.check.status == status and entry.check.output == output:
            return
        only_output = entry.check.status == status
        entry.check = msgspec.structs.replace(entry.check, status=status, output=output)
        if only_output and self._update_interval_s > 0 and entry.in_sync:
            if entry.deferred_until is None:
                entry.deferred_until = now + self._update_interval_s
            return
        entry.in_sync = False
        entry.deferred_until = None
        self._changed()

    def flush_deferred(self, now: float) -> float | None:
        """Mark checks whose deferral is over as to be sent; the earliest time still waiting."""
        earliest: float | None = None
        changed = False
        for entry in self._checks.values():
            due = entry.deferred_until
            if due is None:
                continue
            if due <= now:
                entry.deferred_until, entry.in_sync = None, False
                changed = True
            elif earliest is None or due < earliest:
                earliest = due
        if changed:
            self._changed()
        return earliest

    def _changed(self) -> None:
        self.version += 1
        for callback in list(self._subscribers):
            callback()

    # -- what anti-entropy works on --------------------------------------------------------

    def service_entries(self) -> dict[str, ServiceEntry]:
        """All of them, deleted ones too. For anti-entropy alone."""
        return self._services

    def check_entries(self) -> dict[str, CheckEntry]:
        """All of them, deleted ones too. For anti-entropy alone."""
        return self._checks

    def forget_service(self, entry: ServiceEntry) -> None:
        """The catalog has dropped a deleted service, unless it was registered anew meanwhile."""
        if self._services.get(entry.service.id) is entry:
            del self._services[entry.service.id]

    def forget_check(self, entry: CheckEntry) -> None:
        """The catalog has dropped a deleted check, unless it was registered anew meanwhile."""
        if self._checks.get(entry.check.check_id) is entry:
            del self._checks[entry.check.check_id]

    def mark_foreign_service(self, service: NodeService) -> None:
        """The catalog has a service of this node that we do not: deregister it there."""
        self._services[service.id] = ServiceEntry(service, deleted=True)

    def mark_foreign_check(self, check: HealthCheck) -> None:
        """The catalog has a check of this node that we do not: deregister it there."""
        self._checks[check.check_id] = CheckEntry(check, deleted=True)

    def adopt_tags(self, service_id: str, tags: list[str] | None) -> None:
        """`EnableTagOverride`: the catalog's tags win over ours."""
        entry = self._services[service_id]
        entry.service = msgspec.structs.replace(entry.service, tags=tags)
