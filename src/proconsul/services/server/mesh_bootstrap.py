"""The config entries that a new primary datacenter begins with (`config_entries.bootstrap`)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from proconsul.domain.config_entries import UPSERT_CAS
from proconsul.domain.config_entry_messages import ConfigEntryRequest
from proconsul.domain.messages import MessageType

if TYPE_CHECKING:
    from proconsul.services.server.server import Server

log = logging.getLogger("proconsul.server.central_config")


async def bootstrap_config_entries(server: Server) -> None:
    """Write those that do not exist yet; only the primary's leader does. Raises `ProconsulError`."""
    if not server.config.identity.is_primary:
        return
    for entry in server.config.config_entries:
        if server.store.mesh.config_entry(entry.kind, entry.name).value is not None:
            continue
        request = ConfigEntryRequest(UPSERT_CAS, server.datacenter, replace(entry, modify_index=0))
        if await server.apply(MessageType.CONFIG_ENTRY, request) is True:
            log.info("bootstrapped config entry: kind=%s name=%s", entry.kind, entry.name)
