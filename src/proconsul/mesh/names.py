"""The server names (SNI) by which mesh gateways route, after the reference's agent/connect/sni.go.

All names are lower case, whatever the case of node, service and datacenter: TLS names are
case-insensitive, and Envoy lower-cases the name a client sends before it compares it with the
listener's. Clusters carry the same names.
"""

from __future__ import annotations


def server_sni(datacenter: str, domain: str, node: str = "") -> str:
    """The name of one server of a datacenter, or without `node` of any server of it."""
    name = f"server.{datacenter}.{domain.rstrip('.')}"
    return (f"{node}.{name}" if node else name).lower()


def datacenter_sni(datacenter: str, trust_domain: str) -> str:
    """The suffix of every service name of a datacenter."""
    return f"{datacenter}.internal.{trust_domain}".lower()


def service_sni(
    service: str, datacenter: str, trust_domain: str, namespace: str = "", subset: str = ""
) -> str:
    """The name of a service, or of one subset of it, within a datacenter."""
    name = f"{service}.{namespace or 'default'}.{datacenter_sni(datacenter, trust_domain)}"
    return (f"{subset}.{name}" if subset else name).lower()
