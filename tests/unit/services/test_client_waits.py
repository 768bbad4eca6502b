"""A client that has just started knows no server: calls wait for one instead of failing at once."""

from __future__ import annotations

import asyncio

import pytest
from server_support import LOOPBACK, client, server_config

from proconsul.domain import errors
from proconsul.domain.options import DCSpecificRequest
from proconsul.services.server.server import Server
from proconsul.util.metrics import Metrics


def test_a_call_waits_until_a_server_is_found() -> None:
    async def main() -> None:
        server = Server(server_config("s1"), Metrics())
        asking = client("c1", rpc_hold_s=10.0)
        try:
            await server.start()
            await asking.start()
            early = asyncio.ensure_future(
                asking.call("Catalog.ListNodes", DCSpecificRequest(datacenter="dc1"))
            )
            await asyncio.sleep(0)
            assert not early.done()
            await asking.lan.join([f"{LOOPBACK}:{server.lan.local().address[1]}"])
            answer = await early
            assert answer.index
        finally:
            await asking.aclose()
            await server.aclose()

    asyncio.run(main())


def test_without_a_server_the_call_ends_in_consuls_words() -> None:
    async def main() -> None:
        asking = client("c1", rpc_hold_s=0.1)
        try:
            await asking.start()
            with pytest.raises(errors.NoServersError, match=r"^No known Consul servers$"):
                await asking.call("Catalog.ListNodes", DCSpecificRequest(datacenter="dc1"))
        finally:
            await asking.aclose()

    asyncio.run(main())
