"""The same questions over DNS to a real agent and to ours, both with the same catalog."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dnslib
import pytest
from agent_support import OURS, THEIRS, Agents, needs_consul, ready, until
from dns_questions import DRAWN, EXACT, RAW, catalog
from dns_support import Ask, counted, exchange, plain, recursor
from query_requests import ASKED, BAD, BAD_TEMPLATES, BY_DNS, GOOD

pytestmark = needs_consul


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    agents = Agents(tmp_path_factory.mktemp("dns"))
    with recursor() as where:
        try:
            yield _started(agents, where)
        finally:
            agents.close()


def _started(agents: Agents, where: str) -> list[Any]:
    settings = {
        "ports": {"dns": 8600},
        "recursors": [where],
        "alt_domain": "test.other",
        "dns_config": {
            "node_ttl": "10s",
            "enable_truncate": True,
            "service_ttl": {"ttl-*": "5s", "ttl-one": "7s", "web": "3s"},
            "soa": {"min_ttl": 2, "refresh": 33},
        },
    }
    pair = [agents.make(OURS, "ours", **settings), agents.make(THEIRS, "theirs", **settings)]
    for agent in pair:
        agent.config["node_name"] = "vm"
        del agent.config["data_dir"]
        agent.start("-dev")
    for agent in pair:
        ready(agent)
        for row in catalog():
            assert agent.put("/v1/catalog/register", row) is True
        until(lambda agent=agent: "serfHealth" in json.dumps(agent.get("/v1/health/node/vm")))
    return pair


def test_answers_are_those_of_consul(pair: list[Any]) -> None:
    different = []
    for ask in EXACT:
        ours, theirs = (
            plain(exchange(agent.address, ask.packed(), tcp=ask.tcp), agent.address)
            for agent in pair
        )
        if ours != theirs:
            keys = [key for key in ours if ours[key] != theirs[key]]
            different.append((ask, {k: (ours[k], theirs[k]) for k in keys}))
    assert not different, "\n".join(map(str, different))
    assert len(EXACT) > 150


def test_answers_that_are_drawn_are_cut_as_consul_cuts_them(pair: list[Any]) -> None:
    different = []
    for ask in DRAWN:
        # Names differ in length, and so does what fits: the fewest and the most of a few draws
        ours, theirs = (
            [counted(exchange(agent.address, ask.packed(), tcp=ask.tcp)) for _ in range(8)]
            for agent in pair
        )
        if not any(one in theirs for one in ours):
            different.append((ask, ours[0], theirs[0]))
    assert not different, "\n".join(map(str, different))


def test_messages_that_are_no_questions(pair: list[Any], tmp_path: Path) -> None:
    different = []
    for text in RAW:
        message = bytes.fromhex(text.replace(" ", ""))
        answers = []
        for agent in pair:
            try:
                answers.append(_briefly(agent.address, message))
            except TimeoutError:
                answers.append(b"silence")
        if answers[0] != answers[1]:
            different.append((text, *(one.hex() for one in answers)))
    assert not different, "\n".join(map(str, different))


def _briefly(address: str, message: bytes) -> bytes:
    """The answer without a SOA's serial number, as that is the time."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.3)
        sock.connect((address, 8600))
        sock.send(message)
        return sock.recv(65535)[:12]


def test_what_differs_on_purpose(pair: list[Any]) -> None:
    """docs/divergence.md has the reasons."""
    ours, theirs = (agent.address for agent in pair)
    rows = [
        {"Node": "wordy", "Address": "10.9.0.1", "NodeMeta": {"k": "v" * 300}},
        *(
            {"Node": node, "Address": "10.9.0.2", "Service": {"Service": "oddly", "Port": 1}}
            for node in ("x" * 64, "plain")
        ),
    ]
    try:
        for agent, row in itertools.product(pair, rows):
            assert agent.put("/v1/catalog/register", row) is True
        text, service = Ask("wordy.node.consul", "TXT").packed(), Ask("oddly.service.consul", "SRV")
        (answer,) = dnslib.DNSRecord.parse(exchange(ours, text)).rr
        assert [len(part) for part in answer.rdata.data] == [255, 47]
        assert len(dnslib.DNSRecord.parse(exchange(ours, service.packed())).rr) == 1
        for question in (text, service.packed()):
            with pytest.raises(TimeoutError):
                exchange(theirs, question, timeout_s=0.5)
    finally:
        for agent, node in itertools.product(pair, ("wordy", "x" * 64, "plain")):
            agent.put("/v1/catalog/deregister", {"Node": node})
    cut_off = bytes.fromhex("12340100000100000000000103666f6f000001000100002910")
    assert exchange(ours, cut_off) == bytes.fromhex("123481010000000000000000")
    repeated = exchange(theirs, cut_off)
    assert (repeated[3] & 15, repeated[12:]) == (1, cut_off[12:21])


