"""The command line against a real Consul agent: same output, same status as Consul's own."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.peer

_ROOT = Path(__file__).resolve().parents[2]
_CONSUL = Path(
    os.environ.get("PROCONSUL_CONSUL_BIN", _ROOT / ".peers" / "root" / "usr" / "bin" / "consul")
)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _node_and_leader(port: int) -> tuple[str, str]:
    """Name of the agent that listens there, and its leader; empty where nobody answers."""
    answers = []
    try:
        for path in ("/v1/agent/self", "/v1/status/leader"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", path)
            answers.append(json.loads(connection.getresponse().read()))
            connection.close()
    except (OSError, ValueError):
        return "", ""
    return answers[0]["Config"]["NodeName"], answers[1]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The HTTP address of an agent that this test started, and nobody else's."""
    if not _CONSUL.exists():
        pytest.skip(f"no Consul at {_CONSUL}: set PROCONSUL_CONSUL_BIN")
    http_port, server, lan, wan = _free_ports(4)
    # Tests write and delete: a unique name proves that the port is our agent's, not a stranger's
    name = f"cli-{uuid.uuid4().hex[:12]}"
    log = (tmp_path_factory.mktemp("consul") / "log").open("wb")
    process = subprocess.Popen(
        [
            str(_CONSUL), "agent", "-dev", "-node", name, "-http-port", str(http_port),
            "-server-port", str(server), "-serf-lan-port", str(lan), "-serf-wan-port", str(wan),
            "-dns-port", "-1", "-grpc-port", "-1",
        ],
        stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while True:
            node, leader = _node_and_leader(http_port)
            if node == name and leader:
                break
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the agent did not start; at its port answers {node or 'nobody'!r}")
            time.sleep(0.05)
        yield f"127.0.0.1:{http_port}"
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def _run(command: list[str], address: str) -> tuple[int, bytes, bytes]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CONSUL_", "PROCONSUL"))}
    env["CONSUL_HTTP_ADDR"] = address
    done = subprocess.run(command, env=env, capture_output=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


def _both(args: list[str], address: str) -> tuple[tuple[int, bytes, bytes], ...]:
    ours = [sys.executable, "-m", "proconsul.interfaces.cli.main", *args]
    return _run(ours, address), _run([str(_CONSUL), *args], address)


SETUP = [
    ["kv", "put", "dir/one", "1"],
    ["kv", "put", "-flags=3", "dir/d e?x", "two"],
    ["kv", "put", "dir/sub/three", "@pyproject.toml"],
    ["kv", "put", "empty"],
    ["services", "register", "-name", "web", "-port", "80", "-tag", "b", "-tag", "a",
     "-meta", "k=v", "-tagged-address", "lan=1.2.3.4:5"],
]  # fmt: skip

READS = [
    "members", "members -detailed", "members -wan", "members -status=failed",
    "catalog datacenters", "catalog nodes", "catalog nodes -detailed", "catalog nodes -near _agent",
    "catalog nodes -service web", "catalog nodes -service none", "catalog nodes extra",
    "catalog nodes -node-meta consul-network-segment=", "catalog services",
    "catalog services -tags", "catalog nodes -datacenter nowhere",
    "kv get dir/one", "kv get -detailed dir/one", "kv get -base64 dir/one", "kv get empty",
    "kv get none", "kv get", "kv get a b", "kv get -recurse dir", "kv get -recurse -detailed dir",
    "kv get -recurse none", "kv get -keys", "kv get -keys dir/", "kv get -keys -separator= dir",
    "kv put", "kv put a b c", "kv put -cas dir/one 5", "kv put -cas -modify-index=1 dir/one 5",
    "kv delete", "kv delete -modify-index=1 dir/one", "kv delete -cas -modify-index=1 dir/one",
    "kv delete -recurse -cas -modify-index=1 dir", "join 127.0.0.1:1", "force-leave none", "reload",
    "services register", "services deregister", "services deregister -id=none",
]  # fmt: skip


def test_same_output_and_status(agent: str) -> None:
    os.chdir(_ROOT)
    for args in SETUP:
        ours, theirs = _both(args, agent)
        assert ours == theirs, args
    for line in READS:
        ours, theirs = _both(line.split(), agent)
        assert ours == theirs, line


def test_deleting(agent: str) -> None:
    ours = [sys.executable, "-m", "proconsul.interfaces.cli.main"]
    for key in ("gone/1", "gone/2"):
        _run([*ours, "kv", "put", key, "x"], agent)
    assert _run([*ours, "kv", "delete", "-recurse", "gone"], agent) == (
        0,
        b"Success! Deleted keys with prefix: gone\n",
        b"",
    )
    assert _run([str(_CONSUL), "kv", "get", "-keys", "gone"], agent)[1] == b""


def test_what_differs_on_purpose(agent: str, tmp_path: Path) -> None:
    """docs/divergence.md has the reasons."""
    os.chdir(_ROOT)
    said, says = (done[1].decode().splitlines() for done in _both(["version"], agent))
    assert [line for line in said if "proconsul" not in line] == says
    assert len(said) == len(says) + 1

    for command in (["kv"], ["kv", "get", "-h"]):
        helps = [b"".join(done[1:]).decode() for done in _both(command, agent)]
        assert helps[0].startswith("Usage: proconsul kv")
        assert "Usage: consul kv" in helps[1]

    asked = ["kv", "get", "-datacenter", "nowhere", "a"]
    refusals = [done[2].decode() for done in _both(asked, agent)]
    assert refusals[0] == refusals[1].replace("500\n", "500 (No path to datacenter)\n")
    assert refusals[0] != refusals[1]

    mine, real = _both(["kv", "put", "-base64", "half", "YWJj!!"], agent)
    assert (mine[0], real[0]) == (1, 0)
    assert (
        mine[2]
        == real[2]
        == b"Error! Cannot base 64 decode data: illegal base64 data at input byte 4\n"
    )
    assert mine[1] == b""
    assert real[1] == b"Success! Data written to: half\n"

    def validated(text: str) -> tuple[tuple[int, bytes, bytes], ...]:
        (tmp_path / "a.hcl").write_text(f'data_dir = "{tmp_path}/data"\n{text}')
        return _both(["validate", str(tmp_path / "a.hcl")], agent)

    mine, real = validated('service { name = "a" } service { name = "b" }')
    assert (mine[0], real[0]) == (0, 1)
    assert b"'service' expected a map, got 'slice'" in real[2]
    mine, real = validated("ui = true")
    assert (mine[0], real[0]) == (1, 0)
    assert b"Remove it" in mine[2]
    mine, real = validated("nope = 1")
    assert (mine[0], real[0]) == (1, 1)
    assert all(b"invalid config key nope" in done[2] for done in (mine, real))
    assert (b"Remove it" in mine[2], b"Remove it" in real[2]) == (True, False)


def test_the_made_up_authority_is_ours(tmp_path: Path) -> None:
    from cryptography import x509

    for command, maker in (
        ([sys.executable, "-m", "proconsul.interfaces.cli.main"], "proconsul"),
        ([str(_CONSUL)], "HashiCorp Inc."),
    ):
        subprocess.run(
            [*command, "tls", "ca", "create"], cwd=tmp_path, check=True, capture_output=True
        )
        made = tmp_path / "consul-agent-ca.pem"
        subject = x509.load_pem_x509_certificate(made.read_bytes()).subject
        assert subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)[0].value == maker
        for file in tmp_path.glob("consul-agent-ca*"):
            file.unlink()
