"""What `rpc_capture.py` asks of real agents, so that they make every RPC of Consul 1.8."""

from __future__ import annotations

import base64
import socket
import uuid

from agent_support import AgentProcess, until
from dnslib import DNSRecord
from rpc_api import RULES, Api
from rpc_drive_mesh import config_entries, connect, intentions
from rpc_drive_rights import acl, acl_refusals


def drive(client: AgentProcess, primary: AgentProcess, secondary: AgentProcess) -> None:
    """All of it, through the client where it goes by RPC from there."""
    api = Api(client)
    until(lambda: "client" in str(api("GET", "/v1/catalog/nodes")), 40)
    until(lambda: len(api("GET", "/v1/catalog/datacenters")) == 2, 40)
    second = Api(secondary)
    for part in (
        keys,
        sessions,
        catalog,
        acl,
        acl_refusals,
        config_entries,
        intentions,
        connect,
        queries,
        coordinates,
        federation,
        operators,
        events,
        agent,
        dns,
    ):
        print("---", part.__name__)
        part(api, second)
    across(second)
    before = second("GET", "/v1/acl/replication")["ReplicatedRoleIndex"]
    api("PUT", "/v1/acl/role", {"Name": "late", "ServiceIdentities": [{"ServiceName": "web"}]})
    until(lambda: second("GET", "/v1/acl/replication")["ReplicatedRoleIndex"] > before, 40)
    until(lambda: second("GET", "/v1/kv/a?dc=dc1"), 20)


def keys(api: Api, _: Api) -> None:
    """KVS and Txn."""
    for key, value in (("a", b"1"), ("a/b", b"\x00\xff" * 20), ("a/c", b"x" * 300), ("empty", b"")):
        api("PUT", f"/v1/kv/{key}?flags=42", value)
    api("PUT", "/v1/kv/a?cas=1", b"2")
    api("PUT", "/v1/kv/new?cas=0", b"2")
    for target in (
        "a",
        "missing",
        "a?recurse",
        "?recurse",
        "a?keys",
        "?keys&separator=/",
        "a?stale",
        "a?consistent",
        "a?index=1&wait=1s",
        "a?dc=nowhere",
    ):
        api("GET", f"/v1/kv/{target}")
    value = "aGVsbG8="
    api(
        "PUT",
        "/v1/txn",
        [
            {"KV": {"Verb": "set", "Key": "t", "Value": value, "Flags": 7}},
            {"KV": {"Verb": "get", "Key": "t"}},
            {
                "Node": {
                    "Verb": "set",
                    "Node": {"Node": "tn", "Address": "10.0.0.9", "Meta": {"a": "b"}},
                }
            },
            {
                "Service": {
                    "Verb": "set",
                    "Node": "tn",
                    "Service": {"ID": "s", "Service": "s", "Port": 1},
                }
            },
            {
                "Check": {
                    "Verb": "set",
                    "Check": {"Node": "tn", "CheckID": "c", "Name": "c", "Status": "passing"},
                }
            },
        ],
    )
    api(
        "PUT",
        "/v1/txn",
        [{"KV": {"Verb": "get", "Key": "t"}}, {"KV": {"Verb": "get-tree", "Key": "a"}}],
    )
    api("PUT", "/v1/txn", [{"KV": {"Verb": "cas", "Key": "t", "Value": value, "Index": 1}}])
    api("PUT", "/v1/txn", [{"KV": {"Verb": "check-not-exists", "Key": "t"}}])
    for target in ("a?cas=1", "a/b", "a?recurse"):
        api("DELETE", f"/v1/kv/{target}")
    api("PUT", "/v1/kv/a", b"3")


