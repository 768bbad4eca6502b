"""What a request asks for: path, query parameters, token; as Go's `net/url` reads them."""

from __future__ import annotations

import ipaddress
import posixpath
from urllib.parse import unquote_to_bytes

from proconsul.drivers.http import Request
from proconsul.interfaces.http.errors import HttpError
from proconsul.util.goduration import parse_duration_ns
from proconsul.util.goquote import go_quote

_HEX = frozenset(b"0123456789abcdefABCDEF")
_NO_PARAMS: dict[str, list[str]] = {}
_UINT64_MAX = (1 << 64) - 1


class Ask:
    """One request as handlers see it. `rest` is what follows the route's prefix in the path."""

    __slots__ = ("params", "path", "request", "rest")

    def __init__(
        self, request: Request, path: str, rest: str, params: dict[str, list[str]]
    ) -> None:
        self.request = request
        self.path = path
        self.rest = rest
        self.params = params

    def first(self, name: str) -> str:
        """The first value of a parameter, "" without it."""
        values = self.params.get(name)
        return values[0] if values else ""

    def has(self, name: str) -> bool:
        """Whether the parameter is there, with or without a value."""
        return name in self.params

    def token(self) -> str:
        """`?token=`, `X-Consul-Token` or `Authorization: Bearer`, in this order."""
        if self.params and (token := self.first("token")):
            return token
        if token := self.request.header(b"x-consul-token"):
            return token
        scheme, _, value = self.request.header(b"authorization").partition(" ")
        if scheme.lower() == "bearer" and value.strip():
            return value.split()[0]
        return ""

    def source_ip(self) -> str:
        """The client's address; the first of X-Forwarded-For if that is one."""
        forwarded = self.request.header(b"x-forwarded-for").split(",")[0].strip()
        for candidate in (forwarded, self.request.peer[0]):
            try:
                return str(ipaddress.ip_address(candidate))
            except ValueError:
                continue
        return ""

    def uint64(self, name: str) -> int:
        """A parameter that must be an unsigned number; Go's text as status 500 if it is not."""
        raw = self.first(name)
        value = parse_uint64(raw)
        if value is None:
            quoted = go_quote(raw)
            problem = "value out of range" if raw.isdecimal() else "invalid syntax"
            raise HttpError(500, f"strconv.ParseUint: parsing {quoted}: {problem}")
        return value

    def duration_ns(self, name: str, complaint: str) -> int:
        """A Go duration, 0 without the parameter; `complaint` is the text of the 400."""
        raw = self.first(name)
        if not raw:
            return 0
        try:
            return parse_duration_ns(raw)
        except ValueError:
            raise HttpError(400, complaint) from None


def parse_uint64(text: str) -> int | None:
    """What Go's ParseUint(text, 10, 64) gives; None for its errors."""
    if not text or not text.isascii() or not text.isdigit():
        return None
    value = int(text) if len(text) <= 20 else _UINT64_MAX + 1
    return value if value <= _UINT64_MAX else None


def parse_bool(text: str) -> bool | None:
    """What Go's ParseBool gives; None for its errors."""
    if text in {"1", "t", "T", "TRUE", "true", "True"}:
        return True
    if text in {"0", "f", "F", "FALSE", "false", "False"}:
        return False
    return None


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Path and raw query of a request target, which may be in absolute form."""
    if target[:1] != b"/":
        if target[:7] == b"http://" or target[:8] == b"https://":
            host_end = target.find(b"/", 8)
            target = target[host_end:] if host_end >= 0 else b"/"
        elif target == b"*":
            return b"*", b""
        else:
            raise HttpError(400, "400 Bad Request")
    path, _, query = target.partition(b"?")
    return path, query.partition(b"#")[0]


def decode_path(raw: bytes) -> str:
    """Unescaped path. `HttpError` 400 as Go's server for bad escapes."""
    if b"%" not in raw:
        return raw.decode("utf-8", "surrogateescape")
    return unescape(raw, 400)


def unescape(raw: bytes, status: int) -> str:
    """Percent-decoding that refuses malformed escapes with `status`."""
    at = raw.find(b"%")
    while at >= 0:
        if len(raw) < at + 3 or raw[at + 1] not in _HEX or raw[at + 2] not in _HEX:
            raise HttpError(status, "400 Bad Request" if status == 400 else "")
        at = raw.find(b"%", at + 3)
    return unquote_to_bytes(raw).decode("utf-8", "surrogateescape")


def parse_params(query: bytes) -> dict[str, list[str]]:
    """Query parameters in order; `HttpError` 500 without text for bad escapes, as Consul has it."""
    if not query:
        return _NO_PARAMS
    params: dict[str, list[str]] = {}
    for part in query.replace(b";", b"&").split(b"&"):
        if not part:
            continue
        if b"+" in part:
            part = part.replace(b"+", b" ")  # noqa: PLW2901 - the same part, decoded one step
        key, _, value = part.partition(b"=")
        if b"%" in part:
            name, text = unescape(key, 500), unescape(value, 500)
        else:
            name = key.decode("utf-8", "surrogateescape")
            text = value.decode("utf-8", "surrogateescape")
        params.setdefault(name, []).append(text)
    return params


def clean_path(path: str) -> str:
    """Go's `cleanPath`: no empty, `.` or `..` elements, a trailing slash kept."""
    if not path:
        return "/"
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    if path.endswith("/") and cleaned != "/":
        cleaned += "/"
    return cleaned


def needs_cleaning(path: str) -> bool:
    """A cheap test that `clean_path` would change the path (it may say yes too often)."""
    return "//" in path or "/." in path or not path.startswith("/")
