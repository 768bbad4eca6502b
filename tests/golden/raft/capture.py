"""Captures Raft's messages and log between two real Consul 1.8.7 servers: `capture.py CONSUL`.

Both servers are voters by `peers.json`, without gossip between them, at the addresses of proxies
that write down what passes. The first one is driven through its HTTP API until it has written
every kind of command; its snapshot is what applying that log must lead to. Private keys are
blotted out, in the log and in the snapshot alike. Writes `exchanges.json`, `log.jsonl` and
`states.json` beside itself; see README.md there.
"""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
import zlib
from pathlib import Path
from typing import Any

import msgpack
from drive import drive

HERE = Path(__file__).parent
KEY = re.compile(rb"(BEGIN [A-Z ]*PRIVATE KEY-----\n)(.+?)(?=\n-----END)", re.DOTALL)


class Tape:
    """Pairs of a request and its answer, as they passed."""

    def __init__(self) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []
        self.snapshots: list[bytes] = []

    def serve(self, listener: socket.socket, target: tuple[str, int]) -> None:
        while True:
            client, _ = listener.accept()
            try:
                server = socket.create_connection(target)
            except OSError:
                client.close()
                continue
            requests: list[bytes] = []
            lock = threading.Condition()
            for work in (
                (client, server, self._requests, requests, lock),
                (server, client, self._answers, requests, lock),
            ):
                threading.Thread(target=self._pass, args=work, daemon=True).start()

    def _pass(
        self, a: socket.socket, b: socket.socket, parse: Any, requests: list[bytes], lock: Any
    ) -> None:
        feed = parse(requests, lock)
        next(feed)
        try:
            while data := a.recv(1 << 18):
                feed.send(data)
                b.sendall(data)
        except OSError:
            pass
        for end in (a, b):
            end.close()

    def _requests(self, requests: list[bytes], lock: Any) -> Any:
        data = b""
        while not data:
            data += yield
        if data[0] != 1:  # not Raft
            while True:
                yield
        data = data[1:]
        while True:
            while (end := _values(data[1:], 1)) is None:
                data += yield
            request, data = data[: 1 + end], data[1 + end :]
            if request[0] == 2:
                left = msgpack.unpackb(request[1:], raw=True)[b"Size"]
                while len(data) < left:
                    data += yield
                self.snapshots.append(data[:left])
                data = data[left:]
            with lock:
                requests.append(request)

    def _answers(self, requests: list[bytes], lock: Any) -> Any:
        data = b""
        while True:
            while (end := _values(data, 2)) is None:
                data += yield
            with lock:
                self.pairs.append((requests.pop(0), data[:end]))
            data = data[end:]


def _values(data: bytes, count: int) -> int | None:
    """How many bytes the first `count` msgpack values have; None if they are not all there."""
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=1 << 27)
    unpacker.feed(data)
    try:
        for _ in range(count):
            unpacker.skip()
    except msgpack.OutOfData:
        return None
    return int(unpacker.tell())