def sessions(api: Api, _: Api) -> None:
    """Session."""
    api("PUT", "/v1/session/create", {})
    made = api(
        "PUT",
        "/v1/session/create",
        {"Name": "n", "TTL": "30s", "Behavior": "delete", "LockDelay": "1s"},
    )["ID"]
    api("PUT", f"/v1/kv/locked?acquire={made}", b"1")
    api("GET", "/v1/kv/locked")
    for target in (
        f"info/{made}",
        f"info/{uuid.uuid4()}",
        "list",
        "node/client",
        "list?near=_agent",
    ):
        api("GET", f"/v1/session/{target}")
    api("PUT", f"/v1/session/renew/{made}")
    api("PUT", f"/v1/kv/locked?release={made}", b"1")
    api("PUT", f"/v1/session/destroy/{made}")
    api("PUT", "/v1/session/create", {"Name": "n", "TTL": "1s"})


def catalog(api: Api, _: Api) -> None:
    """Catalog, Health, and what the interface for browsers asks."""
    api(
        "PUT",
        "/v1/catalog/register",
        {
            "Node": "ext",
            "Address": "10.1.1.1",
            "ID": str(uuid.uuid4()),
            "NodeMeta": {"rack": "1"},
            "TaggedAddresses": {"lan": "10.1.1.1", "wan": "1.2.3.4"},
            "Service": {
                "ID": "web1",
                "Service": "web",
                "Tags": ["v1", "x"],
                "Port": 80,
                "Address": "10.1.1.2",
                "Meta": {"m": "1"},
                "Weights": {"Passing": 5, "Warning": 1},
                "EnableTagOverride": True,
                "TaggedAddresses": {"lan": {"Address": "10.1.1.2", "Port": 80}},
            },
            "Checks": [
                {
                    "CheckID": "c1",
                    "Name": "c1",
                    "Status": "passing",
                    "ServiceID": "web1",
                    "Notes": "n",
                    "Output": "o",
                    "Definition": {
                        "HTTP": "http://x",
                        "Interval": "10s",
                        "Timeout": "1s",
                        "Header": {"a": ["b"]},
                    },
                }
            ],
        },
    )
    api(
        "PUT",
        "/v1/catalog/register",
        {
            "Node": "ext",
            "Address": "10.1.1.1",
            "SkipNodeUpdate": True,
            "Service": {
                "Kind": "connect-proxy",
                "ID": "web1-proxy",
                "Service": "web-proxy",
                "Port": 81,
                "Proxy": {
                    "DestinationServiceName": "web",
                    "DestinationServiceID": "web1",
                    "LocalServicePort": 80,
                    "Config": {"a": 1, "b": "x", "c": [1, "2"], "d": {"e": True}},
                    "Upstreams": [
                        {"DestinationName": "db", "LocalBindPort": 9000, "Config": {"x": 1.5}}
                    ],
                    "MeshGateway": {"Mode": "local"},
                    "Expose": {
                        "Checks": True,
                        "Paths": [{"Path": "/h", "LocalPathPort": 1, "ListenerPort": 2}],
                    },
                },
            },
        },
    )
    api(
        "PUT",
        "/v1/catalog/register",
        {
            "Node": "gone",
            "Address": "10.1.1.9",
            "Service": {"Service": "old"},
            "Check": {"CheckID": "n", "Name": "n", "Status": "critical"},
        },
    )
    for target in (
        "catalog/nodes",
        "catalog/nodes?near=_agent&node-meta=rack:1",
        "catalog/nodes?filter=Node==ext",
        "catalog/services",
        "catalog/services?node-meta=rack:1",
        "catalog/service/web",
        "catalog/service/web?tag=v1&tag=x&near=ext",
        "catalog/service/nothing",
        "catalog/connect/web",
        "catalog/node/ext",
        "catalog/node/nobody",
        "catalog/node-services/ext",
        "catalog/datacenters",
        "health/node/ext",
        "health/checks/web",
        "health/checks/web?near=ext",
        "health/state/any",
        "health/state/critical?node-meta=rack:1",
        "health/service/web",
        "health/service/web?passing&tag=v1",
        "health/service/consul",
        "health/connect/web",
        "health/service/web?filter=Service.Port==80",
        "internal/ui/nodes",
        "internal/ui/node/ext",
        "internal/ui/services",
        "catalog/service/consul?cached",
        "health/service/web?cached",
        "catalog/nodes?filter=bad==",
        "catalog/gateway-services/gw",
        "internal/ui/gateway-services-nodes/gw",
        "health/ingress/web",
    ):
        api("GET", f"/v1/{target}")
    for body in (
        {"Node": "gone", "CheckID": "n"},
        {"Node": "gone", "ServiceID": "old"},
        {"Node": "gone"},
    ):
        api("PUT", "/v1/catalog/deregister", body)
    api("PUT", "/v1/catalog/register", {"Node": "", "Address": "10.1.1.9"})


