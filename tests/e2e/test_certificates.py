"""Servers with wrong certificates are refused, and `federation status` names the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from e2e_support import measured, nothing_exchanged, proven, status_command, status_row

from proconsul.app.worlds import proof
from proconsul.app.worlds.spec import world_spec
from proconsul.app.worlds.waiting import Missing
from proconsul.app.worlds.world import World
from proconsul.drivers import certs
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]


@pytest.fixture(scope="module")
def world(worlds: Worlds) -> Iterator[World]:
    with worlds(world_spec(2)) as world:
        proven("whole", proof.whole, world)
        proof.isolated(world)
        yield world
        nothing_exchanged(world)


def _pair(world: World, what: str) -> certs.KeyPair:
    server, ca = certs.Role.SERVER, world.pki.authority
    match what:
        case "wrong CA":
            return certs.create_certificate(
                certs.create_ca(), server, datacenter="dc2", node="dc2-s1"
            )
        case "wrong SAN":
            return certs.create_certificate(ca, server, datacenter="dc7", node="dc7-s1")
        case "expired":
            past = datetime.now(UTC) - timedelta(days=3)
            return certs.create_certificate(
                ca, server, datacenter="dc2", node="dc2-s1", days=1, now=past
            )
        case "not yet valid":
            future = datetime.now(UTC) + timedelta(days=3)
            return certs.create_certificate(
                ca, server, datacenter="dc2", node="dc2-s1", days=1, now=future
            )
        case "no -node":
            return certs.create_certificate(ca, server, datacenter="dc2")
        case _:
            return certs.create_certificate(ca, server, datacenter="dc2", node="dc2-s1")


@pytest.mark.parametrize(
    ("what", "cause", "words"),
    [
        ("wrong CA", "certificate-of-unknown-authority", "ca_file"),
        ("wrong SAN", "certificate-lacks-name", "server.dc7.consul"),
        ("expired", "certificate-expired", "expired"),
        ("not yet valid", "certificate-not-yet-valid", "clocks"),
        ("no -node", "certificate-lacks-name", "dc2-s1.server.dc2.consul"),
    ],
)
def test_refused_with_the_reason(world: World, what: str, cause: str, words: str) -> None:
    here, there = world.host("dc1-s1"), world.host("dc2-s1")
    world.agent(there).kill()
    world.pki.replace(there, _pair(world, what))
    world.start_agent(there)
    key = f"refused/{what.replace(' ', '-')}"
    world.api(here).kv_put(key, "x")

    def named() -> str:
        code, text = status_command(world, here, "-json")
        if code != 1:
            raise Missing(f"exit status {code}: {text[:300]}")
        row = status_row(json.loads(text), "dc2")
        failures = [row, *row["Servers"], *row["Gateways"]]
        if cause not in {failure.get("Cause") for failure in failures}:
            raise Missing(f"causes: {[(f.get('Hop'), f.get('Cause')) for f in failures]}")
        return text

    text = measured(f"{what}: named by federation status", named)
    assert words in text
    row = status_row(json.loads(text), "dc2")
    assert not row["Reachable"] or any(not server["Reachable"] for server in row["Servers"])
    code, shown = status_command(world, here)
    assert code == 1
    assert cause in shown, shown
    assert "what to do" in shown
    if what in {"wrong CA", "expired", "not yet valid"}:
        # Its own calls are refused, too: clients are judged by CA and time, not by name
        status, _, _ = world.api(there, 15.0).request("GET", f"/v1/kv/{key}?dc=dc1")
        assert status == 500


def test_whole_again_with_a_right_certificate(world: World) -> None:
    there = world.host("dc2-s1")
    world.agent(there).kill()
    world.pki.replace(there, _pair(world, "right"))
    world.start_agent(there)
    proven("whole with a right certificate", proof.whole, world)
    code, shown = status_command(world, world.host("dc1-s1"))
    assert code == 0, shown
