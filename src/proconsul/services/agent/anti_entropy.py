"""Anti-entropy: the catalog's view of this node is brought in line with the agent's.

A change is sent at once; every minute (longer in large clusters) the whole is compared, which also
removes what nobody here registered (Consul's `agent/ae` and `agent/local`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from proconsul.domain import errors
from proconsul.domain.catalog import (
    SERF_CHECK_ID,
    DeregisterRequest,
    HealthCheck,
    NodeService,
    RegisterRequest,
)
from proconsul.domain.options import NodeSpecificRequest
from proconsul.rpc.caller import RpcCaller
from proconsul.services.agent.local import CheckEntry, LocalState, ServiceEntry
from proconsul.util.clock import Rng
from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.anti_entropy")

SCALE_THRESHOLD = 128
"""Cluster size from which the interval grows with its logarithm."""
RETRY_S_MIN = 0.5
RETRY_S_MAX = 15.0
CONSUL_SERVICE_ID = "consul"
"""Registered by the leader for every server, never by an agent's anti-entropy."""


def scale_factor(nodes: int) -> int:
    """1 up to 128 nodes, then one more with every doubling."""
    if nodes <= SCALE_THRESHOLD:
        return 1
    return int(math.ceil(math.log2(nodes) - math.log2(SCALE_THRESHOLD)) + 1)


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What the agent tells the catalog of its own node."""

    datacenter: str
    node: str
    id: str
    address: str
    tagged_addresses: dict[str, str] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)


class AntiEntropy:
    """Runs as one supervised loop of the agent."""

    def __init__(
        self,
        identity: NodeIdentity,
        state: LocalState,
        caller: RpcCaller,
        rng: Rng,
        interval_s: float,
        agent_token: Callable[[], str] = lambda: "",
        user_token: Callable[[], str] | None = None,
    ) -> None:
        """`agent_token` speaks for the node, `user_token` for what is registered without a token."""
        self._id, self._state, self._caller, self._rng = identity, state, caller, rng
        self._interval_s, self._agent_token = interval_s, agent_token
        self._user_token = user_token or agent_token
        self._wake = asyncio.Event()
        self._full_wanted = True
        self.cluster_size = 1

    def reconfigure(self, node_meta: Mapping[str, str]) -> None:
        """Tell the catalog this of the node from the next comparison on."""
        self._id = replace(self._id, meta=dict(node_meta))

    def trigger(self) -> None:
        """Something changed here: send it."""
        self._wake.set()

    def trigger_full(self) -> None:
        """Servers appeared, or the catalog may have lost us: compare everything."""
        self._full_wanted = True
        self._wake.set()

    async def run(self) -> None:
        """Synchronise until cancelled."""
        loop = asyncio.get_running_loop()
        unsubscribe = self._state.subscribe(self._wake.set)
        retry = RETRY_S_MIN
        next_full = loop.time()
        try:
            while True:
                self._wake.clear()
                full = self._full_wanted or loop.time() >= next_full
                # Before the first await: who asks for another one meanwhile must get it.
                self._full_wanted = False
                try:
                    if full:
                        await self._compare()
                        next_full = loop.time() + self._staggered_interval()
                    await self._send_changes()
                    retry = RETRY_S_MIN
                    wait_until = next_full
                except (ProconsulError, TimeoutError) as error:
                    log.warning(
                        "failed to sync remote state: %s%s",
                        error or "deadline exceeded",
                        " (the servers do not know acl.tokens.agent, or not yet)"
                        if errors.ACL_NOT_FOUND in str(error) and self._agent_token()
                        else "",
                    )
                    self._full_wanted = self._full_wanted or full
                    wait_until = loop.time() + retry * self._rng.uniform(0.75, 1.25)
                    retry = min(retry * 2, RETRY_S_MAX)
                    # Changes that pile up meanwhile must not turn the backoff into a hot loop.
                    await asyncio.sleep(RETRY_S_MIN)
                deferred = self._state.flush_deferred(loop.time())
                await self._sleep_until(min(wait_until, deferred or wait_until))
                self._state.flush_deferred(loop.time())
        finally:
            unsubscribe()

    def _staggered_interval(self) -> float:
        base = self._interval_s * scale_factor(self.cluster_size)
        return base + self._rng.uniform(0, base)

    async def _sleep_until(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._wake.wait()
        except TimeoutError:
            return

    # -- comparing -------------------------------------------------------------------------

    async def _compare(self) -> None:
        request = NodeSpecificRequest(
            datacenter=self._id.datacenter,
            node=self._id.node,
            token=self._agent_token(),
            allow_stale=True,
            max_stale_duration_ns=60_000_000_000,
        )
        services = await self._caller.call("Catalog.NodeServiceList", request)
        checks = await self._caller.call("Health.NodeChecks", request)
        remote = services.node_services
        self._state.node_in_sync = remote.node is not None and self._is_our_node(remote.node)
        self._compare_services({s.id: s for s in remote.services or ()})
        self._compare_checks({c.check_id: c for c in checks.health_checks or ()})

    def _is_our_node(self, node: object) -> bool:
        mine = self._id
        return (
            getattr(node, "id", "") == mine.id
            and (getattr(node, "tagged_addresses", None) or {}) == mine.tagged_addresses
            and (getattr(node, "meta", None) or {}) == mine.meta
            and getattr(node, "address", "") == mine.address
        )

    def _compare_services(self, remote: dict[str, NodeService]) -> None:
        entries = self._state.service_entries()
        for service_id, service in remote.items():
            entry = entries.get(service_id)
            if entry is None:
                if service_id != CONSUL_SERVICE_ID:
                    self._state.mark_foreign_service(service)
                continue
            if entry.deleted:
                entry.in_sync = False
                continue
            if entry.service.enable_tag_override and entry.service.tags != service.tags:
                self._state.adopt_tags(service_id, service.tags)
            entry.in_sync = entry.service.is_same(_without_defaults(service, entry.service))
        for service_id, entry in list(entries.items()):
            if service_id not in remote:
                if entry.deleted:
                    self._state.forget_service(entry)
                else:
                    entry.in_sync = False

    def _compare_checks(self, remote: dict[str, HealthCheck]) -> None:
        entries = self._state.check_entries()
        for check_id, check in remote.items():
            entry = entries.get(check_id)
            if entry is None:
                if check_id != SERF_CHECK_ID:
                    self._state.mark_foreign_check(check)
                continue
            if entry.deleted:
                entry.in_sync = False
                continue
            theirs = check
            if entry.deferred_until is not None:
                theirs = msgspec.structs.replace(check, output=entry.check.output)
            entry.in_sync = entry.check.is_same(theirs)
        for check_id, entry in list(entries.items()):
            if check_id not in remote:
                if entry.deleted:
                    self._state.forget_check(entry)
                else:
                    entry.in_sync = False

    # -- sending ---------------------------------------------------------------------------

    async def _send_changes(self) -> None:
        """Send all that differs. What the servers refuse does not keep the rest from them: the
        first such error is raised at the end."""
        refused: ProconsulError | None = None
        for work in self._changes():
            try:
                await work()
            except ProconsulError as error:
                if not _is_refusal(error):
                    raise
                log.warning("the servers refuse a registration: %s", error)
                refused = refused or error
        if refused is not None:
            raise refused

    def _changes(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """One piece of work after the other, each looked up when its turn comes: entries are
        replaced while others are sent."""
        services, checks = self._state.service_entries(), self._state.check_entries()
        for service_id in list(services):
            entry = services.get(service_id)
            if entry is not None and not entry.in_sync:
                work = self._drop_service if entry.deleted else self._send_service
                yield partial(work, entry)
        for check_id in list(checks):
            check = checks.get(check_id)
            if check is not None and not check.in_sync:
                work_ = self._drop_check if check.deleted else self._send_check
                yield partial(work_, check)
        if not self._state.node_in_sync:
            yield self._send_node

    async def _send_node(self) -> None:
        try:
            await self._caller.call("Catalog.Register", self._registration(self._agent_token()))
        except ProconsulError as error:
            if not _is_blocked(error):
                raise
            log.warning(
                "Node info update blocked by ACLs: node=%s (%s)",
                self._id.node,
                _why(error, self._agent_token(), "acl.tokens.agent", "node:write"),
            )
        else:
            log.info("Synced node info")
        # If it was blocked, trying again cannot help before the next full comparison.
        self._state.node_in_sync = True

    def _registration(self, token: str) -> RegisterRequest:
        mine = self._id
        return RegisterRequest(
            datacenter=mine.datacenter,
            id=mine.id,
            node=mine.node,
            address=mine.address,
            tagged_addresses=dict(mine.tagged_addresses),
            node_meta=dict(mine.meta),
            skip_node_update=self._state.node_in_sync,
            token=token,
        )

    async def _send_service(self, entry: ServiceEntry) -> None:
        service = entry.service
        token = entry.token or self._user_token()
        sent = [
            check
            for check in self._state.check_entries().values()
            if check.check.service_id == service.id
            and not check.in_sync
            and not check.deleted
            and check.token == entry.token
        ]
        results = [check.check for check in sent]
        request = msgspec.structs.replace(
            self._registration(token), service=service, checks=results or None
        )
        try:
            await self._caller.call("Catalog.Register", request)
        except ProconsulError as error:
            if not _is_blocked(error):
                raise
            # Trying again cannot help: wait for the next full comparison.
            log.warning(
                "Service registration blocked by ACLs: service=%s (%s)",
                service.id,
                _why(error, token, "the token it is registered with", "service:write"),
            )
            entry.in_sync = True
            for check in sent:
                check.in_sync = True
            return
        log.info("Synced service: service=%s", service.id)
        self._state.node_in_sync = True
        entry.in_sync = entry.service is service
        for check, result in zip(sent, results, strict=True):
            check.in_sync = check.check is result

    async def _send_check(self, entry: CheckEntry) -> None:
        check = entry.check
        owner = self._state.service(check.service_id) if check.service_id else None
        token = entry.token or self._user_token()
        request = msgspec.structs.replace(self._registration(token), service=owner, check=check)
        try:
            await self._caller.call("Catalog.Register", request)
        except ProconsulError as error:
            if not _is_blocked(error):
                raise
            right = f"{'service' if check.service_id else 'node'}:write"
            log.warning(
                "Check registration blocked by ACLs: check=%s (%s)",
                check.check_id,
                _why(error, token, "the token it is registered with", right),
            )
            entry.in_sync = True
            return
        log.info("Synced check: check=%s", check.check_id)
        self._state.node_in_sync = True
        entry.in_sync = entry.check is check

    async def _drop_service(self, entry: ServiceEntry) -> None:
        if not await self._deregister(entry.token, service_id=entry.service.id):
            entry.in_sync = True
            return
        self._state.forget_service(entry)
        for check in list(self._state.check_entries().values()):
            if check.deleted and check.check.service_id == entry.service.id:
                self._state.forget_check(check)
        log.info("Deregistered service: service=%s", entry.service.id)

    async def _drop_check(self, entry: CheckEntry) -> None:
        if not await self._deregister(entry.token, check_id=entry.check.check_id):
            entry.in_sync = True
            return
        self._state.forget_check(entry)
        log.info("Deregistered check: check=%s", entry.check.check_id)

    async def _deregister(self, token: str, *, service_id: str = "", check_id: str = "") -> bool:
        """Whether the catalog has it no more. What ACLs blocked is tried again, with its token,
        after the next full comparison."""
        request = DeregisterRequest(
            datacenter=self._id.datacenter,
            node=self._id.node,
            service_id=service_id,
            check_id=check_id,
            token=token or self._user_token(),
        )
        try:
            await self._caller.call("Catalog.Deregister", request)
        except ProconsulError as error:
            if _is_blocked(error):
                what = f"service={service_id}" if service_id else f"check={check_id}"
                right = "service:write" if service_id else "service:write or node:write"
                log.warning(
                    "Deregistration blocked by ACLs: %s (%s)",
                    what,
                    _why(error, request.token, "the token it was registered with", right),
                )
                return False
            if "Unknown service" not in str(error) and "Unknown check" not in str(error):
                raise
        return True


def _why(error: ProconsulError, token: str, whose: str, right: str) -> str:
    """What is missing, for the log: a token at all, one that exists, or a right of it."""
    if not token:
        return f"no token: {whose} or acl.tokens.default needs {right}"
    if errors.ACL_NOT_FOUND in str(error):
        return f"{whose} does not exist, or not any more"
    return f"{whose} lacks {right}"


def _is_blocked(error: ProconsulError) -> bool:
    """Whether ACLs stand in the way, be it that the token is not known."""
    return errors.is_permission_denied(error) or errors.ACL_NOT_FOUND in str(error)


def _is_refusal(error: ProconsulError) -> bool:
    """Whether a server answered and said no to this very request."""
    passing = (
        errors.is_no_leader(error)
        or errors.is_rate_exceeded(error)
        or errors.is_outcome_unknown(error)
    )
    answered = isinstance(error, errors.DomainError) or bool(getattr(error, "is_remote", False))
    return answered and not passing and not isinstance(error, errors.NoServersError)


def _without_defaults(remote: NodeService, local: NodeService) -> NodeService:
    """The catalog fills in weights that we may have left out: that is no difference."""
    if local.weights is None and remote.weights is not None:
        return msgspec.structs.replace(remote, weights=None)
    return remote
