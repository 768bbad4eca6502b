"""Config entries and intentions: the same writes and reads to a real server and ours, good and bad.

Each request goes to both; status and body must be equal, after ids, times, hashes and indexes (which
count what else happens on a server) are put aside. Costs two agents of each kind, about 12 s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, both_alone, needs_consul, until

from proconsul.domain.intention import Intention, with_hash
from proconsul.interfaces.http.intentions import view

pytestmark = needs_consul
Pair = tuple[AgentProcess, AgentProcess]

CONFIG = "/v1/config"
IXN = "/v1/connect/intentions"
_HEADERS = ("Content-Type", "X-Consul-Knownleader", "X-Consul-Effective-Consistency", "Allow")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VOLATILE = (
    (re.compile(r'("?(?:Create|Modify)Index"?): ?\d+'), r"\1: 0"),
    (re.compile(r'"(Created|Updated)At": ?"[^"]*"'), r'"\1At": ""'),
    (re.compile(r'"Hash": ?"[^"]*"'), '"Hash": ""'),
    (re.compile(r"Created At: .*"), "Created At:"),
    (_UUID, "<id>"),
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with both_alone(tmp_path_factory.mktemp("mesh")) as agents:
        yield agents


def plain(text: str) -> str:
    """Without what differs from server to server."""
    for pattern, instead in _VOLATILE:
        text = pattern.sub(instead, text)
    return text


def asked(agent: AgentProcess, method: str, path: str, body: Any = None) -> tuple[Any, ...]:
    status, headers, answer = agent.ask(method, path, body)
    if status != 200:  # Consul writes the headers of an empty answer for some errors
        return status, plain(answer.decode()), headers.get("Content-Type"), headers.get("Allow")
    shown = {name: headers.get(name) for name in _HEADERS}
    return status, plain(answer.decode()), shown, "X-Consul-Index" in headers


def compare(pair: Pair, method: str, path: str, body: Any = None) -> None:
    ours, theirs = (asked(agent, method, path, body) for agent in pair)
    assert ours == theirs, (method, path, body)


GOOD: tuple[Any, ...] = (
    {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http", "n": 1, "f": 1.5,
     "deep": {"a": [1, 2], "b": [1]}, "one": [{"x": ["y"]}]}, "MeshGateway": {"Mode": "local"}},
    {"kind": "service-defaults", "name": "web", "protocol": "HTTP", "mesh_gateway": {"mode": "remote"},
     "expose": {"checks": True, "paths": [{"path": "/m", "local_path_port": 80, "listener_port": 81}]},
     "external_sni": "x.y", "meta": {"b": "<2>", "a": "1"}},
    {"Kind": "service-defaults", "Name": "api", "Protocol": "http"},
    {"Kind": "service-defaults", "Name": "tcp-one", "Protocol": "tcp"},
    {"Kind": "service-resolver", "Name": "api", "DefaultSubset": "v1", "ConnectTimeout": "15s",
     "Subsets": {"v1": {"Filter": "Service.Meta.version == v1"}, "v2": {"OnlyPassing": True}},
     "Failover": {"*": {"Datacenters": ["dc2", "dc3"]}, "v2": {"Service": "other"}}},
    {"kind": "service-resolver", "name": "api2", "redirect": {"service": "api",
     "service_subset": "v2"}, "connect_timeout": 5000000000},
    {"Kind": "service-splitter", "Name": "api", "Splits": [{"Weight": 33.33, "ServiceSubset": "v1"},
     {"Weight": "66.67", "ServiceSubset": "v2"}]},
    {"Kind": "service-router", "Name": "api", "Routes": [
     {"Match": {"HTTP": {"PathPrefix": "/x", "Methods": ["get", "put"], "Header": [{"Name": "a",
      "Exact": "b", "Invert": True}], "QueryParam": [{"Name": "q", "Present": True}]}},
      "Destination": {"Service": "api", "ServiceSubset": "v1", "PrefixRewrite": "/", "RequestTimeout":
      "1m30s", "NumRetries": 3, "RetryOnConnectFailure": True, "RetryOnStatusCodes": [500, 503]}},
     {"match": {"http": {"path_regex": "/r.*"}}, "destination": {"num_retries": "2"}}]},
    {"Kind": "ingress-gateway", "Name": "in", "TLS": {"Enabled": True}, "Listeners": [
     {"Port": 8080, "Protocol": "HTTP", "Services": [{"Name": "api", "Hosts": ["a.b", "*.c.d"]},
      {"Name": "*"}]}, {"Port": 9090, "Services": [{"Name": "tcp-one"}]}]},
    {"Kind": "terminating-gateway", "Name": "out", "Services": [{"Name": "web", "CAFile": "ca",
     "CertFile": "cert", "KeyFile": "key", "SNI": "sni"}, {"Name": "*", "ca_file": "c"}]},
    {"Kind": "service-router", "Name": "empty"},
    {"Kind": "service-resolver", "Name": "plain"},
    {"Kind": "service-defaults", "Name": "weird", "Protocol": 7, "Expose": [{"Checks": "true"}]},
    {"Kind": "terminating-gateway", "Name": "none", "CreateIndex": 7, "ModifyIndex": 9},
    {"Kind": "ingress-gateway", "Name": "in2", "Listeners": []},
)  # fmt: skip

BAD: tuple[Any, ...] = (
    None, "", "{", "[]", "5", "null", {}, {"Kind": 5}, {"Kind": "nope", "Name": "x"},
    {"Kind": "service-defaults", "Name": "x", "Bogus": 1},
    {"Kind": "service-defaults", "Name": "x", "namespace": "a"},
    {"Kind": "service-defaults", "Name": "x", "Expose": {"Bogus": 1}},
    {"Kind": "service-defaults", "Name": {"a": 1}, "Protocol": [1, 2]},
    {"Kind": "service-defaults", "Name": "x", "Expose": {"Checks": "maybe"}},
    {"Kind": "service-defaults", "Name": "x", "MeshGateway": 5},
    {"Kind": "service-defaults", "Name": "x", "Meta": {"k" * 129: "v"}},
    {"Kind": "service-defaults", "Name": "x", "Meta": {"k": "v" * 513}},
    {"Kind": "service-defaults", "Name": "x", "Meta": {str(i): "" for i in range(65)}},
    {"Kind": "service-router", "Routes": []},
    {"Kind": "service-router", "Name": "web", "Routes": [{"Match": {"HTTP": {"PathExact": "x"}}}]},
    {"Kind": "service-router", "Name": "web", "Routes": [{"Match": {"HTTP": {"PathPrefix": "x"}}}]},
    {"Kind": "service-router", "Name": "web", "Routes": [{"Match": {"HTTP": {"PathExact": "/x",
     "PathRegex": "y"}}}]},
    {"Kind": "service-router", "Name": "web", "Routes": [{"Match": {"HTTP": {"Header": [{}]}}}]},
    {"Kind": "service-router", "Name": "web", "Routes": [{"Match": {"HTTP": {"Header": [
     {"Name": "a", "Exact": "b", "Regex": "c"}]}}}]},
    {"Kind": "service-router", "Name": "web", "Routes": [{"Match": {"HTTP": {"QueryParam": [{}]}}}]},
    {"Kind": "service-router", "Name": "web", "Routes": [{"Match": {"HTTP": {"QueryParam": [
     {"Name": "a"}]}}}]},
    {"Kind": "service-router", "Name": "web", "Routes": [{"Match": {"HTTP": {"Methods": ["a", "A"]}}}]},
    {"Kind": "service-router", "Name": "web", "Routes": [{"Destination": {"PrefixRewrite": "/"}}]},
    {"Kind": "service-router", "Name": "web", "Routes": [{"Destination": {"RequestTimeout": "5x"}}]},
    {"Kind": "service-router", "Name": "web", "Routes": [{"Destination": {"NumRetries": "x"}}]},
    {"Kind": "service-router", "Name": "tcp-one", "Routes": []},
    {"Kind": "service-splitter", "Name": "web"},
    {"Kind": "service-splitter", "Name": "web", "Splits": [{"Weight": 99.99}]},
    {"Kind": "service-splitter", "Name": "web", "Splits": [{"Weight": 50}, {"Weight": 50,
     "Service": "web"}]},
    {"Kind": "service-splitter", "Name": "web", "Splits": [{"Weight": 100, "ServiceSubset": "zz"}]},
    {"Kind": "service-resolver", "Name": "x", "Subsets": {"A_": {}}},
    {"Kind": "service-resolver", "Name": "x", "Subsets": {"": {}}},
    {"Kind": "service-resolver", "Name": "x", "Subsets": {"a" * 64: {}}},
    {"Kind": "service-resolver", "Name": "x", "DefaultSubset": "v1"},
    {"Kind": "service-resolver", "Name": "x", "Redirect": {}},
    {"Kind": "service-resolver", "Name": "x", "Redirect": {"ServiceSubset": "a"}},
    {"Kind": "service-resolver", "Name": "x", "Redirect": {"Namespace": "a"}},
    {"Kind": "service-resolver", "Name": "x", "Redirect": {"Service": "x", "ServiceSubset": "a"}},
    {"Kind": "service-resolver", "Name": "x", "Redirect": {"Service": "y"}, "Failover": {"*": {}}},
    {"Kind": "service-resolver", "Name": "x", "Failover": {"v1": {}}},
    {"Kind": "service-resolver", "Name": "x", "Failover": {"*": {}}},
    {"Kind": "service-resolver", "Name": "x", "Failover": {"*": {"ServiceSubset": "q"}}},
    {"Kind": "service-resolver", "Name": "x", "Failover": {"*": {"Datacenters": ["a", ""]}}},
    {"Kind": "service-resolver", "Name": "x", "ConnectTimeout": "-5s"},
    {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 1, "Services": [{"Name": "a"}]},
     {"Port": 1, "Services": [{"Name": "a"}]}]},
    {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 1, "Protocol": "udp"}]},
    {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 1}]},
    {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 1, "Services": [{"Name": "a"},
     {"Name": "b"}]}]},
    {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 1, "Services": [{"Name": "*"}]}]},
    {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 1, "Services": [{"Name": "a",
     "Hosts": ["h"]}]}]},
    {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 1, "Services": [{}]}]},
    {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 1, "Protocol": "http",
     "Services": [{"Name": "*", "Hosts": ["h"]}]}]},
    {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 1, "Protocol": "http",
     "Services": [{"Name": "api", "Hosts": ["h", "h"]}]}]},
    {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 1, "Protocol": "http",
     "Services": [{"Name": "api", "Hosts": ["a.*.b"]}]}]},
    {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 1, "Protocol": "http",
     "Services": [{"Name": "api", "Hosts": ["a..b"]}]}]},
    {"Kind": "ingress-gateway", "Name": "x", "TLS": {"Enabled": True}, "Listeners": [{"Port": 1,
     "Protocol": "http", "Services": [{"Name": "api", "Hosts": ["*"]}]}]},
    {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 1, "Services": [{"Name": "api"}]}]},
    {"Kind": "ingress-gateway", "Name": "out", "Listeners": []},
    {"Kind": "terminating-gateway", "Name": "x", "Services": [{}]},
    {"Kind": "terminating-gateway", "Name": "x", "Services": [{"Name": "a"}, {"Name": "a"}]},
    {"Kind": "terminating-gateway", "Name": "x", "Services": [{"Name": "a", "CertFile": "x"}]},
)  # fmt: skip

READS = (
    *(f"{CONFIG}/{entry.get('Kind') or entry['kind']}/{entry.get('Name') or entry['name']}"
      for entry in GOOD),
    f"{CONFIG}/", f"{CONFIG}/service-defaults", f"{CONFIG}/service-defaults?pretty",
    f"{CONFIG}/service-splitter", f"{CONFIG}/nope", f"{CONFIG}/nope/x", f"{CONFIG}/service-router/nope",
    f"{CONFIG}/service-defaults/web?stale", f"{CONFIG}/service-defaults/", f"{CONFIG}/service-defaults/a/b",
    f"{CONFIG}/service-defaults/web?dc=nope",
)  # fmt: skip


def test_config_entries(pair: Pair) -> None:
    for entry in GOOD:
        compare(pair, "PUT", CONFIG, entry)
    for path in READS:
        compare(pair, "GET", path)
    for body in BAD:
        compare(pair, "PUT", CONFIG, body)
    for method, path in (
        ("GET", CONFIG),
        ("POST", CONFIG),
        ("PUT", f"{CONFIG}/x"),
        ("DELETE", CONFIG),
    ):
        compare(pair, method, path)


def test_check_and_set_and_deletion(pair: Pair) -> None:
    entry = {"Kind": "service-defaults", "Name": "cas", "Protocol": "http"}
    compare(pair, "PUT", f"{CONFIG}?cas=x", entry)
    compare(pair, "PUT", f"{CONFIG}?cas=5", entry)
    compare(pair, "PUT", f"{CONFIG}?cas=0", entry)
    compare(pair, "PUT", f"{CONFIG}?cas=0", entry)
    for agent in pair:
        index = agent.get(f"{CONFIG}/service-defaults/cas")["ModifyIndex"]
        assert agent.put(f"{CONFIG}?cas={index}", entry | {"Protocol": "grpc"}) is True
    compare(pair, "GET", f"{CONFIG}/service-defaults/cas")
    for path in (
        f"{CONFIG}/service-defaults/cas", f"{CONFIG}/service-defaults/cas", f"{CONFIG}/nope/x",
        f"{CONFIG}/service-defaults", f"{CONFIG}/service-defaults/api",
    ):  # fmt: skip
        compare(pair, "DELETE", path)
    compare(pair, "GET", f"{CONFIG}/service-defaults/cas")


def ixn(source: str, to: str, action: str = "allow", **more: Any) -> dict[str, Any]:
    return {"SourceName": source, "DestinationName": to, "Action": action, **more}


INTENTIONS: tuple[Any, ...] = (
    ixn("web", "db"), ixn("*", "db", "deny", Description="<all>"), ixn("web", "*"),
    ixn("*", "*", "deny", Meta={"b": "2", "a": "1"}), ixn("a", "b", SourceNS="default"),
    ixn("c", "d", SourceNS="x", DefaultAddr="1.2.3.4", DefaultPort=99, Hash="x", CreatedAt="y"),
    ixn("web", "db"), ixn("*", "db", ID="5"), {}, ixn("w*", "*b"), ixn("a", "b", "maybe"),
    ixn("a", "b", SourceType="x"), ixn("a", "b", SourceNS="*", DestinationNS="d*"), "", "{", "null",
    ixn("a", "b", Bogus=1), {"SourceName": 5}, ixn("a", "b", Hash=5), ixn("q", "r", Description="x" * 513),
    ixn("q", "r", Meta={"k" * 129: "v"}),
)  # fmt: skip

IXN_READS = (
    IXN, f"{IXN}?stale", f"{IXN}?filter=Action==deny", f"{IXN}?filter=Meta.a==1+and+Precedence!=9",
    f"{IXN}?filter=Hash==x", f"{IXN}?filter=SourceNS", f"{IXN}/nope",
    f"{IXN}/00000000-0000-0000-0000-000000000000",
    f"{IXN}/0000000000000000000000000000-0000000", f"{IXN}/zzzzzzzz-0000-0000-0000-000000000000",
    f"{IXN}/match", f"{IXN}/match?by=x&name=a", f"{IXN}/match?by=source", f"{IXN}/match?by=source&name=web",
    f"{IXN}/match?by=destination&name=db&name=*&name=zz", f"{IXN}/match?by=source&name=a/b/c",
    f"{IXN}/match?by=source&name=x/c", f"{IXN}/match?by=destination&name=*/*",
    f"{IXN}/check?source=web&destination=db", f"{IXN}/check?source=zz&destination=db",
    f"{IXN}/check?source=web&destination=q", f"{IXN}/check?source=a", f"{IXN}/check",
    f"{IXN}/check?source=a&destination=b&source-type=x", f"{IXN}/check?source=a/b/c&destination=b",
    f"{IXN}/check?source=x/c&destination=d",
)  # fmt: skip


def ids(agent: AgentProcess) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["SourceName"], one["DestinationName"]): one for one in agent.get(IXN)}


def test_intentions(pair: Pair) -> None:
    for body in INTENTIONS:
        compare(pair, "POST", IXN, body)
    for path in IXN_READS:
        compare(pair, "GET", path)
    ours, theirs = (ids(agent) for agent in pair)
    for key, one in ours.items():
        assert (len(one["Hash"]), one["Precedence"]) == (
            len(theirs[key]["Hash"]),
            theirs[key]["Precedence"],
        )
    changes: tuple[Any, ...] = (
        ixn("web", "db", "deny"), ixn("web", "db2"), ixn("*", "db"), {}, "", "{", {"Bogus": 1},
    )  # fmt: skip
    for change in changes:
        answers = [
            asked(agent, "PUT", f"{IXN}/{ids_['web', 'db']['ID']}", change)
            for agent, ids_ in zip(pair, (ours, theirs), strict=True)
        ]
        assert answers[0] == answers[1], (change, answers)
    for method in ("PUT", "DELETE"):
        for wrong in ("nope", "00000000-0000-0000-0000-000000000000"):
            compare(pair, method, f"{IXN}/{wrong}", ixn("a", "b"))
    for agent, ids_ in zip(pair, (ours, theirs), strict=True):
        assert agent.ask("DELETE", f"{IXN}/{ids_['web', '*']['ID']}")[2].strip() == b"true"
    compare(pair, "GET", IXN)
    for agent in pair:  # the default is to allow, without ACLs
        agent.ask("DELETE", f"{IXN}/{ids(agent)['*', '*']['ID']}")
    compare(pair, "GET", f"{IXN}/check?source=x&destination=y")


def test_hashes_are_consuls(pair: Pair) -> None:
    """Replication compares by them: the same contents must have the same hash."""
    for one in pair[1].get(IXN):
        found = with_hash(
            Intention(
                id=one["ID"],
                description=one["Description"],
                source_namespace=one["SourceNS"],
                source_name=one["SourceName"],
                destination_namespace=one["DestinationNS"],
                destination_name=one["DestinationName"],
                source_type=one["SourceType"],
                action=one["Action"],
                default_addr=one["DefaultAddr"],
                default_port=one["DefaultPort"],
                meta=one["Meta"],
                precedence=one["Precedence"],
            )
        )
        assert view(found)["Hash"] == one["Hash"]


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("config", "write", "{}/e.hcl"), ("config", "write", "{}/e.json"),
    ("config", "write", "{}/bad.hcl"), ("config", "write", "{}/odd.hcl"), ("config", "write", "{}/in.hcl"),
    ("config", "write", "-cas", "-modify-index", "1", "{}/e.hcl"),
    ("config", "list", "-kind", "service-resolver"),
    ("config", "read", "-kind", "service-defaults", "-name", "cli"),
    ("config", "read", "-kind", "ingress-gateway", "-name", "cli-in"),
    ("config", "read", "-kind", "x", "-name", "y"),
    ("config", "delete", "-kind", "service-resolver", "-name", "cli"),
    ("intention", "match", "cli-b"), ("intention", "match", "-source", "cli-a"),
    ("intention", "check", "cli-a", "cli-b"),
    ("intention", "create", "cli-a", "cli-b"), ("intention", "create", "-replace", "cli-a", "cli-b"),
     ("intention", "get", "cli-a", "cli-b"),
     ("intention", "get", "nope"),
)  # fmt: skip
FILES = {
    "e.hcl": 'Kind = "service-defaults"\nName = "cli"\nProtocol = "http"\nMeshGateway { Mode = "local" }\n',
    "e.json": '{"kind": "service-resolver", "name": "cli", "connect_timeout": "3s"}',
    "bad.hcl": 'Kind = "service-defaults"\nName = "cli"\nBogus = 1\n',
    "odd.hcl": 'Kind = "nope"\n',
    "in.hcl": 'kind = "ingress-gateway"\nname = "cli-in"\nlisteners = [ { port = 5000\n'
    'protocol = "tcp"\nservices = [ { name = "cli-tcp" } ] } ]\n',
}


def test_commands(pair: Pair, tmp_path: Path) -> None:
    """`config` and `intention`: ours on a real agent and the real one on ours are as both real."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    assert (
        pair[0].cli(THEIRS, "intention", "create", "-deny", "-meta", "k=v", "cli-a", "cli-b")[0]
        == 0
    )
    assert (
        pair[1].cli(OURS, "intention", "create", "-deny", "-meta", "k=v", "cli-a", "cli-b")[0] == 0
    )
    for agent in pair:
        agent.put(CONFIG, {"Kind": "service-defaults", "Name": "cli-tcp", "Protocol": "tcp"})
    for args in COMMANDS:
        args = tuple(arg.format(tmp_path) for arg in args)  # noqa: PLW2901
        found = [
            (status, plain(out).rstrip(), plain(err).strip())
            for status, out, err in (
                pair[1].cli(THEIRS, *args),
                pair[1].cli(OURS, *args),
                pair[0].cli(THEIRS, *args),
            )
        ]
        assert len(set(found)) == 1, (args, found)
    assert pair[0].cli(THEIRS, "intention", "delete", "cli-a", "cli-b")[1] == "Intention deleted.\n"
    assert pair[1].cli(OURS, "intention", "delete", "cli-a", "cli-b")[1] == "Intention deleted.\n"


