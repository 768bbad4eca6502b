"""pytest plugin: worlds of agents as context managers and fixtures.

pytest_plugins = ("proconsul.testing.worlds",)

@pytest.fixture(scope="module")
def world(worlds):
    with worlds(world_spec(3)) as world:
        yield world
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.network import Network
from proconsul.app.worlds.programs import Programs
from proconsul.app.worlds.spec import Software, WorldSpec
from proconsul.app.worlds.world import World
from proconsul.testing import peers

_FAULTS = re.compile(
    r"Traceback \(most recent|Exception in callback|was never retrieved"
    r"|\('[0-9a-f.:]+', \d+\)"  # an address that nobody wrote as host:port
)

Worlds = Callable[..., AbstractContextManager[World]]
"""`worlds(spec, network=None)`: a world that runs, in namespaces unless told otherwise."""


@contextlib.contextmanager
def running_world(spec: WorldSpec, network: Network | None = None) -> Iterator[World]:
    """A started world; when the block fails, the ends of its logs go to standard error."""
    if network is None:
        peers.namespaces()
        network = NetnsNetwork()
    real = any(d.software is Software.CONSUL for d in spec.datacenters)
    gateways = any(d.gateways for d in spec.datacenters)
    programs = Programs(
        consul=peers.consul() if real else "", envoy=peers.envoy() if gateways else ""
    )
    with World(spec, network, programs) as world:
        try:
            world.start()
            yield world
        except Exception:
            show_logs(world)
            raise
        faults = list(internal_faults(world))
        assert not faults, "faults of ours in the agents' logs:\n" + "\n".join(faults)


def internal_faults(world: World) -> Iterator[str]:
    """Lines that only a fault of the program itself writes: whatever a world goes through, none."""
    for process in world.processes():
        if not process.log.exists():
            continue
        for line in process.log.read_text(errors="replace").splitlines():
            if _FAULTS.search(line):
                yield f"{process.name}: {line}"


def show_logs(world: World, lines: int = 40) -> None:
    """What the world's programs said last, on standard error."""
    for process in world.processes():
        state = "runs" if process.running else "has ended"
        sys.stderr.write(f"\n--- {process.name} ({state}): {process.log}\n{process.tail(lines)}\n")
    with contextlib.suppress(Exception):
        sys.stderr.write("\n".join(world.network.evidence().lines) + "\n")


@pytest.fixture(scope="session")
def worlds() -> Worlds:
    """See `running_world`."""
    return running_world


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test of a shared world shows that world's logs."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and report.failed:
        for value in getattr(item, "funcargs", {}).values():
            several = getattr(value, "worlds", None)
            for world in several.values() if isinstance(several, dict) else [value]:
                if isinstance(world, World):
                    text = "\n".join(f"--- {p.name}\n{p.tail(40)}" for p in world.processes())
                    report.sections.append(("the world's logs", text))
