"""ACLs, for `rpc_drive.py`."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from rpc_api import RULES, Api


def primary_data(api: Api) -> Path:
    """The data directory of the primary's server, which lives beside the client."""
    return api.agent.path.parent / "server-dc1" / "data"


def acl(api: Api, _: Api) -> None:
    """ACL but for its replication."""
    policy = api(
        "PUT",
        "/v1/acl/policy",
        {"Name": "p1", "Rules": RULES, "Description": "d", "Datacenters": ["dc1"]},
    )
    api("PUT", f"/v1/acl/policy/{policy['ID']}", {"ID": policy["ID"], "Name": "p1", "Rules": RULES})
    role = api(
        "PUT",
        "/v1/acl/role",
        {
            "Name": "r1",
            "Description": "d",
            "Policies": [{"ID": policy["ID"]}],
            "ServiceIdentities": [{"ServiceName": "web", "Datacenters": ["dc1"]}],
            "NodeIdentities": [{"NodeName": "n1", "Datacenter": "dc1"}],
        },
    )
    token = api(
        "PUT",
        "/v1/acl/token",
        {
            "Description": "t",
            "Policies": [{"Name": "p1"}],
            "Roles": [{"ID": role["ID"]}],
            "ServiceIdentities": [{"ServiceName": "web"}],
            "NodeIdentities": [{"NodeName": "n", "Datacenter": "dc1"}],
            "ExpirationTTL": "1h",
        },
    )
    local = api("PUT", "/v1/acl/token", {"Local": True, "Policies": [{"ID": policy["ID"]}]})
    api(
        "PUT",
        f"/v1/acl/token/{local['AccessorID']}",
        {"AccessorID": local["AccessorID"], "Description": "x", "Local": True},
    )
    clone = api("PUT", f"/v1/acl/token/{token['AccessorID']}/clone", {"Description": "c"})
    for target in (
        f"token/{token['AccessorID']}",
        "token/self",
        "tokens",
        f"tokens?policy={policy['ID']}",
        f"tokens?role={role['ID']}",
        f"token/{uuid.uuid4()}",
        f"policy/{policy['ID']}",
        "policy/name/p1",
        "policy/name/nothing",
        "policies",
        f"role/{role['ID']}",
        "role/name/r1",
        "roles",
        f"roles?policy={policy['ID']}",
        "replication",
        "auth-methods",
        "binding-rules",
        "rules/translate/" + token["AccessorID"],
    ):
        api("GET", f"/v1/acl/{target}")
    mine = Api(api.agent, token["SecretID"])
    for target in ("acl/token/self", "kv/a", "kv/?recurse", "agent/self"):
        mine("GET", f"/v1/{target}")
    Api(api.agent, str(uuid.uuid4()))("GET", "/v1/agent/services")
    Api(api.agent, clone["SecretID"])("GET", "/v1/agent/services")
    api("DELETE", f"/v1/acl/token/{clone['AccessorID']}")
    spare = api("PUT", "/v1/acl/policy", {"Name": "spare", "Rules": ""})
    api("DELETE", f"/v1/acl/policy/{spare['ID']}")
    spare = api("PUT", "/v1/acl/role", {"Name": "spare", "Policies": [{"Name": "p1"}]})
    api("DELETE", f"/v1/acl/role/{spare['ID']}")
    lock = api("PUT", "/v1/acl/bootstrap")  # refused, and says how it could be had again
    reset = primary_data(api) / "acl-bootstrap-reset"
    reset.write_text(re.search(r"reset index: (\d+)", lock)[1])
    api("PUT", "/v1/acl/bootstrap")
    private = ec.generate_private_key(ec.SECP256R1())
    key = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    api(
        "PUT",
        "/v1/acl/auth-method",
        {
            "Name": "jwt",
            "Type": "jwt",
            "Description": "d",
            "MaxTokenTTL": "5m",
            "TokenLocality": "global",
            "Config": {"JWTValidationPubKeys": [key.decode()], "BoundIssuer": "me"},
        },
    )
    rule = api(
        "PUT",
        "/v1/acl/binding-rule",
        {"AuthMethod": "jwt", "BindType": "role", "BindName": "r1", "Selector": ""},
    )
    for target in (
        "auth-method/jwt",
        "auth-methods",
        f"binding-rule/{rule['ID']}",
        "binding-rules?authmethod=jwt",
    ):
        api("GET", f"/v1/acl/{target}")
    login = api("POST", "/v1/acl/login", {"AuthMethod": "jwt", "BearerToken": _jwt(private)})
    Api(api.agent, login["SecretID"])("POST", "/v1/acl/logout")
    api("POST", "/v1/acl/login", {"AuthMethod": "jwt", "BearerToken": "x"})
    questions = [
        {"Resource": "key", "Segment": "a", "Access": "read"},
        {"Resource": "operator", "Access": "write"},
    ]
    api("POST", "/v1/internal/acl/authorize?dc=dc2", questions)
    api("DELETE", f"/v1/acl/binding-rule/{rule['ID']}")
    api("DELETE", "/v1/acl/auth-method/jwt")
    old = api(
        "PUT",
        "/v1/acl/create",
        {"Name": "old", "Type": "client", "Rules": 'key "a" { policy = "write" }'},
    )["ID"]
    for method, target in (
        ("GET", f"info/{old}"),
        ("PUT", f"clone/{old}"),
        ("GET", "list"),
        ("PUT", f"destroy/{old}"),
    ):
        api(method, f"/v1/acl/{target}")


def _jwt(key: ec.EllipticCurvePrivateKey) -> str:
    """A token that the auth method above takes for an hour."""
    now = int(time.time())
    claims = {"iss": "me", "sub": "s", "iat": now, "nbf": now - 60, "exp": now + 3600}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "ES256", "typ": "JWT"}, claims)
    ]
    r, s = decode_dss_signature(key.sign(b".".join(parts), ec.ECDSA(hashes.SHA256())))
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def acl_refusals(api: Api, _: Api) -> None:
    """Errors that clients match."""
    nobody = Api(api.agent, "")
    for target in (
        "kv/a",
        "catalog/nodes",
        "acl/tokens",
        "operator/raft/configuration",
        "session/list",
    ):
        nobody("GET", f"/v1/{target}")
    stranger = Api(api.agent, str(uuid.uuid4()))
    for target in ("kv/a", "catalog/nodes", "acl/token/self"):
        stranger("GET", f"/v1/{target}")
    api("PUT", "/v1/acl/policy", {"Name": "bad name", "Rules": ""})
    api("PUT", "/v1/acl/policy", {"Name": "p9", "Rules": "nonsense {"})
    api("PUT", "/v1/acl/token", {"Policies": [{"Name": "nothing"}]})
