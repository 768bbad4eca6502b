"""What `capture.py` asks of a real leader, so that it writes every kind of command."""

from __future__ import annotations

import base64
import json
import time
from typing import Any, Protocol

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

COORDINATE_S_MAX = 40.0


class Server(Protocol):
    """The leader."""

    token: str

    def ask(self, method: str, target: str, body: Any = None) -> tuple[int, bytes]: ...


def drive(server: Server) -> None:
    """All of it."""
    started = time.monotonic()
    acl(server)
    keys(server)
    catalog(server)
    sessions(server)
    config_entries(server)
    connect(server)
    operators(server)
    # The agent tells its coordinate after a while by itself.
    while not _json(server, "GET", "/v1/coordinate/nodes"):
        if time.monotonic() - started > COORDINATE_S_MAX:
            raise SystemExit("no coordinates")
        time.sleep(0.5)


def _json(server: Server, method: str, target: str, body: Any = None) -> Any:
    status, answer = server.ask(method, target, body)
    if status != 200:
        raise SystemExit(f"{method} {target}: {status} {answer!r}")
    return json.loads(answer) if answer else None


def _refused(server: Server, method: str, target: str, body: Any = None) -> None:
    status, answer = server.ask(method, target, body)
    print("refused:", method, target, status, answer)
    if status == 200:
        raise SystemExit(f"{method} {target} was to be refused")


def acl(server: Server) -> None:
    """Types 4, 11, 17 to 20 and 23 to 28."""
    server.token = _json(server, "PUT", "/v1/acl/bootstrap")["SecretID"]
    rules = 'key_prefix "" { policy = "read" }'
    first = _json(server, "PUT", "/v1/acl/policy", {"Name": "p1", "Rules": rules})
    second = _json(
        server, "PUT", "/v1/acl/policy",
        {"Name": "p2", "Rules": rules, "Description": "d", "Datacenters": ["dc1"]},
    )  # fmt: skip
    _json(
        server, "PUT", f"/v1/acl/policy/{first['ID']}",
        {"ID": first["ID"], "Name": "p1b", "Rules": rules},
    )  # fmt: skip
    _json(
        server, "PUT", "/v1/acl/role",
        {
            "Name": "r1", "Policies": [{"Name": "p1b"}, {"ID": second["ID"]}],
            "ServiceIdentities": [{"ServiceName": "web", "Datacenters": ["dc1"]}],
            "NodeIdentities": [{"NodeName": "n", "Datacenter": "dc1"}],
        },
    )  # fmt: skip
    other = _json(server, "PUT", "/v1/acl/role", {"Name": "r2", "Policies": [{"Name": "p2"}]})
    token = _json(
        server, "PUT", "/v1/acl/token",
        {
            "Description": "t1", "Policies": [{"Name": "p2"}], "Roles": [{"Name": "r1"}],
            "ServiceIdentities": [{"ServiceName": "db"}], "Local": True,
        },
    )  # fmt: skip
    _json(
        server, "PUT", f"/v1/acl/token/{token['AccessorID']}",
        {**token, "Description": "t1 again"},
    )  # fmt: skip
    gone = _json(
        server, "PUT", "/v1/acl/token", {"Roles": [{"ID": other["ID"]}], "ExpirationTTL": "23h"}
    )
    _json(server, "PUT", "/v1/acl/token", {"Description": "p3", "Policies": [{"Name": "p2"}]})
    _auth_methods(server)
    _json(server, "DELETE", f"/v1/acl/token/{gone['AccessorID']}")
    _json(server, "DELETE", f"/v1/acl/role/{other['ID']}")
    _json(server, "DELETE", f"/v1/acl/policy/{second['ID']}")
    legacy = _json(
        server, "PUT", "/v1/acl/create", {"Name": "old", "Type": "client", "Rules": rules}
    )
    changed = {"ID": legacy["ID"], "Name": "older", "Type": "client", "Rules": rules}
    _json(server, "PUT", "/v1/acl/update", changed)
    removed = _json(server, "PUT", "/v1/acl/create", {"Name": "brief", "Type": "management"})
    _json(server, "PUT", f"/v1/acl/destroy/{removed['ID']}")


