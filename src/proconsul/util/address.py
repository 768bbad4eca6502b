"""Addresses as people write them."""

from __future__ import annotations


def host_port(address: tuple[str, int]) -> str:
    """`host:port`, or `[host]:port` of an IPv6 address."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