def queries(api: Api, _: Api) -> None:
    """PreparedQuery."""
    made = api(
        "POST",
        "/v1/query",
        {
            "Name": "q",
            "Service": {
                "Service": "web",
                "Tags": ["v1"],
                "OnlyPassing": True,
                "Failover": {"NearestN": 1, "Datacenters": ["dc2"]},
                "NodeMeta": {"rack": "1"},
                "ServiceMeta": {"m": "1"},
                "IgnoreCheckIDs": ["x"],
                "Near": "_agent",
            },
            "DNS": {"TTL": "5s"},
        },
    )["ID"]
    api(
        "POST",
        "/v1/query",
        {
            "Name": "geo-",
            "Template": {"Type": "name_prefix_match", "Regexp": "^geo-(.*)$"},
            "Service": {"Service": "${match(1)}"},
        },
    )
    api(
        "POST",
        "/v1/query",
        {"Name": "away", "Service": {"Service": "nothing", "Failover": {"Datacenters": ["dc2"]}}},
    )
    api("PUT", f"/v1/query/{made}", {"Name": "q", "Service": {"Service": "web"}})
    for target in (
        "",
        f"/{made}",
        f"/{made}/execute",
        "/q/execute?near=ext&limit=2",
        "/geo-web/explain",
        "/geo-web/execute",
        "/away/execute",
        "/nothing/execute",
        f"/{uuid.uuid4()}",
        "/q/execute?connect=true",
        "/q/execute?cached",
    ):
        api("GET", f"/v1/query{target}")
    api("POST", "/v1/query", {"Name": "bad", "Service": {}})
    api("DELETE", f"/v1/query/{made}")


def coordinates(api: Api, _: Api) -> None:
    """Coordinate."""
    position = {"Vec": [0.1] * 8, "Error": 1.5, "Adjustment": 0.1, "Height": 0.01}
    api("PUT", "/v1/coordinate/update", {"Node": "ext", "Coord": position})
    api("PUT", "/v1/coordinate/update", {"Node": "ext", "Coord": {**position, "Vec": [1]}})
    until(lambda: "ext" in str(api("GET", "/v1/coordinate/nodes")), 40)
    for target in ("datacenters", "nodes", "node/ext", "node/nobody"):
        api("GET", f"/v1/coordinate/{target}")
    api("GET", "/v1/catalog/nodes?near=ext")


def federation(api: Api, second: Api) -> None:
    """FederationState, with gateways in both datacenters."""
    for one, name in ((api, "dc1"), (second, "dc2")):
        one(
            "PUT",
            "/v1/agent/service/register",
            {
                "Kind": "mesh-gateway",
                "Name": "mesh-gateway",
                "Port": 8443,
                "Meta": {"consul-wan-federation": "1"},
                "TaggedAddresses": {
                    "wan": {"Address": "203.0.113.7", "Port": 443},
                    "lan": {"Address": "10.9.9.9", "Port": 8443},
                },
            },
        )
        _ = name
    for target in (
        "federation-states",
        "federation-state/dc1",
        "federation-state/nowhere",
        "federation-states/mesh-gateways",
    ):
        api("GET", f"/v1/internal/{target}")
    api("GET", "/v1/internal/ui/services?dc=dc2")


