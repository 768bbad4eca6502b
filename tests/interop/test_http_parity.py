"""The same requests, good and bad, over every endpoint, to a real agent and ours in one state.

Both run alone with ACLs in default deny. Status, headers and bodies must be equal once ids, times, indexes
and what is made of them are replaced. What differs on purpose is in `DIVERGENCES`, and
must go on differing.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, until
from parity_steps import GROUPS, NOBODY, Step

from proconsul.testing.trees import differences

pytestmark = needs_consul

MASTER = "5ec2e700-0000-4000-8000-00000000aaaa"
COMPARED = (
    "Allow", "Content-Type", "Location", "Vary", "X-Consul-Knownleader", "X-Consul-Reason",
    "X-Consul-Effective-Consistency", "X-Content-Type-Options", "Content-Security-Policy", "X-Cache",
    "X-Consul-Translate-Addresses",
)  # fmt: skip
VOLATILE = frozenset(
    [
        "CreateIndex",
        "ModifyIndex",
        "Index",
        "LockIndex",
        "LastIndex",
        "CreatedAt",
        "UpdatedAt",
        "CreateTime",
        "ExpirationTime",
        "Hash",
        "LastSuccess",
        "LastError",
        "ReplicatedIndex",
        "SerialNumber",
        "SigningKeyID",
        "NotBefore",
        "NotAfter",
        "ValidAfter",
        "ValidBefore",
        "RootCert",
        "IntermediateCerts",
        "CertPEM",
        "PrivateKeyPEM",
        "SecretID",
        "PrimaryModifyIndex",
        "Output",
        "LTime",
        "ContentHash",
    ]
)
"""Fields whose values say nothing; whether they are there does."""
BROKEN_OFF: tuple[int, dict[str, str], Any] = (0, {}, "the agent broke off")
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DIVERGENCES = {
    # step: difference that is excused; docs/divergence.md has the reasons
    r"/ca/roots": r"X-Consul-(Knownleader|Index): ",
    r'"PrivateKey": "x"': r"private key cannot be read",
    r'"Session": "x"': r"invalid session",
    r"\$\{bad": r"Bad format",
    r"agent/join/": r"Failed to",
}
EXCUSED: set[str] = set()
FILTER = "/v1/catalog/nodes?filter="
STALE = '{"Provider": "consul", "Config": {"LeafCertTTL": "70h"}, "ModifyIndex": 1}'
UNLIKE = (
    # request; status and a part of the body, ours and theirs
    (("GET", "/v1/internal/federation-status", None), (200, '"Datacenters":'), (404, "")),
    (("GET", "/debug/pprof/cmdline", None), (404, ""), (200, "consul")),
    (
        ("POST", "/v1/acl/login", '{"AuthMethod": "x", "BearerToken": "y"}'),
        (501, "give out tokens instead"),
        (403, "ACL not found"),
    ),
    (
        ("PUT", "/v1/acl/auth-method", '{"Name": "m", "Type": "x"}'),
        (501, "give out tokens instead"),
        (500, "Invalid Auth Method"),
    ),
    (
        ("POST", "/v1/acl/rules/translate", '# note\nkey "a" { policy = "read" }'),
        (200, 'key_prefix "a" {'),
        (200, '# note\nkey_prefix "a" {'),
    ),
    (
        ("PUT", "/v1/acl/policy", '{"Name": "unlike", "Rules": "{\\"key\\": x}"}'),
        (500, "Expecting value"),
        (500, "illegal char"),
    ),
    (
        ("GET", FILTER + "+or+".join(["Node==a"] * 257), None),
        (500, "exceeds the limit (256)"),
        (200, "[]"),
    ),
    (
        ("GET", FILTER + "Node+matches+`%5Cp%7BGreek%7D`", None),
        (500, "invalid character class range"),
        (200, "[]"),
    ),
    (("PUT", "/v1/connect/ca/configuration", STALE), (500, "it changed meanwhile"), (200, "")),
    (
        ("PUT", "/v1/connect/ca/configuration", '{"Provider": "vault", "Config": {}}'),
        (500, "not supported"),
        (500, "must provide a Vault token"),
    ),
    (
        ("PUT", "/v1/agent/join/127.0.0.1:1", None),
        (500, "Failed to join 127.0.0.1:1: "),
        (500, "Failed to join 127.0.0.1: "),
    ),
)
"""What `GROUPS` leaves out since it differs on purpose; docs/divergence.md has the reasons."""


class Side:
    """One of the two agents, with the names it gave to things."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent = agent
        self.saved: dict[str, str] = {}
        self.names: dict[str, str] = {}

    def ask(self, step: Step) -> tuple[int, dict[str, str], Any]:
        """Status, compared headers, and the body with everything volatile replaced."""
        target, body = self._filled(step.target), step.body
        if body is not None:
            body = self._filled(body if isinstance(body, str) else json.dumps(body))
        token = MASTER if step.token is None else self.saved.get(step.token, step.token)
        if token:
            target += ("&" if "?" in target else "?") + f"token={token}"
        try:
            status, headers, answer = self.agent.ask(step.method, target, body)
        except http.client.RemoteDisconnected:
            return BROKEN_OFF
        for name, field in (step.save or {}).items():
            self.saved[name] = str(json.loads(answer)[field]) if status == 200 else NOBODY
        kept = {k: headers[k] for k in COMPARED if k in headers}
        if status < 400:  # errors have no index here (docs/divergence.md)
            kept["X-Consul-Index"] = str("X-Consul-Index" in headers)
        else:
            kept.pop("X-Consul-Knownleader", None)
        return status, kept, self._normal(answer)

    def _filled(self, text: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda m: self.saved.get(m[1], m[0]), text)

    def _normal(self, answer: bytes) -> Any:
        try:
            return self._plain(json.loads(answer))
        except ValueError:
            return self._text(answer.decode(errors="replace"))

    def _plain(self, value: Any, field: str = "") -> Any:
        if field in VOLATILE and value not in (None, ""):
            return f"<{field}>"
        if isinstance(value, dict):
            return {self._text(k): self._plain(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return sorted((self._plain(item, field) for item in value), key=repr)
        return self._text(value) if isinstance(value, str) else value

    def _text(self, text: str) -> str:
        text = text.replace(self.agent.address, "<address>")
        text = UUID.sub(lambda m: self.names.setdefault(m[0], f"<id {len(self.names)}>"), text)
        text = re.sub(r"\b(?:[0-9a-f]{2}:){7,}[0-9a-f]{2}\b", "<fingerprint>", text)
        text = re.sub(r"into Go value of type .*", "into Go value of type T", text)
        text = re.sub(r"into Go struct field \w*\.", "into Go struct field T.", text)
        text = re.sub(r"(reset|current modify) index:? \d+", r"\1 index N", text)
        text = re.sub(r"-----BEGIN[^-]*-----[^-]*-----END[^-]*-----", "<pem>", text)
        return re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)", "<time>", text)


def _synced(side: Side) -> bool:
    """Its leader brought the check into the catalog, the agent itself the addresses."""
    node = str(side.ask(Step("GET", "/v1/internal/ui/node/vm")))
    return "serfHealth" in node and "lan_ipv4" in node


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    agents = Agents(tmp_path_factory.mktemp("parity"))
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER, "agent": MASTER}}
    config = {
        "node_name": "vm",
        "acl": acl,
        "connect": {"enabled": True},
        "session_ttl_min": "10s",
        "node_id": "0" * 8 + "-0000-0000-0000-" + "1" * 12,
    }
    try:
        pair = [
            Side(agents.server(command, name, **config))
            for command, name in ((OURS, "ours"), (THEIRS, "theirs"))
        ]
        for side in pair:
            until(
                lambda side=side: _synced(side),
                30,
            )
            until(
                lambda side=side: side.ask(Step("GET", "/v1/agent/connect/ca/roots"))[0] == 200, 30
            )
        yield pair[0], pair[1]
    finally:
        agents.close()


