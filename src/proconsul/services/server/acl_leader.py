"""What the leader does for ACLs (`initializeACLs` in agent/consul/leader.go, acl_token_exp.go).

In the primary: the built-in policy, the master token of the configuration, the anonymous token, and
accessors for tokens of before Consul 1.4. In secondaries: replication. Where tokens are kept: those
that ended are deleted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from msgspec import Raw
from msgspec.structs import replace

from proconsul.domain import acl_requests as r
from proconsul.domain import acl_types as t
from proconsul.domain.base import raw_bytes
from proconsul.domain.messages import MessageType
from proconsul.domain.validate import is_uuid
from proconsul.federation.acl_replication import BATCH_DELETES_MAX
from proconsul.rpc.token_resolver import ANONYMOUS
from proconsul.services.server.acl_admin import AclAdmin
from proconsul.services.server.federation import next_change
from proconsul.state.errors import StateError
from proconsul.util.errors import ProconsulError
from proconsul.wire.gotime import encode_time

log = logging.getLogger("proconsul.server")

UPGRADES_MAX = 128
"""Tokens that get their accessors in one round."""
ROUND_S = 1.0
"""Between rounds of upgrades, and of looking for expired tokens."""
WATCH_S = 300.0

Start = Callable[[str, Callable[[], Awaitable[None]]], object]


async def initialize(admin: AclAdmin) -> None:
    """Write what every ACL system has. Raises `ProconsulError`."""
    if not admin.enabled:
        return
    if not admin.in_primary_datacenter:
        await _forget_redacted(admin)
        return
    log.info("initializing acls")
    await _ensure_policy(admin)
    await _ensure_master(admin)
    await _ensure_anonymous(admin)


def start(admin: AclAdmin, supervise: Start) -> None:
    """Start the loops of this term."""
    if not admin.enabled:
        return
    if admin.in_primary_datacenter:
        _ = supervise("acl-upgrade", lambda: _upgrade_forever(admin))
    elif admin.replication is not None:
        for noun, loop in admin.replication.loops.items():
            log.info("started ACL %s replication", noun.capitalize())
            _ = supervise(f"acl-{noun}-replication", loop.run)
    if admin.in_primary_datacenter or admin.settings.token_replication:
        _ = supervise("acl-reaping", lambda: _reap_forever(admin))


async def _forget_redacted(admin: AclAdmin) -> None:
    """Old versions replicated what stands for a hidden secret (CVE-2019-8336)."""
    token = admin.acl_rows.token_by_secret(t.REDACTED).value
    if token is not None:
        command = r.ACLTokenBatchDeleteRequest([token.accessor_id])
        await admin.apply(MessageType.ACL_TOKEN_DELETE, command)


async def _ensure_policy(admin: AclAdmin) -> None:
    """The built-in policy, with today's rules; users may have given it another name."""
    existing = admin.acl_rows.policy(t.POLICY_MANAGEMENT_ID).value
    if existing is not None and existing.rules == t.MANAGEMENT_RULES:
        return
    policy = t.ACLPolicy(
        id=t.POLICY_MANAGEMENT_ID,
        name=existing.name if existing else "global-management",
        description=existing.description
        if existing
        else "Builtin Policy that grants unlimited access",
        rules=t.MANAGEMENT_RULES,
    )
    await admin.apply(MessageType.ACL_POLICY_SET, r.ACLPolicyBatchSetRequest([policy.hashed()]))
    log.info("Created ACL 'global-management' policy")


