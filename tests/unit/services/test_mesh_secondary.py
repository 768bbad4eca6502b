"""The CA of a secondary: the primary's roots, and an intermediate of its own.

What it signs is judged by OpenSSL, with the clock of today: the state's clock follows it here.
"""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from authority_support import Datacenter, accepted, made_primary, made_secondary, run
from msgspec.structs import replace

from proconsul.domain import connect as ca
from proconsul.domain.options import DCSpecificRequest
from proconsul.mesh.certificates import facts_of
from proconsul.services.server.ca_provider import CaError
from proconsul.testing.waiting import until
from proconsul.util.errors import ProconsulError

HOUR_NS = 3_600_000_000_000


def test_a_secondarys_leaves_verify_by_the_primarys_root() -> None:
    async def test() -> None:
        primary = await made_primary()
        secondary = await made_secondary(primary)
        assert secondary.root_ids == primary.root_ids
        leaf, key = await secondary.leaf()
        assert accepted(leaf, key, primary.roots_pem)
        root = secondary.ca.active_root()
        assert root.signing_key_id == facts_of(leaf.cert_pem).authority_key_id
        state = secondary.ca.provider().state
        assert state is not None
        assert root.intermediate_certs == [state.intermediate_cert]
        index = secondary.index
        await secondary.secondary_of(primary).adopt(await primary.roots(None))  # type: ignore[arg-type]
        assert secondary.index == index

    run(test())


def test_a_secondary_follows_a_rotation() -> None:
    async def test() -> None:
        primary = await made_primary()
        secondary = await made_secondary(primary)
        old_roots, (old_leaf, old_key) = primary.roots_pem, await secondary.leaf()
        await primary.rotate()
        await secondary.secondary_of(primary).adopt(await primary.roots(None))  # type: ignore[arg-type]
        leaf, key = await secondary.leaf()
        assert accepted(leaf, key, old_roots)
        assert accepted(leaf, key, primary.ca.active_root().root_cert)
        assert accepted(old_leaf, old_key, secondary.roots_pem)
        assert sorted(secondary.root_ids) == sorted(primary.root_ids)
        late = await made_secondary(primary)
        assert sorted(late.root_ids) == sorted(primary.root_ids), "old leaves are about still"

    run(test())


def test_settings_with_a_key_that_is_none_are_refused() -> None:
    async def test() -> None:
        secondary = await made_secondary(await made_primary())
        old = secondary.ca.config
        assert old is not None
        settings = {**(old.config or {}), "PrivateKey": "no key"}
        with pytest.raises(CaError, match="private key cannot be read"):
            await secondary.ca.update_configuration(replace(old, config=settings))
        assert secondary.ca.config == old

    run(test())


def test_a_refused_intermediate_does_not_keep_the_roots_away() -> None:
    async def test() -> None:
        primary = await made_primary()
        primary.refusal = ProconsulError("Permission denied")
        secondary = Datacenter("dc2", is_primary=False)
        secondary.now_ns = primary.now_ns
        following = secondary.secondary_of(primary)
        with pytest.raises(ProconsulError, match=r"refused to sign .* Permission denied"):
            await following.adopt(await primary.roots(None))  # type: ignore[arg-type]
        assert secondary.root_ids == primary.root_ids
        with pytest.raises(ProconsulError, match="provider not initialized"):
            await secondary.leaf()
        primary.refusal = None
        await following.adopt(await primary.roots(None))  # type: ignore[arg-type]
        leaf, key = await secondary.leaf()
        assert accepted(leaf, key, primary.roots_pem)

    run(test())


def test_an_intermediate_is_renewed_at_half_of_its_life() -> None:
    async def test() -> None:
        primary = await made_primary(IntermediateCertTTL="240h")
        secondary = await made_secondary(primary)
        following = secondary.secondary_of(primary)
        before = secondary.ca.provider().signing_pem
        assert 0 < await following.renew() <= 3600
        for datacenter in (primary, secondary):
            datacenter.now_ns += 120 * HOUR_NS
        await following.renew()
        after = secondary.ca.provider().signing_pem
        assert after != before
        assert secondary.ca.active_root().intermediate_certs == [after]

    run(test())


def test_a_secondary_follows_by_itself() -> None:
    """Through failures, without asking in a hurry, and never back to roots of before."""
    calls: list[int] = []

    async def test() -> None:
        primary = await made_primary()
        secondary = Datacenter("dc2", is_primary=False)
        secondary.now_ns = primary.now_ns
        following = secondary.secondary_of(primary)
        changed = asyncio.Event()

        async def roots(request: DCSpecificRequest) -> ca.IndexedCARoots:
            calls.append(request.min_query_index)
            if len(calls) == 1:
                raise ProconsulError("No path to datacenter")
            if len(calls) == 2:
                return ca.IndexedCARoots(index=1)
            if (await primary.roots(request)).index <= request.min_query_index:
                await changed.wait()
                changed.clear()
            return await primary.roots(request)

        following._primary = dataclasses.replace(following._primary, roots=roots)
        old = await primary.roots(DCSpecificRequest())
        tasks = [
            asyncio.create_task(loop()) for loop in (following.follow, following.renew_forever)
        ]
        await until(lambda: bool(secondary.root_ids) and bool(secondary.ca.provider().state))
        assert calls[-1] or len(calls) == 3
        await primary.rotate()
        changed.set()
        await until(lambda: secondary.ca.active_root().id == primary.ca.active_root().id)
        await following.adopt(old)
        assert secondary.ca.active_root().id == primary.ca.active_root().id
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run(test())


def test_until_the_primary_has_signed_the_old_key_goes_on() -> None:
    """And a refusal is not the end: the request comes again."""

    async def test() -> None:
        primary = await made_primary()
        secondary = await made_secondary(primary)
        old_roots, before = primary.roots_pem, secondary.ca.provider().state
        await primary.rotate()
        primary.refusal = ProconsulError("Permission denied")
        following = asyncio.create_task(secondary.secondary_of(primary).follow())
        await until(lambda: len(secondary.root_ids) == 2)
        assert secondary.ca.provider().state == before
        leaf, key = await secondary.leaf()
        assert accepted(leaf, key, old_roots)
        assert facts_of(leaf.cert_pem).authority_key_id == secondary.ca.active_root().signing_key_id
        primary.refusal = None
        await until(lambda: secondary.ca.provider().state != before)
        following.cancel()
        leaf, key = await secondary.leaf()
        assert accepted(leaf, key, primary.ca.active_root().root_cert)

    run(test())
