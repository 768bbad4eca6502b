"""Watches: which request one repeats, when its answer counts as news, and in which form it is told.

Follows Consul's `api/watch`. Pure: `interfaces.cli.watch` asks over HTTP, `app.watches` the agent itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proconsul.util.errors import ConfigError

RETRY_S = 5.0
RETRY_S_MAX = 180.0
_UINT64 = (1 << 64) - 1


class WatchError(ConfigError):
    """The parameters make no watch; the text is Consul's."""


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Watch:
    """One parsed watch."""

    type: str
    path: str
    query: Mapping[str, Any]
    form: Callable[[Any], Any] = _same
    """From the answer's JSON to what handlers get."""
    by_hash: bool = False
    """The answer's hash takes the place of its index."""
    datacenter: str = ""
    token: str = field(default="", repr=False)
    rest: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that were excepted from parsing."""


class Progress:
    """What one watch has seen. Ask with `query`, then give the answer to `news`."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._seen: int | str | None = None
        self._last: Any = None
        self._failures = 0

    def query(self) -> dict[str, Any]:
        """The parameters of the next request."""
        query = dict(self.watch.query)
        if self._seen:
            query["hash" if self.watch.by_hash else "index"] = str(self._seen)
        return query

    def failed(self) -> float:
        """A request failed: seconds until the next one, which begins anew."""
        self._failures += 1
        self._seen = None
        return min(RETRY_S * self._failures**2, RETRY_S_MAX)

    def news(self, answer: Any, index: int) -> tuple[bool, Any]:
        """Whether an answer is to be told, and its form."""
        self._failures = 0
        watch = self.watch
        mark: int | str = index
        if watch.by_hash:
            mark = str((answer or {}).get("ContentHash", ""))
        told = watch.form(answer)
        if watch.type == "event":
            told = self._new_events(told)
        before = self._seen
        if before is not None and before == mark:
            return False, told
        self._seen = mark
        if before is not None and told == self._last:
            return False, told
        self._last = told
        return True, told

    def _new_events(self, events: list[Any]) -> list[Any]:
        for at, event in enumerate(events):
            if event_index(event["ID"]) == self._seen:
                return events[at + 1 :]
        return events


def event_index(event_id: str) -> int:
    """The index of a list that ends with the event of that id: the halves of the UUID, xored."""
    number = int(event_id.replace("-", ""), 16)
    return (number >> 64) ^ (number & _UINT64)


def parse_watch(params: Mapping[str, Any], excepted: tuple[str, ...] = ()) -> Watch:
    """A watch from its parameters. Raises `WatchError`."""
    given = _Given(dict(params))
    datacenter, token, kind = (given.text(name) for name in ("datacenter", "token", "type"))
    if not kind:
        raise WatchError("Watch type must be specified")
    rest: dict[str, Any] = {}
    handler_type = given.text("handler_type")
    if handler_type:
        rest["handler_type"] = handler_type
    if handler_type == "http":
        if "http_handler_config" not in given.params:
            raise WatchError("Handler type 'http' requires 'http_handler_config' to be set")
        rest["http_handler_config"] = given.params.pop("http_handler_config")
    maker = _MAKERS.get(kind)
    if maker is None:
        raise WatchError(f"Unsupported watch type: {kind}")
    path, query, form, by_hash = maker(given)
    for name in excepted:
        if name in given.params:
            rest[name] = given.params.pop(name)
    if given.params:
        raise WatchError(f"Invalid parameters: [{' '.join(sorted(given.params))}]")
    return Watch(kind, path, query, form, by_hash, datacenter, token, rest)


