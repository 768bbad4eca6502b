"""A small client of an agent's HTTP API. Every answer is fresh, every failure an OSError."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from typing_extensions import override

Connect = Callable[[float], socket.socket]
"""A connection to the agent, made within so many seconds."""


class ApiError(OSError):
    """The agent answered, but not with 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text.strip()[:300]}")
        self.status = status


class _Connection(http.client.HTTPConnection):
    def __init__(self, connect: Connect, timeout_s: float) -> None:
        super().__init__("agent", timeout=timeout_s)
        self._open, self._timeout_s = connect, timeout_s

    @override
    def connect(self) -> None:
        self.sock = self._open(self._timeout_s)


class Api:
    """One agent."""

    def __init__(self, connect: Connect, timeout_s: float = 10.0, token: str = "") -> None:
        self._connect, self._timeout_s = connect, timeout_s
        self._headers = {"X-Consul-Token": token} if token else {}

    def request(
        self, method: str, path: str, body: bytes | None = None, timeout_s: float | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, body. Raises OSError if there is no answer."""
        connection = _Connection(self._connect, timeout_s or self._timeout_s)
        try:
            connection.request(method, path, body, self._headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"no answer to {path}: {error!r}") from error
        finally:
            connection.close()

    def get(self, path: str, **params: object) -> Any:
        """The JSON of an answer. Raises ApiError, OSError."""
        return json.loads(self._ok("GET", path, params, None))

    def post(self, path: str, value: object, **params: object) -> bytes:
        """Raises ApiError, OSError."""
        return self._ok("POST", path, params, json.dumps(value).encode())

    def put(self, path: str, value: object = None, **params: object) -> bytes:
        """Raises ApiError, OSError."""
        body = b"" if value is None else json.dumps(value).encode()
        return self._ok("PUT", path, params, body)

    def kv_put(self, key: str, value: str, **params: object) -> None:
        """Raises ApiError, OSError."""
        answer = self._ok("PUT", f"/v1/kv/{quote(key)}", params, value.encode())
        if answer.strip() != b"true":
            raise OSError(f"the write of {key} was answered with {answer!r}")

    def kv_get(self, key: str, **params: object) -> str:
        """Raises ApiError (404: no such key), OSError."""
        value = self.get(f"/v1/kv/{quote(key)}", **params)[0]["Value"]
        return base64.b64decode(value or "").decode()

    def _ok(self, method: str, path: str, params: dict[str, object], body: bytes | None) -> bytes:
        query = f"?{urlencode(params)}" if params else ""
        status, _, answer = self.request(method, path + query, body)
        if status != 200:
            raise ApiError(status, f"{method} {path}{query}: {answer.decode(errors='replace')}")
        return answer
