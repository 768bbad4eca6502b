"""What the clouds' providers share: libcloud on demand, worker thread, secrets kept out of errors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

from proconsul.federation.discovery.args import SECRETS
from proconsul.federation.discovery.provider import DiscoveryError

REQUEST_S_MAX = 10.0
"""For one request to a cloud's API."""
PAGES_MAX = 100
"""Of a listing: more is a loop in paging."""
SECRET_CHARS_MIN = 4
"""Replacing anything shorter would only garble the text."""

Args = Mapping[str, str]


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
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise DiscoveryError(f"endpoint {url!r} is not an http(s) URL")
        is_secure = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if is_secure else 80), is_secure)


LookUp = Callable[[Args, Endpoint | None], list[str]]


@dataclass(frozen=True, slots=True)
class CloudProvider:
    """A `Provider`: `look_up` blocks, and runs on a worker thread."""

    name: str
    help_text: str
    look_up: LookUp
    endpoint: str = ""
    environment: tuple[str, ...] = ()
    """Variables that may hold secrets."""

    def help(self) -> str:
        """See `Provider.help`."""
        return self.help_text

    async def addrs(self, args: Args) -> list[str]:
        """See `Provider.addrs`."""
        try:
            return await asyncio.to_thread(self._look_up, args)
        except DiscoveryError as error:
            raise DiscoveryError(self._scrubbed(f"discover-{self.name}: {error}", args)) from None

    def _look_up(self, args: Args) -> list[str]:
        try:
            from libcloud.common.exceptions import BaseHTTPError
            from libcloud.common.types import LibcloudError
        except ImportError:
            raise DiscoveryError(
                "apache-libcloud is not installed: install the extra `cloud` "
                "(pip install 'proconsul[cloud]')"
            ) from None
        try:
            endpoint = Endpoint.of(args.get("endpoint", "") or self.endpoint)
            return self.look_up(args, endpoint)
        except (LibcloudError, BaseHTTPError) as error:
            raise DiscoveryError(str(error)) from error
        except (OSError, ValueError, LookupError, TypeError, ParseError) as error:
            raise DiscoveryError(f"{type(error).__name__}: {error}") from error

    def _scrubbed(self, text: str, args: Args) -> str:
        """Libraries put URLs and answers into their errors: no secret may leave with them."""
        hidden = [args.get(key, "") for key in SECRETS]
        hidden += [os.environ.get(key, "") for key in self.environment]
        for value in hidden:
            if len(value) >= SECRET_CHARS_MIN:
                text = text.replace(value, "<hidden>")
        return text


def driver(kind: str, endpoint: Endpoint | None, *args: Any, **options: Any) -> Any:
    """libcloud's driver of that name, pointed at `endpoint` where given."""
    from libcloud.compute.providers import get_driver

    made: Any = get_driver(kind)(*args, **options)
    connection: Any = made.connection
    connection.timeout = REQUEST_S_MAX
    if endpoint is not None:
        connection.host, connection.port = endpoint.host, endpoint.port
        connection.secure = endpoint.is_secure
    connection.connect()  # sends nothing yet: it takes over what was just set
    return made


def arg_or_env(args: Args, key: str, variable: str) -> str:
    """An argument, or else what the environment says."""
    return args.get(key, "") or os.environ.get(variable, "")
