"""Writes to the table of services behind gateways (`gateway-services` in agent/consul/state/catalog.go).

It follows the config entries of ingress and terminating gateways and, for wildcards, the catalog.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from proconsul.domain.catalog import NodeService, ServiceName
from proconsul.domain.config_entries import (
    INGRESS_GATEWAY,
    TERMINATING_GATEWAY,
    WILDCARD,
    ConfigEntry,
    IngressGatewayConfigEntry,
    TerminatingGatewayConfigEntry,
)
from proconsul.domain.config_entry_messages import of_row
from proconsul.domain.gateways import GatewayService
from proconsul.state.rows import Row
from proconsul.state.tables import GATEWAY_SERVICES, Transaction

_CONSUL = "consul"
KINDS = frozenset({INGRESS_GATEWAY.encode(), TERMINATING_GATEWAY.encode()})
"""Of the config entries that concern this table."""


def entry_written(tx: Transaction, existing: Row | None, row: Row, index: int) -> None:
    """A gateway's entry is about to be written; `index` is what its services are marked with."""
    entry = of_row(row)
    if existing is not None and _services(of_row(existing)) == _services(entry):
        return
    _drop(tx, entry.name)
    for one in _services(entry):
        if one.service.name == WILDCARD:
            for name in _typical_names(tx):
                if (one.gateway.name.lower(), name.lower(), one.port) not in tx.t.gateway_services:
                    _put(tx, _from_wildcard(one, name), index)
        _put(tx, one, index)
    _changed(tx, index)


def entry_deleted(tx: Transaction, name: str) -> None:
    """A gateway's entry is about to be deleted."""
    _drop(tx, name)
    _changed(tx, tx.index)


def service_written(tx: Transaction, service: NodeService) -> None:
    """An instance is about to be written: gateways with a wildcard lead to its service, too.

    As in Consul, even where the gateway's entry names the service: servers must agree.
    """
    wildcards = tx.t.gateway_names.get(WILDCARD)
    if not wildcards or service.kind or service.service == _CONSUL:
        return
    for key in sorted(wildcards):
        one = _from_wildcard(tx.t.gateway_services[key], service.service)
        if _put(tx, one, tx.index):
            _changed(tx, tx.index)


def service_vanished(tx: Transaction, name: str) -> None:
    """The last instance is gone: wildcards no longer lead there."""
    for key in sorted(tx.t.gateway_names.get(name.lower(), ())):
        if tx.t.gateway_services[key].from_wildcard:
            _remove(tx, key)
            _changed(tx, tx.index)


def _services(entry: ConfigEntry) -> list[GatewayService]:
    gateway = ServiceName(entry.name)
    if isinstance(entry, IngressGatewayConfigEntry):
        return [
            GatewayService(
                gateway=gateway,
                service=ServiceName(service.name),
                gateway_kind=INGRESS_GATEWAY,
                port=listener.port,
                protocol=listener.protocol,
                hosts=service.hosts,
            )
            for listener in entry.listeners or ()
            for service in listener.services or ()
        ]
    if isinstance(entry, TerminatingGatewayConfigEntry):
        return [
            GatewayService(
                gateway=gateway,
                service=ServiceName(service.name),
                gateway_kind=TERMINATING_GATEWAY,
                ca_file=service.ca_file,
                cert_file=service.cert_file,
                key_file=service.key_file,
                sni=service.sni,
            )
            for service in entry.services or ()
        ]
    return []


def _typical_names(tx: Transaction) -> Iterator[str]:
    """Names of services that are no proxies, as they are spelt."""
    names = {tx.t.services[node][at].service: None for node, at in tx.t.service_kinds.get("", ())}
    return (name for name in sorted(names) if name != _CONSUL)


def _from_wildcard(one: GatewayService, name: str) -> GatewayService:
    return replace(one, service=ServiceName(name), from_wildcard=True)


def _put(tx: Transaction, one: GatewayService, index: int) -> bool:
    """Insert or replace; False if nothing changes."""
    key = (one.gateway.name.lower(), one.service.name.lower(), one.port)
    existing = tx.t.gateway_services.get(key)
    if existing is not None and existing.is_same(one):
        return False
    created = existing.create_index if existing is not None else index
    tx.put(tx.t.gateway_services, key, replace(one, create_index=created, modify_index=index))
    tx.put(tx.group(tx.t.gateway_names, key[1]), key, None)
    return True


def _drop(tx: Transaction, gateway: str) -> None:
    for key in [key for key in tx.t.gateway_services if key[0] == gateway.lower()]:
        _remove(tx, key)


def _remove(tx: Transaction, key: tuple[str, str, int]) -> None:
    tx.remove(tx.t.gateway_services, key)
    tx.ungroup(tx.t.gateway_names, key[1], key)


def _changed(tx: Transaction, index: int) -> None:
    tx.raise_to(GATEWAY_SERVICES, index)
    tx.touch(GATEWAY_SERVICES)
