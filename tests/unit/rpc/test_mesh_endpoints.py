"""`ConfigEntry.*`, `Intention.*`, `DiscoveryChain.*` and gateways' services: rights and errors.

What they answer is compared with Consul's in tests/interop/test_mesh_config_against_consul.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from endpoint_support import ServerInMemory, only_ok, registration

from proconsul.domain import catalog as c
from proconsul.domain import connect as ca
from proconsul.domain import intention as ixn
from proconsul.domain import mesh_requests as m
from proconsul.domain import options as o
from proconsul.domain.config_entry_forms import from_map
from proconsul.domain.config_entry_messages import ConfigEntryRequest
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.messages import MessageType, encode_command
from proconsul.rpc.endpoints import config_entries, discovery_chain, gateways, intentions
from proconsul.rpc.endpoints.base import RequestError
from proconsul.rpc.table import EndpointTable

SERVICE = {"Kind": "service-defaults", "Name": "ok-web", "Protocol": "http"}
EXIT = {"Kind": "terminating-gateway", "Name": "ok-exit",
        "Services": [{"Name": "ok-web"}, {"Name": "db"}]}  # fmt: skip


class MeshServerInMemory(ServerInMemory):
    """With the endpoints of the service mesh; without ACLs for those who ask without a token."""

    def __init__(self, *, enabled: bool = True, default_allow: bool = True) -> None:
        super().__init__()

        self.table = EndpointTable(
            [
                *self.table,
                *config_entries.endpoints(self),
                *intentions.endpoints(self, lambda: 10**18, lambda: default_allow, "dc9"),
                *discovery_chain.endpoints(self, enabled=enabled),
                *gateways.endpoints(self),
            ]
        )

    def write(self, raw: dict[str, Any], op: str = "upsert") -> Any:
        return self.call("ConfigEntry.Apply", ConfigEntryRequest(op, "dc1", from_map(raw)))

    def create(self, source: str, to: str, action: str = "allow") -> str:
        one = ixn.Intention(source_name=source, destination_name=to, action=action)
        request = ixn.IntentionRequest(op="create", intention=one)
        return str(self.call("Intention.Apply", request))


# -- config entries


def test_entries_need_rights() -> None:
    server = MeshServerInMemory()
    for raw in (EXIT, SERVICE | {"Name": "db"}):
        request = ConfigEntryRequest("upsert", "dc1", from_map(raw))
        for method in ("ConfigEntry.Apply", "ConfigEntry.Delete"):
            with pytest.raises(PermissionDeniedError):
                server.call(method, request, only_ok())
    request = ConfigEntryRequest("whatever", "dc1", from_map(SERVICE))
    assert server.call("ConfigEntry.Apply", request, only_ok()) is True
    server.write(SERVICE | {"Name": "db"})
    server.write({"Kind": "proxy-defaults"})
    found = server.call("ConfigEntry.ListAll", o.DCSpecificRequest(), only_ok())
    assert [one.name for one in found.entries] == ["global", "ok-web"], "defaults are everyone's"
    found = server.call("ConfigEntry.List", m.ConfigEntryQuery(kind="service-defaults"), only_ok())
    assert [one.name for one in found.entries] == ["ok-web"]
    query = m.ConfigEntryQuery(kind="service-defaults", name="db")
    with pytest.raises(PermissionDeniedError):
        server.call("ConfigEntry.Get", query, only_ok())
    with pytest.raises(PermissionDeniedError):
        server.call(
            "ConfigEntry.ResolveServiceConfig", m.ServiceConfigRequest(name="db"), only_ok()
        )


def test_check_and_set() -> None:
    server = MeshServerInMemory()
    assert server.write(SERVICE, "upsert-cas") is True
    assert server.write(SERVICE, "upsert-cas") is False
    with pytest.raises(RequestError, match="invalid config entry kind: x"):
        server.call("ConfigEntry.Get", m.ConfigEntryQuery(kind="x", name="y"))


def test_resolved_configuration() -> None:
    server = MeshServerInMemory()
    server.write({"Kind": "proxy-defaults", "Config": {"protocol": "tcp", "a": 1.0},
                  "MeshGateway": {"Mode": "local"}, "Expose": {"Checks": True}})  # fmt: skip
    server.write(SERVICE | {"MeshGateway": {"Mode": "remote"}})
    server.write(SERVICE | {"Name": "up", "Protocol": "grpc"})

    def resolve(**fields: Any) -> Any:
        request = m.ServiceConfigRequest(name="ok-web", **fields)
        return server.call("ConfigEntry.ResolveServiceConfig", request)

    found = resolve(upstream_ids=[m.ServiceId("up"), m.ServiceId("none")])
    assert found.proxy_config == {"protocol": "http", "a": 1.0}
    assert (found.mesh_gateway.mode, found.expose.checks) == ("remote", True)
    assert [(one.upstream.id, one.config) for one in found.upstream_id_configs] == [
        ("up", {"protocol": "grpc"}),
        ("none", {"protocol": "tcp"}),
    ]
    old = resolve(upstreams=["up"])
    assert (old.upstream_configs, old.upstream_id_configs) == ({"up": {"protocol": "grpc"}}, None)


# -- intentions


def test_intentions_need_rights_on_their_destination() -> None:
    server = MeshServerInMemory()
    mine, other = server.create("a", "ok-db"), server.create("ok-a", "db")

    def change(op: str, intention_id: str, to: str) -> None:
        one = ixn.Intention(id=intention_id, source_name="a", destination_name=to, action="deny")
        request = ixn.IntentionRequest(op=op, intention=one)
        server.call("Intention.Apply", request, only_ok())

    for op, intention_id, to in (
        ("create", "", "db"), ("update", mine, "db"), ("update", other, "ok-db2"), ("delete", other, ""),
    ):  # fmt: skip
        with pytest.raises(PermissionDeniedError):
            change(op, intention_id, to)
    change("update", mine, "ok-db3")
    server.create("x", "y")
    found = server.call("Intention.List", o.DCSpecificRequest(), only_ok())
    assert {one.id for one in found.intentions} == {mine, other}, "the source's reader sees it, too"
    change("delete", mine, "")


def test_what_intentions_refuse() -> None:
    server = MeshServerInMemory()
    missing = "00000000-0000-4000-8000-000000000000"
    for op, intention_id, text in (
        ("create", missing, "ID must be empty when creating a new intention"),
        ("update", missing, f"Cannot modify non-existent intention: '{missing}'"),
        ("delete", missing, f"Cannot delete non-existent intention: '{missing}'"),
        ("delete", "x", "Intention lookup failed: failed intention lookup: index error: UUID must be 36"),
        ("mend", "", "Invalid Intention operation: mend"),
    ):  # fmt: skip
        one = ixn.Intention(id=intention_id, source_name="a", destination_name="b", action="deny")
        request = ixn.IntentionRequest(op=op, intention=one)
        with pytest.raises(RequestError, match=text):
            server.call("Intention.Apply", request)
    with pytest.raises(RequestError, match=r"^Intention not found$"):
        server.call("Intention.Get", m.IntentionQueryRequest(intention_id=missing))


@pytest.mark.parametrize("default_allow", [True, False])
def test_checks(default_allow: bool) -> None:
    server = MeshServerInMemory(default_allow=default_allow)
    server.create("a", "ok-db", "deny" if default_allow else "allow")

    def check(source: str, to: str, kind: str = "consul") -> Any:
        query = m.IntentionQueryCheck("default", source, "default", to, kind)
        return server.call(
            "Intention.Check", m.IntentionQueryRequest(check=query), only_ok()
        ).allowed

    assert check("a", "ok-db") is not default_allow
    assert check("b", "ok-db") is default_allow
    with pytest.raises(PermissionDeniedError):
        check("a", "db")
    with pytest.raises(RequestError, match='unsupported SourceType: "x"'):
        check("a", "ok-db", "x")


def test_matches_need_the_right_to_read_each_name() -> None:
    server = MeshServerInMemory()
    entries = [m.IntentionMatchEntry("default", "ok-a"), m.IntentionMatchEntry("default", "b")]
    query = m.IntentionQueryMatch("source", entries)
    with pytest.raises(PermissionDeniedError):
        server.call("Intention.Match", m.IntentionQueryRequest(match=query), only_ok())
    found = server.call("Intention.Match", m.IntentionQueryRequest(match=query))
    assert found.matches == [None, None]


def test_a_secondary_sends_changes_to_the_primary() -> None:
    endpoint = MeshServerInMemory().table["Intention.Apply"]
    assert endpoint.prepare is not None
    assert endpoint.prepare(ixn.IntentionRequest(datacenter="dc1")).datacenter == "dc9"


# -- discovery chains and gateways


def test_a_chain_needs_connect_a_name_and_a_trust_domain() -> None:
    refuse = MeshServerInMemory(enabled=False).table["DiscoveryChain.Get"].prepare
    assert refuse is not None
    with pytest.raises(RequestError, match="Connect must be enabled in order to use this endpoint"):
        refuse(m.DiscoveryChainRequest())
    server = MeshServerInMemory()
    for request, text in (
        (m.DiscoveryChainRequest(), "Must provide service name"),
        (m.DiscoveryChainRequest(name="ok-a"), "no cluster ca config setup"),
    ):
        with pytest.raises(RequestError, match=text):
            server.call("DiscoveryChain.Get", request)
    with pytest.raises(PermissionDeniedError):
        server.call("DiscoveryChain.Get", m.DiscoveryChainRequest(name="a"), only_ok())


def test_a_chain_is_evaluated_for_a_datacenter() -> None:
    server = MeshServerInMemory()
    config = ca.CAConfiguration(cluster_id="c", provider="consul")
    request = ca.CARequest(op="set-config", config=config)
    server.fsm.apply(9, encode_command(MessageType.CONNECT_CA, request))
    query = m.DiscoveryChainRequest(name="ok-a", evaluate_in_datacenter="dc3")
    chain = server.call("DiscoveryChain.Get", query, only_ok()).chain
    assert list(chain.targets) == ["ok-a.default.dc3"]
    assert chain.targets["ok-a.default.dc3"].sni == "ok-a.default.dc3.internal.c.consul"


def test_services_behind_gateways_are_filtered() -> None:
    server = MeshServerInMemory()
    server.write(EXIT)
    service = c.NodeService(id="ok-web", service="ok-web")
    server.call("Catalog.Register", registration(service=service))
    request = o.ServiceSpecificRequest(service_name="ok-exit")
    found = server.call("Catalog.GatewayServices", request, only_ok())
    assert [one.service.name for one in found.services] == ["ok-web"]
    dump = server.call("Internal.GatewayServiceDump", request).dump
    assert [(one.gateway_service.service.name, one.node is None) for one in dump] == [
        ("db", True),
        ("ok-web", False),
    ]
    assert len(server.call("Internal.GatewayServiceDump", request, only_ok()).dump) == 1
    for method in ("Catalog.GatewayServices", "Internal.GatewayServiceDump"):
        with pytest.raises(PermissionDeniedError):
            server.call(method, o.ServiceSpecificRequest(service_name="exit"), only_ok())
