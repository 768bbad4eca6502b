"""What all of `ACL.*` share: who may be asked, where a request goes, and checks of what is written.

Which datacenter answers depends on the request (agent/consul/acl_endpoint.go): policies, roles and
global tokens are written in the primary; local tokens where they are used, which must have token
replication. `prepare_*` say that before a request is forwarded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from proconsul.domain import acl_types as t
from proconsul.domain.acl import Authorizer
from proconsul.domain.acl_requests import ACLReplicationStatus
from proconsul.domain.errors import ACL_DISABLED, DomainError, PermissionDeniedError
from proconsul.rpc.endpoints.base import EndpointServer, RequestError
from proconsul.state.errors import StateError
from proconsul.state.watch import Answer
from proconsul.util.goquote import go_quote

R = TypeVar("R")

_IDENTITY = re.compile(r"[a-z0-9]([a-z0-9\-_]*[a-z0-9])?")
_IDENTITY_BYTES_MAX = 256
_POLICY_NAME = re.compile(r"[A-Za-z0-9\-_]{1,128}")
_ROLE_NAME = re.compile(r"[A-Za-z0-9\-_]{1,256}")


class AclSystem(Protocol):
    """What the ACL endpoints need of their server beyond its state (`services.server.acl_admin`)."""

    @property
    def enabled(self) -> bool: ...

    @property
    def datacenter(self) -> str: ...

    @property
    def primary_datacenter(self) -> str: ...

    @property
    def local_tokens(self) -> bool:
        """Whether tokens are kept here: in the primary, or with token replication."""
        ...

    @property
    def token_ttl_ns(self) -> tuple[int, int]:
        """The shortest and the longest life of a token that ends."""
        ...

    @property
    def default_policy(self) -> str: ...

    @property
    def cache_ttl_ns(self) -> int:
        """How long clients of before Consul 1.4 may keep an answer."""
        ...

    def unix_ns(self) -> int: ...

    def new_id(self) -> str:
        """A random UUID."""
        ...

    def check_rules(self, rules: str, syntax: int) -> None:
        """Raises with Consul's text if rules cannot be understood."""
        ...

    def forget_token(self, secret: str) -> None:
        """It changed: nobody may be judged by what was remembered of it."""
        ...

    def forget_policy(self, policy_id: str) -> None: ...

    def forget_role(self, role_id: str) -> None: ...

    async def rows_of(self, secret: str) -> tuple[t.ACLToken, list[t.ACLRole], list[t.ACLPolicy]]:
        """A token, its roles, and the policies valid for it here. Raises `AclNotFoundError`."""
        ...

    async def legacy_policy(self, secret: str) -> tuple[t.ACLToken, dict[str, Any]]:
        """A token and its rules merged, as clients of before Consul 1.4 take them."""
        ...

    async def in_primary(self, method: str, request: Any) -> Any:
        """The primary's answer."""
        ...

    async def bootstrap_reset_index(self) -> int:
        """What an operator wrote to the file that allows another bootstrap; 0 if nothing."""
        ...

    async def remove_bootstrap_reset(self) -> None: ...

    def replication_status(self) -> ACLReplicationStatus: ...


class AclDisabledError(DomainError):
    def __init__(self) -> None:
        super().__init__(ACL_DISABLED)


class Base:
    """The common part of the endpoints of one subject."""

    def __init__(self, server: EndpointServer, system: AclSystem) -> None:
        self.server, self.system = server, system

    @property
    def in_primary(self) -> bool:
        return self.system.datacenter == self.system.primary_datacenter

    def check(self, request: R) -> R:
        """`prepare`: nothing to change, but ACLs must be on."""
        if not self.system.enabled:
            raise AclDisabledError
        return request

    def to_primary(self, request: R) -> R:
        """`prepare` of what the primary alone writes."""
        self.check(request)
        return request if self.in_primary else self.moved(request)

    def where_tokens_are(self, request: R) -> R:
        """`prepare` of reads of tokens: clients do not know whether there are any here."""
        self.check(request)
        return request if self.system.local_tokens else self.moved(request)

    def where_logins_are(self, request: R) -> R:
        """`prepare` of auth methods, which need tokens of this datacenter."""
        self.check(request)
        if not self.system.local_tokens:
            raise RequestError("Token replication is required for auth methods to function")
        return request

    def moved(self, request: R) -> R:
        """The same in the primary."""
        changes: dict[str, Any] = {"datacenter": self.system.primary_datacenter}
        return replace(request, **changes)  # type: ignore[type-var]  # all requests are structs

    def new_id(self, taken: Callable[[str], bool]) -> str:
        """A random id that is neither taken nor the system's own."""
        while taken(found := self.system.new_id()) or is_reserved(found):
            continue
        return found


