"""A small HTTP client for the agent's API: stdlib only, one request per connection.

Environment variables and flags are those of Consul's `api` package.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from proconsul.config.goflags import Parsed, parse_bool
from proconsul.interfaces.cli.command import CommandError

if TYPE_CHECKING:
    import ssl

Query = Mapping[str, Any]
"""URL parameters; a list gives one parameter several times."""

_READ_BYTES = 256 * 1024
DEFAULT_ADDRESS = "127.0.0.1:8500"


class ApiError(CommandError):
    """The agent could not be asked, or did not answer 200."""

    def __init__(self, text: str, status: int = 0, index: int = 0) -> None:
        super().__init__(text)
        self.status = status
        self.index = index
        """Of a 404, where a blocking query goes on."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to reach the agent, and what to ask it for."""

    address: str = DEFAULT_ADDRESS
    scheme: str = "http"
    """http, https or unix (then `address` is a path)."""
    token: str = field(default="", repr=False)
    ca_file: str = ""
    ca_path: str = ""
    client_cert: str = ""
    client_key: str = ""
    tls_server_name: str = ""
    verify: bool = True
    basic_auth: str = field(default="", repr=False)
    datacenter: str = ""
    stale: bool = False
    namespace: str = ""


def settings_from(parsed: Parsed) -> Settings:
    """Flags over environment over defaults. Raises CommandError."""
    env = os.environ

    def pick(flag: str, *variables: str) -> str:
        if flag in parsed.given:
            return str(parsed.given[flag])
        return next((env[v] for v in variables if env.get(v)), "")

    address = pick("http-addr", "PROCONSUL_HTTP_ADDR", "PROCONSUL", "CONSUL_HTTP_ADDR")
    scheme = "https" if _env_bool("CONSUL_HTTP_SSL", False) else "http"
    prefix, separator, rest = (address or DEFAULT_ADDRESS).partition("://")
    if separator:
        if prefix not in ("http", "https", "unix"):
            raise CommandError(
                f"Error connecting to Consul agent: Unknown protocol scheme: {prefix}"
            )
        scheme = "https" if scheme == "https" and prefix == "http" else prefix
        address = rest
    else:
        address = prefix
    return Settings(
        address=address if scheme == "unix" else address.rstrip("/"),
        scheme=scheme,
        token=_token(parsed, env.get("CONSUL_HTTP_TOKEN", "")),
        ca_file=pick("ca-file", "CONSUL_CACERT"),
        ca_path=pick("ca-path", "CONSUL_CAPATH"),
        client_cert=pick("client-cert", "CONSUL_CLIENT_CERT"),
        client_key=pick("client-key", "CONSUL_CLIENT_KEY"),
        tls_server_name=pick("tls-server-name", "CONSUL_TLS_SERVER_NAME"),
        verify=_env_bool("CONSUL_HTTP_SSL_VERIFY", True),
        basic_auth=env.get("CONSUL_HTTP_AUTH", ""),
        datacenter=parsed.given.get("datacenter", ""),
        stale=parsed.given.get("stale", False),
        namespace=parsed.given.get("namespace", "") or env.get("CONSUL_NAMESPACE", ""),
    )


def _env_bool(name: str, default: bool) -> bool:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        return parse_bool(text)
    except ValueError:
        return default


def _token(parsed: Parsed, from_environment: str) -> str:
    path = parsed.given.get("token-file") or os.environ.get("CONSUL_HTTP_TOKEN_FILE", "")
    if path:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read().strip()
        except OSError as error:
            raise CommandError(
                f"Error connecting to Consul agent: Error loading token file: {error.strerror}"
            ) from None
        if text:
            return text
    return str(parsed.given.get("token", "") or from_environment)


