"""Responses in Consul's form: JSON as Go encodes it, header blocks, shared encodings."""

from __future__ import annotations

import gzip
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from proconsul.drivers.http import Response
from proconsul.interfaces.http.query import Ask

JSON_HEAD = b"Content-Type: application/json\r\n"
TEXT_HEAD = b"Content-Type: text/plain; charset=utf-8\r\n"
VARY_HEAD = b"Vary: Accept-Encoding\r\n"

ENTRIES_MAX = 1024
BYTES_MAX = 64 << 20
GZIP_LEVEL = 1
_SAME_QUESTION = frozenset({"index", "wait", "token", "pretty"})


class Meta(Protocol):
    """What every answer to a query carries (Consul's QueryMeta)."""

    @property
    def index(self) -> int: ...
    @property
    def last_contact_ns(self) -> int: ...
    @property
    def known_leader(self) -> bool: ...


def indented(body: bytes) -> bytes:
    """`?pretty`: four spaces, a newline at the end."""
    return msgspec.json.format(body, indent=4) + b"\n"


def meta_head(meta: Meta, consistency: str = "") -> bytes:
    """The X-Consul headers of a query's answer. Clients would spin on an index of 0."""
    last_contact_ms = max(meta.last_contact_ns, 0) // 1_000_000
    effective = (
        b"X-Consul-Effective-Consistency: %b\r\n" % consistency.encode() if consistency else b""
    )
    return b"%bX-Consul-Index: %d\r\nX-Consul-Knownleader: %b\r\nX-Consul-Lastcontact: %d\r\n" % (
        effective,
        meta.index or 1,
        b"true" if meta.known_leader else b"false",
        last_contact_ms,
    )


def text_answer(status: int, text: str, head: bytes = b"") -> Response:
    """A plain text answer; without text there is no content type either, as in Go."""
    if not text:
        return Response(status, b"", head)
    return Response(status, text.encode("utf-8", "surrogateescape"), head + TEXT_HEAD)


def accepts_gzip(value: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (a weight of 0 forbids it)."""
    for part in value.split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() == "gzip":
            q = weight.strip().lower().removeprefix("q=").strip()
            return q not in {"0", "0.0", "0.00", "0.000"}
    return False


class SharedEncodings:
    """Encoded answers to the questions asked lately, so that many askers cost one encoding.

    An entry serves only if index *and* value are equal to what the query just gave. Rows of tables
    are immutable and shared, so that this comparison is mostly one of pointers; it makes the cache
    right whatever the index does (restore, other servers, ACL filters).
    """

    def __init__(self, entries_max: int = ENTRIES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._entries: OrderedDict[object, tuple[int, object, bytes]] = OrderedDict()
        self._entries_max, self._bytes_max = entries_max, bytes_max
        self._bytes = 0
        self._last_zipped = (b"", b"")
        self.hits = 0

    def encoded(
        self, key: object, index: int, value: object, encode: Callable[[Any], bytes]
    ) -> bytes:
        """`encode(value)`, or what it gave when the same was asked before."""
        entry = self._entries.get(key)
        if entry is not None:
            if entry[0] == index and entry[1] == value:
                self.hits += 1
                self._entries.move_to_end(key)
                return entry[2]
            del self._entries[key]
            self._bytes -= len(entry[2])
        body = encode(value)
        if len(body) * 4 > self._bytes_max:
            return body
        self._entries[key] = (index, value, body)
        self._bytes += len(body)
        while len(self._entries) > self._entries_max or self._bytes > self._bytes_max:
            _, (_, _, dropped) = self._entries.popitem(last=False)
            self._bytes -= len(dropped)
        return body

    def compress(self, response: Response) -> None:
        """Replace the body of `response` by its gzip form.

        That of the last body is kept: a crowd that waits for one change gets one body in a row.
        """
        plain, zipped = self._last_zipped
        if not response.body:
            return
        if plain is not response.body:
            plain, zipped = response.body, gzip.compress(response.body, GZIP_LEVEL, mtime=0)
            self._last_zipped = (plain, zipped)
        response.body = zipped
        response.head += b"Content-Encoding: gzip\r\n"


def question(ask: Ask) -> object:
    """What makes two reads the same question: path and parameters, but for when and by whom."""
    if not ask.params:
        return ask.path
    asked = tuple((k, tuple(v)) for k, v in ask.params.items() if k not in _SAME_QUESTION)
    return (ask.path, asked) if asked else ask.path
