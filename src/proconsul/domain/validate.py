"""Rules for metadata and services that every server applies alike (`agent/structs/structs.go`)."""

from __future__ import annotations

import re

from proconsul.domain.catalog import (
    CONNECT_PROXY,
    INGRESS_GATEWAY,
    MESH_GATEWAY,
    META_WAN_FEDERATION,
    NodeService,
    Weights,
)

_RESERVED_PREFIX = "consul-"
_PAIRS_MAX = 64
_KEY_LENGTH_MAX = 128
_VALUE_LENGTH_MAX = 512
_UUID_LENGTH = 36
_UUID_HYPHENS = (8, 13, 18, 23)
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_UUID_FORMAT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_KEY_FORMAT = re.compile(r"[a-zA-Z0-9_-]+\Z")


def check_node_meta(meta: dict[str, str] | None, *, allow_reserved: bool = False) -> str | None:
    """What is wrong with a node's metadata, or None."""
    return _check_meta(meta, allow_reserved, frozenset())


def check_service_meta(
    kind: str, meta: dict[str, str] | None, *, allow_reserved: bool = False
) -> str | None:
    """What is wrong with a service's metadata, or None. Mesh gateways may mark themselves."""
    allowed = frozenset({META_WAN_FEDERATION}) if kind == MESH_GATEWAY else frozenset()
    return _check_meta(meta, allow_reserved, allowed)


def _check_meta(
    meta: dict[str, str] | None, allow_reserved: bool, allowed: frozenset[str]
) -> str | None:
    if not meta:
        return None
    if len(meta) > _PAIRS_MAX:
        return f"Node metadata cannot contain more than {_PAIRS_MAX} key/value pairs"
    for key, value in sorted(meta.items()):  # sorted: every server must name the same pair
        reason = _check_pair(key, value, allow_reserved or key in allowed)
        if reason:
            return f"Couldn't load metadata pair ('{key}', '{value}'): {reason}"
    return None


def _check_pair(key: str, value: str, allow_reserved: bool) -> str | None:
    if not key:
        return "Key cannot be blank"
    if not _KEY_FORMAT.match(key):
        return "Key contains invalid characters"
    if len(key) > _KEY_LENGTH_MAX:
        return f"Key is too long (limit: {_KEY_LENGTH_MAX} characters)"
    if key.startswith(_RESERVED_PREFIX) and not allow_reserved:
        return f"Key prefix '{_RESERVED_PREFIX}' is reserved for internal use"
    if len(value.encode("utf-8", "surrogateescape")) > _VALUE_LENGTH_MAX:
        return f"Value is too long (limit: {_VALUE_LENGTH_MAX} characters)"
    return None


def wrong_uuid(text: str) -> str | None:
    """What is wrong with a UUID, in hashicorp/go-uuid's words, or None."""
    if len(text) != _UUID_LENGTH:
        return "uuid string is wrong length"
    if any(text[at] != "-" for at in _UUID_HYPHENS):
        return "uuid is improperly formatted"
    digits = text.replace("-", "", len(_UUID_HYPHENS))
    for digit in digits:
        if digit not in _HEX_DIGITS:
            return f"encoding/hex: invalid byte: U+{ord(digit):04X} {digit!r}"
    return None


def is_uuid(text: str) -> bool:
    """Whether it has the form of one, in either case."""
    return _UUID_FORMAT.fullmatch(text) is not None


def check_weights(weights: Weights | None) -> str | None:
    """What is wrong with DNS weights, or None."""
    if weights is None:
        return None
    if weights.passing < 1:
        return "Passing must be greater than 0"
    if weights.warning < 0:
        return "Warning must be greater or equal than 0"
    if weights.passing > 65535 or weights.warning > 65535:
        return "DNS Weight must be between 0 and 65535"
    return None


def free_form_problem(value: object, path: str, *, nulls: bool = True) -> str | None:
    """What in free-form data Go's codec cannot read, or None.

    A real server that finds such a thing in the log stops, and again whenever it is started. Without
    `nulls` those are such a thing too: so it is in the settings of proxies (`lib.MapWalk`).
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, (str, bytes)):
                return f"{path}: {key!r} is a key and no text"
            if (problem := free_form_problem(item, f"{path}.{key!s}", nulls=nulls)) is not None:
                return problem
    elif isinstance(value, list):
        for at, item in enumerate(value):
            if (problem := free_form_problem(item, f"{path}[{at}]", nulls=nulls)) is not None:
                return problem
    elif value is None and not nulls:
        return f"{path} is null: leave it out"
    elif value is not None and not isinstance(value, (str, bytes, int, float)):
        return f"{path} is neither text nor number, list nor map"
    return None


def check_service(service: NodeService) -> list[str]:
    """Every rule about proxies and gateways that the definition breaks."""
    proxy, kind = service.proxy, service.kind
    wrong: list[str] = []
    maps = {"Proxy.Config": proxy.config} | {
        f"Proxy.Upstreams[{at}].Config": one.config for at, one in enumerate(proxy.upstreams or ())
    }
    wrong += [p for path, of in maps.items() if (p := free_form_problem(of, path)) is not None]
    if kind == CONNECT_PROXY:
        if not proxy.destination_service_name.strip():
            wrong.append(
                "Proxy.DestinationServiceName must be non-empty for Connect proxy services"
            )
        if service.port == 0:
            wrong.append("Port must be set for a Connect proxy")
        if service.connect.native:
            wrong.append("A Proxy cannot also be Connect Native, only typical services")
    if service.is_gateway:
        if service.port == 0 and kind != INGRESS_GATEWAY:
            wrong.append(f"Port must be non-zero for a {kind}")
        if service.connect.sidecar_service is not None:
            wrong.append(f"A {kind} cannot have a sidecar service defined")
        for name, value in (
            ("DestinationServiceName", proxy.destination_service_name),
            ("DestinationServiceID", proxy.destination_service_id),
            ("LocalServiceAddress", proxy.local_service_address),
            ("LocalServicePort", proxy.local_service_port),
            ("Upstreams", proxy.upstreams),
        ):
            if value:
                wrong.append(f"The Proxy.{name} configuration is invalid for a {kind}")
    return wrong
