"""The same questions over DNS to a real agent and to ours, both with the same catalog."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_support import OURS, THEIRS, Agents, needs_consul, ready, until
from dns_questions import DRAWN, EXACT, RAW, catalog
from dns_support import counted, exchange, plain, recursor

pytestmark = needs_consul


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    agents = Agents(tmp_path_factory.mktemp("dns"))
    with recursor() as where:
        try:
            yield _started(agents, where)
        finally:
            agents.close()


def _started(agents: Agents, where: str) -> list[Any]:
    settings = {
        "ports": {"dns": 8600},
        "recursors": [where],
        "alt_domain": "test.other",
        "dns_config": {
            "node_ttl": "10s",
            "enable_truncate": True,
            "service_ttl": {"ttl-*": "5s", "ttl-one": "7s", "web": "3s"},
            "soa": {"min_ttl": 2, "refresh": 33},
        },
    }
    pair = [agents.make(OURS, "ours", **settings), agents.make(THEIRS, "theirs", **settings)]
    for agent in pair:
        agent.config["node_name"] = "vm"
        del agent.config["data_dir"]
        agent.start("-dev")
    for agent in pair:
        ready(agent)
        for row in catalog():
            assert agent.put("/v1/catalog/register", row) is True
        until(lambda agent=agent: "serfHealth" in json.dumps(agent.get("/v1/health/node/vm")))
    return pair


def test_answers_are_those_of_consul(pair: list[Any]) -> None:
    different = []
    for ask in EXACT:
        ours, theirs = (
            plain(exchange(agent.address, ask.packed(), tcp=ask.tcp), agent.address)
            for agent in pair
        )
        if ours != theirs:
            keys = [key for key in ours if ours[key] != theirs[key]]
            different.append((ask, {k: (ours[k], theirs[k]) for k in keys}))
    assert not different, "\n".join(map(str, different))
    assert len(EXACT) > 150


def test_answers_that_are_drawn_are_cut_as_consul_cuts_them(pair: list[Any]) -> None:
    different = []
    for ask in DRAWN:
        # Names differ in length, and so does what fits: the fewest and the most of a few draws
        ours, theirs = (
            [counted(exchange(agent.address, ask.packed(), tcp=ask.tcp)) for _ in range(8)]
            for agent in pair
        )
        if not any(one in theirs for one in ours):
            different.append((ask, ours[0], theirs[0]))
    assert not different, "\n".join(map(str, different))


def test_messages_that_are_no_questions(pair: list[Any], tmp_path: Path) -> None:
    different = []
    for text in RAW:
        message = bytes.fromhex(text.replace(" ", ""))
        answers = []
        for agent in pair:
            try:
                answers.append(_briefly(agent.address, message))
            except TimeoutError:
                answers.append(b"silence")
        if answers[0] != answers[1]:
            different.append((text, *(one.hex() for one in answers)))
    assert not different, "\n".join(map(str, different))


def _briefly(address: str, message: bytes) -> bytes:
    """The answer without a SOA's serial number, as that is the time."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.3)
        sock.connect((address, 8600))
        sock.send(message)
        return sock.recv(65535)[:12]
