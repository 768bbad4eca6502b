"""Real Consul agents, server and client, see our pool as a LAN member, and we see them."""

from __future__ import annotations

import contextlib
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from gossip_support import Ours, consul_binary, eventually, free_ports, process, run

from proconsul.core.gossip.serf import MemberStatus

pytestmark = pytest.mark.peer
ALIVE, FAILED, LEFT = MemberStatus.ALIVE, MemberStatus.FAILED, MemberStatus.LEFT
CLIENT_TAGS = {
    "role": "node",
    "dc": "dc1",
    "segment": "",
    "id": "11111111-2222-3333-4444-555555555555",
    "vsn": "2",
    "vsn_min": "2",
    "vsn_max": "3",
    "build": "1.8.7:",
    "acls": "0",
}


class ConsulAgent:
    """One real agent on an address of its own."""

    def __init__(self, name: str, host: str, directory: Path, **config: Any) -> None:
        self.name, self.host = name, host
        self.directory = directory / name
        self.directory.mkdir()
        http, serf, server, dns = free_ports(4)
        self.serf_port, self.http_port = serf, http
        self.config = {
            "node_name": name,
            "data_dir": str(self.directory / "data"),
            "bind_addr": host,
            "client_addr": "127.0.0.1",
            "disable_update_check": True,
            "log_level": "debug",
            "gossip_lan": {"probe_interval": "300ms", "probe_timeout": "200ms"},
            "ports": {
                "http": http, "serf_lan": serf, "serf_wan": -1, "server": server, "dns": dns,
                "grpc": -1,
            },
            **config,
        }  # fmt: skip

    @property
    def address(self) -> str:
        return f"{self.host}:{self.serf_port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Any]:
        file = self.directory / "config.json"
        file.write_text(json.dumps(self.config))
        log = self.directory / "log"
        command = (consul_binary(), "agent", f"-config-file={file}")
        async with process(*command, log=log) as child:
            await eventually(self.members, f"{self.name} answers")
            yield child

    async def cli(self, command: str, *arguments: str) -> str:
        http = f"-http-addr=127.0.0.1:{self.http_port}"
        return await run(consul_binary(), command, http, *arguments)

    async def members(self) -> dict[str, tuple[str, dict[str, str]]]:
        """Name -> (status, tags)."""
        try:
            listed = (await self.cli("members", "-detailed")).replace("=<default>", "=")
        except AssertionError:
            return {}
        rows = [line.split(maxsplit=3) for line in listed.splitlines()[1:]]
        return {
            name: (status, dict(tag.split("=", 1) for tag in tags.split(",")))
            for name, _address, status, tags in rows
        }

    async def sees(self, name: str, status: str) -> bool:
        return (await self.members()).get(name, ("",))[0] == status


@pytest.mark.parametrize("encrypted", [False, True])
def test_client_and_server_see_ours_alive_through_kill_rejoin_and_leave(
    tmp_path: Path, encrypted: bool
):
    key = bytes(range(32))
    extra = {"encrypt": b64encode(key).decode()} if encrypted else {}
    server = ConsulAgent("server", "127.0.0.1", tmp_path, server=True, bootstrap_expect=1, **extra)
    client = ConsulAgent(
        "client", "127.0.0.1", tmp_path, retry_join=[server.address], leave_on_terminate=True,
        **extra,
    )  # fmt: skip
    snapshot = tmp_path / "ours.snapshot"

    def make(port: int = 0) -> Ours:
        keys = (key,) if encrypted else ()
        return Ours("ours", tags=CLIENT_TAGS, keys=keys, snapshot=snapshot, port=port)

    async def scenario() -> None:
        ours = make()
        async with server.running(), client.running() as client_process, ours:
            assert await ours.pool.join([server.address]) == 1
            for agent in (server, client):
                await eventually(lambda a=agent: a.sees("ours", "alive"), f"{agent.name} sees us")
                assert (await agent.members())["ours"][1] == CLIENT_TAGS
                await eventually(lambda a=agent: ours.status(a.name) is ALIVE, "we see them")
            member = ours.pool.member("server")
            assert member is not None
            assert member.tags["role"] == "consul"
            assert (member.tags["dc"], member.tags["raft_vsn"]) == ("dc1", "3")

            # We die, come back by our snapshot; Consul has put us into its catalog as failing.
            port = ours.pool.local().address[1]
            await ours.pool.shutdown()
            await eventually(lambda: server.sees("ours", "failed"), "they see that we failed")
            async with make(port) as again:
                await eventually(lambda: server.sees("ours", "alive"), "we are back")
                await eventually(lambda: client.sees("ours", "alive"), "for the client too")

                # A client of theirs is killed, comes back by its own snapshot, then leaves.
                client_process.kill()
                await client_process.wait()
                await eventually(lambda: again.status("client") is FAILED, "their client failed")
                async with client.running():
                    await eventually(lambda: again.status("client") is ALIVE, "it is back")
                    await client.cli("leave")
                    await eventually(lambda: again.status("client") is LEFT, "it left")

                await again.pool.leave()
                await eventually(lambda: server.sees("ours", "left"), "we left")

    uvloop.run(scenario())


def test_they_join_us_and_a_wrong_datacenter_is_refused(tmp_path: Path):
    server = ConsulAgent("server", "127.0.0.1", tmp_path, server=True, bootstrap_expect=1)

    async def scenario() -> None:
        async with (
            server.running(),
            Ours("ours", tags=CLIENT_TAGS) as ours,
            Ours("stranger", tags=CLIENT_TAGS | {"dc": "dc9", "id": ""}) as stranger,
        ):
            await server.cli("join", ours.address)
            await eventually(lambda: server.sees("ours", "alive"), "they see us")
            await eventually(lambda: ours.status("server") is ALIVE, "we see them")
            with contextlib.suppress(Exception):
                await stranger.pool.join([server.address])
            assert "stranger" not in await server.members()

    uvloop.run(scenario())