async def _ensure_master(admin: AclAdmin) -> None:
    secret = admin.settings.master_token
    if not secret:
        return
    if not is_uuid(secret):
        log.warning("Configuring a non-UUID master token is deprecated")
    if admin.acl_rows.token_by_secret(secret).value is not None:
        return
    token = t.ACLToken(
        accessor_id=admin.new_id(),
        secret_id=secret,
        description="Master Token",
        policies=[t.ACLLink(t.POLICY_MANAGEMENT_ID)],
        type=t.TYPE_MANAGEMENT,
        raw_create_time=_now(admin),
    ).hashed()
    if admin.acl_rows.can_bootstrap()[0]:
        try:
            await admin.apply(MessageType.ACL_BOOTSTRAP, r.ACLTokenBootstrapRequest(token))
        except StateError as error:
            log.debug("master token: %s", error)
        else:
            log.info("Bootstrapped ACL master token from configuration")
            return
    await admin.apply(MessageType.ACL_TOKEN_SET, r.ACLTokenBatchSetRequest([token]))
    log.info("Created ACL master token from configuration")


async def _ensure_anonymous(admin: AclAdmin) -> None:
    """For requests without a token. The old one gets its accessor by the upgrade."""
    rows = admin.acl_rows
    known = (t.TOKEN_ANONYMOUS_ID, ANONYMOUS)
    if any(rows.token_by_secret(secret).value is not None for secret in known):
        return
    token = t.ACLToken(
        accessor_id=t.TOKEN_ANONYMOUS_ID,
        secret_id=ANONYMOUS,
        description="Anonymous Token",
        raw_create_time=_now(admin),
    ).hashed()
    await admin.apply(MessageType.ACL_TOKEN_SET, r.ACLTokenBatchSetRequest([token]))
    log.info("Created ACL anonymous token from configuration")


def _now(admin: AclAdmin) -> Raw:
    return raw_bytes(encode_time(admin.unix_ns()))


async def _upgrade_forever(admin: AclAdmin) -> None:
    """Give accessors to tokens of before Consul 1.4, whenever there are any."""
    while True:
        await asyncio.sleep(ROUND_S)
        found = admin.acl_rows.tokens_to_upgrade(UPGRADES_MAX)
        if not found.value:
            await next_change((found.watch,), WATCH_S)
            continue
        command = r.ACLTokenBatchSetRequest(
            [upgraded(token, admin.new_id()) for token in found.value], cas=True
        )
        try:
            await admin.apply(MessageType.ACL_TOKEN_SET, command)
        except (ProconsulError, TimeoutError) as error:
            log.error("failed to apply acl token upgrade batch: error=%s", error)


def upgraded(token: t.ACLToken, accessor: str) -> t.ACLToken:
    """A token of before Consul 1.4 as one of today, with this accessor; its rules stay."""
    policies = token.policies
    if token.secret_id == ANONYMOUS:
        accessor = t.TOKEN_ANONYMOUS_ID
    has_rights = policies or token.service_identities or token.node_identities or token.roles
    if token.type == t.TYPE_MANAGEMENT and not has_rights:
        policies = [t.ACLLink(t.POLICY_MANAGEMENT_ID)]
    return replace(token, accessor_id=accessor, policies=policies).hashed()


async def _reap_forever(admin: AclAdmin) -> None:
    """Delete tokens that ended: local ones everywhere, global ones in the primary."""
    while True:
        await asyncio.sleep(ROUND_S)
        for local in (True, False):
            if admin.local_tokens if local else admin.in_primary_datacenter:
                try:
                    await _reap(admin, local=local)
                except (ProconsulError, TimeoutError) as error:
                    locality = "local" if local else "global"
                    log.error("error reaping expired %s ACL tokens: error=%s", locality, error)


async def _reap(admin: AclAdmin, *, local: bool) -> None:
    tokens = admin.acl_rows.expired_tokens(
        local=local, now_ns=admin.unix_ns(), limit=BATCH_DELETES_MAX
    )
    if not tokens:
        return
    log.info(
        "deleting expired ACL tokens: amount=%d locality=%s",
        len(tokens),
        "local" if local else "global",
    )
    command = r.ACLTokenBatchDeleteRequest([token.accessor_id for token in tokens])
    await admin.apply(MessageType.ACL_TOKEN_DELETE, command)
    for token in tokens:
        admin.forget_token(token.secret_id)