def require_read(authorizer: Authorizer) -> None:
    if not authorizer.acl_read():
        raise PermissionDeniedError


def require_write(authorizer: Authorizer) -> None:
    if not authorizer.acl_write():
        raise PermissionDeniedError


def is_reserved(row_id: str) -> bool:
    return row_id.startswith(t.RESERVED_PREFIX)


def check_policy_name(name: str) -> None:
    _check_name(name, _POLICY_NAME, "Policy")


def check_role_name(name: str) -> None:
    _check_name(name, _ROLE_NAME, "Role")


def _check_name(name: str, allowed: re.Pattern[str], noun: str) -> None:
    if not name:
        raise RequestError(f"Invalid {noun}: no Name is set")
    if not allowed.fullmatch(name):
        raise RequestError(
            f"Invalid {noun}: invalid Name. Only alphanumeric characters, '-' and '_' are allowed"
        )


def policy_links(
    server: EndpointServer, links: Iterable[t.ACLLink] | None, *, ids_must_exist: bool
) -> list[t.ACLLink] | None:
    """Links by id alone, each once: the policy may get another name. Raises `RequestError`."""
    ids: dict[str, None] = {}
    for link in links or ():
        if not link.id:
            named = server.store.acl.policy_by_name(link.name).value
            if named is None:
                raise RequestError(f"No such ACL policy with name {go_quote(link.name)}")
            ids[named.id] = None
            continue
        if ids_must_exist and _looked_up(server.store.acl.policy, link.id, "policy") is None:
            raise RequestError(f"No such ACL policy with ID {go_quote(link.id)}")
        ids[link.id] = None
    return [t.ACLLink(row_id) for row_id in ids] or None


def role_links(server: EndpointServer, links: Iterable[t.ACLLink] | None) -> list[t.ACLLink] | None:
    """As `policy_links`."""
    ids: dict[str, None] = {}
    for link in links or ():
        if not link.id:
            named = server.store.acl.role_by_name(link.name).value
            if named is None:
                raise RequestError(f"No such ACL role with name {go_quote(link.name)}")
            ids[named.id] = None
            continue
        if _looked_up(server.store.acl.role, link.id, "role") is None:
            raise RequestError(f"No such ACL role with ID {go_quote(link.id)}")
        ids[link.id] = None
    return [t.ACLLink(row_id) for row_id in ids] or None


def _looked_up(query: Callable[[str], Answer[R | None]], row_id: str, noun: str) -> R | None:
    try:
        return query(row_id).value
    except StateError as error:
        raise RequestError(f"Error looking up {noun} for id {go_quote(row_id)}: {error}") from error


def service_identities(
    identities: list[t.ACLServiceIdentity] | None, noun: str, *, local: bool = False
) -> list[t.ACLServiceIdentity] | None:
    """Each service once, sorted. Raises `RequestError`."""
    merged: dict[str, list[str]] = {}
    for one in identities or ():
        name = one.service_name
        if not name:
            raise RequestError(f"Service identity is missing the service name field on this {noun}")
        if local and one.datacenters:
            raise RequestError(
                f"Service identity {go_quote(name)} cannot specify a list of datacenters on a "
                "local token"
            )
        if not _is_identity(name):
            raise RequestError(
                f"Service identity {go_quote(name)} has an invalid name. Only alphanumeric "
                "characters, '-' and '_' are allowed"
            )
        known, where = merged.get(name), one.datacenters or []
        if known is None:
            merged[name] = where
        else:  # an empty list is everywhere, whatever another entry says
            merged[name] = sorted({*known, *where}) if known and where else []
    return [t.ACLServiceIdentity(name, merged[name] or None) for name in sorted(merged)] or None


def node_identities(
    identities: list[t.ACLNodeIdentity] | None, noun: str
) -> list[t.ACLNodeIdentity] | None:
    """Each once, sorted. Raises `RequestError`."""
    for one in identities or ():
        if not one.node_name:
            raise RequestError(f"Node identity is missing the node name field on this {noun}")
        if not one.datacenter:
            raise RequestError(f"Node identity is missing the datacenter field on this {noun}")
        if not _is_identity(one.node_name):
            raise RequestError(
                "Node identity has an invalid name. Only alphanumeric characters, '-' and '_' are "
                "allowed"
            )
    unique = {(one.node_name, one.datacenter): one for one in identities or ()}
    return [unique[key] for key in sorted(unique)] or None


def _is_identity(name: str) -> bool:
    return len(name) <= _IDENTITY_BYTES_MAX and _IDENTITY.fullmatch(name) is not None
