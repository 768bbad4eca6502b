"""`catalog datacenters`, `catalog nodes` and `catalog services`."""

from __future__ import annotations

from typing import Any

from proconsul.config.goflags import Parsed, bool_flag, string_flag, strings_flag
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    NAMESPACE_FLAGS,
    SERVER_FLAGS,
    Command,
    CommandError,
    columnize,
    connect,
    err,
    load_data,
    out,
    pairs,
)


def _no_arguments(parsed: Parsed) -> None:
    if parsed.args:
        raise CommandError(f"Too many arguments (expected 0, got {len(parsed.args)})")


def _query(parsed: Parsed, *names: str) -> dict[str, Any]:
    query: dict[str, Any] = {name: parsed[name] for name in names if parsed[name]}
    if parsed["node-meta"]:
        meta = pairs(parsed["node-meta"], "node-meta")
        query["node-meta"] = [f"{key}:{value}" for key, value in meta.items()]
    return query


def _datacenters(parsed: Parsed) -> int:
    _no_arguments(parsed)
    try:
        found = connect(parsed).get("/v1/catalog/datacenters")
    except CommandError as error:
        raise CommandError(f"Error listing datacenters: {error}") from None
    for datacenter in found:
        out(datacenter)
    return 0


def _nodes(parsed: Parsed) -> int:
    _no_arguments(parsed)
    query = _query(parsed, "near")
    if parsed["filter"]:
        query["filter"] = load_data(parsed["filter"]).decode()
    service = parsed["service"]
    path = f"/v1/catalog/service/{service}" if service else "/v1/catalog/nodes"
    try:
        nodes = connect(parsed).get(path, query) or []
    except CommandError as error:
        what = "nodes for service" if service else "nodes"
        raise CommandError(f"Error listing {what}: {error}") from None
    if not nodes:
        err("No nodes match the given query - try expanding your search.")
        return 0
    head = ["Node", "ID", "Address", "DC"]
    if parsed["detailed"]:
        meta_key = "NodeMeta" if service else "Meta"
        rows = [[*head, "TaggedAddresses", "Meta"]]
        rows += [
            [n["Node"], n["ID"], n["Address"], n["Datacenter"],
             _key_values(n.get("TaggedAddresses")), _key_values(n.get(meta_key))]
            for n in nodes
        ]  # fmt: skip
    else:
        rows = [head]
        rows += [
            [n["Node"], n["ID"].partition("-")[0], n["Address"], n["Datacenter"]] for n in nodes
        ]
    out(columnize(rows))
    return 0


def _key_values(values: dict[str, str] | None) -> str:
    return ", ".join(f"{k}={v}" for k, v in sorted((values or {}).items()))


def _services(parsed: Parsed) -> int:
    _no_arguments(parsed)
    client, node, query = connect(parsed), parsed["node"], _query(parsed)
    services: dict[str, list[str]] = {}
    try:
        if node:
            answer = client.get(f"/v1/catalog/node/{node}", query)
            for service in ((answer or {}).get("Services") or {}).values():
                services.setdefault(service["Service"], []).extend(service["Tags"] or ())
        else:
            services = client.get("/v1/catalog/services", query) or {}
    except CommandError as error:
        what = "services for node" if node else "services"
        raise CommandError(f"Error listing {what}: {error}") from None
    if not services:
        err("No services match the given query - try expanding your search.")
        return 0
    width = max(map(len, services)) + 6
    lines = [
        f"{name:<{width}}{','.join(sorted(tags or ()))}" if parsed["tags"] else name
        for name, tags in sorted(services.items())
    ]
    text = "\n".join(lines)
    out(text.strip() if parsed["tags"] else text)
    return 0


_META = strings_flag("node-meta", "Only nodes with this `key=value`. May be given several times.")

DATACENTERS = Command(
    usage="""
Usage: proconsul catalog datacenters [options]

  Lists all known datacenters, the nearest first.""",
    run=_datacenters,
    flags=(*CLIENT_FLAGS, *SERVER_FLAGS),
)

NODES = Command(
    usage="""
Usage: proconsul catalog nodes [options]

  Lists the nodes of a datacenter, by default the agent's own.

      $ proconsul catalog nodes -service=web""",
    run=_nodes,
    flags=(
        bool_flag("detailed", "Show addresses and metadata too."),
        string_flag("filter", "Filter to use with the request."),
        string_flag("near", "Sort by the distance from this node; _agent is the agent's."),
        _META,
        string_flag("service", "Only nodes that provide this service."),
        *CLIENT_FLAGS,
        *SERVER_FLAGS,
    ),
)

SERVICES = Command(
    usage="""
Usage: proconsul catalog services [options]

  Lists the services of a datacenter, by default the agent's own.

      $ proconsul catalog services -tags""",
    run=_services,
    flags=(
        string_flag("node", "Only services of this node (id or name)."),
        _META,
        bool_flag("tags", "Show the tags beside each service."),
        *CLIENT_FLAGS,
        *SERVER_FLAGS,
        *NAMESPACE_FLAGS,
    ),
)