class Consul:
    """One server with ports of its own, known to the other one by its proxy's address."""

    def __init__(self, binary: str, path: Path, name: str, tape: Tape) -> None:
        self.binary, self.path, self.name, self.id = binary, path / name, name, str(uuid.uuid4())
        self.path.mkdir()
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.rpc, self.http, self.serf = (s.getsockname()[1] for s in sockets)
        for one in sockets:
            one.close()
        listener = socket.create_server(("127.0.0.1", 0))
        self.proxy = f"127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(
            target=tape.serve, args=(listener, ("127.0.0.1", self.rpc)), daemon=True
        ).start()
        self.token = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **config: Any) -> None:
        (self.path / "config.json").write_text(
            json.dumps(
                {
                    "server": True, "node_name": self.name, "node_id": self.id,
                    "bind_addr": "127.0.0.1", "data_dir": str(self.path / "data"),
                    "ports": {
                        "server": self.rpc, "http": self.http, "serf_lan": self.serf,
                        "serf_wan": -1, "dns": -1,
                    },
                    "performance": {"raft_multiplier": 1}, "connect": {"enabled": True},
                    "limits": {"kv_max_value_size": 4 << 20, "txn_max_req_len": 4 << 20},
                    "acl": {"enabled": True, "default_policy": "allow"},
                    **config,
                }
            )
        )  # fmt: skip
        with (self.path / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "agent", f"-config-file={self.path / 'config.json'}"],
                stdout=log, stderr=log,
            )  # fmt: skip

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def ask(self, method: str, target: str, body: Any = None) -> tuple[int, bytes]:
        """One HTTP request."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{target}", data=body, method=method,
            headers={"X-Consul-Token": self.token},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def leads(self) -> bool:
        try:
            return self.ask("GET", "/v1/agent/self")[1].find(b'"leader":"true"') >= 0
        except OSError:
            return False


def _until(check: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise SystemExit("it does not happen")
        time.sleep(0.1)


def _peers(leader: Consul, other: Consul) -> None:
    """Only who has a log takes this file; the other one learns from the leader."""
    (leader.path / "data/raft/peers.json").write_text(
        json.dumps([{"id": one.id, "address": one.proxy} for one in (leader, other)])
    )


def _named(pairs: list[tuple[bytes, bytes]]) -> dict[str, dict[str, str]]:
    """One pair of every kind, by a name that says what it is."""
    found: dict[str, tuple[bytes, bytes]] = {}
    for request, answer in pairs:
        body = msgpack.unpackb(request[1:], raw=True)
        unpacker = msgpack.Unpacker(raw=True)
        unpacker.feed(answer)
        unpacker.unpack()
        reply = unpacker.unpack() or {}
        entries = body.get(b"Entries")
        types = sorted({entry[b"Type"] for entry in entries or ()})
        match request[0]:
            case 0 if entries:
                name = "append " + "+".join(str(kind) for kind in types)
            case 0 if body[b"PrevLogEntry"] or body[b"LeaderCommitIndex"]:
                name = "append nothing"
            case 0:
                name = "heartbeat"
            case 1:
                moved = " on transfer" if body[b"LeadershipTransfer"] else ""
                name = f"vote{moved} {'granted' if reply.get(b'Granted') else 'refused'}"
            case 2:
                name = "install snapshot"
            case _:
                name = "timeout now"
        if request[0] == 0 and not reply.get(b"Success"):
            name += " refused"
        if name not in found or len(request) < len(found[name][0]):
            found[name] = (request, answer)
    return {
        name: {"request": request.hex(), "response": answer.hex()}
        for name, (request, answer) in sorted(found.items())
    }


def _blot(data: bytes) -> bytes:
    return KEY.sub(lambda found: found[1] + b"x" * len(found[2]), data)


def packed(data: bytes) -> str:
    """Hex, or zlib in base64 (after a "z") where that is shorter."""
    short = "z" + base64.b64encode(zlib.compress(data, 9)).decode()
    return min(short, data.hex(), key=len)


def _log(pairs: list[tuple[bytes, bytes]]) -> list[dict[str, Any]]:
    """All entries once, as the last leader sent them."""
    entries: dict[int, dict[str, Any]] = {}
    for request, _ in pairs:
        if request[0] == 0:
            for entry in msgpack.unpackb(request[1:], raw=True)[b"Entries"] or ():
                entries[entry[b"Index"]] = {
                    "index": entry[b"Index"], "term": entry[b"Term"], "type": entry[b"Type"],
                    "data": packed(_blot(entry[b"Data"] or b"")),
                    "extensions": (entry[b"Extensions"] or b"").hex(),
                }  # fmt: skip
    return [entries[index] for index in sorted(entries)]


def main(binary: str) -> None:
    tape = Tape()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        one, two = (Consul(binary, path, name, tape) for name in ("one", "two"))
        try:
            one.start(bootstrap=True)
            _until(one.leads)
            _until(
                lambda: b"MinQuorum" in one.ask("GET", "/v1/operator/autopilot/configuration")[1]
            )
            _until(lambda: b"Active" in one.ask("GET", "/v1/connect/ca/roots")[1])
            one.stop()
            _peers(one, two)
            one.start()
            two.start(performance={"raft_multiplier": 10})
            _until(one.leads)
            _until(lambda: tape.snapshots)
            drive(one)
            _, archive = one.ask("GET", "/v1/snapshot")
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                state = tar.extractfile("state.bin").read()  # type: ignore[union-attr]
            log = _log(tape.pairs)
            _other_messages(one, two)
            _hand_over(binary, path, tape)
        finally:
            one.stop()
            two.stop()
    (HERE / "exchanges.json").write_text(json.dumps(_named(tape.pairs), indent=1) + "\n")
    (HERE / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    states = {"before": tape.snapshots[0], "after": state}
    blotted = {name: packed(_blot(data)) for name, data in states.items()}
    (HERE / "states.json").write_text(json.dumps(blotted, indent=1) + "\n")


def _other_messages(one: Consul, two: Consul) -> None:
    """A refused vote, a lagging follower, a snapshot, a hand-over."""
    two.stop()
    for server in (one, two):
        server.stop()
    # Whose log is short: its append is refused, then it takes a snapshot.
    data = two.path / "data"
    subprocess.run(["rm", "-rf", str(data)], check=True)
    one.start(raft_snapshot_threshold=5, raft_snapshot_interval="1s", raft_trailing_logs=2)
    two.start(performance={"raft_multiplier": 10})
    _until(one.leads)
    time.sleep(3)
    one.stop()
    two.stop()


def _hand_over(binary: str, path: Path, tape: Tape) -> None:
    """A leader that cannot set up its CA hands leadership over."""
    three, four = (Consul(binary, path, name, tape) for name in ("three", "four"))
    vault = {
        "address": "http://127.0.0.1:1", "token": "x",
        "root_pki_path": "a/", "intermediate_pki_path": "b/",
    }  # fmt: skip
    connect = {"enabled": True, "ca_provider": "vault", "ca_config": vault}
    try:
        three.start(bootstrap=True, connect=connect)
        _until(lambda: "failed to transfer leadership" in (three.path / "log").read_text())
        three.stop()
        _peers(three, four)
        three.start(connect=connect)
        four.start(performance={"raft_multiplier": 10})
        _until(lambda: any(request[0] == 3 for request, _ in tape.pairs))
        time.sleep(3)
    finally:
        three.stop()
        four.stop()


if __name__ == "__main__":
    main(sys.argv[1])
