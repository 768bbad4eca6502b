"""`ACL.*`: where a request goes, what it needs, what it leaves in the log."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from endpoint_support import ServerInMemory

from proconsul.domain import acl_requests as r
from proconsul.domain import acl_types as t
from proconsul.domain.acl import Authorizer
from proconsul.domain.acl_authorizers import authorizer
from proconsul.domain.acl_rules import parse_rules
from proconsul.domain.messages import MessageType
from proconsul.domain.options import DCSpecificRequest
from proconsul.rpc.endpoints import acl
from proconsul.rpc.table import Call, EndpointTable
from proconsul.util.errors import ProconsulError

WRITER = authorizer([parse_rules('acl = "write"')], default_allow=False)
READER = authorizer([parse_rules('acl = "read"')], default_allow=False)
NOBODY = authorizer([], default_allow=False)
NOW_NS = 1_700_000_000_000_000_000
HOUR_NS = 3_600_000_000_000


@dataclass
class System:
    """`AclSystem` of one server."""

    server: ServerInMemory
    datacenter: str = "dc1"
    local_tokens: bool = True
    enabled: bool = True
    reset_index: int = 0
    primary_datacenter: str = "dc1"
    token_ttl_ns: tuple[int, int] = (60_000_000_000, 24 * HOUR_NS)
    default_policy: str = "deny"
    cache_ttl_ns: int = 30
    forgotten: list[str] = field(default_factory=list)
    elsewhere: list[tuple[str, Any]] = field(default_factory=list)
    now_ns: int = NOW_NS
    _ids: Any = field(default_factory=itertools.count)

    def unix_ns(self) -> int:
        return self.now_ns

    def new_id(self) -> str:
        number = next(self._ids)
        # The first is one of the system's own, which nobody is given.
        return f"00000000-0000-0000-0000-{number:012d}" if not number else (
            f"aaaaaaaa-0000-0000-0000-{number:012d}"
        )  # fmt: skip

    def check_rules(self, rules: str, syntax: int) -> None:
        parse_rules(rules)

    def forget_token(self, secret: str) -> None:
        self.forgotten.append(secret)

    forget_policy = forget_role = forget_token

    async def rows_of(self, secret: str) -> Any:
        token = self.server.store.acl.token_by_secret(secret).value
        assert token is not None
        return token, [], self.server.store.acl.policies().value[:1]

    async def legacy_policy(self, secret: str) -> Any:
        return t.ACLToken(type=t.TYPE_MANAGEMENT), {"ID": "x"}

    async def in_primary(self, method: str, request: Any) -> Any:
        self.elsewhere.append((method, request.datacenter))
        return t.ACLToken(accessor_id="remote") if "Clone" in method else "remote"

    async def bootstrap_reset_index(self) -> int:
        return self.reset_index

    async def remove_bootstrap_reset(self) -> None:
        self.reset_index = 0

    def replication_status(self) -> r.ACLReplicationStatus:
        return r.ACLReplicationStatus(running=True)


class Asked:
    """A server's endpoints, called as the forwarder would."""

    def __init__(self, **system: Any) -> None:
        self.server = ServerInMemory()
        self.system = System(self.server, **system)
        self._table = EndpointTable(acl.endpoints(self.server, self.system))

    def prepared(self, method: str, request: Any) -> Any:
        prepare = self._table[f"ACL.{method}"].prepare
        return request if prepare is None else prepare(request)

    def __call__(self, method: str, request: Any, may: Authorizer = WRITER) -> Any:
        endpoint = self._table[f"ACL.{method}"]
        request = self.prepared(method, request)
        return asyncio.run(endpoint.handler(request, Call(may, None)))

    def token(self, **fields: Any) -> t.ACLToken:
        made: t.ACLToken = self("TokenSet", r.ACLTokenSetRequest(acl_token=t.ACLToken(**fields)))
        return made

    def policy(self, name: str) -> t.ACLPolicy:
        made: t.ACLPolicy = self("PolicySet", r.ACLPolicySetRequest(policy=t.ACLPolicy(name=name)))
        return made


def test_tokens_get_ids_links_by_id_and_a_hash() -> None:
    asked = Asked()
    policy = asked.policy("p")
    token = asked.token(policies=[t.ACLLink(name="P"), t.ACLLink(policy.id)], description="d")
    assert not token.accessor_id.startswith("00000000")
    assert token.policies == [t.ACLLink(policy.id, "p")]
    assert token.created_ns == NOW_NS
    assert token.raw_hash is not None
    assert asked.system.forgotten == [policy.id, token.secret_id]
    updated = asked.token(accessor_id=token.accessor_id, description="e")
    assert (updated.secret_id, updated.policies) == (token.secret_id, None)
    assert updated.created_ns == NOW_NS


