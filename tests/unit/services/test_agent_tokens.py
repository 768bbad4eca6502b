"""The agent's own tokens: which one counts, who hears of changes, what stays."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from proconsul.services.agent.tokens import FILE, KIND_BY_URL, AgentTokens, Kind, TokensError


def test_the_agents_token_is_the_default_one_unless_it_has_its_own() -> None:
    tokens, heard = AgentTokens(), list[Kind]()
    end = tokens.subscribe(heard.append)
    tokens.load({Kind.DEFAULT: "d"}, {})
    assert (tokens.default, tokens.agent, tokens.replication) == ("d", "d", "")
    assert tokens.update(Kind.AGENT, "a")
    assert not tokens.update(Kind.AGENT, "a")
    assert (tokens.default, tokens.agent) == ("d", "a")
    end()
    tokens.update(Kind.REPLICATION, "r")
    assert heard == [Kind.DEFAULT, Kind.AGENT]
    assert KIND_BY_URL["acl_agent_token"] is KIND_BY_URL["agent"] is Kind.AGENT


def test_an_empty_master_token_opens_nothing() -> None:
    tokens = AgentTokens()
    assert not tokens.is_agent_master("")
    tokens.update(Kind.AGENT_MASTER, "m\udcff")
    assert tokens.is_agent_master("m\udcff")
    assert not tokens.is_agent_master("m")


def test_only_what_came_at_run_time_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = AgentTokens(tmp_path)
    tokens.load({Kind.DEFAULT: "configured", Kind.AGENT: "old"}, tokens.read())
    tokens.update(Kind.AGENT, "new")
    tokens.save()
    file = tmp_path / FILE
    assert json.loads(file.read_text()) == {"agent": "new"}
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]
    again = AgentTokens(tmp_path)
    with caplog.at_level(logging.WARNING):
        again.load({Kind.AGENT: "old"}, again.read())
    assert (again.agent, again.default) == ("new", "")
    assert '"agent" token present in both the configuration and persisted' in caplog.text
    assert "new" not in caplog.text.replace("persisted token store", "")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"7"])
def test_a_damaged_file_keeps_no_agent_from_starting(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert AgentTokens(tmp_path).read() == {}


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    tokens = AgentTokens(tmp_path / "none")
    tokens.update(Kind.AGENT, "a")
    with pytest.raises(TokensError, match="Failed to persist tokens"):
        tokens.save()
