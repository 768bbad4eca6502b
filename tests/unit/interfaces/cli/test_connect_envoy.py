"""`connect envoy` against an agent's HTTP stand-in, up to the hand-over to Envoy."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from proconsul.interfaces.cli import connect_envoy
from proconsul.interfaces.cli.connect_envoy import ServiceAddress, parse_address, run
from proconsul.interfaces.cli.envoy_bootstrap import envoy_argv, find_envoy
from proconsul.util.errors import ProconsulError

GATEWAY = {"Kind": "mesh-gateway", "ID": "gw-1", "Service": "gw", "Proxy": {"Config": {}}}


@dataclass
class Agent:
    address: str
    grpc_port: int = 9502
    services: dict[str, Any] = field(default_factory=dict)
    registered: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    status: int = 200


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    for name in ("CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN", "CONSUL_GRPC_ADDR", "CONNECT_PROXY_ID"):
        monkeypatch.delenv(name, raising=False)

    class Handler(http.server.BaseHTTPRequestHandler):
        @override
        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            state.tokens.append(self.headers["X-Consul-Token"])
            length = int(self.headers["Content-Length"])
            state.registered.append(json.loads(self.rfile.read(length)))
            self.answer(None)

        def do_GET(self) -> None:
            if self.path == "/v1/agent/self":
                self.answer({"DebugConfig": {"GRPCPort": state.grpc_port}})
            elif self.path == "/v1/agent/services":
                self.answer(state.services)
            else:
                self.answer(GATEWAY)

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    state = Agent(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def bootstrap_of(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert run([*argv, "-bootstrap"]) == 0, capsys.readouterr().err
    parsed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return parsed


def test_registration_and_bootstrap(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    bootstrap = bootstrap_of(
        capsys,
        f"-http-addr=http://{agent.address}",
        *("-gateway=mesh", "-register", "-expose-servers", "-token", "secret"),
        *("-address", "127.0.31.1:8443", "-wan-address=127.0.31.2:443", "-service", "gw"),
        *("-proxy-id", "gw-1", "-admin-bind", "127.0.0.1:19005"),
        *("-deregister-after-critical", "1h"),
    )
    (service,) = agent.registered
    assert agent.tokens == ["secret"]
    assert service == {
        "Kind": "mesh-gateway",
        "Name": "gw",
        "ID": "gw-1",
        "Address": "127.0.31.1",
        "Port": 8443,
        "Meta": {"consul-wan-federation": "1"},
        "TaggedAddresses": {
            "lan": {"Address": "127.0.31.1", "Port": 8443},
            "wan": {"Address": "127.0.31.2", "Port": 443},
        },
        "Proxy": {
            "Config": {
                "envoy_gateway_no_default_bind": True,
                "envoy_gateway_bind_tagged_addresses": True,
            }
        },
        "Check": {
            "Name": "mesh-gateway listening",
            "TCP": "127.0.31.1:8443",
            "Interval": "10s",
            "DeregisterCriticalServiceAfter": "1h",
        },
    }
    assert bootstrap["node"]["id"] == "gw-1"
    assert bootstrap["node"]["cluster"] == "gw"
    assert bootstrap["admin"]["address"]["socket_address"]["port_value"] == 19005
    ads = bootstrap["dynamic_resources"]["ads_config"]
    assert ads["api_type"] == "DELTA_GRPC"
    assert ads["grpc_services"][0]["initial_metadata"][0]["value"] == "secret"
    (cluster,) = bootstrap["static_resources"]["clusters"]
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    assert endpoint["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 9502}


def test_bind_rules(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("-http-addr", agent.address, "-gateway=mesh", "-register")
    bootstrap_of(capsys, *base, "-address", "127.0.31.1:1", "-wan-address", "203.0.113.9:2")
    bootstrap_of(capsys, *base, "-address", "203.0.113.9:1", "-bind-address", "a=127.0.31.1:5")
    assert run([*base, "-bootstrap", "-address", "203.0.113.9:1"]) == 1
    assert 'LAN address "203.0.113.9" will not be bindable' in capsys.readouterr().err
    assert [service["Proxy"]["Config"] for service in agent.registered] == [
        None,
        {
            "envoy_gateway_no_default_bind": True,
            "envoy_gateway_bind_addresses": {"a": {"Address": "127.0.31.1", "Port": 5}},
        },
    ]


def test_gateway_that_is_registered_already(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.services = {"gw-1": GATEWAY, "web": {"Kind": "", "ID": "web", "Service": "web"}}
    bootstrap = bootstrap_of(capsys, "-http-addr", agent.address, "-gateway", "mesh")
    assert bootstrap["node"]["id"] == "gw-1"
    agent.services["gw-2"] = GATEWAY
    assert run(["-http-addr", agent.address, "-gateway", "mesh", "-bootstrap"]) == 1
    assert "2 mesh-gateway services" in capsys.readouterr().err


def test_grpc_address_forms(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("PEM")
    base = ("-proxy-id=p", "-no-central-config")
    tls = bootstrap_of(
        capsys, *base, "-grpc-addr", "https://127.0.0.1:1", "-ca-file", str(ca),
        "-tls-server-name", "client.dc1.consul",
    )  # fmt: skip
    (cluster,) = tls["static_resources"]["clusters"]
    context = cluster["transport_socket"]["typed_config"]
    assert context["sni"] == "client.dc1.consul"
    validation = context["common_tls_context"]["validation_context"]
    assert validation["trusted_ca"] == {"inline_string": "PEM"}
    unix = bootstrap_of(capsys, *base, "-grpc-addr", "unix:///run/x.sock")
    assert '"path": "/run/x.sock"' in json.dumps(unix)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-gateway=ingres"], "Gateway must be one of"),
        (["-expose-servers"], "'-expose-servers' can only be used for mesh gateways"),
        (["-gateway=mesh", "-expose-servers"], "'-expose-servers' requires '-register'"),
        (["-register"], "Auto-Registration can only be used for gateways"),
        (["-mesh-gateway", "-gateway=mesh"], "deprecated"),
        (["-no-central-config"], "No proxy ID specified"),
        (["-nonsense"], "flag provided but not defined: -nonsense"),
        (["-bind-address", "x"], 'Missing "=" in argument: x'),
        (["-proxy-id=p", "-no-central-config", "-grpc-addr", "x"], "is not host:port"),
    ],
)
def test_mistakes(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*argv, "-bootstrap"]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_agent_that_refuses(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.status = 403
    argv = ["-http-addr", agent.address, "-gateway=mesh", "-register", "-bootstrap"]
    assert run(argv) == 1
    error = capsys.readouterr().err
    assert 'Error registering service "mesh-gateway": Unexpected response code: 403' in error


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-h"]) == 0
    assert "-expose-servers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:8443", ServiceAddress("10.0.0.1", 8443)),
        ("10.0.0.1", ServiceAddress("10.0.0.1", 443)),
        ("[2001:db8::1]:1", ServiceAddress("2001:db8::1", 1)),
        ("2001:db8::1", ServiceAddress("2001:db8::1", 443)),
        (":99", ServiceAddress("", 99)),
        ("gw.example.com:8443", ServiceAddress("gw.example.com", 8443)),
        ('{{ GetInterfaceIP "^lo$" }}:8443', ServiceAddress("127.0.0.1", 8443)),
    ],
)
def test_addresses(text: str, expected: ServiceAddress) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "gw", "1.2.3.4:x", "1.2.3.4:70000", "a:b:1", "{{ Bad }}:1"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)


def test_envoy_is_run_with_the_arguments_after_two_dashes(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def instead(binary: str, bootstrap: bytes, extra: list[str]) -> None:
        calls.append((binary, json.loads(bootstrap)["node"]["id"], extra))
        raise ProconsulError("not in a test")

    monkeypatch.setattr(connect_envoy, "exec_envoy", instead)
    binary = tmp_path / "envoy"
    binary.write_text("")
    binary.chmod(0o700)
    argv = ["-http-addr", agent.address, "-proxy-id=gw-1", "-envoy-binary", str(binary)]
    assert run([*argv, "--", "--concurrency", "1"]) == 1
    assert calls == [(str(binary), "gw-1", ["--concurrency", "1"])]


def test_arguments_and_binary(tmp_path: Path) -> None:
    assert envoy_argv("/e", "/c", ["-l", "info"]) == [
        *("/e", "--config-path", "/c", "--disable-hot-restart", "-l", "info")
    ]
    assert "--disable-hot-restart" not in envoy_argv("/e", "/c", ["--restart-epoch=1"])
    with pytest.raises(ProconsulError, match="not an executable"):
        find_envoy(str(tmp_path / "none"))


def test_grpc_is_where_http_is_unless_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    for more, host in (((), "192.0.2.7"), (("-grpc-addr", "192.0.2.8:8502"), "192.0.2.8")):
        argv = ("-proxy-id=p", "-no-central-config", "-http-addr", "192.0.2.7:8500", *more)
        bootstrap = bootstrap_of(capsys, *argv)
        (cluster,) = bootstrap["static_resources"]["clusters"]
        endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        assert endpoint["address"]["socket_address"] == {"address": host, "port_value": 8502}
        ads = bootstrap["dynamic_resources"]["ads_config"]
        assert (ads["api_type"], ads["transport_api_version"]) == ("DELTA_GRPC", "V3")
