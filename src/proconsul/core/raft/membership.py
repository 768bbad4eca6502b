"""Who is in the cluster, and which one change at a time is allowed.

A configuration counts from the moment it is in the log, committed or not; the next change waits
until the last one is committed and the leader has committed an entry of its own term
(hashicorp/raft `configuration.go`, and the erratum to single-server changes in Raft's thesis).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from msgspec.structs import replace

from proconsul.core.raft.types import ConfigurationError
from proconsul.wire.raft import (
    Configuration,
    Entry,
    LogType,
    Server,
    Suffrage,
    decode_configuration,
    decode_peers,
)


class Change(Enum):
    """The ways to change the members."""

    ADD_VOTER = auto()
    ADD_NONVOTER = auto()
    DEMOTE_VOTER = auto()
    REMOVE_SERVER = auto()


@dataclass(slots=True)
class Membership:
    """The latest configuration in the log, and the latest that is committed."""

    committed: Configuration = field(default_factory=Configuration)
    committed_index: int = 0
    latest: Configuration = field(default_factory=Configuration)
    latest_index: int = 0

    def appended(self, entry: Entry) -> bool:
        """Take a new log entry into account; True if it changed the members."""
        configuration = of_entry(entry)
        if configuration is None:
            return False
        self.committed, self.committed_index = self.latest, self.latest_index
        self.latest, self.latest_index = configuration, entry.index
        return True

    def truncated(self, first: int) -> bool:
        """Entries from `first` on are gone; True if that takes back a change."""
        if first > self.latest_index:
            return False
        self.latest, self.latest_index = self.committed, self.committed_index
        return True

    def commit(self, index: int) -> bool:
        """The log is committed up to `index`; True if that commits a change."""
        if self.committed_index == self.latest_index or index < self.latest_index:
            return False
        self.committed, self.committed_index = self.latest, self.latest_index
        return True

    def restored(self, configuration: Configuration, index: int) -> None:
        """A snapshot says who the members are."""
        self.committed = self.latest = configuration
        self.committed_index = self.latest_index = index


def of_entry(entry: Entry) -> Configuration | None:
    """The configuration an entry establishes, None if it is of another type."""
    if entry.type is LogType.CONFIGURATION:
        return decode_configuration(entry.data)
    if entry.type in (LogType.ADD_PEER_DEPRECATED, LogType.REMOVE_PEER_DEPRECATED):
        return decode_peers(entry.data)
    return None


def voters(configuration: Configuration) -> list[Server]:
    """The servers whose votes and match indexes count."""
    return [server for server in configuration.servers if server.suffrage is Suffrage.VOTER]


def quorum(configuration: Configuration) -> int:
    """How many voters make a majority."""
    return len(voters(configuration)) // 2 + 1


def has_vote(configuration: Configuration, server_id: str) -> bool:
    """Whether the server is a voter."""
    return any(server.id == server_id for server in voters(configuration))


def check(configuration: Configuration) -> None:
    """Raise `ConfigurationError` for empty or duplicate ids and addresses, or no voter."""
    for what, values in (
        ("ID", [server.id for server in configuration.servers]),
        ("address", [server.address for server in configuration.servers]),
    ):
        for value in values:
            if not value:
                raise ConfigurationError(f"Empty {what} in configuration")
            if values.count(value) > 1:
                raise ConfigurationError(f"Found duplicate {what} in configuration: {value}")
    if not voters(configuration):
        raise ConfigurationError("Need at least one voter in configuration")


def changed(
    current: Configuration, change: Change, server_id: str, address: str = ""
) -> Configuration:
    """The configuration after `change`. Raises `ConfigurationError` if the result is not sound.

    As in the reference, adding a voter again changes its address only, adding a voter as a nonvoter
    does not demote it, and demoting or removing an absent server changes nothing.
    """
    servers = list(current.servers)
    at = next((i for i, server in enumerate(servers) if server.id == server_id), None)
    match change:
        case Change.ADD_VOTER:
            new = Server(Suffrage.VOTER, server_id, address)
            if at is None:
                servers.append(new)
            else:
                servers[at] = new
        case Change.ADD_NONVOTER:
            if at is None:
                servers.append(Server(Suffrage.NONVOTER, server_id, address))
            else:
                servers[at] = replace(servers[at], address=address)
        case Change.DEMOTE_VOTER:
            if at is not None:
                servers[at] = replace(servers[at], suffrage=Suffrage.NONVOTER)
        case Change.REMOVE_SERVER:
            if at is not None:
                del servers[at]
    result = Configuration(tuple(servers))
    check(result)
    return result
