"""Following the roots of the mesh's CA through the agent's cache."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

from proconsul.domain.connect import IndexedCARoots
from proconsul.domain.options import DCSpecificRequest
from proconsul.federation.rate import Backoff
from proconsul.services.agent.cache import Cache
from proconsul.services.agent.cache_types import CA_ROOTS
from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.agent.connect")

QUERY_S = 60.0


async def mesh_roots(cache: Cache, datacenter: str) -> AsyncGenerator[IndexedCARoots, None]:
    """The roots, and whatever follows them; at least every `QUERY_S` seconds the same again.

    Errors are waited out, since the last roots stay good.
    """
    index, backoff = 0, Backoff()
    while True:
        request = DCSpecificRequest(
            datacenter=datacenter, min_query_index=index, max_query_time_ns=int(QUERY_S * 1e9)
        )
        try:
            roots, _ = await cache.get(CA_ROOTS, request)
        except (ProconsulError, TimeoutError) as error:
            index = 0
            log.debug("roots of the mesh CA cannot be fetched: %s", error)
            await backoff.wait()
            continue
        backoff.reset()
        index = max(roots.index, 1)
        yield roots
