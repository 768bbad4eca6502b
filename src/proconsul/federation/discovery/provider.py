"""The plugin interface of discovery: something that turns arguments into addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from proconsul.util.errors import ProconsulError

ENTRY_POINTS = "proconsul.discovery"
"""Group of entry points: name -> a callable without arguments that makes a `Provider`."""


class DiscoveryError(ProconsulError):
    """A provider found no answer. The text names the provider and never contains a secret."""


class Provider(Protocol):
    """Looks up addresses in one kind of environment."""

    @property
    def name(self) -> str:
        """What `provider=` calls it."""
        ...

    def help(self) -> str:
        """The arguments, for people."""
        ...

    async def addrs(self, args: Mapping[str, str]) -> list[str]:
        """Addresses (`host`, `host:port`) that match `args`. Raises `DiscoveryError`."""
        ...
