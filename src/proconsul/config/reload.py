"""What a reload (SIGHUP, /v1/agent/reload) may change, and what needs a restart."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from proconsul.config.model import AgentConfig, Dns

_RELOADABLE = frozenset(
    {
        "acl.tokens",
        "check_definitions",
        "checks.discard_output",
        "limits.http_max_conns_per_client",
        "limits.rpc_max_burst",
        "limits.rpc_max_conns_per_client",
        "limits.rpc_rate",
        "log.level",
        "node_meta",
        "primary_gateways",
        "service_definitions",
        "tls",
        "watches",
        *(
            f"dns.{f.name}"
            for f in dataclasses.fields(Dns)
            if f.name not in {"domain", "alt_domain"}
        ),
    }
)
"""Field paths of AgentConfig that `app.agent` takes over: what Consul does of the settings that there
are here (`reloadConfigInternal` in agent/agent.go), and `primary_gateways`."""


class Changes(NamedTuple):
    """Dotted field paths of `AgentConfig` that differ."""

    reloadable: list[str]
    needs_restart: list[str]


def reloadable(old: AgentConfig, new: AgentConfig) -> Changes:
    """Sort the differences between two configurations into those two kinds."""
    changes = Changes([], [])
    for path in _differences(old, new, ""):
        parts = path.split(".")
        known = any(".".join(parts[:n]) in _RELOADABLE for n in range(1, len(parts) + 1))
        (changes.reloadable if known else changes.needs_restart).append(path)
    return changes


def _differences(old: Any, new: Any, prefix: str) -> list[str]:
    paths: list[str] = []
    for field in dataclasses.fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after or not field.compare:
            continue
        if (prefix + field.name, after) == ("node_id", ""):  # the old one was resolved since
            continue
        if dataclasses.is_dataclass(before) and dataclasses.is_dataclass(after):
            paths.extend(_differences(before, after, f"{prefix}{field.name}."))
        else:
            paths.append(prefix + field.name)
    return paths