def _auth_methods(server: Server) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    rule: dict[str, Any] = {}
    for name, locality in (("m1", "local"), ("m2", "global")):
        _json(
            server, "PUT", "/v1/acl/auth-method",
            {
                "Name": name, "Type": "jwt", "MaxTokenTTL": "5m", "TokenLocality": locality,
                "Config": {
                    "JWTValidationPubKeys": [public.decode()], "BoundIssuer": "i",
                    "ClaimMappings": {"who": "who"},
                },
            },
        )  # fmt: skip
        for bound in ("web", "db"):
            rule = _json(
                server, "PUT", "/v1/acl/binding-rule",
                {
                    "AuthMethod": name, "BindType": "service", "BindName": bound,
                    "Selector": "value.who==a",
                },
            )  # fmt: skip
        login = {"AuthMethod": name, "BearerToken": _jwt(key), "Meta": {"a": "b"}}
        _json(server, "POST", "/v1/acl/login", login)
    _json(server, "PUT", f"/v1/acl/binding-rule/{rule['ID']}", {**rule, "Description": "changed"})
    extra = {"AuthMethod": "m2", "BindType": "role", "BindName": "r1"}
    rule = _json(server, "PUT", "/v1/acl/binding-rule", extra)
    _json(server, "DELETE", f"/v1/acl/binding-rule/{rule['ID']}")
    # Takes its rules and tokens along.
    _json(server, "DELETE", "/v1/acl/auth-method/m1")


