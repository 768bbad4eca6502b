"""Service and check definitions in files -> bodies of the agent's HTTP API, in Go's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proconsul.config.errors import SettingError
from proconsul.config.schema import CHECK, SERVICE, Kind, ListOf, MapOf
from proconsul.util.goduration import format_duration_ns
from proconsul.util.naming import go_name

_SPECIAL = {"id": "ID", "args": "Args", "grpc_use_tls": "GRPCUseTLS"}
_CHECK_OF_SERVICE = _SPECIAL | {"id": "CheckID"}
"""Consul's API has two types of checks, with two names for the id."""

SERVICE_KINDS = frozenset(
    {"", "connect-proxy", "mesh-gateway", "terminating-gateway", "ingress-gateway"}
)


def service_body(tree: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The body of `PUT /v1/agent/service/register`. Raises SettingError."""
    name = tree.get("name") or tree.get("id") or ""
    if not name:
        raise SettingError(
            "service has no name", key="services.name", source=source, remedy='Set name = "..."'
        )
    kind = tree.get("kind", "")
    if kind not in SERVICE_KINDS:
        raise SettingError(
            f'service "{name}": unknown kind "{kind}"',
            key="services.kind",
            source=source,
            remedy=f"Use one of {', '.join(sorted(SERVICE_KINDS - {''}))}, or none",
        )
    checks = [*tree.get("checks", ()), *([tree["check"]] if "check" in tree else ())]
    for check in checks:
        _validate_check(check, f'service "{name}"', source)
    weights = tree.get("weights", {})
    if any(not 0 <= w <= 65535 for w in weights.values()) or weights.get("passing", 1) < 1:
        raise SettingError(
            f"Invalid weight definition for service {name}: Passing must be greater than 0",
            key="services.weights",
            source=source,
            remedy="Give weights between 1 and 65535",
        )
    return _go({**tree, "name": name}, SERVICE)


def check_body(tree: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The body of `PUT /v1/agent/check/register`. Raises SettingError."""
    name = tree.get("name") or tree.get("id") or ""
    if not name:
        raise SettingError(
            "check has no name", key="checks.name", source=source, remedy='Set name = "..."'
        )
    _validate_check(tree, f'check "{name}"', source)
    return _go({**tree, "name": name}, CHECK)


def _validate_check(check: Mapping[str, Any], owner: str, source: str) -> None:
    polled = any(check.get(k) for k in ("args", "http", "tcp", "grpc"))
    alias = any(check.get(k) for k in ("alias_node", "alias_service"))
    interval, ttl = check.get("interval", 0.0), check.get("ttl", 0.0)
    problem = ""
    if interval > 0 and ttl > 0:
        problem = "Interval and TTL cannot both be specified"
    elif polled and interval <= 0:
        problem = "Interval must be > 0 for Script, HTTP, or TCP checks"
    elif polled and alias:
        problem = "Interval cannot be set for Alias checks"
    elif alias and ttl > 0:
        problem = "TTL must be not be set for Alias checks"
    elif not polled and not alias and ttl <= 0:
        problem = "TTL must be > 0 for TTL checks"
    elif check.get("output_max_size", 0) < 0:
        problem = "MaxOutputMaxSize must be positive"
    if problem:
        raise SettingError(
            f"{owner}: {problem}", key="check", source=source,
            remedy='For example: check { http = "http://localhost/health" interval = "10s" }',
        )  # fmt: skip


def _go(
    tree: Mapping[str, Any], schema: Mapping[str, Any], names: Mapping[str, str] = _SPECIAL
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        spec = schema[key]
        name = names.get(key) or go_name(key)
        if spec is Kind.DURATION:
            out[name] = format_duration_ns(round(value * 1e9))
        elif isinstance(spec, ListOf):
            out[name] = [_go_nested(item, spec.section) for item in value]
        elif isinstance(spec, MapOf):
            out[name] = {k: _go_nested(v, spec.section) for k, v in value.items()}
        elif isinstance(spec, Kind):
            out[name] = value
        else:
            out[name] = _go_nested(value, spec)
    return out


def _go_nested(tree: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    return _go(tree, schema, _CHECK_OF_SERVICE if schema is CHECK else _SPECIAL)
