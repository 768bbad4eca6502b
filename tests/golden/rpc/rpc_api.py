"""The HTTP API of a real agent, as `rpc_capture.py` drives it."""

from __future__ import annotations

import json
from typing import Any

from agent_support import THEIRS, AgentProcess

MASTER = "5ec2e700-0000-4000-8000-000000000001"
RULES = 'key_prefix "" { policy = "read" }'


class Api:
    """One agent's HTTP API, with a token."""

    def __init__(self, agent: AgentProcess, token: str = MASTER) -> None:
        self.agent, self.token = agent, token

    def __call__(self, method: str, target: str, body: Any = None, timeout: float = 15.0) -> Any:
        """The answer as JSON, or as text; whatever the status."""
        mark = "&" if "?" in target else "?"
        token = f"{mark}token={self.token}" if self.token else ""
        status, _, answer = self.agent.ask(method, target + token, body, timeout)
        if status != 200:
            print(method, target, status, answer[:120])
        try:
            return json.loads(answer)
        except ValueError:
            return answer.decode()

    def cli(self, *args: str) -> str:
        """A command of the real program against this agent."""
        status, out, err = self.agent.cli(THEIRS, *args, f"-token={self.token}")
        if status:
            print(args, status, err[:200])
        return out

    def key(self, target: str, of: str = "ID") -> str:
        """Of the first row of a list."""
        return str(self("GET", target)[0][of])