def _jwt(key: ec.EllipticCurvePrivateKey) -> str:
    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    now = int(time.time())
    claims = {"iss": "i", "who": "a", "exp": now + 600, "iat": now, "nbf": now - 10}
    text = part(b'{"alg":"ES256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    r, s = decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
    return (text + b"." + part(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()


def keys(server: Server) -> None:
    """Types 2 and 8, one of them in chunks."""
    for name in ("a", "b/1", "b/2", "b/3", "c", "d", "e"):
        _json(server, "PUT", f"/v1/kv/{name}?flags=18446744073709551615", name.encode())
    _json(server, "PUT", "/v1/kv/empty", b"")
    _json(server, "DELETE", "/v1/kv/a")
    _json(server, "DELETE", "/v1/kv/b/?recurse")
    index = _json(server, "GET", "/v1/kv/c")[0]["ModifyIndex"]
    _json(server, "PUT", f"/v1/kv/c?cas={index}", b"cas")
    _json(server, "PUT", "/v1/kv/c?cas=1", b"not")
    _json(server, "DELETE", "/v1/kv/d?cas=1")
    index = _json(server, "GET", "/v1/kv/d")[0]["ModifyIndex"]
    _json(server, "DELETE", f"/v1/kv/d?cas={index}")
    _json(server, "PUT", "/v1/kv/large", b"large value " * 100_000)
    value = base64.b64encode(b"txn").decode()
    _json(
        server, "PUT", "/v1/txn",
        [
            {"KV": {"Verb": "set", "Key": "t/1", "Value": value, "Flags": 3}},
            {"KV": {"Verb": "set", "Key": "t/2", "Value": value}},
            {"KV": {"Verb": "cas", "Key": "t/3", "Value": value, "Index": 0}},
            {"KV": {"Verb": "get", "Key": "t/1"}},
            {"KV": {"Verb": "get-tree", "Key": "t/"}},
            {"KV": {"Verb": "check-not-exists", "Key": "nothing"}},
            {"KV": {"Verb": "delete", "Key": "t/2"}},
            {"Node": {"Verb": "set", "Node": {"Node": "tn", "Address": "1.1.1.9"}}},
            {"Service": {"Verb": "set", "Node": "tn", "Service": {"ID": "ts", "Service": "ts"}}},
            {
                "Check": {
                    "Verb": "set",
                    "Check": {"Node": "tn", "CheckID": "tc", "Name": "n", "Status": "passing"},
                }
            },
        ],
    )  # fmt: skip
    _refused(
        server, "PUT", "/v1/txn",
        [
            {"KV": {"Verb": "set", "Key": "t/never", "Value": value}},
            {"KV": {"Verb": "check-index", "Key": "t/1", "Index": 1}},
        ],
    )  # fmt: skip
    _json(
        server, "PUT", "/v1/txn",
        [
            {"Service": {"Verb": "delete", "Node": "tn", "Service": {"ID": "ts", "Service": "ts"}}},
            {"KV": {"Verb": "delete-tree", "Key": "t/3"}},
        ],
    )  # fmt: skip


def catalog(server: Server) -> None:
    """Types 0, 1 and 30."""
    node = {"Node": "outside", "Address": "1.1.1.1"}
    _json(
        server, "PUT", "/v1/catalog/register",
        {
            **node, "ID": "11111111-2222-4333-8444-555555555555", "NodeMeta": {"a": "b"},
            "TaggedAddresses": {"wan": "2.2.2.2"},
            "Service": {
                "Service": "db", "Port": 80, "Tags": ["b", "a"], "Meta": {"k": "v"},
                "Weights": {"Passing": 3, "Warning": 1}, "EnableTagOverride": True,
            },
            "Checks": [
                {
                    "Name": "c", "Status": "passing", "ServiceID": "db", "Notes": "n",
                    "Definition": {"HTTP": "http://x", "Interval": "10s", "Timeout": "1s"},
                },
                {"Name": "node", "CheckID": "node", "Status": "warning"},
            ],
        },
    )  # fmt: skip
    proxy = {
        "DestinationServiceName": "db", "Config": {"a": {"b": [1, "x", 1.5, {"c": True}]}},
        "Upstreams": [{"DestinationName": "web", "LocalBindPort": 9}],
        "Expose": {"Paths": [{"Path": "/x", "LocalPathPort": 1, "ListenerPort": 2}]},
    }  # fmt: skip
    services: list[dict[str, Any]] = [
        {"Service": "db-proxy", "Kind": "connect-proxy", "Port": 81, "Proxy": proxy},
        {"Service": "native", "Port": 82, "Connect": {"Native": True}},
        {
            "Service": "gw", "Kind": "mesh-gateway", "Port": 8443,
            "Meta": {"consul-wan-federation": "1"},
            "TaggedAddresses": {"wan": {"Address": "9.9.9.9", "Port": 1}},
        },
        {"Service": "ingress", "Kind": "ingress-gateway", "Port": 8444},
        {"Service": "terminating", "Kind": "terminating-gateway", "Port": 8445},
        {"Service": "brief", "Port": 1},
    ]  # fmt: skip
    for service in services:
        _json(server, "PUT", "/v1/catalog/register", {**node, "Service": service})
    check = {"Name": "x", "CheckID": "x", "Status": "critical"}
    _json(server, "PUT", "/v1/catalog/register", {**node, "Check": check})
    _json(server, "PUT", "/v1/catalog/deregister", {**node, "CheckID": "x"})
    _json(server, "PUT", "/v1/catalog/deregister", {**node, "ServiceID": "brief"})
    _json(server, "PUT", "/v1/catalog/register", {"Node": "gone", "Address": "1.1.1.3"})
    _json(server, "PUT", "/v1/catalog/deregister", {"Node": "gone"})
    for _ in range(100):
        if _json(server, "GET", "/v1/internal/federation-states"):
            return
        time.sleep(0.1)
    raise SystemExit("no federation state")


def sessions(server: Server) -> None:
    """Types 3 and 7, and what becomes of locks and queries."""

    def create(name: str, **more: Any) -> str:
        body = {"Name": name, "Node": "outside", "NodeChecks": [], "LockDelay": "1ms", **more}
        return str(_json(server, "PUT", "/v1/session/create", body)["ID"])

    kept, ended = create("kept", TTL="86400s"), create("ended")
    deleting = create("deleting", Behavior="delete", NodeChecks=["node"])
    checked = create("checked", ServiceChecks=[{"ID": "c"}])
    _json(server, "PUT", f"/v1/kv/l/kept?acquire={kept}&flags=7", b"1")
    _json(server, "PUT", f"/v1/kv/l/ended?acquire={ended}", b"2")
    _json(server, "PUT", f"/v1/kv/l/deleted?acquire={deleting}", b"3")
    _json(server, "PUT", f"/v1/kv/l/checked?acquire={checked}", b"4")
    _json(server, "PUT", f"/v1/kv/l/released?acquire={kept}", b"5")
    _json(server, "PUT", f"/v1/kv/l/released?release={kept}", b"6")
    _json(server, "PUT", f"/v1/kv/l/kept?acquire={ended}", b"not")
    service = {"Service": "db", "Failover": {"NearestN": 2}, "Tags": ["a"], "OnlyPassing": True}
    query = {"Name": "q1", "Service": service, "DNS": {"TTL": "10s"}}
    first = _json(server, "POST", "/v1/query", query)["ID"]
    _json(server, "PUT", f"/v1/query/{first}", {**query, "Name": "q1b"})
    bound = {"Name": "bound", "Service": {"Service": "db"}, "Session": ended}
    _json(server, "POST", "/v1/query", bound)
    template = {"Type": "name_prefix_match", "Regexp": "^(.*)$"}
    template_body = {"Service": {"Service": "${match(1)}"}, "Template": template, "Name": "t-"}
    _json(server, "POST", "/v1/query", template_body)
    gone = _json(server, "POST", "/v1/query", {"Name": "g", "Service": {"Service": "x"}})["ID"]
    _json(server, "DELETE", f"/v1/query/{gone}")
    _refused(server, "POST", "/v1/query", {"Name": "q1b", "Service": {"Service": "x"}})
    _json(server, "PUT", f"/v1/session/destroy/{ended}")
    node = {"Node": "outside", "Address": "1.1.1.1"}
    check = {"Name": "node", "CheckID": "node", "Status": "critical"}
    _json(server, "PUT", "/v1/catalog/register", {**node, "Check": check})
    _json(server, "PUT", "/v1/catalog/deregister", {**node, "CheckID": "c"})


def config_entries(server: Server) -> None:
    """Type 22 in all of its kinds, some refused by the state alone."""
    entries: list[dict[str, Any]] = [
        {"Kind": "proxy-defaults", "Name": "global", "Config": {"a": [1, "x", {"b": True}]}},
        {"Kind": "service-defaults", "Name": "db", "Protocol": "http"},
        {"Kind": "service-defaults", "Name": "web", "Protocol": "http"},
        {"Kind": "service-resolver", "Name": "db", "ConnectTimeout": "3s",
         "Subsets": {"v1": {"Filter": "Service.Meta.v == 1"}}},
        {"Kind": "service-splitter", "Name": "db",
         "Splits": [{"Weight": 90, "ServiceSubset": "v1"}, {"Weight": 10, "Service": "web"}]},
        {"Kind": "service-router", "Name": "web",
         "Routes": [{"Match": {"HTTP": {"PathPrefix": "/x"}}, "Destination": {"Service": "db"}}]},
        {"Kind": "ingress-gateway", "Name": "ingress",
         "Listeners": [{"Port": 1, "Protocol": "http", "Services": [{"Name": "web"}]}]},
        {"Kind": "terminating-gateway", "Name": "terminating",
         "Services": [{"Name": "native"}, {"Name": "*"}]},
        {"Kind": "service-resolver", "Name": "brief", "ConnectTimeout": "3s"},
    ]  # fmt: skip
    for entry in entries:
        _json(server, "PUT", "/v1/config", entry)
    _json(server, "DELETE", "/v1/config/service-resolver/brief")
    _json(server, "PUT", "/v1/config?cas=0", {"Kind": "service-defaults", "Name": "new"})
    _json(server, "PUT", "/v1/config?cas=1", {"Kind": "service-defaults", "Name": "new"})
    _refused(
        server, "PUT", "/v1/config",
        {"Kind": "service-splitter", "Name": "plain", "Splits": [{"Weight": 100}]},
    )  # fmt: skip
    _refused(server, "DELETE", "/v1/config/service-defaults/web")


def connect(server: Server) -> None:
    """Types 12, 13 and 21."""
    intention = {"SourceName": "web", "DestinationName": "db", "Action": "allow"}
    first = _json(server, "POST", "/v1/connect/intentions", intention)["ID"]
    changed = {**intention, "Action": "deny", "Description": "d", "Meta": {"a": "b"}}
    _json(server, "PUT", f"/v1/connect/intentions/{first}", changed)
    other = {"SourceName": "*", "DestinationName": "*", "Action": "deny"}
    gone = _json(server, "POST", "/v1/connect/intentions", other)["ID"]
    _json(server, "DELETE", f"/v1/connect/intentions/{gone}")
    _refused(server, "POST", "/v1/connect/intentions", intention)
    _json(server, "GET", "/v1/agent/connect/ca/leaf/web")
    config = {"LeafCertTTL": "48h", "RotationPeriod": "2160h", "IntermediateCertTTL": "8760h"}
    _json(server, "PUT", "/v1/connect/ca/configuration", {"Provider": "consul", "Config": config})
    key = {"PrivateKeyType": "ec", "PrivateKeyBits": 384}
    rotated = {"Provider": "consul", "Config": {**config, **key}}
    _json(server, "PUT", "/v1/connect/ca/configuration", rotated)


def operators(server: Server) -> None:
    """Type 9."""
    config = {"CleanupDeadServers": True, "MaxTrailingLogs": 100}
    _json(server, "PUT", "/v1/operator/autopilot/configuration", config)
    _json(server, "PUT", "/v1/operator/autopilot/configuration?cas=1", config)
