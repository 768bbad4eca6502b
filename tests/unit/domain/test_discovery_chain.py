"""Discovery chains: what entries make of a name (cases of Consul's compile_test.go)."""

from __future__ import annotations

from typing import Any

import pytest

from proconsul.domain import config_entries as c
from proconsul.domain.base import decode, encode
from proconsul.domain.config_entry_forms import from_map, view
from proconsul.domain.config_entry_rules import normalize
from proconsul.domain.discovery_chain.compile import ChainError, compile_chain
from proconsul.domain.discovery_chain.go_hash import customization_hash
from proconsul.domain.discovery_chain.types import (
    ChainEntries,
    CompiledDiscoveryChain,
    CompileRequest,
    DiscoveryChainResponse,
)

HTTP = {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}}


def compiled(*entries: dict[str, Any], **request: Any) -> CompiledDiscoveryChain:
    made = [normalize(from_map(entry)) for entry in entries]

    def lookup(type_: type) -> Any:
        return {one.name: one for one in made if isinstance(one, type_)}.get

    return compile_chain(
        CompileRequest(**{"service": "main", "datacenter": "dc1", "use_datacenter": "dc1",
                          "trust_domain": "td.consul", **request}),
        ChainEntries(
            router=lookup(c.ServiceRouterConfigEntry),
            splitter=lookup(c.ServiceSplitterConfigEntry),
            resolver=lookup(c.ServiceResolverConfigEntry),
            service=lookup(c.ServiceConfigEntry),
            proxy=lookup(c.ProxyConfigEntry)("global"),
        ),
    )  # fmt: skip


def resolver(name: str, **fields: Any) -> dict[str, Any]:
    return {"Kind": "service-resolver", "Name": name, **fields}


def splitter(name: str, *splits: tuple[float, str]) -> dict[str, Any]:
    return {"Kind": "service-splitter", "Name": name,
            "Splits": [{"Weight": w, "Service": s} for w, s in splits]}  # fmt: skip


def test_without_entries_a_name_means_itself() -> None:
    assert view(compiled()) == {
        "ServiceName": "main", "Namespace": "default", "Datacenter": "dc1", "Protocol": "tcp",
        "StartNode": "resolver:main.default.dc1",
        "Nodes": {"resolver:main.default.dc1": {
            "Type": "resolver", "Name": "main.default.dc1",
            "Resolver": {"ConnectTimeout": "5s", "Default": True, "Target": "main.default.dc1"}}},
        "Targets": {"main.default.dc1": {
            "ID": "main.default.dc1", "Service": "main", "Namespace": "default",
            "Datacenter": "dc1", "MeshGateway": {}, "Subset": {},
            "SNI": "main.default.dc1.internal.td.consul",
            "Name": "main.default.dc1.internal.td.consul"}},
    }  # fmt: skip


def test_redirects_default_subsets_and_what_they_leave_behind() -> None:
    chain = compiled(
        resolver("main", Redirect={"Service": "other", "Datacenter": "dc2"}),
        resolver("other", DefaultSubset="v1", Subsets={"v1": {"Filter": "f"}}),
        {"Kind": "service-defaults", "Name": "other", "MeshGateway": {"Mode": "local"}},
    )
    assert chain.start_node == "resolver:v1.other.default.dc2"
    (target,) = (chain.targets or {}).values()
    assert (target.subset.filter, target.mesh_gateway.mode) == ("f", "local")
    assert target.sni == "v1.other.default.dc2.internal.td.consul"


def test_splitters_behind_splitters_are_merged() -> None:
    chain = compiled(
        HTTP, splitter("main", (60, "a"), (40, "b")), splitter("a", (25, "x"), (75, "y"))
    )
    (node,) = [one for one in (chain.nodes or {}).values() if one.type == "splitter"]
    assert [(one.weight, one.next_node) for one in node.splits or ()] == [
        (15.0, "resolver:x.default.dc1"),
        (45.0, "resolver:y.default.dc1"),
        (40.0, "resolver:b.default.dc1"),
    ]
    assert sorted(chain.targets or {}) == [f"{name}.default.dc1" for name in "bxy"]


