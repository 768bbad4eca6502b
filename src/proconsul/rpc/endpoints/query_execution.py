"""Which instances a prepared query gives in one datacenter, and in what order (pure of I/O)."""

from __future__ import annotations

from collections.abc import Iterable

from proconsul.domain.catalog import CheckServiceNode
from proconsul.domain.prepared_query import (
    PreparedQuery,
    PreparedQueryExecuteResponse,
    ServiceQuery,
)
from proconsul.state.store import Store

FIRST_WITHIN = 10
"""How far down the list the node asked for is looked for, to be put first."""


def execute(
    store: Store, datacenter: str, query: PreparedQuery, *, connect: bool
) -> PreparedQueryExecuteResponse:
    """The healthy instances that the query wants, in the catalog's order."""
    wanted = query.service
    rows = store.catalog.check_service_nodes(
        wanted.service, connect=wanted.connect or connect
    ).value
    return PreparedQueryExecuteResponse(
        service=wanted.service,
        nodes=[row for row in rows if _is_wanted(wanted, row)],
        dns=query.dns,
        datacenter=datacenter,
    )


def _is_wanted(wanted: ServiceQuery, row: CheckServiceNode) -> bool:
    ignored = wanted.ignore_check_ids or ()
    for check in row.checks or ():
        if check.check_id in ignored:
            continue
        if check.status == "critical" or (wanted.only_passing and check.status != "passing"):
            return False
    return (
        _contains(row.node.meta, wanted.node_meta)
        and _contains(row.service.meta, wanted.service_meta)
        and _has_tags(row.service.tags, wanted.tags)
    )


def _contains(meta: dict[str, str] | None, wanted: dict[str, str] | None) -> bool:
    return not wanted or wanted.items() <= (meta or {}).items()


def _has_tags(tags: Iterable[str] | None, wanted: Iterable[str] | None) -> bool:
    """All of the wanted tags, none of those with `!`, in any case of letters."""
    own = {tag.lower() for tag in tags or ()}
    return all(
        tag[1:].lower() not in own if tag.startswith("!") else tag.lower() in own
        for tag in wanted or ()
    )


def node_first(node: str, rows: list[CheckServiceNode]) -> list[CheckServiceNode]:
    """`node` changes places with the first, if it is among the nearest."""
    for at, row in enumerate(rows[:FIRST_WITHIN]):
        if row.node.node == node:
            rows = list(rows)
            rows[0], rows[at] = rows[at], rows[0]
            break
    return rows
