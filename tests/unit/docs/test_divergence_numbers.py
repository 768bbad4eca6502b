"""Numbers in docs/divergence.md are those of the code: tests of behaviour use smaller ones."""

from __future__ import annotations

import re
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs/divergence.md"
KIB, MIB = 1024, 1024 * 1024
NUMBERS = [
    # words of the page; where in proconsul; value there
    ("is tried last for 60 s", "federation.locator:FAILURE_MEMORY_S", 60),
    ("with a head start of 0.5 s", "federation.dialer:HEAD_START_S", 0.5),
    ("after three failed replications", "federation.locator:REPLICATION_FAILURES_BEFORE_BYPASS", 3),
    ("retried within 5 s", "federation.rate:RETRY_S_MAX", 5),
    ("logged once in 30 s", "util.throttle:SAY_AGAIN_S", 30),
    ("have a deadline (15 s", "rpc.forward:CALL_S", 15),
    ("up to three servers", "rpc.forward:CROSS_DC_SERVERS_MAX", 3),
    ("after 0.5 s, doubling up to retry_interval", "federation.retry_join:FIRST_RETRY_S", 0.5),
    ("after 0.1 s, doubling to 1 s", "services.agent.checks:FIRST_RETRY_S", 0.1),
    ("after 0.1 s, doubling to 1 s", "services.agent.checks:FIRST_RETRY_S_MAX", 1),
    ("its first minute of failing", "services.agent.checks:QUICK_RETRIES_S", 60),
    ("for at most 0.5 s", "services.agent.agent:FIRST_PROBES_S", 0.5),
    ("A command above 8 MB", "services.server.answers:COMMAND_BYTES_MAX", 8 * MIB),
    ("96 MiB of unfinished messages", "rpc.listener:BUDGET.unfinished", 96 * MIB),
    ("above 96 MiB of requests", "rpc.listener:BUDGET.busy", 96 * MIB),
    ("is spared for 10 s", "services.server.autopilot:ROUND_S", 10),
    ("Ten log lines in ten seconds", "util.throttle:LINES", 10),
    ("Ten log lines in ten seconds", "util.throttle:PERIOD_S", 10),
    (
        "Headers are limited to 64 KiB",
        "drivers.http.limits:HttpLimits().header_bytes_max",
        64 * KIB,
    ),
    ("idle connections end after 300 s", "drivers.http.limits:HttpLimits().idle_timeout_s", 300),
    ("cancelled within 5 s", "drivers.http.limits:HttpLimits().half_close_grace_s", 5),
    ("Two at once (429)", "drivers.http.limits:HttpLimits().spools_max", 2),
    ("256 KiB a minute", "drivers.http.spool:WRITE_BYTES", 256 * KIB),
    ("256 KiB a minute", "drivers.http.limits:HttpLimits().body_timeout_s", 60),
    ("The agent's cache holds 10,000 entries", "services.agent.cache:ENTRIES_MAX", 10_000),
    ("are bounded: 16 KiB", "domain.filter_grammar:EXPRESSION_CHARS_MAX", 16 * KIB),
    ("256 comparisons", "domain.filter:MATCHES_MAX", 256),
    ("parentheses 32 deep", "domain.filter_grammar:DEPTH_MAX", 32),
    ("regular expressions of 4,096 characters", "domain.regexps:EXPRESSION_CHARS_MAX", 4096),
    ("compile to 2,000 steps", "domain.regexps:PROGRAM_MAX", 2000),
    ("more than 10,000 splits", "domain.discovery_chain.compile:SPLITS_MAX", 10_000),
    ("asks up to ten times a second", "federation.acl_replication:PACE.rounds_per_s", 10),
    ("and retries after 5 s at most", "federation.rate:RETRY_S_MAX", 5),
    ("is asked for again within 5 s", "federation.rate:RETRY_S_MAX", 5),
    ("Rules are at most 1 MiB", "wire.hcl:TEXT_CHARS_MAX", MIB),
    ("and 32 levels deep", "wire.hcl:DEPTH_MAX", 32),
    ("is told of every 0.1 s at most", "services.agent.remote_exec:WAIT_S_MIN", 0.1),
    ("between 50 and 60 % of their life", "services.agent.leaf:RENEW_FROM", 0.5),
    ("between 50 and 60 % of their life", "services.agent.leaf:RENEW_TO", 0.6),
    ("retried after 1 to 60 s", "services.agent.auto_encrypt:RETRY_S_MIN", 1),
    ("retried after 1 to 60 s", "services.agent.auto_encrypt:RETRY_S_MAX", 60),
    ("for 10 minutes after the last request", "services.agent.leaf:IDLE_S", 600),
    ("connect timeouts are 2 s to remote gateways", "mesh.clusters:REMOTE_CONNECT_TIMEOUT_S", 2),
    ("and 1 s to servers", "mesh.clusters:SERVER_CONNECT_TIMEOUT_S", 1),
    ("unacknowledged data ends a connection after 10 s", "mesh.clusters:USER_TIMEOUT_MS", 10_000),
]


def _value(where: str) -> object:
    module, _, name = where.partition(":")
    found = import_module(f"proconsul.{module}")
    if "()" in name:
        made, _, attribute = name.partition("().")
        return getattr(getattr(found, made)(), attribute)
    return attrgetter(name)(found)


@pytest.mark.parametrize(("words", "where", "value"), NUMBERS)
def test_the_page_and_the_code_agree(words: str, where: str, value: float) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"[*`]", "", PAGE.read_text()))
    assert words in text
    assert _value(where) == value
