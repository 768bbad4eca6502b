"""What the clouds' providers share: libcloud on demand, worker thread, secrets kept out of errors."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

from proconsul.drivers.threads import AbandonableThreads, ThreadsBusyError
from proconsul.federation.discovery.args import is_secret
from proconsul.federation.discovery.provider import DiscoveryError

REQUEST_S_MAX = 10.0
"""Without a byte from a cloud's API."""
PAGES_MAX = 100
"""Of a listing: more is a loop in paging."""
CALLS_MAX = 8
"""At once, of one provider; those that nobody waits for any more count until they return."""
SECRET_CHARS_MIN = 4
"""Replacing anything shorter would only garble the text."""
ERROR_CHARS_MAX = 400
"""Of an API's answer in an error: some answer with a whole page."""

Args = Mapping[str, str]
Secrets = list[str]
"""What a lookup learns on its way (tokens of roles, of service accounts): kept out of errors."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API is asked instead of its public address: private clouds, tests."""

    host: str
    port: int
    is_secure: bool

    @classmethod
    def of(cls, url: str) -> Endpoint | None:
        """From a URL; None for the empty one. Raises `DiscoveryError`."""
        if not url:
            return None
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise DiscoveryError(f"endpoint {url!r} is not an http(s) URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DiscoveryError(f"endpoint {url!r} is not an http(s) URL")
        is_secure = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if is_secure else 80), is_secure)


LookUp = Callable[[Args, Endpoint | None, Secrets], list[str]]


@dataclass(frozen=True, slots=True)
class CloudProvider:
    """A `Provider`: `look_up` blocks, and runs on a thread of its own."""

    name: str
    help_text: str
    look_up: LookUp
    endpoint: str = ""
    environment: tuple[str, ...] = ()
    """Variables that may hold secrets."""
    threads: AbandonableThreads = field(
        default_factory=lambda: AbandonableThreads("discovery", CALLS_MAX)
    )

    def help(self) -> str:
        """See `Provider.help`."""
        return self.help_text

    async def addrs(self, args: Args) -> list[str]:
        """See `Provider.addrs`."""
        try:
            return await self.threads.run(lambda: self._look_up(args))
        except ThreadsBusyError as error:
            raise DiscoveryError(f"discover-{self.name}: {error}") from error

    def _look_up(self, args: Args) -> list[str]:
        try:
            import libcloud  # noqa: F401 - whether it is there
        except ImportError:
            raise DiscoveryError(
                f"discover-{self.name}: apache-libcloud is not installed: install the extra "
                "`cloud` (pip install 'proconsul[cloud]')"
            ) from None
        secrets: Secrets = [value for key, value in args.items() if is_secret(key)]
        secrets += [os.environ.get(key, "") for key in self.environment]
        try:
            endpoint = Endpoint.of(args.get("endpoint", "") or self.endpoint)
            return self.look_up(args, endpoint, secrets)
        except DiscoveryError as error:
            text = str(error)
        except Exception as error:  # noqa: BLE001 - libcloud raises bare `Exception`s, and others
            # on answers that it does not expect; the cause goes no further, it may show secrets
            text = _told(error)
        raise DiscoveryError(f"discover-{self.name}: {scrubbed(text, secrets)}")


def _told(error: Exception) -> str:
    """One line on a failed request, the same for the same failure: it is logged when it changes."""
    from libcloud.common.exceptions import BaseHTTPError
    from libcloud.common.types import InvalidCredsError, LibcloudError, MalformedResponseError

    if isinstance(error, BaseHTTPError):
        return f"HTTP status {error.code}: {_line(error.message) or 'no explanation'}"
    if isinstance(error, InvalidCredsError):
        return f"the credentials were refused: {_line(error.value)}"
    if isinstance(error, MalformedResponseError):
        return f"an answer that is not understood: {_line(error.value)}: {_line(error.body)}"
    if isinstance(error, LibcloudError):
        status = getattr(error, "http_code", None)
        said = _line(getattr(error, "value", "")) or _line(error.args)
        return f"HTTP status {status}: {said}" if status else said
    if type(error) is Exception or isinstance(error, OSError):
        return f"{type(error).__name__}: {_line(str(error))}"
    return f"an answer or argument that is not understood ({type(error).__name__}: {_line(str(error))})"


