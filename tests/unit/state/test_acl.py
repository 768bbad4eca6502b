"""What the state refuses of ACLs, queries, intentions and config entries, as Consul's does."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from proconsul.domain.config_entries import ServiceConfigEntry
from proconsul.domain.messages import MessageType
from proconsul.domain.txn import TxnResponse
from proconsul.state.errors import StateError
from proconsul.state.fsm import Fsm
from proconsul.state.rows import INTENTIONS, METHODS, POLICIES, ROLES, RULES, TOKENS, Kind
from proconsul.wire import msgpack as gopack


class World:
    """A state machine that counts its commands."""

    def __init__(self) -> None:
        self.fsm, self.index = Fsm(), 0

    def apply(self, type_: MessageType, **request: Any) -> Any:
        self.index += 1
        return self.fsm.apply(self.index, bytes((type_,)) + gopack.pack(request))

    def rows(self, kind: Kind) -> dict[str, dict[bytes, Any]]:
        return self.fsm.store.tables.opaque.get(kind.record, {})

    def entry(self, kind: str, name: str, op: str = "upsert", **fields: Any) -> Any:
        self.index += 1
        row = {"Kind": kind, "Name": name, "CreateIndex": 0, "ModifyIndex": 0, **fields}
        request = {"Datacenter": "dc1", "Entry": row, "Op": op, "Token": ""}
        body = gopack.pack(gopack.pack(kind) + gopack.pack(request))
        return self.fsm.apply(self.index, bytes((MessageType.CONFIG_ENTRY,)) + body)


def _refused(result: Any) -> str:
    assert isinstance(result, StateError)
    return str(result)


def test_tokens_are_linked_and_refused() -> None:
    world = World()
    set_token = MessageType.ACL_TOKEN_SET
    token = {"SecretID": "s", "AccessorID": "a", "Hash": None, "Policies": [{"ID": "p"}]}
    assert "No such policy with ID: p" in _refused(world.apply(set_token, Tokens=[token]))
    world.apply(MessageType.ACL_POLICY_SET, Policies=[{"ID": "p", "Name": "P"}])
    assert world.apply(set_token, Tokens=[token]) is None
    row = world.rows(TOKENS)["s"]
    assert row[b"Policies"] == [{b"ID": b"p", b"Name": b"P"}]
    assert len(row[b"Hash"]) == 32
    for change, text in (
        ({"SecretID": ""}, "Missing ACL Token SecretID"),
        ({"AccessorID": ""}, "Missing ACL Token AccessorID"),
        ({"AccessorID": "b"}, "AccessorID field is immutable"),
        ({"AuthMethod": "m"}, "No such auth method"),
        ({"Roles": [{"ID": "r"}]}, "No such role with ID: r"),
        ({"Policies": [{"Name": "P"}]}, "linked by Name"),
        ({"ServiceIdentities": [{"ServiceName": ""}]}, "empty service identity name"),
        ({"NodeIdentities": [{"NodeName": "n", "Datacenter": ""}]}, "empty node identity"),
    ):
        assert text in _refused(world.apply(set_token, Tokens=[{**token, **change}]))
    bare = {**token, "SecretID": "t", "AccessorID": "t", "Policies": None}
    refused = world.apply(set_token, Tokens=[bare], ProhibitUnprivileged=True)
    assert _refused(refused) == "Token has no privileges"
    local = world.apply(set_token, Tokens=[{**bare, "Local": True}], FromReplication=True)
    assert _refused(local) == "Cannot replicate local tokens"
    # All of a batch, or nothing of it.
    world.apply(set_token, Tokens=[{**bare, "SecretID": "u", "AccessorID": "u"}, {"SecretID": ""}])
    assert set(world.rows(TOKENS)) == {"s"}


def test_tokens_are_set_only_when_unchanged_if_so_asked() -> None:
    world = World()
    token = {"SecretID": "s", "AccessorID": "a", "Description": "one"}
    world.apply(MessageType.ACL_TOKEN_SET, Tokens=[token])
    for index, text in ((0, b"one"), (7, b"one"), (1, b"two")):
        new = {**token, "Description": "two", "ModifyIndex": index}
        world.apply(MessageType.ACL_TOKEN_SET, Tokens=[new], CAS=True)
        assert world.rows(TOKENS)["s"][b"Description"] == text
    assert world.rows(TOKENS)["s"][b"CreateIndex"] == 1


def test_bootstrap_happens_once_unless_reset() -> None:
    world = World()
    token = {"SecretID": "s", "AccessorID": "a"}
    bootstrap = MessageType.ACL_BOOTSTRAP
    assert world.apply(MessageType.ACL, Op="bootstrap-init", ACL={}) is True
    assert world.apply(bootstrap, Token=token, ResetIndex=0) is None
    assert world.apply(MessageType.ACL, Op="bootstrap-init", ACL={}) is False
    assert "no longer allowed" in _refused(world.apply(bootstrap, Token=token, ResetIndex=0))
    assert "Invalid ACL bootstrap reset" in _refused(
        world.apply(bootstrap, Token=token, ResetIndex=7)
    )
    other = {"SecretID": "t", "AccessorID": "b"}
    assert world.apply(bootstrap, Token=other, ResetIndex=2) is None
    assert set(world.rows(TOKENS)) == {"s", "t"}


def test_tokens_of_before_1_4() -> None:
    world = World()
    old = {"ID": "secret", "Name": "n", "Type": "client", "Rules": "r"}
    assert world.apply(MessageType.ACL, Op="set", ACL=old) == "secret"
    row = world.rows(TOKENS)["secret"]
    assert (row[b"AccessorID"], row[b"Description"], row[b"Rules"]) == (b"", b"n", b"r")
    new = {"SecretID": "new", "AccessorID": "a", "Type": ""}
    world.apply(MessageType.ACL_TOKEN_SET, Tokens=[new])
    refused = world.apply(MessageType.ACL, Op="set", ACL={**old, "ID": "new"})
    assert "cannot use legacy endpoint" in _refused(refused)
    world.apply(MessageType.ACL, Op="delete", ACL={"ID": "secret"})
    assert set(world.rows(TOKENS)) == {"new"}
    assert "Invalid ACL operation 'x'" in _refused(world.apply(MessageType.ACL, Op="x", ACL={}))


def test_builtin_rows_stay() -> None:
    world = World()
    anonymous = "00000000-0000-0000-0000-000000000002"
    token = {"SecretID": "anonymous", "AccessorID": anonymous}
    world.apply(MessageType.ACL_TOKEN_SET, Tokens=[token])
    refused = world.apply(MessageType.ACL_TOKEN_DELETE, TokenIDs=[anonymous])
    assert "builtin anonymous token" in _refused(refused)
    policy = {"ID": "00000000-0000-0000-0000-000000000001", "Name": "management", "Rules": "r"}
    world.apply(MessageType.ACL_POLICY_SET, Policies=[policy])
    for change in ({"Rules": "x"}, {"Datacenters": ["dc1"]}):
        refused = world.apply(MessageType.ACL_POLICY_SET, Policies=[{**policy, **change}])
        assert "builtin global-management" in _refused(refused)
    assert "Deletion" in _refused(
        world.apply(MessageType.ACL_POLICY_DELETE, PolicyIDs=[policy["ID"]])
    )


def test_names_are_unique() -> None:
    world = World()
    for type_, field, kind in (
        (MessageType.ACL_POLICY_SET, "Policies", POLICIES),
        (MessageType.ACL_ROLE_SET, "Roles", ROLES),
    ):
        assert world.apply(type_, **{field: [{"ID": "1", "Name": "n"}]}) is None
        assert world.apply(type_, **{field: [{"ID": "1", "Name": "N"}]}) is None
        assert "already exists" in _refused(
            world.apply(type_, **{field: [{"ID": "2", "Name": "n"}]})
        )
        assert "Missing" in _refused(world.apply(type_, **{field: [{"ID": "2", "Name": ""}]}))
        assert set(world.rows(kind)) == {"1"}


def test_an_auth_method_takes_along_what_depends_on_it() -> None:
    world = World()
    rule = {"ID": "r", "AuthMethod": "m"}
    assert "auth method not found" in _refused(
        world.apply(MessageType.ACL_BINDING_RULE_SET, BindingRules=[rule])
    )
    method = {"Name": "m", "Type": "jwt", "TokenLocality": "global"}
    world.apply(MessageType.ACL_AUTH_METHOD_SET, AuthMethods=[method])
    world.apply(MessageType.ACL_BINDING_RULE_SET, BindingRules=[rule])
    for name, local in (("near", True), ("far", False)):
        token = {"SecretID": name, "AccessorID": name, "AuthMethod": "m", "Local": local}
        world.apply(MessageType.ACL_TOKEN_SET, Tokens=[token])
    world.apply(MessageType.ACL_AUTH_METHOD_DELETE, AuthMethodNames=["m", "none"])
    assert not world.rows(METHODS)
    assert not world.rows(RULES)
    assert set(world.rows(TOKENS)) == {"near"}, "another datacenter's method may have its name"


def test_intentions_in_transactions() -> None:
    """So a real leader of a secondary datacenter replicates them."""
    world = World()
    names = {"SourceNS": "default", "SourceName": "*", "DestinationNS": "default"}
    row = {"ID": "i", **names, "DestinationName": "db", "Action": "deny", "Precedence": 0}

    def change(op: str, **fields: Any) -> Any:
        intention = {"Op": op, "Intention": {**row, **fields}}
        return world.apply(MessageType.TXN, Ops=[{"Intention": intention}])

    assert change("create") == TxnResponse([], None)
    assert world.rows(INTENTIONS)["i"][b"Precedence"] == 8
    failed = change("create", ID="j")
    assert "duplicate intention found: DENY default/* => default/db" in failed.errors[0].what
    assert change("delete") == TxnResponse([], None)
    assert not world.rows(INTENTIONS)


def test_intentions_are_between_two_services_once_whatever_the_case() -> None:
    """As Consul's index has it, or servers of one quorum would differ."""
    world = World()

    def intention(op: str, row_id: str, source: str, destination: str = "db") -> Any:
        names = {"SourceNS": "default", "DestinationNS": "default"}
        row = {"ID": row_id, **names, "SourceName": source, "DestinationName": destination}
        return world.apply(MessageType.INTENTION, Op=op, Intention=row)

    assert intention("create", "i", "web") is None
    assert "duplicate intention found: " in _refused(intention("create", "j", "WEB"))
    assert intention("update", "i", "Web") is None, "its own name"
    assert intention("update", "i", "api") is None
    assert intention("create", "j", "web") is None, "the name is free again"
    ops = [
        {"Intention": {"Op": "delete", "Intention": {"ID": "j"}}},
        {"Intention": {"Op": "rubbish", "Intention": {"ID": "i"}}},
    ]
    assert world.apply(MessageType.TXN, Ops=ops).errors
    assert "duplicate intention found: " in _refused(intention("create", "k", "web"))
    assert intention("create", "l", "", "") is None
    assert intention("create", "m", "", "") is None, "no names, no index"
    assert intention("delete", "j", "") is None
    assert intention("create", "k", "web") is None