class _Given:
    """Parameters, of which each is taken away as it is understood."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    def text(self, name: str) -> str:
        value = self.params.pop(name, "")
        if not isinstance(value, str):
            raise WatchError(f"Expecting {name} to be a string")
        return value

    def flag(self, name: str) -> bool:
        value = self.params.pop(name, False)
        if not isinstance(value, bool):
            raise WatchError(f"Expecting {name} to be a boolean")
        return value

    def texts(self, name: str) -> list[str]:
        value = self.params.pop(name, [])
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list):
            raise WatchError(f"Expecting {name} to be a string or []string")
        for at, item in enumerate(value):
            if not isinstance(item, str):
                raise WatchError(f"Index {at} of {name} expected to be string")
        return value

    def stale(self) -> dict[str, Any]:
        return {"stale": ""} if self.flag("stale") else {}


_Made = tuple[str, dict[str, Any], Callable[[Any], Any], bool]


def _key(given: _Given) -> _Made:
    stale, key = given.stale(), given.text("key")
    if not key:
        raise WatchError("Must specify a single key to watch")
    return f"/v1/kv/{key}", stale, lambda rows: _pair(rows[0]) if rows else None, False


def _prefix(given: _Given) -> _Made:
    stale, prefix = given.stale(), given.text("prefix")
    if not prefix:
        raise WatchError("Must specify a single prefix to watch")

    def form(rows: Any) -> Any:
        return None if rows is None else [_pair(row) for row in rows]

    return f"/v1/kv/{prefix}", {**stale, "recurse": ""}, form, False


def _pair(row: dict[str, Any]) -> dict[str, Any]:
    names = ("Key", "CreateIndex", "ModifyIndex", "LockIndex", "Flags", "Value")
    return {**{name: row[name] for name in names}, "Session": row.get("Session", "")}


def _services(given: _Given) -> _Made:
    return "/v1/catalog/services", given.stale(), _same, False


def _nodes(given: _Given) -> _Made:
    return "/v1/catalog/nodes", given.stale(), _same, False


def _service(given: _Given) -> _Made:
    stale, service = given.stale(), given.text("service")
    if not service:
        raise WatchError("Must specify a single service to watch")
    query: dict[str, Any] = dict(stale)
    if tags := given.texts("tag"):
        query["tag"] = tags
    if given.flag("passingonly"):
        query["passing"] = "1"
    return f"/v1/health/service/{service}", query, lambda rows: list(map(_entry, rows)), False


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    """An instance, its fields in the order of Consul's client."""
    given = row["Service"]
    service: dict[str, Any] = {"Kind": given["Kind"]} if given.get("Kind") else {}
    for name in ("ID", "Service", "Tags", "Meta", "Port", "Address"):
        service[name] = given[name]
    if given.get("TaggedAddresses"):
        service["TaggedAddresses"] = given["TaggedAddresses"]
    for name in ("Weights", "EnableTagOverride", "CreateIndex", "ModifyIndex", "Proxy", "Connect"):
        service[name] = given[name]
    checks = [_check(check) for check in row["Checks"]]
    return {"Node": row["Node"], "Service": service, "Checks": checks}


def _checks(given: _Given) -> _Made:
    stale, service, state = given.stale(), given.text("service"), given.text("state")
    if service and state:
        raise WatchError("Cannot specify service and state")
    path = f"/v1/health/checks/{service}" if service else f"/v1/health/state/{state or 'any'}"
    return path, stale, lambda rows: list(map(_check, rows)), False


def _check(row: dict[str, Any]) -> dict[str, Any]:
    given = row.get("Definition") or {}
    spans = ("Interval", "Timeout", "DeregisterCriticalServiceAfter")
    definition: dict[str, Any] = {name: given.get(name, "0s") for name in spans}
    definition["HTTP"] = given.get("HTTP", "")
    definition["Header"] = given.get("Header")
    definition["Method"] = given.get("Method", "")
    definition["Body"] = given.get("Body", "")
    definition["TLSSkipVerify"] = given.get("TLSSkipVerify", False)
    definition["TCP"] = given.get("TCP", "")
    tail = ("CreateIndex", "ModifyIndex")
    shown = {name: value for name, value in row.items() if name not in ("Definition", *tail)}
    return {**shown, "Definition": definition, **{name: row[name] for name in tail}}


def _event(given: _Given) -> _Made:
    name = given.text("name")
    return "/v1/event/list", {"name": name} if name else {}, _same, False


def _connect_roots(_given: _Given) -> _Made:
    return "/v1/agent/connect/ca/roots", {}, _same, False


def _connect_leaf(given: _Given) -> _Made:
    return f"/v1/agent/connect/ca/leaf/{given.text('service')}", {}, _same, False


def _agent_service(given: _Given) -> _Made:
    return f"/v1/agent/service/{given.text('service_id')}", {}, _same, True


_MAKERS: dict[str, Callable[[_Given], _Made]] = {
    "key": _key,
    "keyprefix": _prefix,
    "services": _services,
    "nodes": _nodes,
    "service": _service,
    "checks": _checks,
    "event": _event,
    "connect_roots": _connect_roots,
    "connect_leaf": _connect_leaf,
    "agent_service": _agent_service,
}
