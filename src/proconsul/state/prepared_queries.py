"""Reads of prepared queries, and which of them answers a name (`agent/consul/state/prepared_query.go`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from proconsul.domain.base import decode
from proconsul.domain.errors import DomainError
from proconsul.domain.prepared_query import PreparedQuery
from proconsul.domain.query_template import CompiledTemplate
from proconsul.domain.session import id_problem
from proconsul.domain.validate import is_uuid
from proconsul.state.rows import QUERIES, Row
from proconsul.state.tables import Tables
from proconsul.state.watch import Answer, Watch, WatchRegistry
from proconsul.wire import msgpack

T = TypeVar("T")

_BY_ID = "prepared query templates can only be resolved up by name, not by ID"


class QueryError(DomainError):
    """A query that cannot be resolved as asked; the text is Consul's."""


class _Kept(NamedTuple):
    row: Row
    query: PreparedQuery
    template: CompiledTemplate | DomainError | None
    """None: the query is no template. An error: it is one that cannot be used here."""


class _Index(NamedTuple):
    """Queries by lower-case name; templates' names are prefixes, longest first."""

    names: dict[str, _Kept]
    prefixes: list[tuple[str, _Kept]]


class PreparedQueries:
    """Rows are decoded, and templates compiled, once per change of theirs."""

    __slots__ = ("_index", "_kept", "_tables", "_version", "_watches")

    def __init__(self, tables: Callable[[], Tables], watches: WatchRegistry) -> None:
        self._tables, self._watches = tables, watches
        self._kept: dict[str, _Kept] = {}
        self._index = _Index({}, [])
        self._version = (-1, 0)

    def get(self, query_id: str) -> Answer[PreparedQuery | None]:
        """One by its id. Raises `QueryError` if it has not the form of one."""
        if problem := id_problem(query_id, "failed prepared query lookup"):
            raise QueryError(problem)
        row = self._rows().get(query_id.lower())
        return self._answer(None if row is None else _query(row))

    def all(self) -> Answer[list[PreparedQuery]]:
        """All, by id."""
        rows = self._rows()
        return self._answer([_query(rows[key]) for key in sorted(rows)])

    def _answer(self, value: T) -> Answer[T]:
        watch = Watch(self._watches, (QUERIES.table,))
        return Answer(max(self._tables().max_index(QUERIES.table), 1), value, watch)

    def _rows(self) -> dict[str, Row]:
        return self._tables().opaque.get(QUERIES.record, {})

    def resolve(self, id_or_name: str, segment: str = "") -> PreparedQuery | None:
        """The query of this id, of this name, or the template with the longest prefix of it.

        A template is rendered. Raises `QueryError`, and `DomainError` for templates of no use here.
        """
        if not id_or_name:
            raise QueryError("Missing Query ID")
        index = self._current()
        if is_uuid(id_or_name):
            found = self._kept.get(id_or_name.lower())
            if found is not None:
                if found.template is not None:
                    raise QueryError(_BY_ID)
                return found.query
        name = id_or_name.lower()
        found = index.names.get(name)
        if found is None:
            found = next((k for prefix, k in index.prefixes if name.startswith(prefix)), None)
        if found is None:
            return None
        if isinstance(found.template, DomainError):
            # It is kept: without this it would hold on to the frames of each time it was raised
            raise found.template.with_traceback(None)
        if found.template is None:
            return found.query
        return found.template.render(id_or_name, segment)

    def _current(self) -> _Index:
        version = (self._watches.generation, self._tables().index.get(QUERIES.table, 0))
        if self._version == version:
            return self._index
        rows = self._rows()
        kept: dict[str, _Kept] = {}
        for key, row in rows.items():
            known = self._kept.get(key)
            kept[key] = known if known is not None and known.row is row else _keep(row)
        self._kept = kept
        names = {k.query.name.lower(): k for k in kept.values() if k.query.name}
        templates = [(k.query.name.lower(), k) for k in kept.values() if k.template is not None]
        self._index = _Index(names, sorted(templates, key=lambda item: -len(item[0])))
        self._version = version
        return self._index


def _keep(row: Row) -> _Kept:
    query = _query(row)
    if not query.is_template:
        return _Kept(row, query, None)
    try:
        return _Kept(row, query, CompiledTemplate(query))
    except DomainError as error:
        return _Kept(row, query, error)


def _query(row: Row) -> PreparedQuery:
    return decode(msgpack.pack(row), PreparedQuery)
