"""Prepared queries to create, good and bad ones, and what is asked about them."""

from __future__ import annotations

from typing import Any

TEMPLATE = {"Type": "name_prefix_match"}

GOOD: list[dict[str, Any]] = [
    {"Name": "web", "Service": {"Service": "web"}},
    {"Name": "Web-Upper", "Service": {"Service": "web", "Tags": ["PRIMARY"]}},
    {"Name": "not-primary", "Service": {"Service": "web", "Tags": ["!primary"]}},
    {"Name": "passing", "Service": {"Service": "web", "OnlyPassing": True}, "DNS": {"TTL": "9s"}},
    {"Name": "sick", "Service": {"Service": "sick", "Failover": {"NearestN": 2,
                                                               "Datacenters": ["dc9", "dc1"]}}},
    {"Name": "ignoring", "Service": {"Service": "sick", "IgnoreCheckIDs": ["c0"]}},
    {"Name": "racked", "Service": {"Service": "web", "NodeMeta": {"rack": "7"}}},
    {"Name": "metaed", "Service": {"Service": "web", "ServiceMeta": {"a": "b"}}},
    {"Name": "connected", "Service": {"Service": "web", "Connect": True}},
    {"Name": "near", "Service": {"Service": "web", "Near": "n6"}, "Token": "secret"},
    {"Name": "aliased", "Service": {"Service": "ext"}, "DNS": {"TTL": "1m"}},
    {"Name": "dotted.name", "Service": {"Service": "db"}},
    {"Name": "geo-", "Template": {**TEMPLATE, "Regexp": "^geo-(.*?)-([^\\-]+?)$"},
     "Service": {"Service": "${match(1)}", "Tags": ["${match(2)}", "${match(9)}"],
                 "Failover": {"Datacenters": ["${match(2)}", "x${name.suffix}"]}}},
    {"Name": "tagless-", "Template": {**TEMPLATE, "RemoveEmptyTags": True},
     "Service": {"Service": "${name.suffix}", "Tags": ["${match(1)}"],
                 "NodeMeta": {"a": "${name.full}"}}},
    {"Name": "geo-db-", "Template": TEMPLATE,
     "Service": {"Service": "$${x} ${name.prefix}|${name.full}|${agent.segment}|$ ${ \"lit\" }"}},
    {"Name": "", "Template": TEMPLATE, "Service": {"Service": "${name.full}"}},
]  # fmt: skip

BAD: list[Any] = [
    b"", b"{", b"[]", b'{"Name": 5}', b'{"Name": "x", "Service": {"Tags": "a"}}',
    {"Service": {"Service": "web"}},
    {"Name": "noservice"},
    {"Name": "u", "Service": {"Service": "web"}, "unknown": 1},
    {"Name": "u", "Service": {"Service": "web", "unknown": 1}},
    {"Name": "u", "Service": {"Service": "web", "Failover": {"NearestN": "1"}}},
    {"ID": "6bd2d3c0-6b7f-4c2e-b2a6-b9c8b8b9b9b9", "Name": "a", "Service": {"Service": "web"}},
    {"Name": "WEB", "Service": {"Service": "web"}},
    {"Name": "t", "Token": "<hidden>", "Service": {"Service": "web"}},
    {"Name": "n", "Service": {"Service": "web", "Failover": {"NearestN": -1}}},
    {"Name": "m", "Service": {"Service": "web", "NodeMeta": {"a b": "c"}}},
    {"Name": "d1", "Service": {"Service": "web"}, "DNS": {"TTL": "x"}},
    {"Name": "d2", "Service": {"Service": "web"}, "DNS": {"TTL": "-5s"}},
    {"Name": "s", "Session": "6bd2d3c0-6b7f-4c2e-b2a6-b9c8b8b9b9b9", "Service": {"Service": "w"}},
    {"Name": "T1", "Template": {"Type": "other"}, "Service": {"Service": "web"}},
    {"Name": "T2", "Template": {**TEMPLATE, "Regexp": "("}, "Service": {"Service": "web"}},
    {"Name": "T3", "Template": {**TEMPLATE, "Regexp": "a**"}, "Service": {"Service": "web"}},
    {"Name": "", "Template": TEMPLATE, "Service": {"Service": "web"}},
]  # fmt: skip

BAD_TEMPLATES: list[dict[str, Any]] = [
    {"Name": f"B{n}", "Template": TEMPLATE, "Service": {"Service": text}}
    for n, text in enumerate(
        ("${name.nope}", "${nope(1)}", "${name.full", "${match(x)}", "${match()}", "${}", "${ $ }")
    )
]
"""What HIL says of these is its own; only that they are refused is compared."""

ASKED = (
    "/v1/query/nope", "/v1/query/nope/execute", "/v1/query/nope/explain", "/v1/query//execute",
    "/v1/query/6bd2d3c0-6b7f-4c2e-b2a6-b9c8b8b9b9b9",
    "/v1/query/6bd2d3c0-6b7f-4c2e-b2a6-b9c8b8b9b9b9/execute",
    "/v1/query/web/execute", "/v1/query/WEB/explain", "/v1/query/web/explain",
    "/v1/query/web/execute?limit=x", "/v1/query/web/execute?connect=x", "/v1/query/web/execute?dc=x",
    "/v1/query/web/execute?connect=true", "/v1/query/web/execute?stale&near=n6",
    "/v1/query/web/execute?consistent&near=nope", "/v1/query/web/execute?near=_agent",
    "/v1/query/web-upper/execute", "/v1/query/not-primary/execute", "/v1/query/passing/execute",
    "/v1/query/sick/execute", "/v1/query/ignoring/execute", "/v1/query/racked/execute",
    "/v1/query/metaed/execute", "/v1/query/connected/execute", "/v1/query/near/execute",
    "/v1/query/near/explain", "/v1/query/dotted.name/execute", "/v1/query/geo-web-primary/explain",
    "/v1/query/geo-web-primary/execute", "/v1/query/GEO-web-primary/explain",
    "/v1/query/geo-x/explain", "/v1/query/tagless-web/explain", "/v1/query/tagless-web/execute",
    "/v1/query/geo-db-x/explain", "/v1/query/db/execute", "/v1/query/db/explain",
    "/v1/query/ext/execute",
)  # fmt: skip

BY_DNS = (
    "web", "WEB", "passing", "sick", "ignoring", "racked", "metaed", "connected", "aliased",
    "dotted.name", "geo-web-primary", "tagless-web", "db", "nope.nope", "geo-x", "int",
)  # fmt: skip
