"""The CA's settings, leaves and authorization over HTTP and the command line: ours as Consul's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_support import OURS, THEIRS, AgentProcess, both_alone, needs_consul
from mesh_ca_support import accepted, new_key

pytestmark = [*needs_consul, pytest.mark.timeout(120)]

Pair = tuple[AgentProcess, AgentProcess]
CONFIG = "/v1/connect/ca/configuration"
AUTHORIZE = "/v1/agent/connect/authorize"
_HEADERS = ("Content-Type", "X-Cache")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with both_alone(tmp_path_factory.mktemp("pair")) as both:
        yield both


def _normal(text: str) -> str:
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<uuid>", text)
    text = re.sub(r"-----BEGIN .*?-----END [A-Z ]*-----(\\n)?", "<pem>", text, flags=re.S)
    text = re.sub(r'"\d{4}-\d\d-\d\dT[^"]*"', '"<time>"', text)
    text = re.sub(r'(Index"?: ?)\d+', r"\1<n>", text)
    return re.sub(r"(?:[0-9a-f]{2}:)*[0-9a-f]{2}(?=\")", "<hex>", text)


def _same(pair: Pair, method: str, target: str, body: Any = None) -> tuple[int, str]:
    answers = []
    for agent in pair:
        status, headers, content = agent.ask(method, target, body)
        shown = {name: headers.get(name) for name in _HEADERS}
        answers.append((status, shown, _normal(content.decode())))
    assert answers[0] == answers[1]
    return answers[0][0], answers[0][2]


def _uri(agent: AgentProcess, service: str) -> str:
    trust = agent.get("/v1/connect/ca/roots")["TrustDomain"]
    return f"spiffe://{trust}/ns/default/dc/dc1/svc/{service}"


def test_configuration(pair: Pair) -> None:
    status, text = _same(pair, "GET", CONFIG)
    assert status == 200
    assert '"LeafCertTTL"' in text
    for body in (
        {"Provider": "consul", "Config": {"LeafCertTTL": "5m"}},
        {"Provider": "consul", "Config": {"LeafCertTTL": "9000h"}},
        {"Provider": "consul", "Config": {"LeafCertTTL": "72h", "IntermediateCertTTL": "100h"}},
        {"Provider": "consul", "Config": {"IntermediateCertTTL": "1h"}},
        {"Provider": "consul", "Config": {"RootCert": "x"}},
        {"Provider": "consul", "Config": {"PrivateKeyType": "ed25519"}},
        {"Provider": "consul", "Config": {"PrivateKeyBits": 17}},
        {"Provider": "consul", "Config": {"PrivateKeyType": "rsa", "PrivateKeyBits": 17}},
        {"Provider": "nobody", "Config": {}},
        {"Provider": "consul", "State": {"a": "b"}, "Config": {"LeafCertTTL": "5h"}},
    ):
        assert _same(pair, "PUT", CONFIG, body)[0] != 200
    assert _same(pair, "PUT", CONFIG, b"{")[0] == 400
    body = {
        "Provider": "consul",
        "Config": {"LeafCertTTL": "71h", "RotationPeriod": "2160h", "IntermediateCertTTL": "8760h"},
    }
    assert _same(pair, "PUT", CONFIG, body) == (200, "")
    assert '"71h"' in _same(pair, "GET", CONFIG)[1]
    _same(pair, "DELETE", CONFIG)


def test_leaves(pair: Pair) -> None:
    for target in ("web", "Web%20Two", ""):
        _same(pair, "GET", f"/v1/agent/connect/ca/leaf/{target}")
    _same(pair, "GET", "/v1/agent/connect/ca/leaf/web")
    _same(pair, "GET", "/v1/agent/connect/ca/leaf/web?dc=nowhere")
    for agent in pair:
        leaf = agent.get("/v1/agent/connect/ca/leaf/web")
        assert accepted(leaf, agent.get("/v1/connect/ca/roots")["Roots"][0]["RootCert"])


def test_authorize(pair: Pair) -> None:
    for agent in pair:
        for source, action in (("web", "allow"), ("bad", "deny")):
            rule = {"SourceName": source, "DestinationName": "db", "Action": action}
            agent.ask("POST", "/v1/connect/intentions", rule)
    for body in ({}, {"Target": "db"}, {"Target": "db", "ClientCertURI": "spiffe://x.consul"}, []):
        assert _same(pair, "POST", AUTHORIZE, body)[0] == 400
    assert _same(pair, "GET", AUTHORIZE)[0] == 405
    for source, allowed in (("web", True), ("bad", False), ("other", True)):
        answers = []
        for agent in pair:
            body = {"Target": "db", "ClientCertURI": _uri(agent, source)}
            status, headers, content = agent.ask("POST", AUTHORIZE, body)
            answers.append((status, headers["X-Cache"], _normal(content.decode())))
            assert json.loads(content)["Authorized"] is allowed
        assert answers[0] == answers[1]


def test_commands(pair: Pair, tmp_path: Path) -> None:
    """Each program on the other's agent, and what both show of one."""
    for agent, command in ((pair[0], THEIRS), (pair[1], OURS)):
        status, out, err = agent.cli(command, "connect", "ca", "get-config")
        assert status == 0, err
        config = json.loads(out)
        assert config["Config"]["LeafCertTTL"]
        config["Config"]["PrivateKey"] = new_key()
        file = tmp_path / "config.json"
        file.write_text(json.dumps(config))
        status, out, err = agent.cli(command, "connect", "ca", "set-config", f"-config-file={file}")
        assert (status, out.strip()) == (0, "Configuration updated!"), err
        assert len(agent.get("/v1/connect/ca/roots")["Roots"]) == 2
    outputs = [pair[0].cli(command, "connect", "ca", "get-config")[1] for command in (OURS, THEIRS)]
    assert outputs[0] == outputs[1]