CHAIN = "/v1/discovery-chain"
CHAIN_ENTRIES: tuple[Any, ...] = (
    {"Kind": "service-defaults", "Name": "ext", "Protocol": "http", "ExternalSNI": "sni.example"},
    {"Kind": "service-resolver", "Name": "far", "Redirect": {"Service": "api", "Datacenter": "dc2"}},
    {"Kind": "service-resolver", "Name": "sub", "Redirect": {"Service": "api", "ServiceSubset": "v2"}},
    {"Kind": "service-resolver", "Name": "dcs", "Failover": {"*": {"Datacenters": ["dc1", "dc2", "dc3"]}},
     "ConnectTimeout": "1m0.5s"},
    {"Kind": "service-resolver", "Name": "byname", "Failover": {"*": {"Service": "api"}}},
    {"Kind": "service-splitter", "Name": "top", "Splits": [{"Weight": 40, "Service": "api"},
     {"Weight": 59.5, "ServiceSubset": ""}, {"Weight": 0.5, "Service": "far"}]},
    {"Kind": "service-router", "Name": "top", "Routes": [
     {"Match": {"HTTP": {"PathExact": "/a"}}, "Destination": {"Service": "api", "ServiceSubset": "v1",
      "RequestTimeout": "3s"}}, {"Match": {"HTTP": {"PathPrefix": "/b"}}},
     {"Destination": {"Service": "dcs"}}]},
)  # fmt: skip
CHAINS = (
    "web", "api", "top", "far", "sub", "dcs", "byname", "ext", "tcp-one", "nothing", "top?compile-dc=dc2",
    "dcs?compile-dc=dc3", "api?stale", "far?consistent", "",
)  # fmt: skip
OVERRIDES: tuple[Any, ...] = (
    {"OverrideProtocol": "tcp"}, {"OverrideProtocol": "grpc"}, {"OverrideMeshGateway": {"Mode": "remote"}},
    {"override_mesh_gateway": {"mode": "local"}, "override_connect_timeout": "7s"}, {},
    {"OverrideConnectTimeout": "5s"}, {"OverrideMeshGateway": {"Mode": "x"}}, {"OverrideConnectTimeout": "q"},
    "", "{", "null", {"Bogus": 1}, {"OverrideProtocol": "HTTP", "OverrideConnectTimeout": 99},
)  # fmt: skip


