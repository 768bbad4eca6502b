"""One of our Raft nodes and a real Consul server are the two voters of a cluster.

Membership comes from Consul's own recovery file (`raft/peers.json`), so that neither gossip nor the
rest of a server is needed: raft connections on Consul's port 8300 start with type byte 1.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from proconsul.core.raft.types import Config
from proconsul.drivers import tcp
from proconsul.drivers.raft.applier import Replace
from proconsul.drivers.raft.node import NodeConfig, RaftNode
from proconsul.drivers.raft.snapshots import FileSnapshotStore
from proconsul.drivers.raft.store import LmdbStore
from proconsul.drivers.raft.transport import Transport
from proconsul.drivers.stream import Stream

CONSUL = Path(
    os.environ.get(
        "PROCONSUL_CONSUL_BIN",
        Path(__file__).resolve().parents[2] / ".peers/root/usr/bin/consul",
    )
)
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(not CONSUL.exists(), reason=f"no consul at {CONSUL}"),
    pytest.mark.skipif(sys.platform != "linux", reason="uses 127.0.0.0/8"),
]
KVS = 2


class Consul:
    """A real server on a loopback address of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.id = path, str(uuid.uuid4())
        self.ports: list[int] = []
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.rpc, self.http, self.serf = (s.getsockname()[1] for s in sockets)
        for s in sockets:
            s.close()
        self.address = f"127.0.0.1:{self.rpc}"

    @contextmanager
    def running(self, *flags: str, patience: int = 1) -> Iterator[None]:
        config = {
            "ports": {
                "server": self.rpc, "http": self.http, "serf_lan": self.serf, "serf_wan": -1,
                "dns": -1,
            },
            "performance": {"raft_multiplier": patience},
        }  # fmt: skip
        config_file = self.path / "config.json"
        config_file.write_text(json.dumps(config))
        with open(self.path / "log", "ab") as log:
            process = subprocess.Popen(
                [
                    CONSUL, "agent", "-server", "-bind=127.0.0.1", f"-data-dir={self.path / 'data'}",
                    f"-node-id={self.id}", "-node=real", f"-config-file={config_file}", *flags,
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def get(self, path: str) -> bytes | None:
        """The body, None on any error."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=2) as answer:
                body: bytes = answer.read()
                return body
        except (urllib.error.URLError, OSError):
            return None

    def put(self, path: str, data: bytes) -> bool:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{path}", data=data, method="PUT"
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(answer.read().strip() == b"true")
        except (urllib.error.URLError, OSError):
            return False


class Recorder:
    """Keeps all commands; takes a snapshot as it comes."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.restored = b""

    def apply(self, index: int, data: bytes, extensions: bytes = b"", term: int = 0) -> object:
        self.commands.append(data)
        return None

    def snapshot(self) -> Iterator[bytes]:
        return iter([self.restored])

    def restore(self, reader: BinaryIO) -> Generator[None, None, Replace]:
        restored = reader.read()
        yield

        def replace() -> Iterator[None]:
            self.restored = restored
            return iter(())

        return replace


async def _open(server_id: str, address: str, deadline: float) -> Stream:
    host, _, port = address.rpartition(":")
    stream = await tcp.connect((host, int(port)), deadline)
    await stream.write(b"\x01")
    return stream


async def _until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.05)


def _node(path: Path, server_id: str, address: str, fsm: Recorder, patience_s: float) -> RaftNode:
    return RaftNode(
        NodeConfig(server_id, address, Config(patience_s, patience_s, patience_s / 2)),
        fsm,
        Transport(_open),
        LmdbStore(path / "raft"),
        FileSnapshotStore(path / "raft"),
    )


def _bootstrap(consul: Consul) -> None:
    """A first life alone, with something in the store."""
    with consul.running("-bootstrap"):
        deadline = time.monotonic() + 20
        while not consul.put("/v1/kv/before", b"alone"):
            assert time.monotonic() < deadline, "real Consul did not come up"
            time.sleep(0.05)


def test_one_quorum_with_a_real_server(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    consul, our_id = Consul(tmp_path / "real"), str(uuid.uuid4())
    _bootstrap(consul)
    asyncio.run(_both_lead_in_turn(tmp_path, consul, our_id))


async def _both_lead_in_turn(tmp_path: Path, consul: Consul, our_id: str) -> None:
    fsm = Recorder()
    node: RaftNode

    async def serve(stream: Stream) -> None:
        assert await stream.read_exactly(1) == b"\x01"
        await node.serve(stream)

    listener = tcp.Server(serve, name="raft")
    await listener.start("127.0.0.1", 0)
    ours = f"127.0.0.1:{listener.address[1]}"
    peers = [{"id": consul.id, "address": consul.address}, {"id": our_id, "address": ours}]
    (consul.path / "data/raft/peers.json").write_text(json.dumps(peers))

    node = _node(tmp_path, our_id, ours, fsm, patience_s=30)
    await node.start()
    with consul.running():
        # The real server leads: it needs our vote, and sends us its snapshot, then entries.
        await _until(lambda: consul.get("/v1/status/leader") not in (None, b'""'))
        # Only its snapshot says which server has the address that it calls itself by.
        await _until(lambda: node.leader == (consul.id, consul.address))
        assert b"alone" in fsm.restored
        for i in range(30):
            assert await asyncio.to_thread(consul.put, f"/v1/kv/k{i}", b"theirs")
        assert await asyncio.to_thread(consul.get, "/v1/kv/k29?raw&consistent") == b"theirs"
        await _until(lambda: any(b"k29" in command for command in fsm.commands))
        template = next(command for command in fsm.commands if b"k29" in command)
        assert template[0] == KVS
        assert int(node.stats()["last_snapshot_index"]) > 0
        assert {s.id for s in node.configuration()[0].servers} == {consul.id, our_id}
        await node.aclose()

    # A new life for both: ours is the impatient one now, and leads. Its lease is half of its
    # patience, which a machine with other work to do must not exceed.
    fsm = Recorder()
    node = _node(tmp_path, our_id, ours, fsm, patience_s=1.0)
    with consul.running(patience=10):
        await _until(lambda: consul.get("/v1/status/leader") is not None)
        await node.start()
        loop = asyncio.get_running_loop()
        await _until(lambda: node.is_leader)
        await node.barrier(loop.time() + 10)
        await node.verify_leader(loop.time() + 10)
        key = template.replace(b"k29", b"our").replace(b"theirs", b"mine!!")
        await asyncio.gather(*(node.apply(key, loop.time() + 10) for _ in range(200)))
        await _until(lambda: consul.get("/v1/kv/our?raw&stale") == b"mine!!")
        leader = await asyncio.to_thread(consul.get, "/v1/status/leader")
        assert json.loads(leader or b"null") == ours
        # Hand-over: the real server understands TimeoutNow.
        await node.leadership_transfer(loop.time() + 10, consul.id)
        await _until(lambda: node.leader == (consul.id, consul.address))
        assert await asyncio.to_thread(consul.put, "/v1/kv/again", b"theirs")
        await node.aclose()
    await listener.aclose()