def test_entries_and_intentions_are_made_structs_once() -> None:
    """Proxies ask for all of them whenever one changes."""
    world = World()
    mesh = world.fsm.store.mesh

    def intention(op: str, number: int, action: str = "allow") -> None:
        row = {"ID": f"i{number}", "SourceName": f"s{number}", "Action": action}
        assert world.apply(MessageType.INTENTION, Op=op, Intention=row) is None

    for number in range(40):
        intention("create", number)
        assert world.entry("service-defaults", f"s{number:02}", Protocol="http") is True
    before, entries = mesh.intentions().value, mesh.config_entries().value
    assert all(a is b for a, b in zip(entries, mesh.config_entries().value, strict=True))
    assert mesh.config_entry("service-defaults", "s07").value is entries[7]
    intention("update", 3, "deny")
    assert world.entry("service-defaults", "s03", Protocol="tcp") is True
    after = mesh.intentions().value
    assert [one.action for one in after if one not in before] == ["deny"]
    assert sum(any(one is other for other in before) for one in after) == 39
    changed = mesh.config_entry("service-defaults", "s03").value
    assert isinstance(changed, ServiceConfigEntry)
    assert changed.protocol == "tcp"
    for number in range(40):
        intention("delete", number)
    assert mesh.intention("i3").value is None
    assert mesh.intentions().value == []


