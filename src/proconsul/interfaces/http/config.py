"""`/v1/config` and what else shows the service mesh's configuration (`agent/config_endpoint.go`)."""

from __future__ import annotations

from msgspec.structs import replace

from proconsul.domain import config_entries as c
from proconsul.domain.config_entry_forms import ConfigEntryError, from_map, make, view, views
from proconsul.domain.config_entry_messages import (
    ConfigEntryRequest,
    ConfigEntryResponse,
    IndexedConfigEntries,
)
from proconsul.domain.go_decode import GoDecodeError, parse_json, with_floats
from proconsul.domain.mesh_requests import ConfigEntryQuery
from proconsul.domain.weak_decode import WeakDecodeError
from proconsul.drivers.http import Response
from proconsul.interfaces.http.api import Answer, HttpApi
from proconsul.interfaces.http.errors import HttpError, bad_request
from proconsul.interfaces.http.options import query_options
from proconsul.interfaces.http.query import Ask
from proconsul.util.goquote import go_quote


async def apply(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/config"""
    try:
        entry = from_map(with_floats(parse_json(ask.request.body)))
    except (GoDecodeError, ConfigEntryError, WeakDecodeError) as error:
        raise bad_request(f"Bad request: Request decoding failed: {error}") from None
    op = c.UPSERT
    if ask.first("cas"):
        op, entry = c.UPSERT_CAS, replace(entry, modify_index=ask.uint64("cas"))
    return api.json(ask, await api.agent.rpc("ConfigEntry.Apply", _request(api, ask, op, entry)))


def _request(api: HttpApi, ask: Ask, op: str, entry: c.ConfigEntry) -> ConfigEntryRequest:
    datacenter = ask.first("dc") or api.config.datacenter
    return ConfigEntryRequest(op, datacenter, entry, api.token(ask))


def config(api: HttpApi, ask: Ask) -> Answer:
    """GET and DELETE /v1/config/:kind[/:name]"""
    kind, slash, name = ask.rest.partition("/")
    if ask.request.method == "DELETE":
        return _delete(api, ask, kind, name if slash else None)
    if not slash:
        return _list(api, ask, kind)

    def render(out: ConfigEntryResponse) -> Response:
        if out.entry is None:
            wanted = f"{go_quote(kind)} / {go_quote(name)}"
            raise HttpError(404, f"Config entry not found for {wanted}", api.meta(out))
        return api.shared(ask, out, out.entry, view, api.meta(out))

    request = ConfigEntryQuery(kind=kind, name=name, **query_options(ask, api.config))
    return api.query("ConfigEntry.Get", request, render)


def _list(api: HttpApi, ask: Ask, kind: str) -> Answer:
    def render(out: IndexedConfigEntries) -> Response:
        return api.shared(ask, out, out.entries, views, api.meta(out))

    request = ConfigEntryQuery(kind=kind, **query_options(ask, api.config))
    return api.query("ConfigEntry.List", request, render)


async def _delete(api: HttpApi, ask: Ask, kind: str, name: str | None) -> Response:
    if name is None:
        raise HttpError(404, "Must provide both a kind and name to delete")
    try:
        entry = make(kind, name)
    except ConfigEntryError as error:
        raise bad_request(str(error)) from None
    await api.agent.rpc("ConfigEntry.Delete", _request(api, ask, "", entry))
    return api.json(ask, {})