def test_discovery_chains(pair: Pair) -> None:
    """Also the hashes, of which proxies make the names of their clusters."""
    for entry in CHAIN_ENTRIES:
        compare(pair, "PUT", CONFIG, entry)
    for name in CHAINS:
        compare(pair, "GET", f"{CHAIN}/{name}")
    for name in ("top", "far", "dcs", "nothing"):
        for body in OVERRIDES:
            compare(pair, "POST", f"{CHAIN}/{name}", body)
    compare(pair, "PUT", f"{CHAIN}/x")


BEHIND: tuple[Any, ...] = (
    {"Kind": "service-defaults", "Name": "gw-http", "Protocol": "http"},
    {"Kind": "service-defaults", "Name": "gw-tcp", "Protocol": "tcp"},
    {"Kind": "ingress-gateway", "Name": "edge", "Listeners": [
     {"Port": 9090, "Protocol": "tcp", "Services": [{"Name": "gw-tcp"}]},
     {"Port": 8080, "Protocol": "http", "Services": [{"Name": "gw-http", "Hosts": ["a.b"]},
      {"Name": "*"}]}]},
    {"Kind": "terminating-gateway", "Name": "exit", "Services": [{"Name": "legacy", "CAFile": "ca",
     "SNI": "x"}, {"Name": "*", "CAFile": "all"}]},
)  # fmt: skip
GATEWAY_READS = tuple(
    path.format(name)
    for name in ("edge", "exit", "gw-http", "gw-tcp", "legacy", "late", "none", "")
    for path in (
        "/v1/catalog/gateway-services/{}", "/v1/health/ingress/{}", "/v1/health/connect/{}",
        "/v1/catalog/connect/{}", "/v1/health/service/{}",
    )
)  # fmt: skip