def _refused_text(world: World, kind: str, name: str, **fields: Any) -> str:
    return _refused(world.entry(kind, name, **fields))


def test_config_entries_fit_together() -> None:
    world = World()
    for name in ("web", "db", "api"):
        assert world.entry("service-defaults", name, Protocol="HTTP") is True
    split = [{"Weight": 50, "Service": "db"}, {"Weight": 50}]
    assert world.entry("service-splitter", "web", Splits=split) is True
    assert "does not permit advanced routing" in _refused_text(
        world, "service-router", "plain", Routes=[]
    )
    assert "uses inconsistent protocols" in _refused_text(
        world, "service-defaults", "db", Protocol="tcp"
    )
    assert "uses inconsistent protocols" in _refused(
        world.entry("service-defaults", "db", "delete")
    )
    assert 'does not have a subset named "v1"' in _refused_text(
        world, "service-splitter", "web", Splits=[{"Weight": 100, "ServiceSubset": "v1"}]
    )
    assert world.entry("service-resolver", "web", Subsets={"v1": {}}, DefaultSubset="v1") is True
    assert world.entry("service-resolver", "api", Redirect={"Service": "db"}) is True
    assert "detected circular resolver redirect" in _refused_text(
        world, "service-resolver", "db", Redirect={"Service": "api"}
    )
    back = [{"Weight": 100, "Service": "web"}]
    assert "detected circular reference" in _refused_text(
        world, "service-splitter", "db", Splits=back
    )
    assert "external SNI" in _refused_text(
        world, "service-defaults", "web", Protocol="http", ExternalSNI="x"
    )
    assert "unhandled kind" in _refused_text(world, "service-intentions", "x")
    assert world.entry("proxy-defaults", "global", Config={"protocol": "grpc"}) is True
    assert world.entry("service-router", "plain", Routes=[]) is True
    assert "does not permit" in _refused(world.entry("proxy-defaults", "global", "delete"))


