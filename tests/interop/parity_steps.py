# ruff: noqa: E501 - a table of requests, one a line
"""One list of HTTP requests, good and bad, over every endpoint: `test_http_parity.py` sends it to two agents.

A step is (method, target, body, save): `save` names the fields of the answer that later steps use in braces.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

RULES = 'key_prefix "" { policy = "read" } node_prefix "" { policy = "read" }'


class Step(NamedTuple):
    """One request. `token` is the name of a saved value, "" for no token, None for the management token."""

    method: str
    target: str
    body: Any = None
    save: dict[str, str] | None = None
    token: str | None = None


def get(*targets: str, token: str | None = None) -> list[Step]:
    """One GET each."""
    return [Step("GET", f"/v1/{t}", None, None, token) for t in targets]


def put(
    target: str, body: Any = None, save: dict[str, str] | None = None, token: str | None = None
) -> Step:
    """A PUT of text, or of a structure as JSON."""
    return Step("PUT", f"/v1/{target}", body, save, token)


def post(target: str, body: Any = None, save: dict[str, str] | None = None) -> Step:
    """A POST of a structure as JSON."""
    return Step("POST", f"/v1/{target}", body, save)


def delete(*targets: str) -> list[Step]:
    """One DELETE each."""
    return [Step("DELETE", f"/v1/{t}") for t in targets]


NOBODY = "00000000-1111-2222-3333-444444444444"

KV = [
    put("kv/a?flags=42", "1"), put("kv/a/b", "x" * 300), put("kv/a/c", ""), put("kv/a?cas=0", "2"), put("kv/new?cas=0", "2"),
    put("kv/a?flags=-1", "2"), put("kv/a?acquire=" + NOBODY, "2"),
    *get("kv/a", "kv/missing", "kv/a?raw", "kv/a?recurse", "kv/?recurse", "kv/a?keys", "kv/?keys&separator=/", "kv/a?stale",
         "kv/a?consistent", "kv/a?dc=nowhere", "kv/a?wait=x", "kv/a?index=x", "kv/a?filter=x", "kv/a?cached"),
    *delete("kv/new", "kv/a?cas=1", "kv/missing", "kv/a?cas=x"),
]  # fmt: skip

TXN = [
    put("txn", [
        {"KV": {"Verb": "set", "Key": "t", "Value": "aGVsbG8=", "Flags": 7}}, {"KV": {"Verb": "get", "Key": "t"}},
        {"Node": {"Verb": "set", "Node": {"Node": "tn", "Address": "10.0.0.9", "Meta": {"a": "b"}}}},
        {"Service": {"Verb": "set", "Node": "tn", "Service": {"ID": "s", "Service": "s", "Port": 1}}},
        {"Check": {"Verb": "set", "Check": {"Node": "tn", "CheckID": "c", "Name": "c", "Status": "passing"}}},
    ]),
    put("txn", [{"KV": {"Verb": "get", "Key": "t"}}, {"KV": {"Verb": "get-tree", "Key": "t"}}]),
    put("txn?stale", [{"KV": {"Verb": "get", "Key": "t"}}]),
    put("txn", [{"KV": {"Verb": "cas", "Key": "t", "Value": "aGVsbG8=", "Index": 1}}]),
    put("txn", [{"KV": {"Verb": "check-not-exists", "Key": "t"}}]),
    put("txn", [{"KV": {"Verb": "check-index", "Key": "t", "Index": 1}}, {"KV": {"Verb": "get", "Key": "nothing"}}]),
    put("txn", [{"KV": {"Verb": "nonsense", "Key": "t"}}]), put("txn", [{"KV": {"Verb": "set", "Key": "t", "Value": "?"}}]),
    put("txn", [{"KV": {"Verb": "set", "Key": "t0", "Value": ""}}]), *get("kv/t0"),
    put("txn", [{}]), put("txn", []), put("txn", [{"KV": {"Verb": "get", "Key": "t"}}] * 129),
    put("txn", [{"Node": {"Verb": "get", "Node": {"Node": "tn"}}}, {"Service": {"Verb": "get", "Node": "tn", "Service": {"ID": "s"}}},
                {"Check": {"Verb": "get", "Check": {"Node": "tn", "CheckID": "c"}}}]),
    put("txn", [{"Check": {"Verb": "delete", "Check": {"Node": "tn", "CheckID": "c"}}}]),
    put("txn", [{"Node": {"Verb": "delete", "Node": {"Node": "tn"}}}]),
]  # fmt: skip

SESSIONS = [
    put("session/create", {"Name": "n", "TTL": "30s", "Behavior": "delete", "LockDelay": "1s"}, {"s1": "ID"}),
    put("session/create", {}, {"s2": "ID"}), put("session/create", {"TTL": "1s"}), put("session/create", {"Behavior": "x"}),
    put("session/create", {"Node": "nobody"}), put("session/create", {"LockDelay": "x"}), put("session/create", {"Checks": ["nothing"]}),
    put("kv/locked?acquire={s1}", "1"), *get("kv/locked"), put("kv/locked?acquire={s2}", "1"), put("kv/locked?release={s2}", "1"),
    *get("session/info/{s1}", "session/info/" + NOBODY, "session/info/x", "session/list", "session/node/vm", "session/node/nobody", "session/node/"),
    put("session/renew/{s1}"), put("session/renew/" + NOBODY), put("kv/locked?release={s1}", "1"), put("session/destroy/{s1}"),
    put("session/destroy/{s1}"), put("session/destroy/{s2}"), put("session/destroy/"), *get("kv/locked"),
]  # fmt: skip

WEB = {
    "Node": "ext", "Address": "10.1.1.1", "ID": "11111111-2222-3333-4444-555555555555", "NodeMeta": {"rack": "1"},
    "TaggedAddresses": {"lan": "10.1.1.1", "wan": "1.2.3.4"},
    "Service": {"ID": "web1", "Service": "web", "Tags": ["v1", "x"], "Port": 80, "Address": "10.1.1.2", "Meta": {"m": "1"},
                "Weights": {"Passing": 5, "Warning": 1}, "EnableTagOverride": True,
                "TaggedAddresses": {"lan": {"Address": "10.1.1.2", "Port": 80}}},
    "Checks": [{"CheckID": "c1", "Name": "c1", "Status": "passing", "ServiceID": "web1", "Notes": "n", "Output": "o",
                "Definition": {"HTTP": "http://x", "Interval": "10s", "Timeout": "1s", "Header": {"a": ["b"]}}}],
}  # fmt: skip
PROXY = {
    "Node": "ext", "Address": "10.1.1.1", "SkipNodeUpdate": True,
    "Service": {"Kind": "connect-proxy", "ID": "web1-proxy", "Service": "web-proxy", "Port": 81, "Proxy": {
        "DestinationServiceName": "web", "DestinationServiceID": "web1", "LocalServicePort": 80, "Config": {"a": 1, "b": "x"},
        "Upstreams": [{"DestinationName": "db", "LocalBindPort": 9000, "Config": {"x": 1.5}}], "MeshGateway": {"Mode": "local"}}},
}  # fmt: skip

CATALOG = [
    put("catalog/register", WEB), put("catalog/register", PROXY),
    put("catalog/register", {"Node": "two", "Address": "10.1.1.9", "Service": {"Service": "web", "Port": 81, "Tags": ["v2"]},
                             "Check": {"CheckID": "n", "Name": "n", "Status": "critical"}}),
    put("catalog/register", {"Node": "", "Address": "10.1.1.9"}), put("catalog/register", {"Node": "x"}),
    put("catalog/register", {"Node": "x", "Address": "1.1.1.1", "ID": "nonsense"}),
    put("catalog/register", {"Node": "x", "Address": "1.1.1.1", "Service": {"Port": 1}}),
    put("catalog/register", {"Node": "other", "Address": "1.1.1.1", "ID": WEB["ID"]}),
    put("catalog/register", {"Node": "x", "Address": "1.1.1.1", "Datacenter": "nowhere"}),
    *get("catalog/nodes", "catalog/nodes?near=_agent", "catalog/nodes?near=ext", "catalog/nodes?node-meta=rack:1", "catalog/nodes?filter=Node==ext",
         "catalog/nodes?filter=bad==", "catalog/nodes?filter=Nothing==x", "catalog/services", "catalog/services?node-meta=rack:1",
         "catalog/service/web", "catalog/service/web?tag=v1&tag=x&near=ext", "catalog/service/web?filter=ServicePort==80",
         "catalog/service/nothing", "catalog/connect/web", "catalog/connect/nothing", "catalog/node/ext", "catalog/node/ext?filter=Port==80",
         "catalog/node/nobody", "catalog/node-services/ext", "catalog/node-services/ext?filter=Port==80", "catalog/datacenters",
         "health/node/ext", "health/node/ext?filter=Status==passing", "health/checks/web", "health/checks/web?near=ext", "health/checks/web?filter=Name==c1",
         "health/state/any", "health/state/critical", "health/state/any?filter=Node==ext", "health/service/web", "health/service/web?passing",
         "health/service/web?tag=v1", "health/service/web?filter=Service.Port==80", 'health/service/web?filter="v1"+in+Service.Tags',
         "health/connect/web", "health/ingress/web", "health/service/web?passing=1&near=ext&node-meta=rack:1", "health/service/",
         "internal/ui/nodes", "internal/ui/node/ext", "internal/ui/node/nobody", "internal/ui/node/", "internal/ui/services",
         "internal/ui/services?filter=Name==web", "catalog/gateway-services/gw", "internal/ui/gateway-services-nodes/gw",
         "catalog/nodes?cached", "catalog/service/web?cached", "health/service/web?cached", "catalog/services?cached"),
    put("catalog/deregister", {"Node": "two", "CheckID": "n"}), put("catalog/deregister", {"Node": "two", "ServiceID": "web"}),
    put("catalog/deregister", {"Node": "two"}), put("catalog/deregister", {"Node": "nobody"}), put("catalog/deregister", {}),
]  # fmt: skip

ACL = [
    put("acl/policy", {"Name": "p1", "Rules": RULES, "Description": "d", "Datacenters": ["dc1"]}, {"p1": "ID"}),
    put("acl/policy/{p1}", {"ID": "{p1}", "Name": "p1", "Rules": RULES}), put("acl/policy", {"Name": "p1", "Rules": RULES}),
    put("acl/policy", {"Name": "bad name"}), put("acl/policy", {"Rules": ""}), put("acl/policy", {"Name": "p9", "Rules": "nonsense {"}),
    put("acl/policy", {"Name": "p9", "Rules": 'key "" { policy = "x" }'}), put("acl/policy/" + NOBODY, {"Name": "p8"}),
    put("acl/role", {"Name": "r1", "Description": "d", "Policies": [{"Name": "p1"}], "ServiceIdentities": [{"ServiceName": "web", "Datacenters": ["dc1"]}],
                     "NodeIdentities": [{"NodeName": "n1", "Datacenter": "dc1"}]}, {"r1": "ID"}),
    put("acl/role/{r1}", {"ID": "{r1}", "Name": "r1", "Policies": [{"ID": "{p1}"}]}), put("acl/role", {"Name": ""}),
    put("acl/role", {"Name": "r2", "Policies": [{"Name": "nothing"}]}), put("acl/role", {"Name": "r2", "ServiceIdentities": [{"ServiceName": "BAD"}]}),
    put("acl/token", {"Description": "t", "Policies": [{"Name": "p1"}], "Roles": [{"ID": "{r1}"}], "ServiceIdentities": [{"ServiceName": "web"}],
                      "NodeIdentities": [{"NodeName": "n", "Datacenter": "dc1"}], "ExpirationTTL": "1h"}, {"t1": "AccessorID", "secret": "SecretID"}),
    put("acl/token", {"Local": True, "Policies": [{"ID": "{p1}"}]}, {"t2": "AccessorID"}),
    put("acl/token/{t2}", {"Description": "x", "Local": True}), put("acl/token/{t2}", {"Description": "x", "Local": False}),
    put("acl/token/{t2}", {"AccessorID": NOBODY}), put("acl/token", {"Policies": [{"Name": "nothing"}]}), put("acl/token", {"ExpirationTTL": "1s"}),
    put("acl/token", {"ServiceIdentities": [{"ServiceName": "Bad!"}]}), put("acl/token", {"AccessorID": "x"}),
    put("acl/token/{t1}/clone", {"Description": "c"}, {"t3": "AccessorID"}), put("acl/token/" + NOBODY + "/clone", {}),
    *get("acl/token/{t1}", "acl/token/self", "acl/tokens", "acl/tokens?policy={p1}", "acl/tokens?role={r1}", "acl/token/" + NOBODY, "acl/token/",
         "acl/policy/{p1}", "acl/policy/name/p1", "acl/policy/name/nothing", "acl/policy/" + NOBODY, "acl/policies", "acl/role/{r1}", "acl/role/name/r1",
         "acl/role/" + NOBODY, "acl/roles", "acl/roles?policy={p1}", "acl/replication", "acl/auth-methods", "acl/binding-rules",
         "acl/auth-method/nothing", "acl/binding-rule/" + NOBODY, "acl/rules/translate/{t1}", "acl/list", "acl/info/" + NOBODY),
    post("acl/rules/translate", 'key "" { policy = "read" } service "a" { policy = "write" }'), post("acl/rules/translate", "nonsense {"),
    *get("acl/token/self", "acl/tokens", "kv/a", "kv/?recurse", "agent/self", "agent/members", "catalog/nodes", "catalog/services", "session/list",
         "operator/raft/configuration", "internal/ui/nodes", "health/state/any", "event/list", "coordinate/nodes", "query", token="secret"),
    put("kv/a", "1", token="secret"), put("session/create", {}, token="secret"), put("agent/maintenance?enable=true", token="secret"),
    put("catalog/register", WEB, token="secret"), put("event/fire/x", token="secret"),
    *delete("acl/token/{t3}", "acl/token/{t3}", "acl/policy/00000000-0000-0000-0000-000000000001", "acl/token/00000000-0000-0000-0000-000000000002"),
    put("acl/token/00000000-0000-0000-0000-000000000002", {"Description": "changed"}),
    put("acl/policy/00000000-0000-0000-0000-000000000001", {"Name": "global-management", "Rules": ""}),
    put("acl/bootstrap"), put("agent/token/default", {"Token": "x"}), put("agent/token/nonsense", {"Token": "x"}), put("agent/token/default", {"Token": ""}),
    *delete("acl/role/{r1}", "acl/policy/{p1}", "acl/token/{t1}", "acl/token/{t2}"),
]  # fmt: skip

CONFIG = [
    *(put("config", body) for body in (
        {"Kind": "proxy-defaults", "Name": "global", "Config": {"a": 1, "b": {"c": "d"}}, "MeshGateway": {"Mode": "local"}},
        {"Kind": "service-defaults", "Name": "web", "Protocol": "http", "MeshGateway": {"Mode": "remote"}},
        {"Kind": "service-defaults", "Name": "db", "Protocol": "http", "Expose": {"Checks": True}},
        {"kind": "service-resolver", "name": "web", "default_subset": "v1", "subsets": {"v1": {"filter": "Service.Meta.v == 1", "only_passing": True}},
         "connect_timeout": "15s", "failover": {"*": {"datacenters": ["dc2"]}}},
        {"Kind": "service-splitter", "Name": "web", "Splits": [{"Weight": 90, "ServiceSubset": "v1"}, {"Weight": 10, "Service": "db"}]},
        {"Kind": "service-router", "Name": "web", "Routes": [{"Match": {"HTTP": {"PathPrefix": "/x", "Header": [{"Name": "h", "Exact": "v"}], "Methods": ["GET"]}},
         "Destination": {"Service": "db", "PrefixRewrite": "/y", "RequestTimeout": "3s", "NumRetries": 2}}]},
        {"Kind": "ingress-gateway", "Name": "gw", "Listeners": [{"Port": 8080, "Protocol": "http", "Services": [{"Name": "web", "Hosts": ["a.b"]}]}]},
        {"Kind": "terminating-gateway", "Name": "term", "Services": [{"Name": "db", "SNI": "x"}]},
        {"Kind": "service-router", "Name": "tcp", "Routes": []}, {"Kind": "nonsense", "Name": "x"}, {"Name": "x"}, {"Kind": "service-defaults"},
        {"Kind": "proxy-defaults", "Name": "other"}, {"Kind": "service-splitter", "Name": "web", "Splits": [{"Weight": 90}]},
        {"Kind": "service-splitter", "Name": "none", "Splits": []}, {"Kind": "service-resolver", "Name": "x", "Redirect": {}},
        {"Kind": "service-resolver", "Name": "x", "DefaultSubset": "nothing"}, {"Kind": "service-resolver", "Name": "x", "ConnectTimeout": "-1s"},
        {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 0}]}, {"Kind": "ingress-gateway", "Name": "x", "Listeners": [{"Port": 1, "Protocol": "tcp", "Services": []}]},
        {"Kind": "terminating-gateway", "Name": "x", "Services": [{"Name": ""}]}, {"Kind": "terminating-gateway", "Name": "x", "Services": [{"Name": "a", "CAFile": "", "KeyFile": "k"}]},
        {"Kind": "service-router", "Name": "web", "Routes": [{"Match": {"HTTP": {"PathPrefix": "x"}}}]}, {"Kind": "service-defaults", "Name": "web", "Bogus": 1},
        {"Kind": "service-defaults", "Name": "web", "Protocol": 5}, {"Kind": "service-defaults", "Name": "web", "MeshGateway": {"Mode": "x"}},
    )),
    put("config?cas=1", {"Kind": "service-defaults", "Name": "web", "Protocol": "tcp"}), put("config?cas=x", {"Kind": "service-defaults", "Name": "web"}),
    *get("config/proxy-defaults/global", "config/service-defaults/web", "config/service-router/web", "config/service-splitter/web",
         "config/service-resolver/web", "config/ingress-gateway/gw", "config/terminating-gateway/term", "config/service-defaults", "config/proxy-defaults",
         "config/service-defaults/nothing", "config/nonsense", "config/", "config/nonsense/x", "config/ingress-gateway", "catalog/gateway-services/gw",
         "catalog/gateway-services/term", "catalog/gateway-services/", "health/ingress/web", "internal/ui/gateway-services-nodes/term",
         "discovery-chain/web", "discovery-chain/db", "discovery-chain/db?compile-dc=dc2", "discovery-chain/nothing", "discovery-chain/"),
    post("discovery-chain/web", {"OverrideConnectTimeout": "7s", "OverrideProtocol": "grpc", "OverrideMeshGateway": {"Mode": "local"}}),
    post("discovery-chain/web", {"OverrideMeshGateway": {"Mode": "x"}}),
    *delete("config/service-defaults/db", "config/service-router/web", "config/service-router/nothing", "config/nonsense/x", "config/service-defaults/"),
]  # fmt: skip

CONNECT = [
    post("connect/intentions", {"SourceName": "web", "DestinationName": "db", "SourceType": "consul", "Action": "allow", "Description": "d", "Meta": {"a": "b"}}, {"i1": "ID"}),
    post("connect/intentions", {"SourceName": "*", "DestinationName": "db", "SourceType": "consul", "Action": "deny"}, {"i2": "ID"}),
    post("connect/intentions", {"SourceName": "web", "DestinationName": "db", "SourceType": "consul", "Action": "allow"}),
    post("connect/intentions", {"SourceName": "web", "DestinationName": "*", "Action": "allow"}), post("connect/intentions", {"SourceName": "web"}),
    post("connect/intentions", {"SourceName": "web", "DestinationName": "x", "Action": "x"}), post("connect/intentions", {"SourceName": "we*", "DestinationName": "x", "Action": "deny"}),
    put("connect/intentions/{i1}", {"SourceName": "web", "DestinationName": "db", "SourceType": "consul", "Action": "deny"}), put("connect/intentions/" + NOBODY, {}),
    *get("connect/intentions/{i1}", "connect/intentions/" + NOBODY, "connect/intentions/x", "connect/intentions", "connect/intentions?filter=Action==deny",
         "connect/intentions/match?by=destination&name=db", "connect/intentions/match?by=source&name=web&name=db", "connect/intentions/match?by=x&name=y",
         "connect/intentions/match", "connect/intentions/match?by=source", "connect/intentions/check?source=web&destination=db",
         "connect/intentions/check?source=a&destination=b", "connect/intentions/check", "connect/intentions/check?source=a&destination=b&source-type=x"),
    post("agent/connect/authorize", {"Target": "db", "ClientCertURI": "spiffe://x.consul/ns/default/dc/dc1/svc/web", "ClientCertSerial": "01"}),
    post("agent/connect/authorize", {"Target": "", "ClientCertURI": "x"}), post("agent/connect/authorize", {"Target": "db", "ClientCertURI": "nonsense"}),
    *delete("connect/intentions/{i2}", "connect/intentions/" + NOBODY),
    *get("connect/ca/roots", "connect/ca/roots?pem=true", "connect/ca/configuration", "agent/connect/ca/roots", "agent/connect/ca/leaf/web", "agent/connect/ca/leaf/"),
    put("connect/ca/configuration", {"Provider": "nonsense", "Config": {}}), put("connect/ca/configuration", {"Provider": "consul", "Config": {"LeafCertTTL": "1s"}}),
    put("connect/ca/configuration", {"Provider": "consul", "Config": {"PrivateKeyType": "x"}}), put("connect/ca/configuration", {"Provider": "consul", "Config": {"PrivateKey": "x"}}),
    put("connect/ca/configuration", {"Provider": "consul", "Config": {"LeafCertTTL": "48h", "RotationPeriod": "2160h"}}), *get("connect/ca/configuration"),
    put("connect/ca/configuration", {"Provider": "consul", "Config": {"PrivateKeyType": "rsa", "PrivateKeyBits": 2048}}), *get("connect/ca/roots"),
]  # fmt: skip

QUERIES = [
    post("query", {"Name": "q", "Service": {"Service": "web", "Tags": ["v1"], "OnlyPassing": True, "Failover": {"NearestN": 1, "Datacenters": ["dc2"]},
         "NodeMeta": {"rack": "1"}, "ServiceMeta": {"m": "1"}, "IgnoreCheckIDs": ["x"], "Near": "_agent"}, "DNS": {"TTL": "5s"}}, {"q1": "ID"}),
    post("query", {"Name": "geo-", "Template": {"Type": "name_prefix_match", "Regexp": "^geo-(.*)$"}, "Service": {"Service": "${match(1)}"}}),
    post("query", {"Name": "q", "Service": {"Service": "web"}}), post("query", {"Name": "bad", "Service": {}}), post("query", {"Name": "bad", "Service": {"Service": "x"}, "DNS": {"TTL": "x"}}),
    post("query", {"Name": "bad", "Session": "x", "Service": {"Service": "x"}}), post("query", {"Name": "bad", "Template": {"Type": "x"}, "Service": {"Service": "x"}}),
    post("query", {"Name": "bad", "Template": {"Type": "name_prefix_match", "Regexp": "("}, "Service": {"Service": "x"}}),
    post("query", {"Name": "bad", "Service": {"Service": "x", "Failover": {"NearestN": -1}}}), post("query", {"Name": "bad", "Template": {"Type": "name_prefix_match"}, "Service": {"Service": "${bad"}}),
    Step("PUT", "/v1/query/{q1}", {"Name": "q", "Service": {"Service": "web", "Failover": {"NearestN": 2}}}), Step("PUT", "/v1/query/" + NOBODY, {"Name": "z", "Service": {"Service": "web"}}),
    *get("query", "query/{q1}", "query/{q1}/execute", "query/q/execute?near=ext&limit=1", "query/geo-web/explain", "query/geo-web/execute", "query/nothing/execute",
         "query/nothing/explain", "query/" + NOBODY, "query/q/execute?connect=true", "query/q/execute?limit=x", "query/q/explain"),
    *delete("query/{q1}", "query/" + NOBODY),
]  # fmt: skip

OPERATORS = [
    *get("operator/autopilot/configuration", "status/leader", "status/peers", "status/leader?dc=nowhere"),
    put("operator/autopilot/configuration", {"CleanupDeadServers": True, "MaxTrailingLogs": 250}), put("operator/autopilot/configuration?cas=1", {"CleanupDeadServers": True}),
    put("operator/autopilot/configuration", {"LastContactThreshold": "x"}), *get("operator/keyring", "operator/keyring?relay-factor=9"),
    *delete("operator/raft/peer?address=10.9.9.9:8300", "operator/raft/peer?id=" + NOBODY, "operator/raft/peer", "operator/raft/peer?id=a&address=b"),
    put("coordinate/update", {"Node": "ext", "Coord": {"Vec": [1], "Error": 1.5, "Adjustment": 0, "Height": 0.01}}), *get("coordinate/datacenters", "coordinate/node/nobody"),
    *get("internal/federation-states", "internal/federation-state/dc1", "internal/federation-state/nowhere", "internal/federation-state/", "internal/federation-states/mesh-gateways"),
    put("event/fire/deploy?node=vm&service=web&tag=v1", "payload"), put("event/fire/"), put("event/fire/x?node=("), put("event/fire/x?tag=v"),
    *get("event/list?name=nothing"), *get("agent/monitor?loglevel=nonsense", "agent/metrics?format=prometheus"),
]  # fmt: skip

AGENT = [
    put("agent/service/register", {"Name": "mine", "ID": "mine1", "Port": 7, "Tags": ["a"], "Meta": {"k": "v"}, "Check": {"TTL": "30s"}, "Weights": {"Passing": 3, "Warning": 2}}),
    put("agent/service/register", {"Name": "mine", "Connect": {"SidecarService": {}}, "Port": 8}), put("agent/service/register", {"Name": "", "Port": 7}),
    put("agent/service/register", {"Name": "x", "Port": 7, "Checks": [{"HTTP": "http://x"}]}), put("agent/service/register", {"Name": "x", "Kind": "connect-proxy"}),
    put("agent/check/pass/service:mine1?note=fine"), put("agent/check/warn/service:mine1"), put("agent/check/fail/service:mine1"), put("agent/check/pass/nothing"),
    put("agent/check/update/service:mine1", {"Status": "warning", "Output": "o"}), put("agent/check/update/service:mine1", {"Status": "x"}),
    put("agent/check/register", {"Name": "disk", "TTL": "30s", "Notes": "n"}), put("agent/check/register", {"Name": "x", "ServiceID": "nothing", "TTL": "1s"}),
    put("agent/check/register", {"Name": "alias", "AliasService": "mine1"}), put("agent/check/register", {"Name": "x", "Args": ["true"], "Interval": "1s"}),
    *get("agent/services", 'agent/services?filter=Service=="mine"', "agent/services?filter=bad==", "agent/service/mine1", "agent/service/nothing",
         "agent/checks?filter=CheckID==disk", "agent/health/service/id/mine1", "agent/health/service/name/mine", "agent/health/service/name/mine?format=text",
         "agent/health/service/id/nothing", "agent/members?segment=x"),
    put("agent/service/maintenance/mine1?enable=true&reason=r"), *get("agent/health/service/id/mine1"), put("agent/service/maintenance/mine1?enable=false"),
    put("agent/service/maintenance/nothing?enable=true"), put("agent/maintenance?enable=true&reason=r"), *get("agent/checks?filter=CheckID==_node_maintenance"),
    put("agent/maintenance?enable=false"), put("agent/check/deregister/disk"), put("agent/check/deregister/nothing"), put("agent/service/deregister/mine1"),
    put("agent/service/deregister/mine"), put("agent/service/deregister/nothing"), put("agent/join/"), put("agent/force-leave/nobody"), put("agent/force-leave/"),
    *get("agent/services"),
]  # fmt: skip

ENDPOINTS = [
    "acl/bootstrap",
    "acl/replication",
    "acl/policies",
    "acl/policy",
    "acl/policy/x",
    "acl/policy/name/x",
    "acl/roles",
    "acl/role",
    "acl/role/x",
    "acl/role/name/x",
    "acl/binding-rules",
    "acl/auth-methods",
    "acl/rules/translate",
    "acl/tokens",
    "acl/token",
    "acl/token/self",
    "acl/token/x",
    "agent/token/default",
    "agent/self",
    "agent/host",
    "agent/maintenance",
    "agent/metrics",
    "agent/services",
    "agent/service/x",
    "agent/checks",
    "agent/members",
    "agent/join/x",
    "agent/force-leave/x",
    "agent/health/service/id/x",
    "agent/health/service/name/x",
    "agent/check/register",
    "agent/check/deregister/x",
    "agent/check/pass/x",
    "agent/check/warn/x",
    "agent/check/fail/x",
    "agent/check/update/x",
    "agent/connect/authorize",
    "agent/connect/ca/roots",
    "agent/connect/ca/leaf/x",
    "agent/service/register",
    "agent/service/deregister/x",
    "agent/service/maintenance/x",
    "catalog/register",
    "catalog/connect/x",
    "catalog/deregister",
    "catalog/datacenters",
    "catalog/nodes",
    "catalog/services",
    "catalog/service/web",
    "catalog/node/ext",
    "catalog/node-services/ext",
    "catalog/gateway-services/x",
    "config/service-defaults",
    "config/service-defaults/x",
    "config",
    "connect/ca/configuration",
    "connect/ca/roots",
    "connect/intentions",
    "connect/intentions/match",
    "connect/intentions/check",
    "connect/intentions/x",
    "coordinate/datacenters",
    "coordinate/nodes",
    "coordinate/node/x",
    "coordinate/update",
    "internal/federation-states",
    "internal/federation-state/x",
    "internal/federation-states/mesh-gateways",
    "discovery-chain/x",
    "event/fire/x",
    "event/list",
    "health/node/ext",
    "health/checks/web",
    "health/state/any",
    "health/service/web",
    "health/connect/web",
    "health/ingress/web",
    "internal/ui/nodes",
    "internal/ui/node/ext",
    "internal/ui/services",
    "internal/ui/gateway-services-nodes/x",
    "kv/a",
    "operator/raft/configuration",
    "operator/raft/peer",
    "operator/keyring",
    "operator/autopilot/configuration",
    "operator/autopilot/health",
    "query",
    "query/x",
    "query/x/execute",
    "query/x/explain",
    "session/create",
    "session/destroy/x",
    "session/renew/x",
    "session/info/x",
    "session/node/x",
    "session/list",
    "status/leader",
    "status/peers",
    "txn",
    "internal/acl/authorize",
]


def refusals(endpoints: list[str]) -> Iterator[Step]:
    """What every endpoint says to the wrong method, the wrong body, and who has no right."""
    for target in endpoints:
        for method in ("PATCH", "OPTIONS", "HEAD", "POST"):
            yield Step(method, f"/v1/{target}", "" if method == "POST" else None)
        for token in ("", NOBODY):
            yield Step("GET", f"/v1/{target}", None, None, token)
            yield Step("PUT", f"/v1/{target}", {}, None, token)
        for body in ("{", "[]", "5", '{"Nonsense": 1}', json.dumps({"Name": 5})):
            yield Step("PUT", f"/v1/{target}", body, None, "")
        yield Step("DELETE", f"/v1/{target}", None, None, "")


GROUPS: dict[str, list[Step]] = {
    "kv": KV, "txn": TXN, "sessions": SESSIONS, "catalog": CATALOG, "acl": ACL, "config": CONFIG, "connect": CONNECT, "queries": QUERIES,
    "operators": OPERATORS, "agent": AGENT, "refusals": list(refusals(ENDPOINTS)),
}  # fmt: skip
