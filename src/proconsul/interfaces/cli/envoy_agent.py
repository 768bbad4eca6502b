"""What `connect envoy` asks of the local agent over HTTP, with the standard library alone.

Takes address, token and TLS from the flags and from the environment variables that the reference's
api package reads (CONSUL_HTTP_ADDR, ...).
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import override

from proconsul.config.goflags import Flag, Parsed, string_flag
from proconsul.util.errors import ProconsulError

TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 16 * 1024 * 1024


def http_flags() -> list[Flag]:
    """The flags that say how to reach the agent."""
    return [
        string_flag(
            "http-addr",
            "The address and port of the Consul HTTP agent: an IP address or DNS name with port,"
            " http(s)://..., or unix:///path. Also CONSUL_HTTP_ADDR. Default: 127.0.0.1:8500.",
        ),
        string_flag("token", "ACL token to use in the request. Also CONSUL_HTTP_TOKEN."),
        string_flag("token-file", "File with the ACL token. Also CONSUL_HTTP_TOKEN_FILE."),
        string_flag("ca-file", "CA certificate for TLS to the agent. Also CONSUL_CACERT."),
        string_flag("client-cert", "Client certificate for TLS. Also CONSUL_CLIENT_CERT."),
        string_flag("client-key", "Key of -client-cert. Also CONSUL_CLIENT_KEY."),
        string_flag(
            "tls-server-name", "Name to verify the agent for. Also CONSUL_TLS_SERVER_NAME."
        ),
    ]


@dataclass(frozen=True, slots=True)
class AgentAccess:
    """How to reach the local agent."""

    address: str
    tls: bool
    token: str = field(repr=False)
    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""
    server_name: str = ""

    @classmethod
    def of(cls, flags: Parsed, environ: Mapping[str, str] = os.environ) -> AgentAccess:
        """From flags, else environment, else defaults. Raises `ProconsulError`."""

        def setting(flag: str, variable: str) -> str:
            return str(flags[flag]) or environ.get(variable, "")

        token = setting("token", "CONSUL_HTTP_TOKEN")
        if not token and (path := setting("token-file", "CONSUL_HTTP_TOKEN_FILE")):
            token = read_text(path).strip()
        address = setting("http-addr", "CONSUL_HTTP_ADDR") or "127.0.0.1:8500"
        scheme, separator, rest = address.partition("://")
        use_tls = environ.get("CONSUL_HTTP_SSL", "").lower() in {"1", "t", "true"}
        if separator and scheme in {"http", "https"}:
            use_tls, address = scheme == "https", rest.rstrip("/")
        return cls(
            address,
            use_tls,
            token,
            setting("ca-file", "CONSUL_CACERT"),
            setting("client-cert", "CONSUL_CLIENT_CERT"),
            setting("client-key", "CONSUL_CLIENT_KEY"),
            setting("tls-server-name", "CONSUL_TLS_SERVER_NAME"),
        )

    def get(self, path: str) -> Any:
        """The JSON answer to a GET. Raises `ProconsulError`."""
        return self._call("GET", path, None)

    def put(self, path: str, body: Mapping[str, Any]) -> None:
        """A PUT whose answer does not matter. Raises `ProconsulError`."""
        self._call("PUT", path, json.dumps(body).encode())

    def _call(self, method: str, path: str, body: bytes | None) -> Any:
        headers = {"X-Consul-Token": self.token} if self.token else {}
        connection = self._connection()
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise ProconsulError(
                f"{method} {path} of the agent at {self.address}: {error}"
            ) from error
        finally:
            connection.close()
        if answer.status != 200:
            text = data.decode(errors="replace").strip()
            raise ProconsulError(f"Unexpected response code: {answer.status} ({text})")
        return json.loads(data) if data.strip() else None

    def _connection(self) -> http.client.HTTPConnection:
        if self.address.startswith("unix://"):
            return _UnixConnection(self.address.removeprefix("unix://"))
        if not self.tls:
            return http.client.HTTPConnection(self.address, timeout=TIMEOUT_S)
        context = ssl.create_default_context(cafile=self.ca_file or None)
        if os.environ.get("CONSUL_HTTP_SSL_VERIFY", "").lower() in {"0", "f", "false"}:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_cert:
            context.load_cert_chain(self.client_cert, self.client_key or None)
        return _TlsConnection(self.address, context, self.server_name)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


class _TlsConnection(http.client.HTTPConnection):
    """TLS that verifies for another name than the one it connects to."""

    def __init__(self, address: str, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__(address, timeout=TIMEOUT_S)
        self._context, self._server_name = context, server_name

    @override
    def connect(self) -> None:
        super().connect()
        name = self._server_name or self.host
        self.sock = self._context.wrap_socket(self.sock, server_hostname=name)


def read_text(path: str) -> str:
    """A file's content. Raises `ProconsulError` that names it."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProconsulError(f"cannot read {path}: {error}") from error