def test_prepared_queries_are_those_of_consul(pair: list[Any]) -> None:
    different = []
    for body in (*GOOD, *BAD):
        asked = [agent.ask("POST", "/v1/query", body) for agent in pair]
        if _seen(asked[0]) != _seen(asked[1]):
            different.append((body, *map(_seen, asked)))
    assert not different, "\n".join(map(str, different))
    for body in BAD_TEMPLATES:
        asked = [agent.ask("POST", "/v1/query", body) for agent in pair]
        assert [status for status, _, _ in asked] == [500, 500], (body, asked)
        assert all(b"failed compiling template" in text for _, _, text in asked), asked
    names = [{q["Name"]: q["ID"] for q in agent.get("/v1/query")} for agent in pair]
    assert sorted(names[0]) == sorted(names[1]) == sorted(q["Name"] for q in GOOD)
    targets = [(path, path) for path in ASKED]
    targets += [
        (f"/v1/query/{names[0][name]}{suffix}", f"/v1/query/{names[1][name]}{suffix}")
        for name in names[0]
        for suffix in ("", "/execute", "/explain")
    ]
    for paths in targets:
        asked = [agent.ask("GET", path) for agent, path in zip(pair, paths, strict=True)]
        if _seen(asked[0]) != _seen(asked[1]):
            different.append((paths[0], *map(_seen, asked)))
    for method, path in (("POST", "/v1/query/x"), ("PUT", "/v1/query"), ("DELETE", "/v1/query/x"),
                         ("PUT", "/v1/query/web/execute"), ("OPTIONS", "/v1/query/web"),
                         ("PUT", "/v1/query/"), ("DELETE", "/v1/query/")):  # fmt: skip
        asked = [agent.ask(method, path) for agent in pair]
        if _seen(asked[0]) != _seen(asked[1]):
            different.append((method, path, *map(_seen, asked)))
    assert not different, "\n".join(map(str, different))
    for name, kind in itertools.product(BY_DNS, ("A", "SRV", "ANY", "AAAA")):
        ask = Ask(f"{name}.query.consul", kind, False, 1400)
        ours, theirs = (plain(exchange(a.address, ask.packed()), a.address) for a in pair)
        if ours != theirs:
            different.append((ask, ours, theirs))
    assert not different, "\n".join(map(str, different))
    for agent, ids in zip(pair, names, strict=True):
        agent.put(f"/v1/query/{ids['web']}", {"Name": "web2", "Service": {"Service": "db"}})
        assert agent.ask("DELETE", f"/v1/query/{ids['passing']}")[0] == 200
        assert agent.get("/v1/query/web2/explain")["Query"]["Service"]["Service"] == "db"
        assert agent.get("/v1/query/passing/explain")["Query"]["Name"] == ""


def test_a_query_goes_with_its_session(pair: list[Any]) -> None:
    for agent in pair:
        session = agent.put("/v1/session/create", {})["ID"]
        query = agent.ask("POST", "/v1/query", {"Session": session, "Service": {"Service": "web"}})
        query_id = json.loads(query[2])["ID"]
        assert agent.get(f"/v1/query/{query_id}")[0]["Session"] == session
        agent.put(f"/v1/session/destroy/{session}")
        assert agent.ask("GET", f"/v1/query/{query_id}")[0] == 404


def _seen(answer: tuple[int, dict[str, str], bytes]) -> Any:
    """Without ids and indexes; instances in the order of their names."""
    status, headers, body = answer
    shown: Any = body.decode()
    if headers.get("Content-Type") == "application/json" and body:
        shown = json.loads(body)
    for one in shown if isinstance(shown, list) else [shown]:
        if isinstance(one, dict):
            _without_ids(one)
    return status, headers.get("Content-Type"), headers.get("Allow"), shown


def _without_ids(one: dict[str, Any]) -> None:
    for key in ("ID", "Index", "CreateIndex", "ModifyIndex", "LastContact"):
        one.pop(key, None)
    if "Query" in one:
        _without_ids(one["Query"])
    if "Nodes" in one:
        one["Nodes"] = sorted(row["Node"]["Node"] + row["Service"]["ID"] for row in one["Nodes"])


def _reload(agent: Any, config: dict[str, Any]) -> None:
    (agent.path / "agent.json").write_text(json.dumps(config))
    assert agent.ask("PUT", "/v1/agent/reload")[0] == 200


def test_settings_that_a_reload_changes(pair: list[Any]) -> None:
    settings = {
        "only_passing": True,
        "a_record_limit": 2,
        "udp_answer_limit": 5,
        "disable_compression": True,
        "enable_additional_node_meta_txt": False,
        "enable_truncate": False,
        "allow_stale": False,
        "use_cache": True,
        "cache_max_age": "1m",
        "soa": {"expire": 5},
    }
    query = {"Name": "reloaded", "Service": {"Service": "web"}}
    ids = [json.loads(agent.ask("POST", "/v1/query", query)[2])["ID"] for agent in pair]
    for agent in pair:
        _reload(agent, {**agent.config, "dns_config": settings, "recursors": []})
    try:
        different = _compared_after_reload(pair)
    finally:
        for agent, query_id in zip(pair, ids, strict=True):
            _reload(agent, agent.config)
            agent.ask("DELETE", f"/v1/query/{query_id}")
    assert not different, "\n".join(map(str, different))


def _compared_after_reload(pair: list[Any]) -> list[Any]:
    different = []
    names = ("web.service.consul", "ext.service.consul", "dup.service.consul", "nope.node.consul",
             "n4.node.consul", "www.example.com", "9.9.9.9.in-addr.arpa", "reloaded.query.consul",
             "4.0.1.10.in-addr.arpa", "host.node.consul", "web.service.test.other")  # fmt: skip
    for name, kind, edns in itertools.product(names, ("A", "SRV", "TXT", "SOA"), (0, 1400)):
        if (name, kind) == ("reloaded.query.consul", "TXT"):
            continue  # two of three addresses of both kinds, drawn by lot
        ask = Ask(name, kind, False, edns)
        data = [exchange(agent.address, ask.packed()) for agent in pair]
        ours, theirs = (plain(one, a.address) for one, a in zip(data, pair, strict=True))
        if ours != theirs or (kind == "A" and len(data[0]) != len(data[1])):
            different.append((ask, ours, theirs))
    for kind, tcp in itertools.product(("A", "SRV"), (False, True)):
        ask = Ask("many.service.consul", kind, tcp)
        ours, theirs = (counted(exchange(a.address, ask.packed(), tcp=tcp)) for a in pair)
        if ours != theirs:
            different.append((ask, ours, theirs))
    return different
