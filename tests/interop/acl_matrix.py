"""Policies, tokens, and the requests that `test_acl_enforcement.py` sends with every one of them."""

from __future__ import annotations

from typing import Any

MASTER = "5ec2e700-0000-4000-8000-00000000aaaa"
AGENT_MASTER = "5ec2e700-0000-4000-8000-00000000bbbb"
UNKNOWN = "5ec2e700-0000-4000-8000-00000000cccc"
NOTHING = "5ec2e700-0000-4000-8000-00000000dddd"
"""An id that nothing has."""

POLICIES = {
    "reads": 'node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }',
    "web": 'service "web" { policy = "write" } node_prefix "" { policy = "read" } '
    'key_prefix "web/" { policy = "write" } key "web/locked" { policy = "deny" }',
    "node": 'node "vm" { policy = "write" } session "vm" { policy = "write" } '
    'agent "vm" { policy = "write" }',
    "keys": 'key_prefix "" { policy = "read" } key_prefix "web/" { policy = "deny" } '
    'key_prefix "list/" { policy = "list" } session_prefix "" { policy = "read" }',
    "operates": 'operator = "write" keyring = "read"',
    "observes": '{"operator": "read", "acl": "read", "agent_prefix": {"": {"policy": "read"}}, '
    '"event_prefix": {"": {"policy": "write"}}, "query_prefix": {"": {"policy": "read"}}}',
    "denies": 'service "web" { policy = "deny" } node_prefix "" { policy = "read" } '
    'service_prefix "" { policy = "write" intentions = "write" }',
    "ids": 'node_prefix "" { policy = "read" } service "web1" { policy = "read" }',
    "elsewhere": 'acl = "write"',
}
TOKENS: dict[str, dict[str, Any]] = {
    **{name: {"Policies": [{"Name": name}]} for name in POLICIES},
    "both": {"Policies": [{"Name": "web"}, {"Name": "denies"}]},
    "role": {"Roles": [{"Name": "operators"}]},
    "service": {"ServiceIdentities": [{"ServiceName": "web"}]},
    "service2": {"ServiceIdentities": [{"ServiceName": "web", "Datacenters": ["dc2"]}]},
    "host": {"NodeIdentities": [{"NodeName": "vm", "Datacenter": "dc1"}]},
    "empty": {},
}
SECRETS = {name: f"5ec2e700-0000-4000-8000-{n:012d}" for n, name in enumerate(TOKENS)}
SECRETS |= {"": "", "master": MASTER, "agent master": AGENT_MASTER, "unknown": UNKNOWN,
            "root": "allow"}  # fmt: skip

READS = [
    "catalog/nodes",
    "catalog/services",
    "catalog/service/web",
    "catalog/service/db",
    "catalog/node/vm",
    "catalog/node/far",
    "catalog/node-services/vm",
    "catalog/datacenters",
    "health/node/vm",
    "health/checks/web",
    "health/service/web",
    "health/service/web?passing",
    "health/state/any",
    "kv/web/a",
    "kv/web/locked",
    "kv/other",
    "kv/?recurse",
    "kv/?keys",
    "kv/?keys&separator=/",
    "kv/list/?keys",
    "kv/missing",
    "session/list",
    "session/node/vm",
    "coordinate/nodes",
    "coordinate/node/vm",
    "coordinate/datacenters",
    "status/leader",
    "status/peers",
    "operator/raft/configuration",
    "operator/autopilot/configuration",
    "operator/keyring",
    "internal/federation-states",
    "internal/federation-state/dc1",
    "internal/federation-states/mesh-gateways",
    "connect/ca/configuration",
    "connect/intentions",
    "connect/intentions/match?by=destination&name=web",
    "connect/intentions/match?by=source&name=db",
    "connect/intentions/check?source=db&destination=web",
    "config/service-defaults",
    "config/service-defaults/web",
    "config/proxy-defaults",
    "discovery-chain/web",
    "query",
    "query/q/execute",
    "query/q/explain",
    "event/list",
    "agent/members",
    "agent/services",
    "agent/checks",
    "agent/service/web1",
    "agent/service/none",
    "agent/health/service/id/web1",
    "agent/health/service/name/web",
    "agent/health/service/id/none",
    "agent/metrics?format=prometheus",
    "acl/policies",
    "acl/tokens",
    "acl/token/self",
    "acl/roles",
]
STATUS_ONLY = {"agent/connect/ca/leaf/web", "agent/self", "agent/metrics", "agent/host", "snapshot",
               "connect/ca/roots", "agent/connect/ca/roots"}  # fmt: skip

WEB = {"ID": "web2", "Name": "web"}
PROXY = {"Name": "web-proxy", "Kind": "connect-proxy", "Port": 1,
         "Proxy": {"DestinationServiceName": "db"}}  # fmt: skip
