"""Whatever is registered, in whatever order and however often the catalog refuses: in the end the
catalog has what the agent has."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from proconsul.domain import catalog as c
from proconsul.services.agent import anti_entropy
from proconsul.services.agent.anti_entropy import AntiEntropy
from proconsul.services.agent.local import LocalState, LocalStateError

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "services"))

from services_support import NODE, FakeCatalog, RefusedError, denied

SERVICES, CHECKS = ("a", "b", "c"), ("x", "y", "z")
STATES = (c.PASSING, c.WARNING, c.CRITICAL)

_service = st.sampled_from(SERVICES)
_check = st.sampled_from(CHECKS)
STEPS = st.one_of(
    st.tuples(st.just("add service"), _service, st.integers(0, 3)),
    st.tuples(st.just("remove service"), _service),
    st.tuples(st.just("add check"), _check, st.sampled_from(("", *SERVICES))),
    st.tuples(st.just("remove check"), _check),
    st.tuples(st.just("result"), _check, st.sampled_from(STATES), st.sampled_from(("", "out"))),
    st.tuples(st.just("foreign service"), st.sampled_from((*SERVICES, "stray"))),
    st.tuples(st.just("foreign check"), st.sampled_from((*CHECKS, "stray"))),
    st.tuples(st.just("lost service"), _service),
    st.tuples(st.just("lost check"), _check),
    st.tuples(st.just("refuse"), st.sampled_from((*SERVICES, *CHECKS)), st.booleans()),
    st.tuples(st.just("heal")),
    st.tuples(st.just("yield"), st.integers(1, 4)),
)


class _SlowCatalog(FakeCatalog):
    """Answers only after a turn of the loop, so that things happen while calls are under way."""

    async def call(self, method: str, request: object) -> object:
        await asyncio.sleep(0)
        result = await super().call(method, request)
        await asyncio.sleep(0)
        return result


def _apply(step: tuple, state: LocalState, catalog: FakeCatalog) -> None:
    match step:
        case ("add service", name, port):
            state.add_service(c.NodeService(id=name, service=name, port=port))
        case ("remove service", name):
            state.remove_service(name)
        case ("add check", name, owner):
            check = c.HealthCheck(check_id=name, name=name, service_id=owner, status=c.CRITICAL)
            state.add_check(check, now=0.0)
        case ("remove check", name):
            state.remove_check(name)
        case ("result", name, status, output):
            state.update_check(name, status, output, 0.0)
        case ("foreign service", name):
            catalog.services[name] = c.NodeService(id=name, service=name, port=99)
        case ("foreign check", name):
            catalog.checks[name] = c.HealthCheck(node=NODE.node, check_id=name, name="foreign")
        case ("lost service", name):
            catalog.services.pop(name, None)
            for check in [i for i, k in catalog.checks.items() if k.service_id == name]:
                del catalog.checks[check]
        case ("lost check", name):
            catalog.checks.pop(name, None)
        case ("refuse", name, by_acl):
            catalog.errors[name] = denied() if by_acl else RefusedError("refused")
        case ("heal",):
            catalog.errors.clear()


def _same(state: LocalState, catalog: FakeCatalog) -> bool:
    services = {i: replace(s, modify_index=0) for i, s in catalog.services.items()}
    return (
        services == state.services()
        and catalog.checks == state.checks()
        and catalog.node is not None
        and not any(e.deleted for e in state.service_entries().values())
        and not any(e.deleted for e in state.check_entries().values())
    )


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_the_catalog_converges_to_the_agents_state(steps: list[tuple]) -> None:
    async def run() -> None:
        state, catalog = LocalState(NODE.node, 0.0), _SlowCatalog()
        sync = AntiEntropy(NODE, state, catalog, random.Random(0), 1000.0)
        task = asyncio.get_running_loop().create_task(sync.run())
        try:
            for step in steps:
                if step[0] == "yield":
                    for _ in range(step[1]):
                        await asyncio.sleep(0)
                    continue
                with contextlib.suppress(LocalStateError):
                    _apply(step, state, catalog)
            catalog.errors.clear()
            sync.trigger_full()
            async with asyncio.timeout(5.0):
                while not _same(state, catalog):
                    await asyncio.sleep(0)
                    if task.done():
                        task.result()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anti_entropy, "RETRY_S_MIN", 0.001)
        asyncio.run(run())
