"""What datacenters of one federation share, whoever runs each: config entries, intentions, ACLs, the
mesh CA. Each check takes a world whose ACLs deny by default, and waits.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from e2e_support import first_servers, pairs

from proconsul.app.worlds.api import Api, ApiError
from proconsul.app.worlds.spec import Host
from proconsul.app.worlds.waiting import Missing, until
from proconsul.app.worlds.world import World

WHOLE_S = 60.0


def everywhere(world: World, read: Callable[[Api], Any], wanted: Any, what: str) -> None:
    """Each datacenter's first server comes to give this answer."""
    for server in first_servers(world):

        def check(server: Host = server) -> None:
            found = read(world.api(server))
            if found != wanted:
                raise Missing(f"{server.label} has {found}, not {wanted}")

        until(check, f"{what} at {server.label}", WHOLE_S)


def _field(name: str, path: str, **params: object) -> Callable[[Api], Any]:
    """Reads one field of an answer."""
    return lambda api: api.get(path, **params)[name]


def config_entries_and_intentions_reach_all(world: World) -> None:
    for number, writer in enumerate(first_servers(world)):
        entry = {"Kind": "service-defaults", "Name": f"s{number}", "Protocol": "http"}
        world.api(writer).put("/v1/config", entry)
        path = f"/v1/config/service-defaults/s{number}"
        everywhere(world, _field("Protocol", path), "http", path)
        intention = {"SourceName": "web", "DestinationName": f"s{number}", "Action": "deny"}
        made = json.loads(world.api(writer).post("/v1/connect/intentions", intention))["ID"]
        path = f"/v1/connect/intentions/{made}"
        everywhere(world, _field("Action", path), "deny", path)
        path, asked = "/v1/connect/intentions/check", {"source": "web", "destination": f"s{number}"}
        everywhere(world, _field("Allowed", path, **asked), False, path)


def _may(world: World, here: Host, there: Host, key: str, token: str) -> bool:
    """Whether the token may write a key of another datacenter."""
    try:
        world.api(here, token=token).kv_put(key, "x", dc=there.datacenter.name)
    except ApiError as error:
        if error.status != 403:
            raise
        return False
    return True


def acls_reach_all_and_hold(world: World) -> None:
    for number, maker in enumerate(first_servers(world)):
        secret, api, key = str(uuid.uuid4()), world.api(maker), f"shared/{number}/a"
        rules = f'key_prefix "shared/{number}/" {{ policy = "write" }}'
        api.put("/v1/acl/policy", {"Name": f"p{number}", "Rules": rules})
        api.put("/v1/acl/role", {"Name": f"r{number}", "Policies": [{"Name": f"p{number}"}]})
        api.put("/v1/acl/token", {"SecretID": secret, "Roles": [{"Name": f"r{number}"}]})
        for here, there in pairs(world):
            until(partial(_permitted, world, here, there, key, secret), "the token", WHOLE_S)
            assert not _may(world, here, there, "other", secret)
            assert not _may(world, here, there, key, ""), "anonymous"


def _permitted(world: World, here: Host, there: Host, key: str, token: str) -> None:
    if not _may(world, here, there, key, token):
        raise Missing(f"{here.label} may not write in {there.label}")


def replicated(world: World, server: Host) -> None:
    """The status of replication says what is so. Raises Missing."""
    status = world.api(server).get("/v1/acl/replication")
    if server.is_primary:
        assert not status["Enabled"]
        return
    api = world.api(first_servers(world)[0])
    _, headers, _ = api.request("GET", "/v1/acl/tokens")
    latest = int(headers["X-Consul-Index"])
    if not status["Running"] or status["ReplicatedTokenIndex"] < latest:
        raise Missing(f"{server.label}: {status}, the primary is at {latest}")
    assert status["Enabled"]
    assert status["SourceDatacenter"] == world.spec.primary.name
    assert status["ReplicationType"] == "tokens"


def acl_replication_tells_the_truth(world: World) -> None:
    for server in first_servers(world):
        until(partial(replicated, world, server), f"{server.label} says so", WHOLE_S)


def active_root(api: Api) -> Mapping[str, Any]:
    roots = api.get("/v1/connect/ca/roots")
    return next(r for r in roots["Roots"] if r["ID"] == roots["ActiveRootID"])


def active_id(api: Api) -> str:
    return str(active_root(api)["ID"])


def leaf_chains(world: World, server: Host, service: str) -> None:
    """A leaf of this datacenter is signed, by way of its intermediate, by the primary's root."""
    api = world.api(server)
    root = x509.load_pem_x509_certificate(active_root(api)["RootCert"].encode())
    pem = api.get(f"/v1/agent/connect/ca/leaf/{service}")["CertPEM"]
    # Beside the way to the active root there may be the one by a cross-signed root to the one before
    leaf, *others = x509.load_pem_x509_certificates(pem.encode())
    ways: list[tuple[x509.Certificate, ...]] = [(leaf,)]
    while ways and not any(_issued(way[-1], root) for way in ways):
        ways = [
            (*way, issuer)
            for way in ways
            for issuer in others
            if issuer not in way and _issued(way[-1], issuer)
        ]
    if not ways:
        raise Missing(f"a leaf of {server.label} does not lead to the active root")
    assert server.is_primary or len(ways[0]) > 1, "a secondary has an intermediate of its own"


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError):
        return False
    return True


def roots_agree_and_leaves_chain_to_them(world: World) -> None:
    active = active_id(world.api(first_servers(world)[0]))
    everywhere(world, active_id, active, "the active root")
    for server in first_servers(world):
        until(partial(leaf_chains, world, server, "web"), "a leaf that chains", WHOLE_S)


CHECKS: tuple[Callable[[World], None], ...] = (
    config_entries_and_intentions_reach_all,
    acls_reach_all_and_hold,
    acl_replication_tells_the_truth,
    roots_agree_and_leaves_chain_to_them,
)
"""All of them."""