FAR = {"Node": "far", "Address": "10.0.0.2"}
WRITES: list[tuple[str, Any]] = [
    ("kv/web/a", "1"), ("kv/web/locked", "1"), ("kv/other", "1"), ("kv/web/a?cas=1", "1"),
    ("txn", [{"KV": {"Verb": "get", "Key": "web/a"}}, {"KV": {"Verb": "get", "Key": "other"}}]),
    ("txn", [{"KV": {"Verb": "set", "Key": "web/a", "Value": ""}},
             {"KV": {"Verb": "set", "Key": "other", "Value": ""}}]),
    ("catalog/register", FAR),
    ("catalog/register", {**FAR, "Service": {"ID": "web1", "Service": "web"}}),
    ("catalog/register", {**FAR, "Service": {"ID": "web1", "Service": "db"}}),
    ("catalog/register", {**FAR, "Address": "10.0.0.3", "Service": {"Service": "web"}}),
    ("catalog/register", {**FAR, "Check": {"CheckID": "c", "Name": "c", "ServiceID": "web1"}}),
    ("catalog/register", {**FAR, "Check": {"CheckID": "c", "Name": "c", "ServiceID": "none"}}),
    ("catalog/register", {**FAR, "Check": {"Name": "x", "Node": "other"}}),
    ("catalog/register", {**FAR, "Check": {"Name": "x"}}),
    ("catalog/register", {**FAR, "SkipNodeUpdate": True, "Service": {"Service": "consul"}}),
    ("catalog/deregister", {"Node": "far", "ServiceID": "none"}),
    ("catalog/deregister", {"Node": "far", "CheckID": "none"}),
    ("session/create", {"Node": "vm"}), ("session/destroy/" + UNKNOWN, None),
    ("session/renew/" + UNKNOWN, None),
    ("agent/service/register", WEB), ("agent/service/register", {"ID": "web2", "Name": "db"}),
    ("agent/service/register", PROXY),
    ("agent/check/register", {"Name": "mine", "TTL": "9s"}),
    ("agent/check/register", {"Name": "its", "TTL": "9s", "ServiceID": "web1"}),
    ("agent/check/pass/none", None), ("agent/service/deregister/none", None),
    ("agent/check/deregister/none", None),
    ("agent/service/maintenance/web1?enable=false", None),
    ("agent/service/maintenance/none?enable=true", None), ("agent/maintenance?enable=false", None),
    ("agent/force-leave/nobody", None), ("agent/reload", None),
    ("agent/token/default", {"Token": ""}),
    ("operator/autopilot/configuration?cas=1", {}), ("event/fire/e", ""),
    ("connect/ca/configuration", {"Provider": "nonsense"}),
    ("config", {"Kind": "service-defaults", "Name": "web", "Protocol": "http"}),
    ("config", {"Kind": "proxy-defaults", "Name": "global"}),
    ("query/" + UNKNOWN, {"Name": "q", "Service": {"Service": "web"}}),
]  # fmt: skip

