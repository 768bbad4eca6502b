"""`federation status` against an agent that answers with a given report."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from federation_support import closed_port

from proconsul.interfaces.cli.main import main

REPORT: dict[str, Any] = {
    "Datacenter": "dc2",
    "PrimaryDatacenter": "dc1",
    "Node": "s1",
    "Leader": True,
    "Healthy": False,
    "Route": "dialling the primary datacenter through our local mesh gateways",
    "Replication": {
        "Running": True,
        "LastSuccess": None,
        "LastFailure": "2024-01-01T00:00:00Z",
        "LastError": "Permission denied",
        "Remedy": "give this server a replication token",
        "FailuresInARow": 4,
        "RemoteIndex": 0,
        "LagStates": 0,
        "LagIndexes": 0,
    },
    "Datacenters": [
        {
            "Datacenter": "dc1",
            "Primary": True,
            "Local": False,
            "Reachable": False,
            "RoundTripMS": None,
            "Hop": "TLS",
            "Cause": "certificate-lacks-name",
            "Reason": "certificate is not valid",
            "Remedy": "issue another",
            "NeededName": "s1.server.dc1.consul",
            "OfferedNames": ["server.dc1.consul"],
            "Leader": "",
            "AliveServers": 1,
            "FailedServers": 1,
            "Servers": [
                {
                    "Node": "s1", "Address": "10.0.0.1:8300", "Status": "alive",
                    "Reachable": False, "RoundTripMS": None, "Hop": "TLS", "Cause": "x",
                    "Reason": "certificate is not valid", "Remedy": "",
                },
            ],
            "Gateways": [
                {
                    "Address": "10.2.0.1:8443", "Source": "catalog", "LastDial": "ok",
                    "Reachable": True, "RoundTripMS": 1.25,
                },
                {
                    "Address": "10.2.0.2:8443", "Source": "configured", "LastDial": "failed",
                    "Reachable": False, "RoundTripMS": None, "Hop": "dial", "Cause": "y",
                    "Reason": "connection refused", "Remedy": "start it",
                },
            ],
            "FederationState": None,
            "UnusableGateways": [{"Address": "10.2.0.3:8443", "Reason": "critical check 'x'"}],
        },
    ],
}  # fmt: skip


@contextmanager
def agent(report: Any, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v1/internal/federation-status"
            body = json.dumps(report).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def status(address: str, *flags: str) -> int:
    return main(["federation", "status", "-http-addr", address, *flags])


def test_the_table_and_what_explains_it(capsys: pytest.CaptureFixture[str]) -> None:
    with agent(REPORT) as address:
        assert status(address) == 1
    text = capsys.readouterr().out
    assert "Seen from s1 in dc2 (secondary, leader)" in text
    row = next(line for line in text.splitlines() if line.startswith("dc1 (primary)"))
    assert row.split() == [
        "dc1", "(primary)", "NO", "-", "-", "1", "alive,", "1", "failed", "1", "of", "2", "work",
        "TLS",
    ]  # fmt: skip
    for part in (
        "TLS fails (certificate-lacks-name): certificate is not valid",
        "needed name:   s1.server.dc1.consul",
        "offered names: server.dc1.consul",
        "what to do: issue another",
        "gateway 10.2.0.2:8443  configured  dial failed  last dial failed",
        "connection refused",
        "10.2.0.3:8443 is not used: critical check 'x'",
        "last success never, failures in a row 4",
        "remedy: give this server a replication token",
    ):
        assert part in text
    assert text.count("certificate is not valid") == 1, "said once"


def test_json_is_the_report_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    healthy = {**REPORT, "Healthy": True, "Replication": None, "Datacenters": []}
    with agent(healthy) as address:
        assert status(address, "-json") == 0
        assert json.loads(capsys.readouterr().out) == healthy
        assert status(address) == 0


def test_a_follower_names_the_leader_as_the_one_to_ask(capsys: pytest.CaptureFixture[str]) -> None:
    replication = {**REPORT["Replication"], "Running": False}
    with agent({**REPORT, "Leader": False, "Replication": replication}) as address:
        assert status(address) == 1
    assert "runs on the leader" in capsys.readouterr().out


def test_statuses_of_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with agent("no", 403) as address:
        assert status(address) == 2
    assert "Unexpected response code: 403" in capsys.readouterr().err
    host, port = closed_port()
    assert status(f"{host}:{port}") == 2
    assert status("127.0.0.1:1", "-nope") == 2
    assert main(["federation", "status", "-h"]) == 0
    assert "-json" in capsys.readouterr().out
