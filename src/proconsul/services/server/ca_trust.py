"""With `auto_encrypt.allow_tls` servers take certificates of the mesh's CA from agents, too.

After `trackAutoEncryptCARoots` of agent/consul/server.go.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging

from proconsul.drivers.tls_config import TlsContexts
from proconsul.state.store import Store
from proconsul.util.errors import ConfigError

log = logging.getLogger("proconsul.server")


async def trust_mesh_roots(store: Store, tls: TlsContexts) -> None:
    """Keep the agents' trust in step with the state, for ever."""
    while True:
        changed = asyncio.Event()
        _, roots, watch = store.connect.roots()
        pems = tuple(root.root_cert for root in roots)
        if pems != tls.auto.ca_pems:
            try:
                tls.update_auto(dataclasses.replace(tls.auto, ca_pems=pems))
            except ConfigError as error:
                log.error("roots of the mesh CA cannot be trusted for AutoEncrypt: %s", error)
        watch.add(changed.set)
        try:
            await changed.wait()
        finally:
            watch.cancel(changed.set)