def test_routes_and_the_one_for_all_that_is_left() -> None:
    route = {"Match": {"HTTP": {"PathExact": "/a"}}, "Destination": {"Service": "a"}}
    chain = compiled(HTTP, {"Kind": "service-router", "Name": "main", "Routes": [route]})
    node = (chain.nodes or {})[chain.start_node]
    assert [one.next_node for one in node.routes or ()] == [
        "resolver:a.default.dc1",
        "resolver:main.default.dc1",
    ]
    last = view(node)["Routes"][-1]["Definition"]
    assert last == {
        "Match": {"HTTP": {"PathPrefix": "/"}},
        "Destination": {"Service": "main", "Namespace": "default"},
    }


def test_failover_to_other_datacenters_but_not_to_itself() -> None:
    chain = compiled(resolver("main", Failover={"*": {"Datacenters": ["dc1", "dc2", "dc3"]}}))
    node = (chain.nodes or {})[chain.start_node].resolver
    assert node is not None
    assert node.failover is not None
    assert node.failover.targets == ["main.default.dc2", "main.default.dc3"]
    assert len(chain.nodes or {}) == 1
    assert len(chain.targets or {}) == 3


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ([splitter("main", (100, "a"))],
         'discovery chain "main" uses a protocol "tcp" that does not permit advanced routing or '
         "splitting behavior"),
        ([HTTP, splitter("main", (50, "a"), (50, "b")),
          {"Kind": "service-defaults", "Name": "a", "Protocol": "grpc"}],
         'discovery chain "main" uses inconsistent protocols; service "b" has "http" which is not '
         '"grpc"'),
        ([HTTP, splitter("main", (100, "a")), splitter("a", (100, "main"))],
         "detected circular reference: [splitter:main.default -> splitter:a.default -> "
         "splitter:main.default]"),
        ([resolver("main", Redirect={"Service": "a"}), resolver("a", Redirect={"Service": "main"})],
         "detected circular resolver redirect: [main.default.dc1 -> a.default.dc1 -> "
         "main.default.dc1]"),
        ([resolver("main", Redirect={"Service": "a", "ServiceSubset": "v"})],
         'service "a" does not have a subset named "v"'),
        ([resolver("main", Failover={"*": {"Datacenters": ["dc2"]}}),
          {"Kind": "service-defaults", "Name": "main", "ExternalSNI": "x"}],
         'service "main" has an external SNI set; cannot define failover for external services'),
    ],
)  # fmt: skip
def test_what_makes_no_chain(entries: list[dict[str, Any]], text: str) -> None:
    with pytest.raises(ChainError) as caught:
        compiled(*entries)
    assert str(caught.value) == text


def test_splits_that_multiply_without_end_are_refused() -> None:
    """Two ways to the next splitter at every step: 2^20 in all."""
    entries = [HTTP]
    for step in range(20):
        entries.append(splitter(f"s{step}", (50, f"a{step}"), (50, f"b{step}")))
        entries += [splitter(f"{way}{step}", (100, f"s{step + 1}")) for way in "ab"]
    with pytest.raises(ChainError, match="splits requests into more than 10000 parts"):
        compiled(*entries, service="s0")


def test_overrides_show_in_the_hash() -> None:
    far = resolver("main", Redirect={"Datacenter": "dc2"})
    plain = compiled(HTTP, splitter("main", (100, "a")), override_protocol="tcp")
    assert (plain.protocol, plain.start_node) == ("tcp", "resolver:main.default.dc1")
    assert plain.customization_hash == customization_hash("", "tcp", 0) == "96f2c150", "Consul's"
    other = compiled(far, override_mesh_gateway="remote", override_connect_timeout_ns=7 * 10**9)
    assert other.customization_hash == customization_hash("remote", "", 7 * 10**9)
    (target,) = (other.targets or {}).values()
    assert target.mesh_gateway.mode == "remote"
    unchanged = compiled(override_protocol="tcp", override_connect_timeout_ns=5 * 10**9,
                         override_mesh_gateway="local")  # fmt: skip
    assert unchanged.customization_hash == ""


def test_the_answer_survives_the_wire() -> None:
    answer = DiscoveryChainResponse(chain=compiled(HTTP, splitter("main", (100, "a"))), index=5)
    assert decode(encode(answer), DiscoveryChainResponse) == answer
