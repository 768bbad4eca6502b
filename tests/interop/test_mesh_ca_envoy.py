"""Two services speak mTLS through a real Envoy while the CA's root rotates: nothing is refused.

One Envoy plays both sides: a plain listener leads, through TLS with the client's leaf, to a listener
that demands one, shows the server's leaf, and leads to an echo. Leaves and roots come from an agent
of ours; they are replaced in the worst order that agents may see.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from agent_support import OURS, Agents, ready, until
from cryptography import x509
from envoy_support import envoy_binary
from mesh_ca_support import new_key

from proconsul.domain.spiffe import SigningId
from proconsul.drivers.mesh_keys import generate
from proconsul.interfaces.cli.envoy_bootstrap import envoy_argv
from proconsul.mesh.ca import create_root

pytestmark = [pytest.mark.peer, pytest.mark.timeout(90)]

HOST = "127.0.27.9"
CONFIG = "/v1/connect/ca/configuration"


class _Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


@contextmanager
def _echo() -> Iterator[int]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, allow_reuse_address = True, True

    with Server((HOST, 0), _Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield int(server.server_address[1])
        server.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Secrets:
    """Files that Envoy watches: a leaf and trusted roots for each side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def source(self, name: str) -> dict[str, Any]:
        path = {"path": str(self.folder / name), "watched_directory": {"path": str(self.folder)}}
        return {
            "name": name,
            "sds_config": {"resource_api_version": "V3", "path_config_source": path},
        }

    def _put(self, name: str, secret: dict[str, Any]) -> None:
        kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
        body = {"resources": [{"@type": kind, "name": name, **secret}]}
        fresh = self.folder / f".{name}"
        fresh.write_text(json.dumps(body))
        os.rename(fresh, self.folder / name)

    def leaf(self, side: str, leaf: dict[str, Any]) -> None:
        chain, key = {"inline_string": leaf["CertPEM"]}, {"inline_string": leaf["PrivateKeyPEM"]}
        self._put(
            f"{side}-leaf", {"tls_certificate": {"certificate_chain": chain, "private_key": key}}
        )

    def roots(self, side: str, pem: str) -> None:
        self._put(f"{side}-roots", {"validation_context": {"trusted_ca": {"inline_string": pem}}})

    def context(self, side: str) -> dict[str, Any]:
        return {
            "tls_certificate_sds_secret_configs": [self.source(f"{side}-leaf")],
            "validation_context_sds_secret_config": self.source(f"{side}-roots"),
        }


def _bootstrap(secrets: Secrets, entry: int, inner: int, echo: int, admin: int) -> dict[str, Any]:
    def address(port: int) -> dict[str, Any]:
        return {"socket_address": {"address": HOST, "port_value": port}}

    def listener(port: int, cluster: str, **more: Any) -> dict[str, Any]:
        proxy = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster, "cluster": cluster,
        }  # fmt: skip
        chain = {"filters": [{"name": "tcp", "typed_config": proxy}], **more}
        return {"name": cluster, "address": address(port), "filter_chains": [chain]}

    def cluster(name: str, port: int, **more: Any) -> dict[str, Any]:
        endpoint = {"endpoint": {"address": address(port)}}
        load = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
        return {"name": name, "type": "STATIC", "load_assignment": load, **more}

    def tls(kind: str, side: str, **more: Any) -> dict[str, Any]:
        typed = {
            "@type": f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}",
            "common_tls_context": secrets.context(side), **more,
        }  # fmt: skip
        return {"transport_socket": {"name": "tls", "typed_config": typed}}

    accepts = tls("DownstreamTlsContext", "server", require_client_certificate=True)
    # A resumed session would verify nothing
    dials = tls("UpstreamTlsContext", "client", max_session_keys=0)
    return {
        "node": {"id": "n", "cluster": "c"},
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": [listener(entry, "inner"), listener(inner, "echo", **accepts)],
            "clusters": [cluster("inner", inner, **dials), cluster("echo", echo)],
        },
    }