def _line(said: object) -> str:
    if isinstance(said, dict):
        said = _message(said) or said
    text = (
        said
        if isinstance(said, str)
        else json.dumps(said, default=lambda value: type(value).__name__)
    )
    return " ".join(text.split())


def refuse_errors(connection: Any) -> None:
    """Have each answer of a libcloud connection that is an HTTP error raised as one, with what the
    API says: libcloud loses the status of answers that are not what it expects."""

    def check(response: Any, **_: Any) -> None:
        if response.status_code < 400:
            return
        said = _line(_said(response.text))
        if not said:
            said = "no explanation"
        after = response.headers.get("Retry-After", "")
        raise DiscoveryError(
            f"HTTP status {response.status_code} ({response.reason}): {said}"
            + (f"; retry after {after}" if after else "")
        )

    connection.session.hooks["response"].append(check)


def _said(body: str) -> str:
    """The explanation in an error's body: JSON and XML in the forms that clouds use, or the text."""
    with contextlib.suppress(ValueError, RecursionError):
        return _message(json.loads(body)) or body
    found = [re.search(rf"<{tag}>([^<]*)</{tag}>", body) for tag in ("Code", "Message")]
    told = ": ".join(match[1] for match in found if match is not None)
    return told or re.sub(r"<[^>]*>", " ", body)


def _message(found: object) -> str:
    """The first text under the names by which clouds explain themselves."""
    if isinstance(found, list):
        return _message(found[0]) if found else ""
    if not isinstance(found, dict):
        return found if isinstance(found, str) else ""
    for name in ("error_description", "message", "reason", "error", "errors"):
        if said := _message(found.get(name)):
            return said
    return ""


def scrubbed(text: str, secrets: Secrets) -> str:
    """Libraries put URLs and answers into their errors: no secret may leave with them, in no form
    in which it is sent."""
    for value in sorted({s for s in secrets if len(s) >= SECRET_CHARS_MIN}, key=len, reverse=True):
        for form in (value, quote(value, safe=""), quote(value), quote_plus(value),
                     json.dumps(value)[1:-1], repr(value)[1:-1]):  # fmt: skip
            text = text.replace(form, "<hidden>")
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= ERROR_CHARS_MAX else text[:ERROR_CHARS_MAX] + " ..."


def driver(kind: str, endpoint: Endpoint | None, *args: Any, **options: Any) -> Any:
    """libcloud's driver of that name, pointed at `endpoint` where given. For those that ask nothing
    of the API when they are made."""
    from libcloud.compute.providers import get_driver

    made: Any = get_driver(kind)(*args, **options)
    connection: Any = made.connection
    connection.timeout = REQUEST_S_MAX
    if endpoint is not None:
        connection.host, connection.port = endpoint.host, endpoint.port
        connection.secure = endpoint.is_secure
    connection.connect()  # sends nothing yet: it takes over what was just set
    refuse_errors(connection.connection)
    return made


def reach(endpoint: Endpoint | None) -> dict[str, Any]:
    """The arguments by which a libcloud connection asks `endpoint`, in bounded time."""
    if endpoint is None:
        return {"secure": True, "timeout": REQUEST_S_MAX}
    return {
        "secure": endpoint.is_secure,
        "host": endpoint.host,
        "port": endpoint.port,
        "timeout": REQUEST_S_MAX,
    }


def arg_or_env(args: Args, key: str, variable: str) -> str:
    """An argument, or else what the environment says."""
    return args.get(key, "") or os.environ.get(variable, "")
