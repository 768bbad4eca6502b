"""Whose tokens a server knows by itself (agent/consul/acl_server.go).

All of them in the primary datacenter; in a secondary the global ones only if they are replicated.
Policies and roles are replicated in any case; until the first of them has arrived, the primary is
asked for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from proconsul.domain.acl import Authorizer
from proconsul.domain.acl_types import ACLPolicy, ACLRole, ACLToken
from proconsul.rpc.token_resolver import EVERYTHING, TokenResolver
from proconsul.rpc.token_rows import Environment
from proconsul.services.acl_settings import AclSettings
from proconsul.state.errors import StateError
from proconsul.state.rows import POLICIES, ROLES, TOKENS, Kind
from proconsul.state.store import Store

if TYPE_CHECKING:
    from proconsul.services.server.server import Server


class StoreSource:
    """`TokenSource` on a server's state."""

    def __init__(
        self, store: Store, settings: AclSettings, unix_ns: Callable[[], int], *, is_primary: bool
    ) -> None:
        self._store, self._is_primary, self._unix_ns = store, is_primary, unix_ns
        self._has_tokens = is_primary or settings.token_replication

    def token(self, secret: str) -> tuple[bool, ACLToken | None]:
        """See `TokenSource.token`."""
        if not self._has_tokens:
            return False, None
        token = self._store.acl.token_by_secret(secret).value
        if token is not None and not token.is_expired(self._unix_ns()):
            return True, token
        return self._is_filled(TOKENS), None

    def policy(self, policy_id: str) -> tuple[bool, ACLPolicy | None]:
        """See `TokenSource.policy`."""
        try:
            policy = self._store.acl.policy(policy_id).value
        except StateError:
            policy = None  # a link that cannot lead anywhere
        return policy is not None or self._is_filled(POLICIES), policy

    def role(self, role_id: str) -> tuple[bool, ACLRole | None]:
        """See `TokenSource.role`."""
        try:
            role = self._store.acl.role(role_id).value
        except StateError:
            role = None
        return role is not None or self._is_filled(ROLES), role

    def on_change(self, callback: Callable[[], None]) -> None:
        """See `TokenSource.on_change`."""
        self._store.acl.changes().add(callback)

    def _is_filled(self, kind: Kind) -> bool:
        """Whether what is not here is nowhere."""
        return self._is_primary or self._store.tables.index.get(kind.table, 0) > 0


def resolver(server: Server) -> TokenResolver:
    """The resolver of a server."""
    identity, settings = server.config.identity, server.config.acl
    return TokenResolver(
        settings,
        StoreSource(server.store, settings, server.unix_ns, is_primary=identity.is_primary),
        Environment(
            identity.datacenter,
            identity.primary_datacenter,
            server.call,
            server.spawn,
            time.monotonic,
            server.unix_ns,
            server.metrics,
        ),
    )


def everyone(_token: str) -> Authorizer:
    """`resolve_token` without ACLs, which must cost nothing."""
    return EVERYTHING