class Client:
    """Asks the agent. Errors carry the texts that Consul's own client prints."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def get(self, path: str, query: Query | None = None) -> Any:
        """GET and decode JSON. Raises ApiError for anything but 200."""
        return json.loads(self._request("GET", path, self._read_query(query)) or b"null")

    def get_or_none(self, path: str, query: Query | None = None) -> Any:
        """GET and decode JSON; None where the agent answers 404."""
        try:
            return self.get(path, query)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def put(self, path: str, body: bytes = b"", query: Query | None = None) -> bytes:
        """PUT and return the raw answer."""
        return self._request("PUT", path, self._write_query(query), body)

    def put_json(self, path: str, value: Any, query: Query | None = None) -> bytes:
        """PUT a JSON body and return the raw answer."""
        return self.put(path, json.dumps(value).encode(), query)

    def get_indexed(self, path: str, query: Query | None = None) -> tuple[Any, int]:
        """GET: the decoded JSON, None for 404, and the answer's index."""
        data = io.BytesIO()
        try:
            headers = self._transfer("GET", path, self._read_query(query), None, data)
        except ApiError as error:
            if error.status != 404:
                raise
            return None, error.index
        return json.loads(data.getvalue() or b"null"), int(headers.get("x-consul-index", 0))

    def lines(self, path: str, query: Query | None = None) -> Iterator[str]:
        """GET, line by line as they come, until the agent ends. Flushes nothing itself."""
        target = self._target(path, self._read_query(query))
        try:
            with closing(self._connection()) as connection:
                connection.request("GET", target, headers=self._headers())
                response = _checked(connection.getresponse())
                while line := response.readline():
                    yield line.decode("utf-8", "replace").rstrip("\r\n")
        except http.client.HTTPException:
            return  # in the midst of a line
        except OSError as error:
            raise ApiError(f'Get "{self._url(target)}": {self._why(error)}') from None

    def post(self, path: str, body: bytes = b"", query: Query | None = None) -> bytes:
        """POST and return the raw answer."""
        return self._request("POST", path, self._write_query(query), body)

    def delete(self, path: str, query: Query | None = None, body: bytes | None = None) -> bytes:
        """DELETE and return the raw answer."""
        return self._request("DELETE", path, self._write_query(query), body)

    def node_name(self) -> str:
        """The agent's. Raises `CommandError` in the words of commands that ask it first."""
        try:
            return str(self.get("/v1/agent/self")["Config"]["NodeName"])
        except CommandError as error:
            raise CommandError(f"Error querying Consul agent: {error}") from None

    def download(self, path: str, out: IO[bytes], query: Query | None = None) -> Mapping[str, str]:
        """GET into a file; returns the headers, by lower-case name."""
        return self._transfer("GET", path, self._read_query(query), None, out)

    def upload(self, path: str, body: IO[bytes]) -> None:
        """PUT a file."""
        self._transfer("PUT", path, self._write_query(None), body, None)

    def _write_query(self, query: Query | None) -> dict[str, Any]:
        merged = dict(query or {})
        if self.settings.datacenter:
            merged["dc"] = self.settings.datacenter
        if self.settings.namespace:
            merged["ns"] = self.settings.namespace
        return merged

    def _read_query(self, query: Query | None) -> dict[str, Any]:
        merged = self._write_query(query)
        if self.settings.stale:
            merged["stale"] = ""
        return merged

    def _connection(self) -> http.client.HTTPConnection:
        """A connected one: the socket is made here, since name and address may differ."""
        s = self.settings
        if s.scheme == "unix":
            connection = http.client.HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.connect(s.address)
            return connection
        connection = http.client.HTTPConnection(s.address)
        connection.connect()
        if s.scheme == "https":
            connection.sock = self._tls_context().wrap_socket(
                connection.sock, server_hostname=s.tls_server_name or connection.host
            )
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        import ssl

        s = self.settings
        context = ssl.create_default_context(
            cafile=s.ca_file or None, capath=None if s.ca_file else s.ca_path or None
        )
        if not s.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if s.client_cert:
            context.load_cert_chain(s.client_cert, s.client_key or None)
        return context

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if self.settings.token:
            headers["X-Consul-Token"] = self.settings.token
        if self.settings.basic_auth:
            import base64

            encoded = base64.b64encode(self.settings.basic_auth.encode()).decode()
            headers["Authorization"] = f"Basic {encoded}"
        return headers

    def _request(
        self, method: str, path: str, query: dict[str, Any], body: bytes | None = None
    ) -> bytes:
        data = io.BytesIO()
        self._transfer(method, path, query, body, data)
        return data.getvalue()

    def _transfer(
        self,
        method: str,
        path: str,
        query: dict[str, Any],
        body: bytes | IO[bytes] | None,
        out: IO[bytes] | None,
    ) -> dict[str, str]:
        """One request; the answer's body goes to `out`, its headers are returned."""
        target = self._target(path, query)
        headers = self._headers()
        if body is not None and not isinstance(body, bytes):
            headers["Content-Length"] = str(os.fstat(body.fileno()).st_size)
        try:
            with closing(self._connection()) as connection:
                # An agent may refuse a body before its end: why, is in the answer.
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, target, body=body, headers=headers)
                response = _checked(connection.getresponse())
                while data := response.read(_READ_BYTES):
                    if out is not None:
                        out.write(data)
        except http.client.HTTPException as error:
            raise ApiError(f'{method.title()} "{self._url(target)}": {error!r}') from None
        except OSError as error:
            raise ApiError(f'{method.title()} "{self._url(target)}": {self._why(error)}') from None
        return {name.lower(): value for name, value in response.getheaders()}

    @staticmethod
    def _target(path: str, query: dict[str, Any]) -> str:
        target = quote(path, safe="/-_.~!$&'()*+,;=:@")
        return target + "?" + urlencode(sorted(query.items()), doseq=True) if query else target

    def _url(self, target: str) -> str:
        scheme = "http" if self.settings.scheme == "unix" else self.settings.scheme
        return f"{scheme}://{self.settings.address}{target}"

    def _why(self, error: OSError) -> str:
        reason = (error.strerror or str(error)).lower()
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            network = "unix" if self.settings.scheme == "unix" else "tcp"
            call = "connect: " if error.strerror else ""
            return f"dial {network} {self.settings.address}: {call}{reason}"
        return str(error) if not error.strerror else reason


def _checked(response: http.client.HTTPResponse) -> http.client.HTTPResponse:
    """The response if it is a good one. Raises `ApiError` with what it says."""
    if response.status == 200:
        return response
    text = response.read().decode("utf-8", "replace")
    raise ApiError(
        f"Unexpected response code: {response.status} ({text})",
        response.status,
        int(response.getheader("X-Consul-Index") or 0),
    )
