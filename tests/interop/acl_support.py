"""Agents whose ACLs deny by default, asked with tokens; and what differs from agent to agent removed."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import subprocess
import sys
from typing import Any
from unittest import mock

from agent_support import OURS, AgentProcess, until

from proconsul.interfaces.cli.main import main

MASTER = "11111111-2222-3333-4444-555555555555"  # a secret of tests
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_VARIABLE = (
    (re.compile(r"20\d\d-\d\d-\d\d[ T][0-9:.]+"), "TIME"),
    (re.compile(r'((?:Create|Modify) ?Index"?: *)\d+'), r"\1N"),
    (re.compile(r"reset index: \d+"), "reset index: N"),
    (re.compile(r"\(was -?[0-9hms.µn]+\)"), "(was X)"),
    (re.compile(r'(Hash"?: *"?)[0-9a-zA-Z+/=]+'), r"\1HASH"),
    (re.compile(r"\n*Usage: (pro)?consul.*", re.DOTALL), "\nUSAGE"),
)


def acls(*, secondary: bool = False, **tokens: str) -> dict[str, Any]:
    """The configuration of an agent of a system that denies by default."""
    own = {"replication": MASTER} if secondary else {"master": MASTER}
    return {
        "primary_datacenter": "dc1",
        "acl": {
            "enabled": True,
            "default_policy": "deny",
            "enable_token_replication": True,
            "tokens": {**own, **tokens},
        },
    }


def call(
    agent: AgentProcess, method: str, target: str, body: Any = None, token: str = MASTER
) -> tuple[int, dict[str, str], str]:
    """One request with a token: status, headers that matter, text."""
    if body is not None and not isinstance(body, str):
        body = json.dumps(body)
    headers = {"X-Consul-Token": token} if token else {}
    connection = http.client.HTTPConnection(agent.address, 8500, timeout=15)
    try:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        shown = ("Content-Type", "X-Consul-Knownleader", "X-Consul-Lastcontact", "Allow")
        found = {name: response.getheader(name) or "" for name in shown}
        return response.status, found, response.read().decode()
    finally:
        connection.close()


def answer(
    agent: AgentProcess, method: str, target: str, body: Any = None, token: str = MASTER
) -> Any:
    """The JSON of a request that must succeed."""
    status, _, text = call(agent, method, target, body, token)
    assert status == 200, (agent.name, method, target, status, text)
    return json.loads(text) if text else None


def acl_ready(agent: AgentProcess) -> AgentProcess:
    """Wait until it knows the management token and leads."""
    until(lambda: call(agent, "GET", "/v1/acl/token/self")[0] == 200 and agent.leader(), 30)
    return agent


def plain(text: str, ids: dict[str, str] | None = None) -> str:
    """Without what no two agents have in common; ids by the order in which they were seen."""

    def named(match: re.Match[str]) -> str:
        if match[0].startswith("00000000") or match[0] == MASTER:
            return match[0]
        return "ID" if ids is None else ids.setdefault(match[0], f"ID{len(ids)}")

    text = _ID.sub(named, text)
    for pattern, replacement in _VARIABLE:
        text = pattern.sub(replacement, text)
    return text


def cli(
    agent: AgentProcess, command: tuple[str, ...], *args: str, stdin: str = ""
) -> tuple[int, str, str]:
    """A command line with the management token: status, stdout, stderr. Ours runs in here."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CONSUL_", "PROCONSUL"))}
    env |= {"CONSUL_HTTP_ADDR": f"{agent.address}:8500", "CONSUL_HTTP_TOKEN": MASTER}
    if command is not OURS:
        done = subprocess.run(
            [*command, *args], env=env, capture_output=True, timeout=30, check=False, text=True,
            input=stdin,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr
    out, err = io.StringIO(), io.StringIO()
    given = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    with (
        mock.patch.dict(os.environ, env, clear=True),
        mock.patch.object(sys, "stdin", given),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = main(args)
    return status, out.getvalue(), err.getvalue()