@contextmanager
def _envoy(folder: Path, bootstrap: dict[str, Any]) -> Iterator[None]:
    config = folder / "envoy.json"
    config.write_text(json.dumps(bootstrap))
    argv = envoy_argv(envoy_binary(), str(config), ["--concurrency", "1", "-l", "warning"])
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Traffic:
    """New connections without end; every one must be answered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answered, self.refused = 0, list[str]()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def once(self) -> bool:
        with socket.create_connection((HOST, self._port), timeout=5) as stream:
            stream.sendall(b"ping\n")
            return stream.recv(16) == b"ping\n"

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                if not self.once():
                    self.refused.append("closed")
            except OSError as error:
                self.refused.append(repr(error))
            self.answered += 1
            time.sleep(0.01)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def goes_on(self) -> None:
        """Twenty more, none refused."""
        goal = self.answered + 20
        until(lambda: self.answered >= goal or self.refused)
        assert not self.refused


def _serial(pem: str) -> str:
    return f"{x509.load_pem_x509_certificate(pem.encode()).serial_number:x}".zfill(2)


def _shows(admin: int, pem: str, where: str, count: int = 1) -> bool:
    """Whether Envoy uses `count` certificates with this serial, as its `where` (`/certs`)."""
    connection = http.client.HTTPConnection(HOST, admin, timeout=5)
    try:
        connection.request("GET", "/certs")
        known = json.loads(connection.getresponse().read())["certificates"]
    finally:
        connection.close()
    found = [c for one in known for c in one[where] if c["serial_number"] == _serial(pem)]
    return len(found) >= count


def test_a_rotation_refuses_no_connection(tmp_path: Path) -> None:
    agents, secrets = Agents(tmp_path), Secrets(tmp_path / "secrets")
    ports = [_free_port() for _ in range(3)]
    try:
        agent = ready(agents.server(OURS, "s0", connect={"enabled": True}))

        def leaf(service: str, token: str = "") -> dict[str, Any]:
            found: dict[str, Any] = agent.get(f"/v1/agent/connect/ca/leaf/{service}?token={token}")
            return found

        def roots() -> list[str]:
            listed = agent.get("/v1/connect/ca/roots")
            return [r["RootCert"] for r in sorted(listed["Roots"], key=lambda r: r["Active"])]

        old = until(roots)[0]
        for side in ("server", "client"):
            secrets.leaf(side, leaf(side))
            secrets.roots(side, old)
        with _echo() as echo, _envoy(tmp_path, _bootstrap(secrets, *ports[:2], echo, ports[2])):
            traffic = Traffic(ports[0])
            until(traffic.once)
            with traffic:
                traffic.goes_on()
                config = agent.get(CONFIG)
                config["Config"]["PrivateKey"] = new_key("rsa", 2048)
                agent.put(CONFIG, config)
                assert roots()[0] == old
                both, new = "".join(roots()), roots()[1]
                # Each side shows a new leaf while the other has never heard of the new root
                for side in ("server", "client"):
                    fresh = leaf(side, "again")
                    secrets.leaf(side, fresh)
                    until(lambda f=fresh: _shows(ports[2], f["CertPEM"], "cert_chain"))
                    traffic.goes_on()
                for pem in (both, new):
                    for side in ("client", "server"):
                        secrets.roots(side, pem)
                        traffic.goes_on()
                until(lambda: _shows(ports[2], new, "ca_cert", 2))
                until(lambda: not _shows(ports[2], old, "ca_cert"))
                traffic.goes_on()
            # The proof that this proof can fail: who trusts something else refuses
            secrets.roots("server", _other_root())
            until(lambda: not traffic.once())
    finally:
        agents.close()


def _other_root() -> str:
    trust, now = SigningId("11111111-2222-3333-4444-555555555555"), datetime.now(UTC)
    return create_root(trust, "other", generate(), 1, now)
