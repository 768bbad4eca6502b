"""What the server gives the endpoints of ACLs and their replication (`AclSystem`, `AclServer`)."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from proconsul.domain import acl_requests as r
from proconsul.domain import acl_types as t
from proconsul.domain.acl_legacy import legacy_policy
from proconsul.domain.acl_rules import RulesError, Syntax, merge, parse_rules
from proconsul.domain.errors import AclNotFoundError
from proconsul.domain.messages import MessageType
from proconsul.federation.acl_replication import AclReplication
from proconsul.federation.rate import Signal
from proconsul.rpc.endpoints.base import RequestError
from proconsul.state.acl_queries import AclQueries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proconsul.services.server.server import Server

log = logging.getLogger("proconsul.acl")

RESET_FILE = "acl-bootstrap-reset"
"""In the data directory; holds the reset index that allows another bootstrap."""
_NUMBER = re.compile(rb"\s*\+?(\d{1,20})")
_NS = 1_000_000_000


class AclAdmin:
    """The management of ACLs on one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.settings = server.config.acl
        self.on_change: Callable[[str, str], None] | None = None
        """Told what must not be remembered: `token`, `policy` or `role`, and its secret or id."""
        self.replication: AclReplication | None = None
        identity = server.config.identity
        if self.enabled and not identity.is_primary:
            self.replication = AclReplication(
                self, server.metrics, time.time, tokens=self.settings.token_replication
            )

    # -- AclSystem -------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        return self.settings.enabled

    @property
    def datacenter(self) -> str:
        return self._server.datacenter

    @property
    def primary_datacenter(self) -> str:
        return self._server.config.identity.primary_datacenter

    @property
    def in_primary_datacenter(self) -> bool:
        """Whether we are the ones who decide."""
        return self._server.config.identity.is_primary

    @property
    def local_tokens(self) -> bool:
        """See `AclSystem.local_tokens`."""
        return self.in_primary_datacenter or (
            self.settings.token_replication and bool(self.replication_token())
        )

    @property
    def token_ttl_ns(self) -> tuple[int, int]:
        settings = self.settings
        return int(settings.token_life_s_min * _NS), int(settings.token_life_s_max * _NS)

    @property
    def default_policy(self) -> str:
        return self.settings.default_policy

    @property
    def cache_ttl_ns(self) -> int:
        return int(self.settings.token_ttl_s * _NS)

    def unix_ns(self) -> int:
        return time.time_ns()

    def new_id(self) -> str:
        return str(uuid.uuid4())

    def check_rules(self, rules: str, syntax: int) -> None:
        """See `AclSystem.check_rules`."""
        try:
            parse_rules(rules, Syntax.LEGACY if syntax else Syntax.CURRENT)
        except RulesError as error:
            raise RequestError(str(error)) from error

    def forget_token(self, secret: str) -> None:
        self._forget("token", secret)

    def forget_policy(self, policy_id: str) -> None:
        self._forget("policy", policy_id)

    def forget_role(self, role_id: str) -> None:
        self._forget("role", role_id)

    def _forget(self, noun: str, row_id: str) -> None:
        if self.on_change is not None:
            self.on_change(noun, row_id)

    async def in_primary(self, method: str, request: Any) -> Any:
        return await self._server.call_datacenter(method, self.primary_datacenter, request)

    def replication_status(self) -> r.ACLReplicationStatus:
        """See `AclSystem.replication_status`."""
        if self.replication is None:
            return r.ACLReplicationStatus()
        return self.replication.status()

    async def rows_of(self, secret: str) -> tuple[t.ACLToken, list[t.ACLRole], list[t.ACLPolicy]]:
        """See `AclSystem.rows_of`."""
        return await self._server.acl.rows_of(secret)

    async def legacy_policy(self, secret: str) -> tuple[t.ACLToken, dict[str, Any]]:
        """See `AclSystem.legacy_policy`."""
        token, _, policies = await self.rows_of(secret)
        if not policies:
            raise AclNotFoundError
        rules = [parse_rules(policy.rules, Syntax(policy.syntax)) for policy in policies]
        versions = [(policy.id, policy.modify_index) for policy in policies]
        return token, legacy_policy(versions, merge(rules))

    # -- the file that allows another bootstrap --------------------------------------------

    def _reset_path(self) -> Path | None:
        directory = self._server.config.data_dir
        return None if directory is None else directory / RESET_FILE

    async def bootstrap_reset_index(self) -> int:
        """See `AclSystem.bootstrap_reset_index`."""
        path = self._reset_path()
        if path is None:
            return 0
        try:
            content = await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            return 0
        except OSError as error:
            log.error("bootstrap: failed to read path: path=%s error=%s", path, error)
            return 0
        found = _NUMBER.match(content)
        if found is None:
            log.error("failed to parse bootstrap reset index path: path=%s", path)
            return 0
        return int(found[1])

    async def remove_bootstrap_reset(self) -> None:
        path = self._reset_path()
        if path is not None:
            try:
                await asyncio.to_thread(path.unlink, missing_ok=True)
            except OSError as error:
                log.warning("failed to remove bootstrap file: error=%s", error)

    # -- AclServer -------------------------------------------------------------------------

    @property
    def acl_rows(self) -> AclQueries:
        return self._server.store.acl

    @property
    def primary_appeared(self) -> Signal:
        return self._server.primary_appeared

    def replication_token(self) -> str:
        return self._server.config.replication_token()

    async def call(self, method: str, request: Any) -> Any:
        return await self._server.call(method, request)

    async def apply(self, type_: MessageType, request: Any) -> Any:
        return await self._server.apply(type_, request)
