"""`raft/peers.json`: new members for a cluster that lost its quorum (agent/consul/server.go).

The file counts only beside `peers.info`, which the first start writes: so one that was left behind by
a very old Consul is not taken for an order. It is deleted once it is obeyed.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from proconsul.core.raft.membership import check
from proconsul.core.raft.types import RaftError
from proconsul.drivers.raft.recovery import last_members, recover
from proconsul.drivers.raft.snapshots import FileSnapshotStore, sync_directory
from proconsul.drivers.raft.store import Store
from proconsul.services.server.fsm import RaftFsm
from proconsul.util.errors import ConfigError, ProconsulError
from proconsul.wire.raft import Configuration, Server, Suffrage

log = logging.getLogger("proconsul.server")

FILE_BYTES_MAX = 1 << 20
INFO = """
The file peers.json in this directory is for recovery after an outage alone: when so many servers
are lost for good that the rest cannot elect a leader.

Stop all remaining servers. Write peers.json on each of them, the same everywhere, with the node id,
the address and port (of server RPC) and the right to vote of each remaining server:

[
  {
    "id": "adf4238a-882b-9ddc-4a9d-5b6758e4159e",
    "address": "10.1.0.1:8300",
    "non_voter": false
  },
  {
    "id": "8b6dda82-3103-11e7-93ae-92361f002671",
    "address": "10.1.0.2:8300",
    "non_voter": false
  }
]

"non_voter" may be left out. The form of Raft protocol 2, ["10.1.0.1:8300", "10.1.0.2:8300"], is
understood for servers whose ids this one knows by their addresses.

Then start the servers. Each takes the file over, with all entries of its log as if they were
committed, and deletes it. The node id is in the file node-id of the data directory.
"""


def obey(directory: Path, store: Store, snapshots: FileSnapshotStore) -> None:
    """Take over `peers.json`, if there is one. Blocks. Raises `ConfigError`; then it is kept."""
    peers, info = directory / "peers.json", directory / "peers.info"
    try:
        if not info.exists():
            info.write_text(INFO, encoding="utf-8")
            if peers.exists():
                _delete(peers)
                log.info("deleted peers.json file (see peers.info for details)")
            return
        if not peers.exists():
            return
        log.info("found peers.json file, recovering Raft configuration...")
        configuration = _read(peers, store, snapshots)
        try:
            index = recover(RaftFsm(), store, snapshots, configuration)
        except ProconsulError as error:
            raise ConfigError(f"recovery from {peers} failed: {error}") from error
        _delete(peers)
    except OSError as error:
        raise ConfigError(f"recovery from {peers} failed: {error}") from error
    log.info(
        "deleted peers.json file after successful recovery: servers=%d index=%d",
        len(configuration.servers),
        index,
    )


def _delete(peers: Path) -> None:
    """For good: an order that is obeyed twice would take back the members since."""
    peers.unlink()
    sync_directory(peers.parent)


def _read(path: Path, store: Store, snapshots: FileSnapshotStore) -> Configuration:
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    try:
        if len(data) > FILE_BYTES_MAX:
            raise ValueError(f"it is larger than {FILE_BYTES_MAX} bytes")
        entries = json.loads(data)
        if not isinstance(entries, list):
            raise ValueError("it is not a list of servers")
        if entries and all(isinstance(entry, str) for entry in entries):
            known = {s.address: s.id for s in last_members(store, snapshots).servers}
            servers = [_by_address(entry, known) for entry in entries]
        else:
            servers = [_server(entry) for entry in entries]
        configuration = Configuration(tuple(servers))
        check(configuration)
    except (ValueError, RecursionError, RaftError) as error:
        raise ConfigError(
            f"recovery failed to parse peers.json: {path}: {error}; correct the file (peers.info "
            "beside it describes its form), or delete it"
        ) from None
    return configuration


def _by_address(address: str, known: dict[str, str]) -> Server:
    if address not in known:
        raise ValueError(
            f'the id of "{address}" is not known here, write {{"id": ..., "address": ...}}'
        )
    return Server(Suffrage.VOTER, known[address], address)


def _server(entry: Any) -> Server:
    if not isinstance(entry, dict):
        raise ValueError("a server is neither an object nor, like all others, an address")
    fields = {str(key).lower(): value for key, value in entry.items()}
    server_id, address = fields.get("id", ""), fields.get("address", "")
    non_voter = fields.get("non_voter", False)
    if not (isinstance(server_id, str) and isinstance(address, str)):
        raise ValueError("id and address have to be text")
    if not isinstance(non_voter, bool):
        raise ValueError("non_voter has to be true or false")
    return Server(Suffrage.NONVOTER if non_voter else Suffrage.VOTER, server_id, address)