def operators(api: Api, _: Api) -> None:
    """Operator and Status."""
    for target in ("raft/configuration", "autopilot/configuration", "autopilot/health"):
        api("GET", f"/v1/operator/{target}")
    api(
        "PUT",
        "/v1/operator/autopilot/configuration",
        {"CleanupDeadServers": True, "MaxTrailingLogs": 250},
    )
    api("PUT", "/v1/operator/autopilot/configuration?cas=1", {"CleanupDeadServers": True})
    api("DELETE", "/v1/operator/raft/peer?address=10.9.9.9:8300")
    api("DELETE", f"/v1/operator/raft/peer?id={uuid.uuid4()}")
    for target in ("leader", "peers", "leader?dc=dc2"):
        api("GET", f"/v1/status/{target}")


def events(api: Api, _: Api) -> None:
    """Internal.EventFire."""
    api("PUT", "/v1/event/fire/deploy?node=c.*&service=web&tag=v1", b"payload")
    api("PUT", "/v1/event/fire/empty")


def agent(api: Api, _: Api) -> None:
    """What an agent does by itself: sync and its TTL checks."""
    api(
        "PUT",
        "/v1/agent/service/register",
        {"Name": "ttl", "Port": 7, "Tags": None, "Check": {"TTL": "30s"}},
    )
    api("PUT", "/v1/agent/check/pass/service:ttl?note=fine")
    api("PUT", "/v1/agent/check/register", {"Name": "node-check", "TTL": "30s"})
    until(lambda: "fine" in str(api("GET", "/v1/health/service/ttl")))
    api("PUT", "/v1/agent/service/deregister/ttl")
    until(lambda: api("GET", "/v1/health/service/ttl") == [])


def dns(api: Api, _: Api) -> None:
    """What names are looked up with."""
    host = str(api.agent.config["client_addr"])
    for name, kind in (
        ("client.node.consul", "A"),
        ("web.service.consul", "SRV"),
        ("v1.web.service.consul", "A"),
        ("q.query.consul", "A"),
        ("geo-web.query.consul", "SRV"),
        ("web.service.dc2.consul", "A"),
        ("web.connect.consul", "A"),
        ("web.ingress.consul", "A"),
        ("1.1.1.10.in-addr.arpa", "PTR"),
        ("consul", "NS"),
    ):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(3)
            sock.sendto(DNSRecord.question(name, kind).pack(), (host, 8600))
            try:
                sock.recv(4096)
            except OSError as error:
                print(name, error)


def across(second: Api) -> None:
    """From the secondary's server to the primary."""
    for target in (
        "kv/?recurse",
        "catalog/nodes",
        "health/service/web",
        "acl/tokens",
        "acl/policies",
        "connect/ca/roots",
        "coordinate/nodes",
        "session/list",
        "catalog/services",
        "config/service-defaults",
        "connect/intentions",
        "internal/federation-states",
        "operator/raft/configuration",
        "query",
        "event/list",
    ):
        second("GET", f"/v1/{target}?dc=dc1")
    second("PUT", "/v1/event/fire/away?dc=dc1", b"payload")
    second("PUT", "/v1/acl/policy", {"Name": "from-dc2", "Rules": RULES})
    second(
        "PUT", "/v1/config", {"Kind": "service-defaults", "Name": "from-dc2", "Protocol": "http"}
    )
    second(
        "POST",
        "/v1/connect/intentions",
        {"SourceName": "x", "DestinationName": "y", "SourceType": "consul", "Action": "allow"},
    )
    second("GET", "/v1/agent/connect/ca/leaf/web")
    second("GET", "/v1/operator/keyring?relay-factor=1")
    key = base64.b64encode(b"0123456789abcdef").decode()
    for method in ("POST", "DELETE"):
        second(method, "/v1/operator/keyring", {"Key": key})
    second("PUT", "/v1/operator/keyring", {"Key": base64.b64encode(b"unknown-unknown-").decode()})
