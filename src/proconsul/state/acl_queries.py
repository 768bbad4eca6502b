"""Reads of the ACL tables (`agent/consul/state/acl.go`): tokens, policies, roles, rules, methods.

Rows are kept as decoded maps (`state.rows`); each is made a struct once, and again when it changed.
Links show the present names of what they lead to, and are left out where it is gone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from proconsul.domain.acl_types import (
    ACLAuthMethod,
    ACLBindingRule,
    ACLLink,
    ACLPolicy,
    ACLRole,
    ACLToken,
)
from proconsul.domain.base import decode
from proconsul.domain.session import id_problem
from proconsul.state.acl import BOOTSTRAP
from proconsul.state.errors import StateError
from proconsul.state.rows import METHODS, POLICIES, ROLES, RULES, TOKENS, Kind, Row, key_named
from proconsul.state.tables import Tables
from proconsul.state.watch import Answer, Watch, WatchRegistry
from proconsul.wire.msgpack import pack

S = TypeVar("S")


class _Typed(Generic[S]):
    """One table's rows as structs, in the order of their keys."""

    __slots__ = ("_known", "_tables", "_type", "kind")

    def __init__(self, tables: Callable[[], Tables], kind: Kind, type_: type[S]) -> None:
        self._tables, self.kind, self._type = tables, kind, type_
        self._known: dict[str, tuple[Row, S]] = {}

    def rows(self) -> dict[str, Row]:
        return self._tables().opaque.get(self.kind.record, {})

    def get(self, key: str) -> S | None:
        row = self.rows().get(key)
        return None if row is None else self._struct(key, row)

    def named(self, name: str) -> S | None:
        """By the other field that is unique, in any case of its letters."""
        key = key_named(self._tables(), self.kind, name)
        return None if key is None else self.get(key)

    def all(self) -> list[S]:
        rows = self.rows()
        if len(self._known) > 2 * len(rows) + 16:
            self._known = {key: known for key, known in self._known.items() if key in rows}
        return [self._struct(key, rows[key]) for key in sorted(rows)]

    def _struct(self, key: str, row: Row) -> S:
        known = self._known.get(key)
        if known is not None and known[0] is row:  # rows are never changed, only replaced
            return known[1]
        struct = decode(pack(row), self._type)
        self._known[key] = (row, struct)
        return struct


