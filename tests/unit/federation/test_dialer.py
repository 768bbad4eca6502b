"""The race through gateways, with made-up connections and real ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from federation_support import (
    SniGateway,
    TestServer,
    closed_port,
    contexts,
    gateway_node,
    run,
    soon,
)

from proconsul.drivers.stream import MemoryStream, Stream, memory_pair
from proconsul.drivers.tls_errors import TlsNameError
from proconsul.federation import dialer as dialer_module
from proconsul.federation.dialer import FederationDialer
from proconsul.federation.gateway_connect import GatewayConnect, GatewayTraffic
from proconsul.federation.locator import GatewayLocator
from proconsul.rpc.dialer import Destination, Hop, HopError, Purpose
from proconsul.testing.certs import TestAuthority
from proconsul.testing.waiting import until
from proconsul.util.metrics import Metrics

TO = Destination("dc2", "s1", ("10.0.0.1", 8300))
A, B, C = (("10.1.0.1", 1), ("10.1.0.2", 1), ("10.1.0.3", 1))
Address = tuple[str, int]


class Direct:
    """The way at home."""

    def __init__(self) -> None:
        self.dialled: list[Destination] = []

    async def dial(self, to: Destination, purpose: Purpose, deadline: float) -> Stream:
        self.dialled.append(to)
        return memory_pair()[0]


class InOrder(random.Random):
    """Leaves lists as they are."""

    def shuffle(self, x: object) -> None:  # type: ignore[override]
        del x


class Net:
    """What happens at each gateway."""

    def __init__(self, **behaviour: Callable[[], Awaitable[Stream]]) -> None:
        self.behaviour = behaviour
        self.tried: list[Address] = []
        self.asked: list[tuple[str, str]] = []
        self.cancelled: list[Address] = []

    async def connect(self, gateway: Address, name: str, alpn: str, deadline: float) -> Stream:
        self.tried.append(gateway)
        self.asked.append((name, alpn))
        try:
            return await self.behaviour[f"g{gateway[0][-1]}"]()
        except asyncio.CancelledError:
            self.cancelled.append(gateway)
            raise


def make(net: Net, *gateways: Address) -> tuple[FederationDialer, GatewayLocator, Direct]:
    locator = GatewayLocator("dc1", "dc1", InOrder())
    locator.update([], [gateway_node(g, node=g[0]) for g in gateways])
    direct = Direct()
    made = FederationDialer("dc1", "consul.", direct, locator, net.connect, Metrics())
    return made, locator, direct


def works(stream: Stream) -> Callable[[], Awaitable[Stream]]:
    async def act() -> Stream:
        return stream

    return act


def fails(hop: Hop, reason: str = "no") -> Callable[[], Awaitable[Stream]]:
    async def act() -> Stream:
        raise HopError(hop, "", reason)

    return act


async def swallows() -> Stream:
    await asyncio.Event().wait()
    raise AssertionError


def is_closed(stream: MemoryStream) -> bool:
    try:
        stream.write_nowait(b"x")
    except Exception:  # noqa: BLE001 - whatever says so
        return True
    return False


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialer_module, "HEAD_START_S", 0.02)


def test_our_own_datacenter_is_dialled_directly() -> None:
    async def main() -> None:
        net = Net()
        dialer, _, direct = make(net, A)
        to = Destination("dc1", "s2", ("10.0.0.2", 8300))
        await dialer.dial(to, Purpose.RPC_MULTI, soon())
        assert direct.dialled == [to]
        assert net.tried == []

    run(main)


def test_names_and_protocol_are_those_of_the_destination() -> None:
    async def main() -> None:
        stream = memory_pair()[0]
        net = Net(g1=works(stream))
        dialer, _, _ = make(net, A)
        assert await dialer.dial(TO, Purpose.WAN_GOSSIP_PACKET, soon()) is stream
        any_server = Destination("dc2", "*", ("192.0.2.2", 8302))
        await dialer.dial(any_server, Purpose.RPC_MULTI, soon())
        assert net.asked == [
            ("s1.server.dc2.consul", "consul/wan-gossip/packet"),
            ("server.dc2.consul", "consul/rpc-multi"),
        ]

    run(main)


def test_without_gateways_the_hop_says_why() -> None:
    async def main() -> None:
        dialer, _, _ = make(Net())
        with pytest.raises(HopError, match="mesh gateway") as caught:
            await dialer.dial(TO, Purpose.RPC_MULTI, soon())
        assert caught.value.hop is Hop.NO_GATEWAY
        assert caught.value.datacenter == "dc2"

    run(main)


def test_a_refusal_moves_on_at_once_and_is_remembered() -> None:
    async def main() -> None:
        stream = memory_pair()[0]
        net = Net(g1=fails(Hop.DIAL), g2=works(stream))
        dialer, locator, _ = make(net, A, B)
        now = asyncio.get_running_loop().time
        assert await dialer.dial(TO, Purpose.RPC_MULTI, soon()) is stream
        gateways = locator.candidates("dc2", now())
        assert [g.address for g in gateways] == [B, A]
        assert locator.is_failed(gateways[1], "dc2", now())
        net.behaviour["g1"] = works(memory_pair()[0])
        net.behaviour["g2"] = fails(Hop.DIAL)
        await dialer.dial(TO, Purpose.RPC_MULTI, soon())
        assert not locator.is_failed(gateways[1], "dc2", now()), "it worked again"

    run(main)


def test_a_blackhole_costs_a_head_start_and_is_abandoned() -> None:
    async def main() -> None:
        stream = memory_pair()[0]
        net = Net(g1=swallows, g2=works(stream))
        dialer, locator, _ = make(net, A, B)
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await dialer.dial(TO, Purpose.RPC_MULTI, soon()) is stream
        assert loop.time() - started < 1.0
        assert net.cancelled == [A]
        assert [g.address for g in locator.candidates("dc2", loop.time())] == [B, A], "tried last"
        assert await dialer.dial(TO, Purpose.RPC_MULTI, soon()) is stream
        assert net.tried == [A, B, B]

    run(main)


def test_the_slow_one_may_still_win() -> None:
    async def main() -> None:
        stream = memory_pair()[0]
        proceed = asyncio.Event()

        async def slow() -> Stream:
            await proceed.wait()
            return stream

        async def second() -> Stream:
            proceed.set()
            return await swallows()

        net = Net(g1=slow, g2=second)
        dialer, _, _ = make(net, A, B)
        assert await dialer.dial(TO, Purpose.RPC_MULTI, soon()) is stream
        assert net.tried == [A, B]

    run(main)


def test_when_two_win_at_once_one_is_closed() -> None:
    async def main() -> None:
        streams = [memory_pair()[0], memory_pair()[0]]
        together = asyncio.Event()

        async def first() -> Stream:
            await together.wait()
            return streams[0]

        async def second() -> Stream:
            together.set()
            await asyncio.sleep(0)
            return streams[1]

        net = Net(g1=first, g2=second)
        dialer, _, _ = make(net, A, B)
        winner = await dialer.dial(TO, Purpose.RPC_MULTI, soon())
        loser = next(s for s in streams if s is not winner)
        await until(lambda: is_closed(loser) or len(net.cancelled) == 1)
        assert not is_closed(winner)  # type: ignore[arg-type]

    run(main)


def test_a_cancelled_dial_leaves_nothing_behind() -> None:
    async def main() -> None:
        net = Net(g1=swallows, g2=swallows)
        dialer, locator, _ = make(net, A, B)
        task = asyncio.create_task(dialer.dial(TO, Purpose.RPC_MULTI, soon()))
        await until(lambda: len(net.tried) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(net.cancelled) == [A, B]
        now = asyncio.get_running_loop().time()
        assert not any(locator.is_failed(g, "dc2", now) for g in locator.known("dc2"))

    run(main)


def test_the_failure_that_got_furthest_is_told_with_all_others() -> None:
    async def main() -> None:
        net = Net(g1=fails(Hop.DIAL, "refused"), g2=fails(Hop.TLS, "bad"), g3=fails(Hop.SNI, "eof"))
        dialer, _, _ = make(net, A, B, C)
        with pytest.raises(HopError) as caught:
            await dialer.dial(TO, Purpose.RPC_MULTI, soon())
        error = caught.value
        assert (error.hop, error.gateway) == (Hop.TLS, "10.1.0.2:1")
        assert "10.1.0.1:1: dial: refused" in str(error)
        assert "10.1.0.3:1: SNI: eof" in str(error)
        assert isinstance(error.__cause__, HopError)

    run(main)


# -- one connection through one real gateway -----------------------------------------------------


def test_hops_of_real_connections(tmp_path: Path) -> None:
    async def main() -> None:
        authority = TestAuthority(tmp_path)
        tls = contexts(authority.server("s1", "dc1"))
        traffic = GatewayTraffic()
        connect = GatewayConnect(tls, traffic)
        gateway = SniGateway()
        alpn = Purpose.RPC_MULTI.alpn

        async def hop(address: Address, name: str, protocol: str = alpn) -> HopError:
            with pytest.raises(HopError) as caught:
                await connect(address, name, protocol, soon())
            return caught.value

        server = TestServer(contexts(authority.issue("x", ("server.dc2.consul",))))
        async with server.listening() as at, gateway.listening() as via:
            gateway.routes = {"server.dc2.consul": at, "s1.server.dc2.consul": at}
            stream = await connect(via, "server.dc2.consul", alpn, soon())
            assert stream.peer.alpn == alpn
            assert traffic.connections == 1
            stream.abort()
            await until(lambda: traffic.connections == 0)
            assert traffic.sent > 300
            assert traffic.received > 300
            assert (await hop(closed_port(), "server.dc2.consul")).hop is Hop.DIAL
            error = await hop(via, "server.dc9.consul")
            assert error.hop is Hop.SNI
            assert "does not route" in error.reason
            error = await hop(via, "s1.server.dc2.consul")
            assert error.hop is Hop.TLS
            assert isinstance(error.__cause__, TlsNameError)
            assert error.__cause__.offered == ("server.dc2.consul",)
            assert (await hop(via, "server.dc2.consul", "h2")).hop is Hop.ALPN
            assert (await hop(via, "x" * 70 + ".server.dc2.consul")).hop is Hop.SNI
            assert (await hop(via, "a..server.dc2.consul")).hop is Hop.SNI
            await until(lambda: traffic.connections == 0)

    run(main)
