"""Restart after kill -9 with a million keys: a server of ours beside real Consul 1.8.7, same disk.

    .venv/bin/python -m bench.raft_restart [-keys 1000000] [-writes SECONDS] [-rounds 3] [-dir DIR]

Each is a quorum of one with `raft_multiplier` 1. Both get the same state (one file, as a snapshot) and
some writes behind it, are killed, started again, and timed from exec until a `consistent` read of
the last key answers. They take turns; every figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import socket
import statistics
import subprocess
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench.http_load import Connection
from bench.raft_writes import HTTP_PORT, OURS, THEIRS, write_for

from proconsul.core.raft.types import SnapshotMeta
from proconsul.domain.base import encode
from proconsul.domain.kv import DirEntry
from proconsul.domain.messages import MessageType
from proconsul.drivers.raft.snapshots import FileSnapshotStore
from proconsul.drivers.raft.store import LmdbStore
from proconsul.state.snapshot import IndexEntry
from proconsul.wire import msgpack
from proconsul.wire.raft import Configuration, Server, Suffrage

FIRST_INDEX = 100
PIECE_BYTES = 1 << 20
START_S = 120.0


def key(number: int) -> str:
    """The key of that number, in order."""
    return f"load/{number // 1000:04}/{number % 1000:03}"


def state(keys: int) -> Iterator[bytes]:
    """A snapshot of that many keys with values of 100 bytes, in Consul's format."""
    last = FIRST_INDEX + keys
    piece = bytearray(msgpack.pack({"LastIndex": last}))
    for number in range(keys):
        row = DirEntry.of(key(number), b"%0100d" % number, modify_index=FIRST_INDEX + number)
        piece.append(MessageType.KVS)
        piece += encode(row)
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    piece.append(MessageType.INDEX)
    yield bytes(piece) + encode(IndexEntry("kvs", last))


def archive(keys: int) -> bytes:
    """The same as `consul snapshot save` would write it."""
    body = b"".join(state(keys))
    meta = {
        "Version": 1, "ID": "bench", "Index": FIRST_INDEX + keys, "Term": 2, "Peers": None,
        "Configuration": {"Servers": []}, "ConfigurationIndex": 0, "Size": len(body),
    }  # fmt: skip
    files = {"meta.json": json.dumps(meta).encode(), "state.bin": body}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    files["SHA256SUMS"] = sums.encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        end = tar.offset + 1024  # Consul does not like the padding behind the end
    return gzip.compress(buffer.getvalue()[:end], 1)


class OneServer:
    """A quorum of one, on a loopback address of its own."""

    def __init__(self, program: str, host: str, data: Path) -> None:
        self.host, self.data = host, data
        config = {
            "server": True, "bootstrap_expect": 1, "node_name": "one", "bind_addr": host,
            "client_addr": host, "data_dir": str(data / "data"), "log_level": "err",
            "ports": {"dns": -1}, "performance": {"raft_multiplier": 1},
        }  # fmt: skip
        path = data / "config.json"
        path.write_text(json.dumps(config))
        self._command = [program, "agent", "-config-file", str(path)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, path: str) -> float:
        """Seconds from exec until a consistent read of `path` answers 200."""
        began = time.perf_counter()
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=(self.data / "err").open("wb")
        )
        while time.perf_counter() < began + START_S and self._process.poll() is None:
            try:
                with socket.create_connection((self.host, HTTP_PORT), 5) as sock:
                    sock.settimeout(30)
                    connection = Connection(sock)
                    connection.send("GET", f"{path}?consistent")
                    if connection.receive()[0] == 200:
                        return time.perf_counter() - began
            except OSError:
                pass
            time.sleep(0.01)
        raise SystemExit(f"{self._command} does not answer: {(self.data / 'err').read_text()}")

    def resident_mb(self) -> float:
        """Its resident memory."""
        assert self._process is not None
        pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * 4096 / 1e6

    def kill(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def load_ours(server: OneServer, keys: int) -> None:
    """Put the snapshot where a stopped server finds it."""
    directory = server.data / "data" / "raft"
    store = LmdbStore(directory)
    last, term = store.last_index(), store.hard_state().term
    store.close()
    node = (server.data / "data" / "node-id").read_text(encoding="ascii").strip()
    members = Configuration((Server(Suffrage.VOTER, node, f"{server.host}:8300"),))
    sink = FileSnapshotStore(directory).create(
        SnapshotMeta(FIRST_INDEX + keys + last, term, members, 1)
    )
    for piece in state(keys):
        sink.write(piece)
    sink.commit()


def load_theirs(server: OneServer, keys: int) -> None:
    """Restore the archive into a running Consul."""
    request = urllib.request.Request(
        f"http://{server.host}:{HTTP_PORT}/v1/snapshot", archive(keys), method="PUT"
    )
    with urllib.request.urlopen(request, timeout=START_S) as answer:
        answer.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-keys", type=int, default=1_000_000)
    parser.add_argument("-writes", type=float, default=3.0, help="seconds of writes behind it")
    parser.add_argument("-rounds", type=int, default=3)
    parser.add_argument("-dir", type=Path, default=None, help="where the data is (a real disk)")
    options = parser.parse_args()
    last = f"/v1/kv/{key(options.keys - 1)}"
    with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
        servers = {}
        for name, program, host in (("ours", OURS, "127.59.1.1"), ("consul", THEIRS, "127.59.1.2")):
            data = Path(scratch) / name
            data.mkdir()
            servers[name] = OneServer(program, host, data)
        took: dict[str, list[float]] = {name: [] for name in servers}
        memory: dict[str, float] = {}
        try:
            for server in servers.values():
                server.start("/v1/catalog/nodes")
            load_theirs(servers["consul"], options.keys)
            servers["ours"].kill()
            load_ours(servers["ours"], options.keys)
            servers["ours"].start(last)
            for name, server in servers.items():
                rate, _ = write_for([server.host], 32, options.writes)
                print(f"{name}: {rate * options.writes:.0f} entries behind the snapshot")
                server.kill()
            for _ in range(options.rounds):
                for name, server in servers.items():
                    took[name].append(server.start(last))
                    memory[name] = server.resident_mb()
                    server.kill()
        finally:
            for server in servers.values():
                server.kill()
    medians = {name: statistics.median(values) for name, values in took.items()}
    for name in servers:
        rounds = " ".join(f"{value:.2f}" for value in took[name])
        print(f"{name:8}{medians[name]:8.2f} s until serving ({rounds}), {memory[name]:.0f} MB")
    print(f"{'ratio':8}{medians['ours'] / medians['consul']:8.2f}")


if __name__ == "__main__":
    main()