@pytest.mark.parametrize("group", GROUPS)
def test_both_answer_alike(sides: tuple[Side, Side], group: str) -> None:
    ours, theirs = sides
    found: list[str] = []
    for step in GROUPS[group]:
        mine, real = ours.ask(step), theirs.ask(step)
        body = (
            ""
            if step.body is None
            else f" {step.body if isinstance(step.body, str) else json.dumps(step.body)}"
        )
        name = f"{step.method} {step.target}{body}"
        if real is BROKEN_OFF:  # it panicked
            assert mine[0] >= 400, f"{name}: {mine}"
            continue
        unlike = [line for line in differences(list(mine), list(real)) if not excused(name, line)]
        if unlike:
            found.append(f"{name[:160]} token={step.token}: " + "\n    ".join(unlike))
    assert not found, f"{len(found)} of {len(GROUPS[group])} differ:\n" + "\n".join(found)


def excused(step: str, difference: str) -> bool:
    """Whether it is one of `DIVERGENCES`; remembered, since those must go on differing."""
    for where, what in DIVERGENCES.items():
        if re.search(where, step) and re.search(what, difference):
            EXCUSED.add(where)
            return True
    return False


def test_what_differs_on_purpose_still_does(sides: tuple[Side, Side]) -> None:
    assert set(DIVERGENCES) == EXCUSED