def test_failover_is_followed_once() -> None:
    world = World()
    world.entry("service-resolver", "a", Failover={"*": {"Service": "b"}})
    assert world.entry("service-resolver", "b", Failover={"*": {"Service": "a"}}) is True
    elsewhere = {"*": {"Datacenters": ["dc2", "dc3"]}}
    assert world.entry("service-resolver", "c", Failover=elsewhere) is True
    assert 'subset named "v9"' in _refused_text(
        world, "service-resolver", "c", Failover={"*": {"ServiceSubset": "v9"}}
    )


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_ingress_gateways_have_their_services_protocol(protocol: str) -> None:
    world = World()
    world.entry("service-defaults", "web", Protocol="http")
    listeners = [{"Port": 1, "Protocol": protocol, "Services": [{"Name": "web"}, {"Name": "*"}]}]
    result = world.entry("ingress-gateway", "in", Listeners=listeners)
    if protocol == "tcp":
        assert "does not match defined listener protocol" in _refused(result)
        return
    assert result is True
    assert "already exists" in _refused_text(world, "terminating-gateway", "in", Services=[])
    assert "does not match" in _refused_text(world, "service-defaults", "web", Protocol="tcp")
    assert world.entry("ingress-gateway", "in", "delete") is None


def test_records_of_before_1_4_are_restored() -> None:
    fsm = Fsm()
    old = {"ID": "secret", "Name": "n", "Type": "client", "Rules": "r"}
    header = msgpack.packb({"LastIndex": 9}, use_bin_type=False)
    fsm.restore(
        [
            header + b"\x04" + gopack.pack({**old, "CreateIndex": 3, "ModifyIndex": 4}),
            b"\x0b" + gopack.pack({"AllowBootstrap": False, "CreateIndex": 1, "ModifyIndex": 5}),
        ]
    )
    assert fsm.store.tables.opaque[MessageType.ACL_TOKEN_SET]["secret"][b"ModifyIndex"] == 4
    assert fsm.store.tables.index["acl-token-bootstrap"] == 5


def test_deep_and_wide_splitters_are_followed_once() -> None:
    world = World()
    world.entry("proxy-defaults", "global", Config={"protocol": "http"})
    for number in reversed(range(1500)):
        onward = [
            {"Weight": 50, "Service": f"s{number + 1}"},
            {"Weight": 50, "Service": f"s{number + 2}"},
        ]
        # Straight into the table: checking every step on the way would take its time.
        world.fsm.store.tables.config_entries["service-splitter", f"s{number}"] = {
            b"Splits": [{key.encode(): str(one[key]).encode() for key in one} for one in onward]
        }
    assert world.entry("service-defaults", "s0", Protocol="http") is True
    loop = [{"Weight": 100, "Service": "s0"}]
    assert "circular" in _refused(world.entry("service-splitter", "s1500", Splits=loop))


def test_all_auth_methods_are_in_a_snapshot() -> None:
    world = World()
    for name in ("m", "n", "o"):
        world.apply(MessageType.ACL_AUTH_METHOD_SET, AuthMethods=[{"Name": name, "Type": "jwt"}])
    restored = Fsm()
    restored.restore(world.fsm.snapshot())
    assert set(restored.store.tables.opaque[METHODS.record]) == {"m", "n", "o"}


def test_rules_of_old_tokens_stay_as_they_were_written() -> None:
    world = World()
    rules = 'key "" { policy = "read" }'
    old = {"ID": "secret", "Name": "n", "Type": "client", "Rules": rules}
    world.apply(MessageType.ACL, Op="set", ACL=old)
    assert world.rows(TOKENS)["secret"][b"Rules"] in {rules, rules.encode()}
