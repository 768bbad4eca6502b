"""Records what real Consul agents say to each other by RPC, as `vectors.jsonl`.

A recorder stands on port 8300 of the address that each real server advertises; the server itself listens
beside it. It takes every call off its multiplexed connection, passes the body on as it came, and
keeps request and response. The callers are a real client agent, the secondary's server, and their HTTP
APIs and commands, driven by `rpc_drive`.

    .venv/bin/python tests/golden/rpc/rpc_capture.py

writes `vectors.jsonl` beside itself: one call a line, `method`, `request` and `response` in hex, or `error`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
import tempfile
import zlib
from collections import defaultdict
from pathlib import Path

import uvloop

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "interop")]

from agent_support import THEIRS, AgentProcess, Agents, free_address  # noqa: E402
from rpc_api import MASTER  # noqa: E402
from rpc_drive import drive  # noqa: E402

from proconsul.domain.acl_requests import (  # noqa: E402
    ACLPolicyResolveLegacyRequest,
    ACLRoleBatchGetRequest,
)
from proconsul.domain.base import encode  # noqa: E402
from proconsul.drivers.stream import PeerInfo, PushStream  # noqa: E402
from proconsul.rpc.dialer import Destination  # noqa: E402
from proconsul.rpc.direct_dialer import DirectDialer  # noqa: E402
from proconsul.rpc.errors import RemoteError  # noqa: E402
from proconsul.rpc.listener import Handlers, ListenerConfig, RpcListener  # noqa: E402
from proconsul.rpc.methods import Empty  # noqa: E402
from proconsul.rpc.pool import ConnectionPool  # noqa: E402
from proconsul.rpc.server_session import RpcServerSession  # noqa: E402
from proconsul.util.errors import ProconsulError  # noqa: E402
from proconsul.util.metrics import Metrics  # noqa: E402

KEY = re.compile(rb"(BEGIN [A-Z ]*PRIVATE KEY-----\n)(.+?)(?=\n-----END)", re.DOTALL)
PER_METHOD_MAX = 12
"""Of one method; those with errors count apart."""


class Recorder:
    """Between callers and one server; keeps what differs in shape."""

    def __init__(self, kept: dict[str, list[dict[str, str]]], server: str) -> None:
        self._kept, self._to = kept, Destination("", server, (server, 8300))
        self._metrics = Metrics()
        self._pool = ConnectionPool(DirectDialer(None, "consul", server), self._metrics)

    async def start(self, address: str) -> None:
        """Listen on the advertised address."""
        handlers = Handlers(self._serve, *(self._refuse,) * 4)
        await RpcListener(ListenerConfig("dc1"), handlers, self._metrics).start(address, 8300)

    async def _serve(self, stream: PushStream) -> None:
        await RpcServerSession(stream, self._pass_on, self._metrics).serve()

    async def _refuse(self, stream: PushStream) -> None:
        stream.abort()

    async def _pass_on(self, method: str, body: bytes, _peer: PeerInfo) -> bytes:
        deadline = asyncio.get_running_loop().time() + 700
        vector = {"method": method, "request": body.hex()}
        try:
            answer = await self._pool.rpc(self._to, method, body, deadline)
        except RemoteError as error:
            self._keep({**vector, "error": str(error)})
            raise ProconsulError(str(error)) from error
        self._keep({**vector, "response": answer.hex()})
        return answer

    async def ask_itself(self) -> None:
        """What no real agent asks although a server answers it."""
        for method, request in (
            ("ACL.RoleBatchRead", ACLRoleBatchGetRequest(datacenter="dc1", token=MASTER)),
            ("ACL.GetPolicy", ACLPolicyResolveLegacyRequest(datacenter="dc1", acl=MASTER)),
            ("Status.Ping", Empty()),
        ):
            await self._pass_on(method, encode(request), PeerInfo(("127.0.0.1", 0)))

    def _keep(self, vector: dict[str, str]) -> None:
        key = vector["method"] + ("!" if "error" in vector else "")
        same = self._kept[key]
        known = any(
            v["request"] == vector["request"] and v.get("response") == vector.get("response")
            for v in same
        )
        if not known and len(same) < PER_METHOD_MAX:
            same.append(vector)


def _kept(field: str, value: str) -> str:
    """Private keys blotted out; bytes in hex, or deflated and in base64 after a `z`."""
    if field not in ("request", "response"):
        return value
    data = KEY.sub(lambda m: m[1] + b"x" * len(m[2]), bytes.fromhex(value))
    if len(data) < 100:
        return data.hex()
    return "z" + base64.b64encode(zlib.compress(data, 9)).decode()


async def capture(path: Path) -> None:
    """Start the world, drive it, write the file."""
    kept: dict[str, list[dict[str, str]]] = defaultdict(list)
    agents = Agents(path)
    acl = {
        "enabled": True,
        "default_policy": "deny",
        "enable_token_replication": True,
        "tokens": {"master": MASTER, "agent": MASTER, "replication": MASTER, "default": MASTER},
    }
    common = {
        "primary_datacenter": "dc1",
        "acl": acl,
        "connect": {"enabled": True},
        "ports": {"dns": 8600, "grpc": 8502},
        "session_ttl_min": "10s",
        "enable_central_service_config": True,
        "encrypt": base64.b64encode(bytes(32)).decode(),
    }
    client_acl = {**acl, "tokens": {"agent": MASTER, "default": MASTER}}
    try:
        servers: list[AgentProcess] = []
        recorders: list[Recorder] = []
        for datacenter in ("dc1", "dc2"):
            shown = free_address()
            server = agents.make(
                THEIRS,
                f"server-{datacenter}",
                server=True,
                bootstrap=True,
                datacenter=datacenter,
                **common,
            )
            server.config |= {
                "advertise_addr": shown,
                "serf_lan": shown,
                "serf_wan": shown,
                "retry_join_wan": [str(s.config["serf_wan"]) for s in servers],
                "retry_interval_wan": "1s",
            }
            recorders.append(Recorder(kept, server.address))
            await recorders[-1].start(shown)
            servers.append(server.start())
        client = agents.make(
            THEIRS, "client", datacenter="dc1", **{**common, "acl": client_acl},
            retry_join=[str(servers[0].config["serf_lan"])], retry_interval="1s",
        )  # fmt: skip
        client.start()
        await asyncio.to_thread(drive, client, servers[0], servers[1])
        await recorders[0].ask_itself()
    finally:
        agents.close()
    with (HERE / "vectors.jsonl").open("w") as file:
        for key in sorted(kept):
            for vector in kept[key]:
                file.write(json.dumps({k: _kept(k, v) for k, v in vector.items()}) + "\n")
    for key in sorted(kept):
        print(len(kept[key]), key)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        uvloop.run(capture(Path(directory)))
