"""What may be written as a node to join."""

from __future__ import annotations

import asyncio

import pytest

from proconsul.drivers.gossip.targets import Target, TargetError, parse_target, resolve


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("10.0.0.1", Target("", "10.0.0.1", 8301)),
        ("10.0.0.1:99", Target("", "10.0.0.1", 99)),
        ("node.dc1/10.0.0.1:99", Target("node.dc1", "10.0.0.1", 99)),
        ("*.dc1/192.0.2.2", Target("*.dc1", "192.0.2.2", 8301)),
        ("[::1]:99", Target("", "::1", 99)),
        ("[::1]", Target("", "::1", 8301)),
        ("fd00::1", Target("", "fd00::1", 8301)),
        ("n/[fd00::1]:5", Target("n", "fd00::1", 5)),
        ("consul.example:5", Target("", "consul.example", 5)),
    ],
)
def test_forms(text: str, target: Target):
    assert parse_target(text, 8301) == target


@pytest.mark.parametrize("text", ["", "/1.2.3.4", "a/", "1.2.3.4:x", "1.2.3.4:0", "[::1", "[::1]5"])
def test_nonsense_is_refused_by_name(text: str):
    with pytest.raises(TargetError, match="''" if not text else None):
        parse_target(text, 8301)


def test_literals_and_names_resolve():
    async def scenario() -> None:
        assert await resolve(Target("", "0:0::1", 5)) == [("::1", 5)]
        found = await resolve(Target("", "localhost", 5))
        assert set(found) <= {("127.0.0.1", 5), ("::1", 5)}
        assert found
        with pytest.raises(TargetError, match="lookup"):
            await resolve(Target("", "no such host", 5))

    asyncio.run(scenario())