@pytest.mark.parametrize("unlike", UNLIKE, ids=lambda u: f"{u[0][0]} {u[0][1][:40]}")
def test_each_answers_as_it_is_known_to(sides: tuple[Side, Side], unlike: Any) -> None:
    (method, target, body), *expected = unlike
    target += ("&" if "?" in target else "?") + f"token={MASTER}"
    answers = [side.agent.ask(method, target, body) for side in sides]
    for (status, _, answer), (wanted, part) in zip(answers, expected, strict=True):
        text = answer.decode()
        assert status == wanted, text
        assert part in text
        assert part or not text.strip()
    assert (answers[0][0], answers[0][2]) != (answers[1][0], answers[1][2])


def test_headers_and_details_that_differ(sides: tuple[Side, Side]) -> None:
    failed = [side.agent.ask("GET", f"{FILTER}x&token={MASTER}")[1] for side in sides]
    assert "X-Consul-Index" not in failed[0]
    assert failed[1]["X-Consul-Index"] == "1"
    service = {"ID": "unlike", "Name": "unlike", "Port": 7}
    hashes, settings = [], []
    for side in sides:
        ask = side.agent.ask
        assert ask("PUT", f"/v1/agent/service/register?token={MASTER}", service)[0] == 200
        status, headers, _ = ask("GET", f"/v1/agent/service/unlike?token={MASTER}")
        assert status == 200
        hashes.append(headers["X-Consul-Contenthash"])
        assert ask("PUT", f"/v1/agent/service/deregister/unlike?token={MASTER}")[0] == 200
        shown = json.loads(ask("GET", f"/v1/agent/self?token={MASTER}")[2])
        settings.append(set(shown["DebugConfig"]))
    assert len(hashes[0]) == len(hashes[1])
    assert hashes[0] != hashes[1]
    assert len(settings[0]) < len(settings[1]) / 4
    assert settings[0] - settings[1] == {"ProconsulVersion"}


def test_what_agents_tell_of_themselves_differs(sides: tuple[Side, Side]) -> None:
    def told(side: Side, what: str) -> Any:
        return json.loads(side.agent.ask("GET", f"/v1/agent/{what}?token={MASTER}")[2])

    def measured(side: Side) -> set[str]:
        rows = told(side, "metrics")
        return {row["Name"] for kind in ("Gauges", "Samples") for row in rows[kind]}

    hosts = [told(side, "host") for side in sides]
    assert {"total", "available"} <= set(hosts[0]["Memory"]) < set(hosts[1]["Memory"])
    assert set(hosts[0]["CPU"][0]) == {"cpu"} < set(hosts[1]["CPU"][0])
    ours, theirs = sides
    until(lambda: "consul.serf.members" in measured(ours) - measured(theirs), 20)
    until(lambda: "consul.memberlist.gossip" in measured(theirs) - measured(ours), 20)
