"""The hash of a chain's customisation, as `mitchellh/hashstructure` of 2017 makes it.

Proxies build names of clusters of it: with another hash than real servers give, every proxy would
rebuild its clusters when it comes to another server.
"""

from __future__ import annotations

_OFFSET, _PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


def customization_hash(gateway_mode: str, protocol: str, connect_timeout_ns: int) -> str:
    """Its first eight hexadecimal digits; what was not customised is empty or 0."""
    gateway = _struct("MeshGatewayConfig", (("Mode", _text(gateway_mode)),))
    whole = _struct(
        "",
        (
            ("OverrideMeshGateway", gateway),
            ("OverrideProtocol", _text(protocol)),
            ("OverrideConnectTimeout", _number(connect_timeout_ns)),
        ),
    )
    return f"{whole:x}"[:8]


def _fnv1(data: bytes) -> int:
    value = _OFFSET
    for byte in data:
        value = (value * _PRIME & _MASK) ^ byte
    return value


def _text(value: str) -> int:
    return _fnv1(value.encode("utf-8", "surrogateescape"))


def _number(value: int) -> int:
    return _fnv1(value.to_bytes(8, "little", signed=True))


def _struct(name: str, fields: tuple[tuple[str, int], ...]) -> int:
    found = _text(name)
    for field, value in fields:
        found ^= _fnv1(_text(field).to_bytes(8, "little") + value.to_bytes(8, "little"))
    return found