def test_tokens_that_end() -> None:
    asked = Asked()
    token = asked.token(expiration_ttl_ns=HOUR_NS)
    assert token.expires_ns == NOW_NS + HOUR_NS
    get = r.ACLTokenGetRequest(token_id=token.accessor_id, token_id_type=t.ID_ACCESSOR)
    assert asked("TokenRead", get).token == token
    asked.system.now_ns = NOW_NS + HOUR_NS + 1
    assert asked("TokenRead", get).token is None
    assert asked("TokenList", r.ACLTokenListRequest()).tokens == []
    # Replication must have it until the primary deletes it.
    batch = r.ACLTokenBatchGetRequest(accessor_ids=[token.accessor_id])
    assert asked("TokenBatchRead", batch).tokens == [token]
    with pytest.raises(ProconsulError, match="cannot be more than 24h0m0s in the future"):
        asked.token(expiration_ttl_ns=25 * HOUR_NS)


def test_secrets_are_hidden_from_who_may_only_read() -> None:
    asked = Asked()
    token = asked.token(description="d")
    get = r.ACLTokenGetRequest(token_id=token.accessor_id, token_id_type=t.ID_ACCESSOR)
    answer = asked("TokenRead", get, READER)
    assert (answer.token.secret_id, answer.redacted) == (t.REDACTED, True)
    batch = r.ACLTokenBatchGetRequest(accessor_ids=[token.accessor_id])
    assert asked("TokenBatchRead", batch, READER).redacted
    answer = asked("TokenBatchRead", batch, NOBODY)
    assert (answer.tokens, answer.removed) == ([], True)
    with pytest.raises(ProconsulError, match="Permission denied"):
        asked("TokenRead", get, NOBODY)
    by_secret = r.ACLTokenGetRequest(token_id=token.secret_id, token_id_type=t.ID_SECRET)
    assert asked("TokenRead", by_secret, NOBODY).token == token


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("TokenSet", r.ACLTokenSetRequest()),
        ("TokenClone", r.ACLTokenSetRequest()),
        ("TokenDelete", r.ACLTokenDeleteRequest()),
        ("PolicySet", r.ACLPolicySetRequest()),
        ("PolicyDelete", r.ACLPolicyDeleteRequest()),
        ("RoleSet", r.ACLRoleSetRequest()),
        ("RoleDelete", r.ACLRoleDeleteRequest()),
        ("Apply", r.ACLRequest(op="set")),
        ("List", DCSpecificRequest()),
    ],
)
def test_reading_rights_do_not_write(method: str, request_: Any) -> None:
    with pytest.raises(ProconsulError, match="Permission denied"):
        Asked()(method, request_, READER)


def test_where_requests_go() -> None:
    asked = Asked(datacenter="dc2")
    local = r.ACLTokenSetRequest(acl_token=t.ACLToken(local=True), datacenter="dc2")
    moved = r.ACLTokenSetRequest(datacenter="dc1")
    assert asked.prepared("TokenSet", local) is local
    assert asked.prepared("TokenSet", r.ACLTokenSetRequest(datacenter="dc2")) == moved
    listing = r.ACLTokenListRequest(datacenter="dc2", include_local=True, include_global=True)
    assert asked.prepared("TokenList", listing) is listing
    for method, request in (
        ("PolicySet", r.ACLPolicySetRequest(datacenter="dc2")),
        ("RoleDelete", r.ACLRoleDeleteRequest(datacenter="dc2")),
    ):
        assert asked.prepared(method, request).datacenter == "dc1"
    without = Asked(datacenter="dc2", local_tokens=False)
    assert without.prepared("TokenList", listing) == r.ACLTokenListRequest(
        datacenter="dc1", include_global=True
    )
    assert without.prepared("TokenDelete", r.ACLTokenDeleteRequest()).datacenter == "dc1"
    with pytest.raises(ProconsulError, match="Local tokens are disabled"):
        without.prepared("TokenSet", local)
    with pytest.raises(ProconsulError, match="Token replication is required for auth methods"):
        without.prepared("AuthMethodList", r.ACLAuthMethodListRequest())
    off = Asked(enabled=False)
    with pytest.raises(ProconsulError, match="ACL support disabled"):
        off.prepared("PolicyList", r.ACLPolicyListRequest())


def test_global_tokens_of_a_secondary_are_the_primarys_business() -> None:
    primary = Asked()
    token = primary.token()
    asked = Asked(datacenter="dc2")
    asked.server.fsm = primary.server.fsm
    request = r.ACLTokenSetRequest(acl_token=t.ACLToken(accessor_id=token.accessor_id))
    assert asked("TokenClone", request).accessor_id == "remote"
    assert asked("TokenDelete", r.ACLTokenDeleteRequest(token_id=token.accessor_id)) == "remote"
    assert asked.system.elsewhere == [("ACL.TokenClone", "dc1"), ("ACL.TokenDelete", "dc1")]


