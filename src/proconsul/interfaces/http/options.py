"""Query parameters and headers that all reads have in common (`parse` in Consul's `http.go`)."""

from __future__ import annotations

from typing import Any

from proconsul.domain.errors import AclNotFoundError
from proconsul.domain.options import QuerySource
from proconsul.interfaces.http.errors import bad_request
from proconsul.interfaces.http.ports import HttpApiConfig
from proconsul.interfaces.http.query import Ask, parse_uint64
from proconsul.util.goquote import go_quote

SECOND_NS = 1_000_000_000
TOKEN_CHARS_MAX = 1024
"""Many times what a UUID has; agents remember tokens that do not exist, too."""


def token_of(ask: Ask, config: HttpApiConfig) -> str:
    """The request's token, else the agent's default one. Raises `AclNotFoundError`."""
    if token := ask.token():
        if len(token) > TOKEN_CHARS_MAX:
            raise AclNotFoundError
        return token
    default = config.default_token
    return str(default()) if callable(default) else str(default)


def query_options(ask: Ask, config: HttpApiConfig) -> dict[str, Any]:
    """Keyword arguments of any `QueryOptions` with a datacenter. Raises `HttpError` as Consul."""
    params = ask.params
    options: dict[str, Any] = {"datacenter": config.datacenter}
    if token := token_of(ask, config):
        options["token"] = token
    cache_control = ask.request.header(b"cache-control")
    if not params:
        if config.discovery_max_stale_ns > 0:
            _default_consistency(ask, config, options)
        if cache_control:
            _cache_control(cache_control, options)
        return options
    if datacenter := ask.first("dc"):
        options["datacenter"] = datacenter
    if expression := ask.first("filter"):
        options["filter"] = expression
    _consistency(ask, config, options)
    if cache_control:
        _cache_control(cache_control, options)
    wait_ns, index = wait_options(ask)
    if wait_ns:
        options["max_query_time_ns"] = wait_ns
    if index:
        options["min_query_index"] = index
    return options


def wait_options(ask: Ask) -> tuple[int, int]:
    """`?wait` in nanoseconds and `?index`, 0 without."""
    wait_ns = ask.duration_ns("wait", "Invalid wait time")
    if not (raw := ask.first("index")):
        return wait_ns, 0
    index = parse_uint64(raw)
    if index is None:
        raise bad_request("Invalid index")
    return wait_ns, index


def _consistency(ask: Ask, config: HttpApiConfig, options: dict[str, Any]) -> None:
    explicit = False
    if ask.has("stale"):
        options["allow_stale"] = explicit = True
    if ask.has("consistent"):
        options["require_consistent"] = explicit = True
    if ask.has("leader"):
        explicit = True
    if ask.has("cached"):
        options["use_cache"] = explicit = True
    if raw := ask.first("max_stale"):
        max_stale_ns = ask.duration_ns("max_stale", f"Invalid max_stale value {go_quote(raw)}")
        options["max_stale_duration_ns"] = max_stale_ns
        if max_stale_ns > 0:
            options["allow_stale"] = explicit = True
    if not explicit:
        _default_consistency(ask, config, options)
    if "require_consistent" in options:
        for option, name in (("allow_stale", "stale"), ("use_cache", "cached")):
            if option in options:
                raise bad_request(
                    f"Cannot specify ?{name} with ?consistent, conflicting semantics."
                )


def _default_consistency(ask: Ask, config: HttpApiConfig, options: dict[str, Any]) -> None:
    if config.discovery_max_stale_ns > 0 and ask.path.startswith(("/v1/catalog", "/v1/health")):
        options["max_stale_duration_ns"] = config.discovery_max_stale_ns
        options["allow_stale"] = True


def _cache_control(header: str, options: dict[str, Any]) -> None:
    for raw in header.lower().split(","):
        directive = raw.strip()
        if directive == "must-revalidate":
            options["must_revalidate"] = True
        elif directive.startswith("max-age="):
            age_ns = _seconds_ns(directive.removeprefix("max-age="))
            options["max_age_ns"] = age_ns
            if age_ns == 0:
                options["must_revalidate"] = True
        elif directive.startswith("stale-if-error="):
            options["stale_if_error_ns"] = _seconds_ns(directive.removeprefix("stale-if-error="))


def _seconds_ns(text: str) -> int:
    digits = text.removeprefix("-").removeprefix("+")
    if not digits.isascii() or not digits.isdigit() or len(text) > 19:
        raise bad_request("Invalid Cache-Control header.")
    return int(text) * SECOND_NS


def query_source(ask: Ask, config: HttpApiConfig) -> QuerySource:
    """Who asks, with `?near` (`_agent` is this node)."""
    near = ask.first("near")
    return QuerySource(
        datacenter=ask.first("dc") or config.datacenter,
        node=config.node_name if near == "_agent" else near,
        ip=ask.source_ip(),
    )


def meta_filters(ask: Ask) -> dict[str, str] | None:
    """`?node-meta=key:value`, any number of them."""
    pairs = ask.params.get("node-meta")
    if pairs is None:
        return None
    split = (pair.partition(":") for pair in pairs)
    return {key: value for key, _, value in split}


def consistency_of(options: Any) -> str:
    """`X-Consul-Effective-Consistency` of what was asked."""
    if options.allow_stale:
        return "stale"
    return "consistent" if options.require_consistent else "leader"
