"""Config entries, intentions and the CA, for `rpc_drive.py`."""

from __future__ import annotations

import uuid

from agent_support import until
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rpc_api import Api


def config_entries(api: Api, _: Api) -> None:
    """ConfigEntry and DiscoveryChain."""
    for body in (
        {
            "Kind": "proxy-defaults",
            "Name": "global",
            "Config": {"a": 1, "b": {"c": "d"}},
            "MeshGateway": {"Mode": "local"},
        },
        {
            "Kind": "service-defaults",
            "Name": "web",
            "Protocol": "http",
            "MeshGateway": {"Mode": "remote"},
        },
        {"Kind": "service-defaults", "Name": "db", "Protocol": "http", "Expose": {"Checks": True}},
        {
            "Kind": "service-resolver",
            "Name": "web",
            "DefaultSubset": "v1",
            "Subsets": {"v1": {"Filter": "Service.Meta.v == 1", "OnlyPassing": True}},
            "ConnectTimeout": "15s",
            "Failover": {"*": {"Datacenters": ["dc2"]}},
        },
        {
            "Kind": "service-splitter",
            "Name": "web",
            "Splits": [{"Weight": 90, "ServiceSubset": "v1"}, {"Weight": 10, "Service": "db"}],
        },
        {
            "Kind": "service-router",
            "Name": "web",
            "Routes": [
                {
                    "Match": {
                        "HTTP": {
                            "PathPrefix": "/x",
                            "Header": [{"Name": "h", "Exact": "v"}],
                            "Methods": ["GET"],
                        }
                    },
                    "Destination": {
                        "Service": "db",
                        "PrefixRewrite": "/y",
                        "RequestTimeout": "3s",
                        "NumRetries": 2,
                    },
                }
            ],
        },
        {
            "Kind": "ingress-gateway",
            "Name": "gw",
            "Listeners": [
                {"Port": 8080, "Protocol": "http", "Services": [{"Name": "web", "Hosts": ["a.b"]}]}
            ],
        },
        {"Kind": "terminating-gateway", "Name": "term", "Services": [{"Name": "db", "SNI": "x"}]},
    ):
        api("PUT", "/v1/config", body)
    api("PUT", "/v1/config?cas=1", {"Kind": "service-defaults", "Name": "web", "Protocol": "tcp"})
    api("PUT", "/v1/config", {"Kind": "service-router", "Name": "tcp", "Routes": []})
    for target in (
        "proxy-defaults/global",
        "service-defaults/web",
        "service-router/web",
        "service-splitter/web",
        "service-resolver/web",
        "ingress-gateway/gw",
        "terminating-gateway/term",
        "service-defaults",
        "proxy-defaults",
        "service-defaults/nothing",
        "nonsense",
        "ingress-gateway",
    ):
        api("GET", f"/v1/config/{target}")
    for target in (
        "catalog/gateway-services/gw",
        "catalog/gateway-services/term",
        "health/ingress/web",
        "internal/ui/gateway-services-nodes/term",
        "discovery-chain/web",
        "discovery-chain/db?compile-dc=dc2",
    ):
        api("GET", f"/v1/{target}")
    api(
        "POST",
        "/v1/discovery-chain/web",
        {
            "OverrideConnectTimeout": "7s",
            "OverrideProtocol": "grpc",
            "OverrideMeshGateway": {"Mode": "local"},
        },
    )
    api(
        "PUT",
        "/v1/agent/service/register",
        {
            "Name": "web",
            "Port": 80,
            "Connect": {
                "SidecarService": {
                    "Proxy": {"Upstreams": [{"DestinationName": "db", "LocalBindPort": 9001}]}
                }
            },
        },
    )
    until(lambda: "web-sidecar-proxy" in str(api("GET", "/v1/catalog/node/client")))
    api("DELETE", "/v1/config/service-router/web")
    api("DELETE", "/v1/config/service-defaults/db")


def intentions(api: Api, _: Api) -> None:
    """Intention."""
    made = api(
        "POST",
        "/v1/connect/intentions",
        {
            "SourceName": "web",
            "DestinationName": "db",
            "SourceType": "consul",
            "Action": "allow",
            "Description": "d",
            "Meta": {"a": "b"},
        },
    )["ID"]
    other = api(
        "POST",
        "/v1/connect/intentions",
        {"SourceName": "*", "DestinationName": "db", "SourceType": "consul", "Action": "deny"},
    )["ID"]
    api(
        "PUT",
        f"/v1/connect/intentions/{made}",
        {"SourceName": "web", "DestinationName": "db", "SourceType": "consul", "Action": "deny"},
    )
    api(
        "POST",
        "/v1/connect/intentions",
        {"SourceName": "web", "DestinationName": "db", "SourceType": "consul", "Action": "allow"},
    )
    for target in (
        f"/{made}",
        f"/{uuid.uuid4()}",
        "",
        "/match?by=destination&name=db",
        "/match?by=source&name=web&name=db",
        "/check?source=web&destination=db",
        "/check?source=a&destination=b",
    ):
        api("GET", f"/v1/connect/intentions{target}")
    api("DELETE", f"/v1/connect/intentions/{other}")


def connect(api: Api, second: Api) -> None:
    """ConnectCA."""
    for target in (
        "connect/ca/roots",
        "connect/ca/configuration",
        "agent/connect/ca/roots",
        "agent/connect/ca/leaf/web",
    ):
        api("GET", f"/v1/{target}")
    # The secondary has its intermediate signed in its own time.
    uri = until(lambda: dict(second("GET", "/v1/agent/connect/ca/leaf/x"))["ServiceURI"], 60)
    api(
        "POST",
        "/v1/agent/connect/authorize",
        {
            "Target": "db",
            "ClientCertURI": uri,
            "ClientCertSerial": "01",
        },
    )
    config = api("GET", "/v1/connect/ca/configuration")
    config["Config"]["LeafCertTTL"] = "48h"
    api("PUT", "/v1/connect/ca/configuration", {"Provider": "consul", "Config": config["Config"]})
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    api(
        "PUT",
        "/v1/connect/ca/configuration",
        {"Provider": "consul", "Config": {**config["Config"], "PrivateKey": pem.decode()}},
    )
    api("GET", "/v1/connect/ca/roots?pem=true")
    api("PUT", "/v1/connect/ca/configuration", {"Provider": "nonsense", "Config": {}})
