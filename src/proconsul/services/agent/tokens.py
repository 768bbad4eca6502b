"""The tokens that an agent itself uses (`agent/token/store.go`), which may change while it runs.

They come from the configuration or, at run time, by `/v1/agent/token/`; the latter survive a
restart in `acl-tokens.json` if `acl.enable_token_persistence` says so. Nobody may keep a copy: ask
at every use.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.agent")

FILE = "acl-tokens.json"
_FILE_BYTES_MAX = 1 << 16


class Kind(Enum):
    """The token's name in the configuration, in files and in URLs."""

    DEFAULT = "default"
    """Of requests that bring none along."""
    AGENT = "agent"
    """Of the agent's own calls, anti-entropy above all."""
    AGENT_MASTER = "agent_master"
    """Opens this agent's own endpoints when no server can be asked; known to nobody else."""
    REPLICATION = "replication"
    """With which a secondary's servers read what the primary owns."""


KIND_BY_URL = {
    name: kind
    for kind, legacy in (
        (Kind.DEFAULT, "acl_token"),
        (Kind.AGENT, "acl_agent_token"),
        (Kind.AGENT_MASTER, "acl_agent_master_token"),
        (Kind.REPLICATION, "acl_replication_token"),
    )
    for name in (kind.value, legacy)
}


class TokensError(ProconsulError):
    """The tokens' file cannot be written."""


class _Held(NamedTuple):
    token: str
    by_api: bool


class AgentTokens:
    """The four tokens as of now."""

    def __init__(self, directory: Path | None = None) -> None:
        """`directory` is the data directory if tokens are to be kept there."""
        self._path = None if directory is None else directory / FILE
        self._held = {kind: _Held("", by_api=False) for kind in Kind}
        self._subscribers: dict[Callable[[Kind], None], None] = {}

    @property
    def default(self) -> str:
        """For requests without a token; empty is the anonymous one."""
        return self._held[Kind.DEFAULT].token

    @property
    def agent(self) -> str:
        """For the agent's own calls: the default token if there is no other."""
        return self._held[Kind.AGENT].token or self.default

    @property
    def replication(self) -> str:
        """For what a secondary reads in the primary."""
        return self._held[Kind.REPLICATION].token

    def is_agent_master(self, token: str) -> bool:
        """Never true of an empty one."""
        master = self._held[Kind.AGENT_MASTER].token
        return bool(token) and hmac.compare_digest(
            token.encode("utf-8", "surrogateescape"), master.encode("utf-8", "surrogateescape")
        )

    def subscribe(self, callback: Callable[[Kind], None]) -> Callable[[], None]:
        """Call `callback` after a token changed. Returns what ends it."""
        self._subscribers[callback] = None
        return lambda: self._subscribers.pop(callback, None)

    def load(self, configured: Mapping[Kind, str], kept: Mapping[Kind, str]) -> None:
        """Take over the configuration's tokens, except where the file (`read`) has one."""
        for kind in Kind:
            in_file, in_config = kept.get(kind, ""), configured.get(kind, "")
            if in_file and in_config:
                log.warning(
                    '"%s" token present in both the configuration and persisted token store, '
                    "using the persisted token",
                    kind.value,
                )
            self._hold(kind, _Held(in_file or in_config, by_api=bool(in_file)))

    def update(self, kind: Kind, token: str) -> bool:
        """Replace a token at run time; whether it was another one. `save` keeps it."""
        return self._hold(kind, _Held(token, by_api=True))

    def _hold(self, kind: Kind, held: _Held) -> bool:
        changed = self._held[kind] != held
        self._held[kind] = held
        if changed:
            for callback in list(self._subscribers):
                callback(kind)
        return changed

    # -- the file --------------------------------------------------------------------------

    def read(self) -> dict[Kind, str]:
        """The file's tokens. One that cannot be read must not keep the agent from starting."""
        if self._path is None:
            return {}
        try:
            with self._path.open("rb") as file:
                value = json.loads(file.read(_FILE_BYTES_MAX))
            return {kind: str(value[kind.value]) for kind in Kind if value.get(kind.value)}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            log.warning("unable to load persisted tokens: path=%s error=%s", self._path, error)
            return {}

    def save(self) -> None:
        """Write to the file what came at run time, if it is to be kept. Raises `TokensError`."""
        if self._path is None:
            return
        tokens = {
            kind.value: held.token
            for kind, held in self._held.items()
            if held.token and held.by_api
        }
        temporary = ""
        try:
            # Made for us alone, and renamed: nobody ever reads half of it.
            with tempfile.NamedTemporaryFile(
                dir=self._path.parent, prefix=f"{FILE}.", delete=False
            ) as file:
                temporary = file.name
                file.write(json.dumps(tokens).encode())
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self._path)
        except OSError as error:
            log.warning("failed to persist tokens: path=%s error=%s", self._path, error)
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            raise TokensError(f"Failed to persist tokens - {error}") from error
