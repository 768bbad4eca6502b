"""`connect envoy` becomes a real Envoy that gets its listener from the control plane."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop
from envoy_support import HandSource, control_plane, envoy_binary, free_port

from proconsul.mesh.snapshot import Bind, MeshGatewaySnapshot

pytestmark = pytest.mark.peer


def test_command_becomes_envoy_and_hides_the_token(tmp_path: Path) -> None:
    binary = envoy_binary()

    async def scenario() -> None:
        source = HandSource()
        plane = await control_plane(source)
        port = free_port("127.0.23.1")
        bind = Bind("default", "127.0.23.1", port)
        source.set(MeshGatewaySnapshot("gw", "dc1", "consul", "t.consul", (bind,)))
        argv = [
            *(sys.executable, "-c", "from proconsul.interfaces.cli.main import main; main()"),
            *("connect", "envoy", "-proxy-id=gw", "-no-central-config", "-token", "top-secret"),
            *("-grpc-addr", f"127.0.0.1:{plane.ports[0]}", "-envoy-binary", binary),
            *("-admin-bind", f"127.0.0.1:{free_port('127.0.0.1')}"),
            *("--", "--concurrency", "1", "-l", "error"),
        ]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log)  # noqa: ASYNC220 - at once
        try:
            async with asyncio.timeout(15):
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.23.1", port)
                        break
                    except OSError:
                        assert process.poll() is None, (tmp_path / "log").read_text()
                        await asyncio.sleep(0.02)
            writer.close()
            proc = Path(f"/proc/{process.pid}")
            assert os.path.samefile(proc / "exe", binary)  # noqa: ASYNC240
            assert b"top-secret" not in (proc / "cmdline").read_bytes()
            assert b"--disable-hot-restart" in (proc / "cmdline").read_bytes()
            assert source.tokens == ["top-secret"]
        finally:
            process.kill()
            process.wait()
            await plane.stop()

    uvloop.run(scenario())