def register(pair: Pair, node: str, service: str, kind: str = "") -> None:
    body = {
        "Node": node,
        "Address": "9.9.9.9",
        "Service": {"Service": service, "Kind": kind, "Port": 7},
    }
    compare(pair, "PUT", "/v1/catalog/register", body)


def test_services_behind_gateways(pair: Pair) -> None:
    """The table follows config entries, and the catalog where they have wildcards."""
    register(pair, "gw-a", "gw-http")
    register(pair, "gw-a", "edge", "ingress-gateway")
    for entry in BEHIND:
        compare(pair, "PUT", CONFIG, entry)
    for path in GATEWAY_READS:
        compare(pair, "GET", path)
    register(pair, "gw-b", "late")
    register(pair, "gw-b", "gw-c")
    register(pair, "gw-b", "exit", "terminating-gateway")
    for path in GATEWAY_READS:
        compare(pair, "GET", path)
    compare(pair, "PUT", "/v1/catalog/deregister", {"Node": "gw-b", "ServiceID": "late"})
    compare(pair, "PUT", CONFIG, {"Kind": "service-defaults", "Name": "gw-c", "Protocol": "tcp"})
    for path in GATEWAY_READS:
        compare(pair, "GET", path)
    compare(pair, "DELETE", f"{CONFIG}/ingress-gateway/edge")
    compare(pair, "DELETE", f"{CONFIG}/terminating-gateway/exit")
    for path in GATEWAY_READS:
        compare(pair, "GET", path)


BOOTSTRAP: tuple[dict[str, Any], ...] = (
    {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http", "n": 5}},
    {"kind": "service-defaults", "name": "boot", "protocol": "GRPC"},
)


def test_bootstrapped_entries(tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    try:
        made = [
            agents.server(command, name, config_entries={"bootstrap": BOOTSTRAP})
            for command, name in ((OURS, "ours"), (THEIRS, "theirs"))
        ]
        for path in (f"{CONFIG}/proxy-defaults/global", f"{CONFIG}/service-defaults/boot"):
            ours, theirs = (until(lambda agent=agent, path=path: agent.get(path)) for agent in made)
            for volatile in ("CreateIndex", "ModifyIndex"):
                del ours[volatile], theirs[volatile]
            assert ours == theirs
    finally:
        agents.close()
