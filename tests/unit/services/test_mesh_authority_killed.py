"""What is left of the mesh's CA when its leader is killed, or nobody waits any more, at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest
from authority_support import (
    CLUSTER,
    Datacenter,
    accepted,
    made_primary,
    run,
)
from msgspec.structs import replace

from proconsul.core.raft.types import LeadershipLost
from proconsul.domain import connect as ca
from proconsul.domain.messages import MessageType
from proconsul.domain.options import DCSpecificRequest
from proconsul.drivers.mesh_keys import generate
from proconsul.mesh.certificates import key_pem_of
from proconsul.services.server.ca import CertificateAuthority
from proconsul.services.server.ca_signing import LeafSigner
from proconsul.util.errors import ProconsulError


@pytest.mark.parametrize("gone", [asyncio.CancelledError, TimeoutError, LeadershipLost])
def test_whoever_does_not_wait_for_a_rotation_takes_no_key_along(
    gone: type[BaseException],
) -> None:
    """The command with the new root is in the log by then, and applied later."""

    async def test() -> None:
        primary = await made_primary()
        apply, pending = primary.apply, list[tuple[MessageType, Any]]()

        async def left(type_: MessageType, request: Any, *, may_ignore: bool = False) -> Any:
            if request.op == ca.CA_SET_ROOTS_AND_CONFIG or pending:
                pending.append((type_, request))
                if len(pending) == 1:
                    raise gone
                return True
            return await apply(type_, request, may_ignore=may_ignore)

        primary.apply = left  # type: ignore[method-assign]
        with pytest.raises(gone):
            await primary.rotate()
        primary.apply = apply  # type: ignore[method-assign]
        for type_, request in pending:
            await apply(type_, request)
        assert len(primary.root_ids) == 2
        leaf, key = await primary.leaf()
        assert accepted(leaf, key, primary.ca.active_root().root_cert)
        await primary.ca.initialize_primary()

    run(test())


def test_roots_that_came_though_their_settings_were_refused_keep_their_key() -> None:
    async def test() -> None:
        primary = await made_primary()
        apply = primary.apply

        async def refuses(type_: MessageType, request: Any, *, may_ignore: bool = False) -> Any:
            if request.op == ca.CA_SET_ROOTS_AND_CONFIG:
                request = replace(request, config=replace(request.config, modify_index=99))
            return await apply(type_, request, may_ignore=may_ignore)

        primary.apply = refuses  # type: ignore[method-assign]
        with pytest.raises(ProconsulError, match="could not atomically update"):
            await primary.rotate()
        active = primary.ca.active_root()
        assert primary.store.connect.signing_state(active) is not None

    run(test())


def test_a_root_that_was_in_force_before_comes_back_once() -> None:
    async def test() -> None:
        primary = await made_primary()
        first, key = primary.ca.active_root().id, key_pem_of(generate())
        before = primary.ca.provider().state
        assert before is not None
        await primary.rotate(PrivateKey=key)
        await primary.ca.provider().save(before)  # as if killed before it was deleted
        await primary.rotate(LeafCertTTL="24h")
        assert primary.ca.active_root().id == first
        assert len(primary.root_ids) == 2

    run(test())


class _KilledError(Exception):
    """The process is no more."""


def _dies_after(datacenter: Datacenter, commands: int) -> None:
    apply, left = datacenter.apply, iter(range(commands))

    async def mortal(type_: MessageType, request: Any, *, may_ignore: bool = False) -> Any:
        if next(left, None) is None:
            raise _KilledError
        return await apply(type_, request, may_ignore=may_ignore)

    datacenter.apply = mortal  # type: ignore[method-assign]


async def _next_leader(datacenter: Datacenter) -> None:
    """Another server with the same state takes over."""
    vars(datacenter).pop("apply", None)
    datacenter.ca = CertificateAuthority(
        datacenter, is_primary=datacenter.ca.is_primary, initial={"ClusterID": CLUSTER}
    )
    datacenter.signer = LeafSigner(datacenter.ca, datacenter.datacenter, "consul")


@pytest.mark.parametrize("commands", range(8))
def test_the_next_leader_goes_on_wherever_the_last_one_was_killed(commands: int) -> None:
    async def test() -> None:
        new = Datacenter("dc1", ClusterID=CLUSTER)
        new.now_ns = time.time_ns()
        _dies_after(new, commands)
        with contextlib.suppress(_KilledError):
            await new.ca.initialize_primary()
        await _next_leader(new)
        await new.ca.initialize_primary()
        first = new.ca.active_root()
        key = key_pem_of(generate())
        _dies_after(new, commands)
        with contextlib.suppress(_KilledError):
            await new.rotate(PrivateKey=key)
        await _next_leader(new)
        await new.ca.initialize_primary()
        leaf, leaf_key = await new.leaf()
        assert accepted(leaf, leaf_key, new.ca.active_root().root_cert)
        await new.rotate(PrivateKey=key)
        assert new.root_ids == sorted({first.id, new.ca.active_root().id})
        assert new.ca.active_root().id != first.id
        leaf, leaf_key = await new.leaf()
        for trusted in (first.root_cert, new.ca.active_root().root_cert):
            assert accepted(leaf, leaf_key, trusted)

    run(test())


@pytest.mark.parametrize("commands", range(6))
def test_a_secondarys_next_leader_goes_on_wherever_the_last_one_was_killed(commands: int) -> None:
    async def test() -> None:
        primary = await made_primary()
        secondary = Datacenter("dc2", is_primary=False)
        secondary.now_ns = primary.now_ns
        for rotated in (False, True):
            if rotated:
                await primary.rotate()
            _dies_after(secondary, commands)
            with contextlib.suppress(_KilledError):
                await secondary.secondary_of(primary).adopt(
                    await primary.roots(DCSpecificRequest())
                )
            await _next_leader(secondary)
            await secondary.secondary_of(primary).adopt(await primary.roots(DCSpecificRequest()))
            leaf, key = await secondary.leaf()
            assert accepted(leaf, key, primary.ca.active_root().root_cert)
            active = secondary.ca.active_root()
            assert active.id == primary.ca.active_root().id
            assert len([one for one in active.intermediate_certs or () if one]) >= 1

    run(test())