class AclQueries:
    """What endpoints, resolution, replication and the leader ask. Ids may have any case."""

    __slots__ = (
        "_derived_of", "_ends", "_methods", "_policies", "_roles", "_rules", "_tables",
        "_tokens", "_watches",
    )  # fmt: skip

    def __init__(self, tables: Callable[[], Tables], watches: WatchRegistry) -> None:
        self._tables, self._watches = tables, watches
        self._tokens = _Typed(tables, TOKENS, ACLToken)
        self._policies = _Typed(tables, POLICIES, ACLPolicy)
        self._roles = _Typed(tables, ROLES, ACLRole)
        self._rules = _Typed(tables, RULES, ACLBindingRule)
        self._methods = _Typed(tables, METHODS, ACLAuthMethod)
        self._ends: dict[bool, list[tuple[int, ACLToken]]] = {True: [], False: []}
        self._derived_of = (-1, 0)

    def _answer(self, kind: Kind, value: Any) -> Answer[Any]:
        index = max(self._tables().max_index(kind.table), 1)
        return Answer(index, value, Watch(self._watches, (kind.table,)))

    def changes(self) -> Watch:
        """Of whatever decides what a token may do."""
        return Watch(self._watches, (TOKENS.table, POLICIES.table, ROLES.table))

    # -- tokens ----------------------------------------------------------------------------

    def can_bootstrap(self) -> tuple[bool, int]:
        """Whether nobody did yet, and if somebody did, the index that allows it once more."""
        found = self._tables().index.get(BOOTSTRAP)
        return found is None, found or 0

    def token_by_secret(self, secret: str) -> Answer[ACLToken | None]:
        """Expired or not."""
        token = self._tokens.get(secret)
        return self._answer(TOKENS, None if token is None else self._linked_token(token))

    def token_by_accessor(self, accessor: str) -> Answer[ACLToken | None]:
        """Expired or not. Raises `StateError` if it is no UUID."""
        _check(accessor, "token")
        return self._answer(TOKENS, self._by_accessor(accessor))

    def tokens_by_accessors(self, accessors: Iterable[str]) -> Answer[list[ACLToken]]:
        """Those that are there. Raises `StateError` if one is no UUID."""
        found = []
        for accessor in accessors:
            _check(accessor, "token")
            if (token := self._by_accessor(accessor)) is not None:
                found.append(token)
        return self._answer(TOKENS, found)

    def tokens(
        self, *, local: bool, global_: bool, policy: str = "", role: str = "", method: str = ""
    ) -> Answer[list[ACLToken]]:
        """Of one locality or (both or none) of either, by their secrets.

        `policy`, `role` (ids) or `method` (a name) picks those that have it. Raises `StateError`.
        """
        if sum(map(bool, (policy, role, method))) > 1:
            raise StateError("can only filter by one of policy, role, or methodName at a time")
        found = self._tokens.all()
        if policy:
            found = [token for token in found if _leads_to(token.policies, policy)]
        elif role:
            found = [token for token in found if _leads_to(token.roles, role)]
        elif method:
            found = [token for token in found if token.auth_method == method]
        if local is not global_:
            found = [token for token in found if token.local is local]
        return self._answer(TOKENS, [self._linked_token(token) for token in found])

    def tokens_to_upgrade(self, limit: int) -> Answer[list[ACLToken]]:
        """Tokens of before Consul 1.4, which have no accessor yet."""
        found = [token for token in self._tokens.all() if not token.accessor_id]
        return self._answer(TOKENS, found[:limit])

    def expired_tokens(self, *, local: bool, now_ns: int, limit: int) -> list[ACLToken]:
        """Of one locality, those that ended longest ago first."""
        self._derive()  # asked for every second, whatever the number of tokens
        ends = self._ends[local]
        return [token for _, token in ends[: min(limit, bisect_left(ends, now_ns, key=_moment))]]

    def _by_accessor(self, accessor: str) -> ACLToken | None:
        token = self._tokens.named(accessor)
        return None if token is None else self._linked_token(token)

    def _derive(self) -> None:
        """Tokens by when they end, of the table as it is now."""
        # Not of the tables themselves, which must be freed after a restore.
        version = (self._watches.generation, self._tables().index.get(TOKENS.table, 0))
        if self._derived_of == version:
            return
        self._ends = {True: [], False: []}
        for token in self._tokens.all():
            if (moment := token.expires_ns) is not None:
                self._ends[token.local].append((moment, token))
        for ends in self._ends.values():
            ends.sort(key=_moment)
        self._derived_of = version

    # -- policies --------------------------------------------------------------------------

    def policy(self, policy_id: str) -> Answer[ACLPolicy | None]:
        """Raises `StateError` if the id is no UUID."""
        _check(policy_id, "policy")
        return self._answer(POLICIES, _of_id(self._policies, policy_id))

    def policy_by_name(self, name: str) -> Answer[ACLPolicy | None]:
        """Whatever the case of its letters."""
        return self._answer(POLICIES, self._policies.named(name))

    def policies_by_ids(self, ids: Iterable[str]) -> Answer[list[ACLPolicy]]:
        """Those that are there. Raises `StateError` if one is no UUID."""
        found = []
        for policy_id in ids:
            _check(policy_id, "policy")
            if (policy := _of_id(self._policies, policy_id)) is not None:
                found.append(policy)
        return self._answer(POLICIES, found)

    def policies(self) -> Answer[list[ACLPolicy]]:
        """All, by id."""
        return self._answer(POLICIES, self._policies.all())

    # -- roles -----------------------------------------------------------------------------

    def role(self, role_id: str) -> Answer[ACLRole | None]:
        """Raises `StateError` if the id is no UUID."""
        _check(role_id, "role")
        return self._answer(ROLES, self._linked_role(_of_id(self._roles, role_id)))

    def role_by_name(self, name: str) -> Answer[ACLRole | None]:
        """Whatever the case of its letters."""
        return self._answer(ROLES, self._linked_role(self._roles.named(name)))

    def roles_by_ids(self, ids: Iterable[str]) -> Answer[list[ACLRole]]:
        """Those that are there. Raises `StateError` if one is no UUID."""
        found = []
        for role_id in ids:
            _check(role_id, "role")
            if (role := self._linked_role(_of_id(self._roles, role_id))) is not None:
                found.append(role)
        return self._answer(ROLES, found)

    def roles(self, policy: str = "") -> Answer[list[ACLRole]]:
        """Those with a policy (an id), or all; by id."""
        found = self._roles.all()
        if policy:
            found = [role for role in found if _leads_to(role.policies, policy)]
        return self._answer(ROLES, [self._linked_role(role) for role in found])

    # -- auth methods and binding rules ----------------------------------------------------

    def rule(self, rule_id: str) -> Answer[ACLBindingRule | None]:
        """Raises `StateError` if the id is no UUID."""
        _check(rule_id, "binding rule")
        return self._answer(RULES, _of_id(self._rules, rule_id))

    def rules(self, method: str = "") -> Answer[list[ACLBindingRule]]:
        """Those of one auth method, or all; by id."""
        found = self._rules.all()
        return self._answer(RULES, [r for r in found if method in ("", r.auth_method)])

    def method(self, name: str) -> Answer[ACLAuthMethod | None]:
        wanted = name.lower()
        found = next((row for row in self._methods.all() if row.name.lower() == wanted), None)
        return self._answer(METHODS, found)

    def methods(self) -> Answer[list[ACLAuthMethod]]:
        """All, by name."""
        return self._answer(METHODS, self._methods.all())

    # -- links -----------------------------------------------------------------------------

    def _linked_token(self, token: ACLToken) -> ACLToken:
        policies = _present(token.policies, self._policies)
        roles = _present(token.roles, self._roles)
        if policies is token.policies and roles is token.roles:
            return token
        return replace(token, policies=policies, roles=roles)

    def _linked_role(self, role: ACLRole | None) -> ACLRole | None:
        if role is None:
            return None
        policies = _present(role.policies, self._policies)
        return role if policies is role.policies else replace(role, policies=policies)


def _moment(end: tuple[int, ACLToken]) -> int:
    return end[0]


def _present(links: list[ACLLink] | None, table: _Typed[Any]) -> list[ACLLink] | None:
    """The links that lead somewhere, with today's names; the same list if nothing changed."""
    if not links:
        return links
    found = [
        link if link.name == target.name else ACLLink(link.id, target.name)
        for link in links
        if (target := _of_id(table, link.id)) is not None
    ]
    return links if found == links else found


def _of_id(table: _Typed[S], row_id: str) -> S | None:
    return table.get(row_id) or table.get(row_id.lower())


def _leads_to(links: list[ACLLink] | None, row_id: str) -> bool:
    return any(link.id == row_id for link in links or ())


def _check(row_id: str, noun: str) -> None:
    if problem := id_problem(row_id, f"failed acl {noun} lookup"):
        raise StateError(problem)