RIGHTS = [
    {"Resource": resource, "Segment": segment, "Access": access}
    for resource in ("acl", "keyring", "operator")
    for segment in ("",)
    for access in ("read", "WRITE")
] + [
    {"Resource": resource, "Segment": segment, "Access": access}
    for resource in ("agent", "event", "intention", "key", "node", "query", "service", "session")
    for segment in ("web", "vm", "*")
    for access in ("read", "write")
]
MORE: list[tuple[str, str, Any]] = [
    ("POST", "connect/intentions", {"SourceName": "x", "DestinationName": "web", "Action": "none"}),
    (
        "POST",
        "connect/intentions",
        {"SourceName": "x", "DestinationName": "web", "Action": "allow"},
    ),
    ("POST", "connect/intentions", {"SourceName": "x", "DestinationName": "*", "Action": "allow"}),
    (
        "PUT",
        "connect/intentions/" + NOTHING,
        {"SourceName": "x", "DestinationName": "web", "Action": "allow"},
    ),
    ("DELETE", "connect/intentions/" + NOTHING, None),
    ("POST", "query", {"Name": "zz", "Service": {"Service": "web"}}),
    (
        "POST",
        "query",
        {"Name": "zz", "Template": {"Type": "name_prefix_match"}, "Service": {"Service": "web"}},
    ),
    ("DELETE", "query/" + NOTHING, None),
    ("GET", "query/nothing/execute", None),
    ("POST", "internal/acl/authorize", RIGHTS),
    ("POST", "internal/acl/authorize?dc=dc1", []),
    ("POST", "internal/acl/authorize", [{"Resource": "nonsense", "Access": "read"}]),
    ("POST", "internal/acl/authorize", [{"Resource": "node", "Access": "list"}]),
    ("POST", "internal/acl/authorize", [{}] * 65),
    ("POST", "internal/acl/authorize", {}),
    ("POST", "internal/acl/authorize", [{"Resource": "key", "Access": 1}]),
    ("POST", "internal/acl/authorize", ""),
    ("GET", "query/" + NOTHING, None),
    ("GET", "query/" + NOTHING + "/explain", None),
    ("GET", "connect/intentions/" + NOTHING, None),
    ("GET", "connect/intentions/x", None),
    ("PUT", "catalog/deregister", {}),
    ("PUT", "session/create", {"TTL": "x"}),
    ("DELETE", "config/service-defaults/web2", None),
    ("DELETE", "config/proxy-defaults/global", None),
    ("GET", "config/nonsense", None),
    ("DELETE", "kv/web/?recurse", None),
    ("DELETE", "kv/none", None),
    ("DELETE", "kv/web/a", None),
    (
        "POST",
        "agent/connect/authorize",
        {
            "Target": "web",
            "ClientCertURI": "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/db",
            "ClientCertSerial": "x",
        },
    ),
    (
        "POST",
        "agent/connect/authorize",
        {
            "Target": "db",
            "ClientCertURI": "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web",
            "ClientCertSerial": "x",
        },
    ),
    ("PUT", "acl/policy", {"Name": ""}),
    ("PUT", "acl/policy/" + NOTHING, {"Name": "a"}),
    ("DELETE", "acl/policy/" + NOTHING, None),
    ("GET", "acl/policy/" + NOTHING, None),
    ("PUT", "acl/token", {"Policies": [{"Name": "nothing"}]}),
    ("GET", "acl/token/" + NOTHING, None),
    ("DELETE", "acl/token/" + NOTHING, None),
    ("PUT", "acl/token/" + NOTHING + "/clone", None),
    ("PUT", "acl/role", {"Name": ""}),
    ("GET", "acl/role/" + NOTHING, None),
    ("GET", "acl/role/name/operators", None),
    ("DELETE", "acl/role/" + NOTHING, None),
    ("GET", "acl/auth-methods", None),
    ("GET", "acl/binding-rules", None),
    ("GET", "acl/replication", None),
    ("PUT", "acl/bootstrap", None),
    ("GET", "acl/list", None),
    ("GET", "acl/info/" + SECRETS["web"], None),
    ("PUT", "acl/create", {"Name": "", "Type": "nonsense"}),
    ("POST", "acl/rules/translate", 'key "a" { policy = "read" }'),
    ("PUT", "operator/raft/peer?address=x", None),
    ("DELETE", "operator/raft/peer?address=1.2.3.4:1", None),
    ("POST", "operator/keyring", {"Key": "x"}),
    ("DELETE", "operator/keyring", {"Key": "x"}),
    (
        "PUT",
        "coordinate/update",
        {"Node": "vm", "Coord": {"Vec": [0] * 8, "Error": 1.5, "Height": 1e-5}},
    ),
    (
        "PUT",
        "coordinate/update",
        {"Node": "far", "Coord": {"Vec": [0] * 8, "Error": 1.5, "Height": 1e-5}},
    ),
    ("PUT", "catalog/deregister", {"Node": "nobody"}),
    ("PUT", "session/create", {"Node": "far"}),
    ("GET", "catalog/gateway-services/web", None),
    ("GET", "connect/ca/roots?pem=true", None),
    ("GET", "agent/monitor?loglevel=nonsense", None),
    ("GET", "event/list?name=e", None),
    ("PUT", "event/fire/e?node=[", ""),
    ("PUT", "kv/web/a?acquire=" + NOTHING, "1"),
    ("PUT", "kv/list/x?flags=1", "1"),
    ("GET", "kv/list/?keys&separator=/", None),
    ("GET", "health/checks/none", None),
    (
        "PUT",
        "txn",
        [
            {"Node": {"Verb": "get", "Node": {"Node": "far"}}},
            {"Service": {"Verb": "get", "Node": "far", "Service": {"ID": "web1"}}},
            {"Check": {"Verb": "get", "Check": {"Node": "far", "CheckID": "disk"}}},
        ],
    ),
    ("PUT", "txn", [{"Node": {"Verb": "set", "Node": {"Node": "far", "Address": "10.0.0.2"}}}]),
    (
        "PUT",
        "txn",
        [{"Service": {"Verb": "set", "Node": "far", "Service": {"ID": "web1", "Service": "web"}}}],
    ),
    (
        "PUT",
        "txn",
        [
            {
                "Check": {
                    "Verb": "set",
                    "Check": {
                        "Node": "far",
                        "CheckID": "c2",
                        "Name": "c2",
                        "ServiceID": "web1",
                        "ServiceName": "web",
                    },
                }
            }
        ],
    ),
    ("PUT", "txn", [{"KV": {"Verb": "delete-tree", "Key": "nothing/"}}]),
    ("PUT", "txn", [{"KV": {"Verb": "check-not-exists", "Key": "web/z"}}]),
]

CLIENT_READS = [
    "agent/self",
    "agent/members",
    "agent/services",
    "agent/checks",
    "agent/service/web1",
    "agent/host",
    "agent/health/service/name/web",
    "kv/web/a",
    "kv/other",
    "catalog/service/web",
    "health/node/vm",
    "operator/raft/configuration",
]
CLIENT_WRITES: list[tuple[str, Any]] = [
    ("agent/service/register", {"ID": "web2", "Name": "web"}),
    ("agent/check/register", {"Name": "mine", "TTL": "9s"}),
    ("agent/maintenance?enable=false", None),
    ("kv/web/a", "1"),
]