def test_one_bootstrap_and_one_more_by_the_file() -> None:
    asked = Asked()
    asked.server.index = 20
    builtin = t.ACLPolicy(id=t.POLICY_MANAGEMENT_ID, name="global-management")
    command = r.ACLPolicyBatchSetRequest([builtin])
    asyncio.run(asked.server.apply(MessageType.ACL_POLICY_SET, command))
    token = asked("BootstrapTokens", DCSpecificRequest(), NOBODY)
    assert (token.type, token.policies[0].id) == (t.TYPE_MANAGEMENT, t.POLICY_MANAGEMENT_ID)
    with pytest.raises(ProconsulError, match=r"no longer allowed \(reset index: 22\)"):
        asked("BootstrapTokens", DCSpecificRequest(), NOBODY)
    asked.system.reset_index = 7
    with pytest.raises(ProconsulError, match=r"\(specified 7, reset index: 22\)"):
        asked("BootstrapTokens", DCSpecificRequest(), NOBODY)
    asked.system.reset_index = 22
    again = asked("BootstrapTokens", DCSpecificRequest(), NOBODY)
    assert again.secret_id != token.secret_id
    assert asked.system.reset_index == 0


def test_agents_are_told_only_what_belongs_to_the_token() -> None:
    asked = Asked()
    first, second = asked.policy("a"), asked.policy("b")
    token = asked.token(policies=[t.ACLLink(first.id)])

    def resolve(*ids: str) -> Any:
        request = r.ACLPolicyBatchGetRequest(policy_ids=list(ids), token=token.secret_id)
        return asked("PolicyResolve", request, NOBODY).policies

    assert resolve(first.id) == [first]
    with pytest.raises(ProconsulError, match="Permission denied"):
        resolve(second.id)


def test_a_policy_of_a_role_that_is_not_valid_here_is_left_out() -> None:
    """Consul refuses the whole of what was asked."""
    asked = Asked()
    valid, elsewhere = asked.policy("a"), asked.policy("b")
    token = asked.token(policies=[t.ACLLink(valid.id)])
    role = t.ACLRole(id="r", policies=[t.ACLLink(elsewhere.id)])

    async def rows_of(_secret: str) -> Any:
        return token, [role], [valid]

    asked.system.rows_of = rows_of  # type: ignore[assignment,method-assign]
    request = r.ACLPolicyBatchGetRequest(policy_ids=[valid.id, elsewhere.id], token=token.secret_id)
    assert asked("PolicyResolve", request, NOBODY).policies == [valid]


def test_old_clients_are_sent_rules_once() -> None:
    asked = Asked()
    answer = asked("GetPolicy", r.ACLPolicyResolveLegacyRequest(acl="s"), NOBODY)
    assert (answer.parent, answer.e_tag, answer.policy) == ("manage", "manage:x", {"ID": "x"})
    request = r.ACLPolicyResolveLegacyRequest(acl="s", e_tag="manage:x")
    assert asked("GetPolicy", request, NOBODY).policy is None


def test_nobody_logs_in() -> None:
    for method in ("Login", "Logout", "AuthMethodSet", "BindingRuleDelete"):
        with pytest.raises(ProconsulError, match="auth methods are not supported by this server"):
            Asked()(method, r.ACLLogoutRequest(), NOBODY)
    assert Asked()("AuthMethodList", r.ACLAuthMethodListRequest()).auth_methods is None
    assert Asked()("BindingRuleList", r.ACLBindingRuleListRequest()).binding_rules == []


def test_legacy_tokens() -> None:
    asked = Asked()
    secret = asked("Apply", r.ACLRequest(op="set", acl=t.ACL(type=t.TYPE_CLIENT, name="n")))
    found = asked("Get", r.ACLSpecificRequest(acl=secret), NOBODY).acls
    assert [(acl.id, acl.name, acl.type) for acl in found] == [(secret, "n", t.TYPE_CLIENT)]
    assert asked("List", DCSpecificRequest()).acls == found
    token = asked.token(description="new")
    with pytest.raises(ProconsulError, match="Cannot use legacy endpoint to modify a non-legacy"):
        asked("Apply", r.ACLRequest(op="set", acl=t.ACL(id=token.secret_id, type=t.TYPE_CLIENT)))
    assert asked("Apply", r.ACLRequest(op="delete", acl=t.ACL(id=secret))) == ""
    assert asked("Get", r.ACLSpecificRequest(acl=secret), NOBODY).acls is None
    assert asked("Bootstrap", DCSpecificRequest(), NOBODY).type == t.TYPE_MANAGEMENT
    with pytest.raises(ProconsulError, match="ACL bootstrap no longer allowed"):
        asked("Bootstrap", DCSpecificRequest(), NOBODY)
