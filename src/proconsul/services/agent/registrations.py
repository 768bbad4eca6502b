"""Services and checks as they are registered with this agent, and kept across restarts.

Registering turns a definition into local state, running checks and, if asked, a file in the data
directory (agent/agent.go, `AddService`, `AddCheck`, `persistService`).
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Sequence

import msgspec

from proconsul.domain.catalog import (
    CRITICAL,
    NODE_MAINTENANCE,
    PASSING,
    SERVICE_MAINTENANCE_PREFIX,
    HealthCheck,
    NodeService,
    ServiceAddress,
    Weights,
)
from proconsul.domain.definitions import (
    CheckDefinition,
    CheckType,
    DefinitionError,
    ServiceDefinition,
    UnknownIdError,
)
from proconsul.services.agent.check_probes import CheckSpec
from proconsul.services.agent.checks import CheckRunner
from proconsul.services.agent.config import AgentSettings
from proconsul.services.agent.local import LocalState, LocalStateError
from proconsul.services.agent.persisted import (
    LOCAL,
    Persisted,
    StoredCheck,
    StoredReport,
    StoredService,
)
from proconsul.services.agent.sidecars import expanded, sidecar_id
from proconsul.util.clock import Clock
from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.agent")

DEFAULT_SERVICE_REASON = (
    "Maintenance mode is enabled for this service, but no reason was provided. "
    "This is a default message."
)
DEFAULT_NODE_REASON = (
    "Maintenance mode is enabled for this node, but no reason was provided. "
    "This is a default message."
)
_SECOND_NS = 1_000_000_000


class Registrations:
    """Everything that is registered here."""

    def __init__(
        self, settings: AgentSettings, state: LocalState, runner: CheckRunner, clock: Clock
    ) -> None:
        self._settings, self._state, self._runner, self._clock = settings, state, runner, clock
        self._files = Persisted(settings.data_dir)
        self.overlay: Callable[[NodeService, str], NodeService] = lambda service, _token: service
        """What becomes of a service with a token when it is registered."""
        self.removed: Callable[[str], None] = lambda _service_id: None
        """Told of services that are deregistered."""
        self._configured_services: set[str] = set()
        self._configured_checks: set[str] = set()

    # -- services --------------------------------------------------------------------------

    def add_service(
        self,
        definition: ServiceDefinition,
        *,
        persist: bool,
        replace_existing_checks: bool = False,
        local: bool = False,
    ) -> None:
        """Register or replace a service with its checks. Raises `ProconsulError`.

        `local`: it comes from the configuration, whose scripts may be trusted more.
        """
        service = _with_defaults(definition.service)
        types = definition.checks
        for kind in types:
            self._vet(kind, local)
        before = {check.check_id: check for check in self._state.checks_of(service.id)}
        self._state.add_service(self.overlay(service, definition.token), definition.token)
        kept = set()
        for number, check_type in enumerate(types, 1):
            check = self._service_check(service, check_type, number, len(types))
            old = before.get(check.check_id)
            check = self._with_status(check, check_type, old)
            kept.add(check.check_id)
            self._state.add_check(check, definition.token, now=self._clock.monotonic())
            self._start(check.check_id, check_type, definition.token)
            if persist:
                self._files.save_check(check, check_type, definition.token)
        if replace_existing_checks:
            for check_id in before.keys() - kept:
                self.remove_check(check_id)
        if persist:
            self._files.save_service(service, definition.token)

    def with_sidecar(self, definition: ServiceDefinition) -> list[ServiceDefinition]:
        """The service, and the sidecar that its definition asks for. Raises `ProconsulError`."""
        return expanded(definition, self._state.services(), self._settings.sidecar_ports)

    def _service_check(
        self, service: NodeService, check_type: CheckType, number: int, count: int
    ) -> HealthCheck:
        default_id = f"service:{service.id}" + (f":{number}" if count > 1 else "")
        return HealthCheck(
            node=self._settings.identity.node_name,
            check_id=check_type.check_id or default_id,
            name=check_type.name or f"Service '{service.service}' check",
            status=check_type.status or CRITICAL,
            notes=check_type.notes,
            service_id=service.id,
            service_name=service.service,
            service_tags=service.tags,
            type=check_type.kind,
        )

    def remove_service(self, service_id: str) -> None:
        """Raises `UnknownIdError`."""
        checks = [check.check_id for check in self._state.checks_of(service_id)]
        try:
            self._state.remove_service(service_id)
        except LocalStateError as error:
            raise UnknownIdError(str(error)) from error
        for check_id in checks:
            self._forget_check(check_id)
        self._files.forget_service(service_id)
        self.removed(service_id)
        log.info("removed service: service=%s", service_id)
        sidecar = self._state.service(sidecar_id(service_id))
        if sidecar is not None and sidecar.locally_registered_as_sidecar:
            self.remove_service(sidecar.id)

    # -- checks ----------------------------------------------------------------------------

    def add_check(self, definition: CheckDefinition, *, persist: bool, local: bool = False) -> None:
        """Register or replace a check. Raises `ProconsulError`."""
        self._vet(definition, local)
        check = definition.health_check(self._settings.identity.node_name)
        old = self._state.check(check.check_id)
        check = self._with_status(check, definition, old)
        self._state.add_check(check, definition.token, now=self._clock.monotonic())
        self._start(check.check_id, definition, definition.token)
        if persist:
            self._files.save_check(check, definition.how(), definition.token)

    def remove_check(self, check_id: str) -> None:
        """Raises `UnknownIdError`."""
        try:
            self._state.remove_check(check_id)
        except LocalStateError as error:
            raise UnknownIdError(str(error)) from error
        self._forget_check(check_id)

    def _forget_check(self, check_id: str) -> None:
        self._runner.stop(check_id)
        self._files.forget_check(check_id)
        self._files.forget_report(check_id)

    def heartbeat(self, check_id: str, status: str, output: str) -> None:
        """A TTL check reports; kept, so that a restart of this agent does not fail the check.

        Raises `LocalStateError` if it is not one.
        """
        self._runner.heartbeat(check_id, status, output)
        check, spec = self._state.check(check_id), self._runner.spec(check_id)
        if check is None or spec is None:
            return
        expires = int(self._clock.wall() + spec.ttl_s)
        try:
            self._files.save_report(StoredReport(check_id, check.output, status, expires))
        except OSError as error:
            log.error("cannot keep the state of a check: check=%s error=%s", check_id, error)

    def _with_status(
        self, check: HealthCheck, kind: CheckType, old: HealthCheck | None
    ) -> HealthCheck:
        """A check starts with the status it had: registered before, or reported before a restart."""
        if old is not None:
            return msgspec.structs.replace(check, status=old.status, output=old.output)
        report = self._files.report(check.check_id) if kind.ttl_ns > 0 else None
        if report is None:
            return check
        if report.expires <= self._clock.wall():
            self._files.forget_report(check.check_id)
            return check
        return msgspec.structs.replace(check, status=report.status, output=report.output)

    def _vet(self, check: CheckType, local: bool) -> None:
        """Refuse checks that cannot be run, and scripts that may not be."""
        try:
            check.validate()
        except DefinitionError as error:
            raise DefinitionError(f"Check is not valid: {error}") from None
        if not check.script_args:
            return
        if local and not self._settings.local_scripts:
            raise DefinitionError(
                "Scripts are disabled on this agent; to enable, configure 'enable_script_checks' or "
                "'enable_local_script_checks' to true"
            )
        if not local and not self._settings.remote_scripts:
            raise DefinitionError(
                "Scripts are disabled on this agent from remote calls; to enable, configure "
                "'enable_script_checks' to true"
            )

    def _start(self, check_id: str, kind: CheckType, token: str) -> None:
        limit = self._settings.check_output_max
        if 0 < kind.output_max_size < limit:
            limit = kind.output_max_size
        deregister = kind.deregister_critical_service_after_ns / _SECOND_NS
        self._runner.start(
            CheckSpec(
                check_id=check_id,
                ttl_s=kind.ttl_ns / _SECOND_NS,
                http=kind.http,
                tcp=kind.tcp,
                grpc=kind.grpc,
                grpc_use_tls=kind.grpc_use_tls,
                script_args=tuple(kind.script_args or ()),
                docker_container_id=kind.docker_container_id,
                alias_node=kind.alias_node,
                alias_service=kind.alias_service,
                token=token,
                method=kind.method,
                body=kind.body,
                headers=kind.header,
                tls_skip_verify=kind.tls_skip_verify,
                interval_s=kind.interval_ns / _SECOND_NS,
                timeout_s=kind.timeout_ns / _SECOND_NS,
                output_max=limit,
                success_before_passing=kind.success_before_passing,
                failures_before_critical=kind.failures_before_critical,
                deregister_after_s=max(deregister, self._settings.deregister_after_min_s)
                if deregister
                else 0.0,
            )
        )

    def reap_critical(self) -> None:
        """Deregister services whose check was critical for as long as they asked for."""
        due = {
            check.service_id
            for check, critical_s in self._state.critical_for(self._clock.monotonic())
            if check.service_id
            and (spec := self._runner.spec(check.check_id)) is not None
            and 0 < spec.deregister_after_s <= critical_s
        }
        for service_id in due:
            log.info("deregistering service: it has been critical too long: service=%s", service_id)
            try:
                self.remove_service(service_id)
            except (ProconsulError, OSError) as error:
                log.error("cannot deregister service: service=%s error=%s", service_id, error)

    # -- maintenance -----------------------------------------------------------------------

    def service_maintenance(self, service_id: str, *, enable: bool, reason: str) -> None:
        """Raises `UnknownIdError`."""
        service = self._state.service(service_id)
        if service is None:
            raise UnknownIdError(f'No service registered with ID "{service_id}"')
        check = HealthCheck(
            check_id=f"{SERVICE_MAINTENANCE_PREFIX}{service_id}",
            name="Service Maintenance Mode",
            notes=reason or DEFAULT_SERVICE_REASON,
            service_id=service_id,
            status=CRITICAL,
            type="maintenance",
        )
        self._maintenance(check, enable, self._state.service_token(service_id))

    def node_maintenance(self, *, enable: bool, reason: str) -> None:
        """Mark the whole node as under maintenance, or end that."""
        check = HealthCheck(
            check_id=NODE_MAINTENANCE,
            name="Node Maintenance Mode",
            notes=reason or DEFAULT_NODE_REASON,
            status=CRITICAL,
            type="maintenance",
        )
        self._maintenance(check, enable, "")

    def _maintenance(self, check: HealthCheck, enable: bool, token: str) -> None:
        existing = self._state.check(check.check_id)
        if enable and existing is None:
            self._state.add_check(check, token, now=self._clock.monotonic())
            self._files.save_check(check, None, token, LOCAL)
        elif not enable and existing is not None:
            self.remove_check(check.check_id)

    # -- files -----------------------------------------------------------------------------

    def reload(
        self, services: Sequence[ServiceDefinition], checks: Sequence[CheckDefinition]
    ) -> None:
        """The configuration files were read again: what they no longer define goes."""
        services = self._all_of(services)
        for service_id in self._configured_services - {_service_id(s) for s in services}:
            if self._state.service(service_id) is not None:
                self.remove_service(service_id)
        for check_id in self._configured_checks - {c.check_id or c.name for c in checks}:
            if self._state.check(check_id) is not None:
                self.remove_check(check_id)
        self._configure(services, checks)

    def _all_of(self, services: Sequence[ServiceDefinition]) -> list[ServiceDefinition]:
        """Configured services with their sidecars."""
        found: list[ServiceDefinition] = []
        known = dict(self._state.services())
        for service in services:
            these = expanded(service, known, self._settings.sidecar_ports)
            known.update((_service_id(one), one.service) for one in these)
            found += these
        return found

    def _configure(
        self, services: Sequence[ServiceDefinition], checks: Sequence[CheckDefinition]
    ) -> None:
        self._configured_services = {_service_id(service) for service in services}
        self._configured_checks = {check.check_id or check.name for check in checks}
        for service in services:
            self.add_service(service, persist=False, local=True)
        for check in checks:
            self.add_check(check, persist=False, local=True)

    def load(
        self, services: Sequence[ServiceDefinition], checks: Sequence[CheckDefinition]
    ) -> None:
        """At start: what the configuration defines, then what was registered over HTTP before."""
        self._configure(self._all_of(services), checks)
        for service in self._files.services():
            self._restore_service(service)
        for check in self._files.checks():
            self._restore_check(check)

    def _restore_service(self, stored: StoredService) -> None:
        service = msgspec.structs.replace(
            stored.service, locally_registered_as_sidecar=stored.locally_registered_as_sidecar
        )
        if self._state.service(service.id) is not None:
            log.debug("service exists, not restoring from file: service=%s", service.id)
            self._files.forget_service(service.id)
            return
        self.add_service(ServiceDefinition(service, token=stored.token), persist=False)

    def _restore_check(self, stored: StoredCheck) -> None:
        """Critical, unless it says itself that it still holds what it said last."""
        check_id, kind = stored.check.check_id, stored.chk_type
        if self._state.check(check_id) is not None:
            log.debug("check exists, not restoring from file: check=%s", check_id)
            self._files.forget_check(check_id)
            return
        check = HealthCheck(
            check_id=check_id,
            name=stored.check.name,
            status=CRITICAL,
            notes=stored.check.notes,
            service_id=stored.check.service_id,
            type=stored.check.type,
        )
        try:
            if kind is not None:
                self._vet(kind, stored.source == LOCAL)
                check = self._with_status(check, kind, None)
            self._state.add_check(check, stored.token, now=self._clock.monotonic())
            if kind is not None:
                self._start(check_id, kind, stored.token)
        except ProconsulError as error:
            log.warning("Failed to restore check: check=%s error=%s", check_id, error)
            self._files.forget_check(check_id)

    def first_results(self) -> bool:
        """Whether every probing check has passed once: the catalog need not see restarts."""
        return all(
            check.status == PASSING
            for check in self._state.checks().values()
            if (spec := self._runner.spec(check.check_id)) is not None and not spec.ttl_s
        )


def _service_id(definition: ServiceDefinition) -> str:
    return definition.service.id or definition.service.service


def _with_defaults(service: NodeService) -> NodeService:
    """Id from name, weights of one, and tagged addresses of a literal address."""
    tagged = dict(service.tagged_addresses or {})
    try:
        version: int = ipaddress.ip_address(service.address).version
    except ValueError:
        version = 0
    if version:
        own = ServiceAddress(service.address, service.port)
        tagged.setdefault(f"lan_ipv{version}", own)
        tagged.setdefault(f"wan_ipv{version}", own)
    return msgspec.structs.replace(
        service,
        id=service.id or service.service,
        tags=service.tags or [],
        tagged_addresses=tagged,
        weights=service.weights or Weights(1, 1),
    )
