"""`/v1/operator/keyring`, `/v1/event/`, `/v1/txn`, `/v1/agent/monitor` on an agent in memory."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from http_asking import ask, get, make, put
from http_fake_agent import FakeAgent

from proconsul.core.gossip.serf import UserEvent as GossipEvent
from proconsul.domain import ops, txn
from proconsul.domain.acl import AllowAll, Authorizer
from proconsul.domain.base import bytes_of
from proconsul.domain.kv import DirEntry
from proconsul.drivers.http import Response
from proconsul.interfaces.http.api import HttpApi
from proconsul.services.agent.events import UserEvent, UserEvents, decode_event, encode_event

IDS = ["b54fe110-7af5-cafc-d1fb-afc8ba432b1c", "4a1b9ff6-7d4e-4f0e-9be0-22b1b0d1ffff"]


class Agent(FakeAgent):
    """With events, as a server."""

    def __init__(self) -> None:
        super().__init__()
        self.events = UserEvents("n1", list, None)
        self.is_server = True

    def hear(self, name: str, number: int) -> None:
        event = UserEvent(IDS[number], name, version=1)
        self.events.heard(GossipEvent(number, f"consul:event:{name}", encode_event(event), False))


class NoEvents(AllowAll):
    """May read no events but `open`, nor the agent."""

    def event_read(self, name: str) -> bool:
        return name == "open"

    def agent_read(self, node: str) -> bool:
        return False


def answered(rows: list[ops.KeyringResponse]) -> tuple[HttpApi, Agent]:
    agent = Agent()
    agent.answers["Internal.KeyringOperation"] = ops.KeyringResponses(responses=rows)
    api, _ = make(agent)
    return api, agent


def send(api: HttpApi, method: str, target: str, body: Any = b"") -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body)
    return asyncio.run(ask(api, method, target, raw))


def test_keys_are_listed_and_changed() -> None:
    row = ops.KeyringResponse(
        wan=True, datacenter="dc1", messages={"n": "m"}, keys={"b": 1, "a": 2},
        primary_keys={"a": 2}, num_nodes=2,
    )  # fmt: skip
    api, agent = answered([row])
    listed = get(api, "/v1/operator/keyring?relay-factor=3&local-only=true&token=t")
    assert listed.body == (
        b'[{"WAN":true,"Datacenter":"dc1","Segment":"","Messages":{"n":"m"},"Keys":{"a":2,"b":1},'
        b'"PrimaryKeys":{"a":2},"NumNodes":2}]'
    )
    for method in ("POST", "PUT", "DELETE"):
        assert send(api, method, "/v1/operator/keyring", {"Key": "k"}).body == b""
    requests = [request for _, request in agent.calls]
    assert [request.operation for request in requests] == ["list", "install", "use", "remove"]
    assert (requests[0].relay_factor, requests[0].local_only, requests[0].token) == (3, True, "t")
    assert all(request.key == "k" for request in requests[1:])


def test_what_failed_anywhere_is_one_error() -> None:
    rows = [
        ops.KeyringResponse(wan=True, error="1/2 nodes reported failure", messages={"n": "m"}),
        ops.KeyringResponse(datacenter="dc2", error="no"),
    ]
    answer = get(answered(rows)[0], "/v1/operator/keyring")
    assert (answer.status, answer.body) == (
        500,
        b"3 errors occurred:\n\t* WAN error: 1/2 nodes reported failure\n\t* n: m\n"
        b"\t* dc2 (LAN) error: no\n\n",
    )


@pytest.mark.parametrize(
    ("method", "query", "body", "text"),
    [
        ("POST", "", b"", "Request decode failed: EOF"),
        ("POST", "", {"Kee": "x"}, 'Request decode failed: json: unknown field "Kee"'),
        ("POST", "", [1], "json: cannot unmarshal array into Go value of type agent.keyringArgs"),
        ("POST", "", {"Key": 5}, "cannot unmarshal number into Go struct field keyringArgs.Key of"),
        ("GET", "?relay-factor=x", b"", 'parsing relay factor: strconv.Atoi: parsing "x": invalid'),
        ("GET", "?relay-factor=6", b"", "Relay factor must be in range: [0, 5]"),
        ("PUT", "?local-only=1", {"Key": "k"}, "local-only can only be set for list requests"),
        ("GET", "?local-only=x", b"", 'local-only: strconv.ParseBool: parsing "x": invalid syntax'),
    ],
)
def test_bad_key_requests(method: str, query: str, body: Any, text: str) -> None:
    answer = send(answered([])[0], method, f"/v1/operator/keyring{query}", body)
    assert answer.status == 400
    assert text in answer.body.decode()


def test_keys_are_the_servers_business() -> None:
    api, agent = answered([])
    agent.is_server = False
    answer = get(api, "/v1/operator/keyring")
    assert answer.body == b"keyring operations must run against a server node"


def test_an_event_is_fired_through_the_servers() -> None:
    agent = Agent()
    agent.answers["Internal.EventFire"] = ops.EventFireResponse()
    api, _ = make(agent)
    answer = put(api, "/v1/event/fire/deploy?dc=dc2&node=^n&service=web&tag=v1&token=t", "1.2")
    view = json.loads(answer.body)
    assert (view["Name"], view["Payload"], view["LTime"]) == ("deploy", "MS4y", 0)
    ((_, request),) = agent.calls
    assert (request.datacenter, request.name, request.token) == ("dc2", "deploy", "t")
    assert request.allow_stale
    sent = decode_event(bytes_of(request.payload))
    assert (sent.id, sent.payload) == (view["ID"], b"1.2")
    assert (sent.node_filter, sent.service_filter, sent.tag_filter) == ("^n", "web", "v1")
    assert put(api, "/v1/event/fire/").body == b"Missing name"
    assert put(api, "/v1/event/fire/x?tag=a").status == 500


def test_events_are_listed_by_name_and_right() -> None:
    agent = Agent()
    api, _ = make(agent)
    empty = get(api, "/v1/event/list")
    assert (empty.body, b"X-Consul-Index: 1\r\n" in empty.head) == (b"[]", True)
    agent.hear("open", 0)
    agent.hear("secret", 1)
    names = [one["Name"] for one in json.loads(get(api, "/v1/event/list").body)]
    assert names == ["open", "secret"]
    assert len(json.loads(get(api, "/v1/event/list?name=secret").body)) == 1

    async def denied(_token: str) -> Authorizer:
        return NoEvents()

    agent.authorizer = denied  # type: ignore[method-assign]
    assert [one["Name"] for one in json.loads(get(api, "/v1/event/list").body)] == ["open"]
    assert get(api, "/v1/agent/monitor").status == 403


def test_a_list_waits_for_another_event() -> None:
    agent = Agent()
    api, _ = make(agent)

    async def scenario() -> None:
        agent.events = UserEvents("n1", list, None)
        agent.hear("a", 0)
        first = await ask(api, "GET", "/v1/event/list")
        index = int(first.head.split(b"X-Consul-Index: ")[1].split(b"\r\n")[0])
        timed_out = await ask(api, "GET", f"/v1/event/list?index={index}&wait=10ms")
        assert timed_out.body == first.body
        target = f"/v1/event/list?index={index}"
        waiting = asyncio.ensure_future(ask(api, "GET", target))
        await asyncio.sleep(0)
        assert not waiting.done()
        agent.hear("b", 1)
        async with asyncio.timeout(5):
            assert len(json.loads((await waiting).body)) == 2

    asyncio.run(scenario())


def test_reads_spare_the_log_and_writes_do_not() -> None:
    agent = Agent()
    entry = DirEntry.of("a", b"hi", flags=3)
    result = [txn.TxnResult(kv=entry)]
    agent.answers["Txn.Read"] = txn.TxnReadResponse(results=result, known_leader=True)
    agent.answers["Txn.Apply"] = txn.TxnResponse(errors=[txn.TxnError(1, "stale")])
    api, _ = make(agent)
    read = put(api, "/v1/txn?stale", [{"KV": {"Verb": "get", "Key": "a"}}])
    assert json.loads(read.body)["Results"][0]["KV"]["Value"] == "aGk="
    assert b"X-Consul-Knownleader: true" in read.head
    body = [
        {"KV": {"Verb": "set", "Key": "a", "Value": "aGk=", "Flags": 1, "Index": 4}},
        {"Node": {"Verb": "set", "Node": {"Node": "n"}}},
        {"Service": {"Verb": "set", "Node": "n", "Service": {"Service": "web", "Kind": "x"}}},
        {"Check": {"Verb": "set", "Check": {"Name": "c", "Definition": {"Interval": "10s"}}}},
        {},
    ]
    written = put(api, "/v1/txn?dc=dc2", body)
    assert (written.status, written.body) == (
        409,
        b'{"Results":null,"Errors":[{"OpIndex":1,"What":"stale"}]}',
    )
    request = agent.calls[1][1]
    assert request.datacenter == "dc2"
    key, node, service, check = request.ops
    assert (key.kv.dir_ent.value, key.kv.dir_ent.modify_index) == (b"hi", 4)
    assert node.node.node.datacenter == "dc1", "of the agent, as in Consul"
    assert service.service.service.kind == "", "passed over, as in Consul"
    assert check.check.check.definition.interval_ns == 10_000_000_000


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ("{}", 400, "Failed to parse body: json: cannot unmarshal object into Go value of type"),
        ("[", 400, "Failed to parse body: unexpected EOF"),
        ([{"KV": {"Value": "!"}}], 400, "Failed to parse body: illegal base64 data at input byte 0"),
        ([{}] * 65, 413, "Transaction contains too many operations (65 > 64)"),
        ([{"KV": {"Key": "k", "Value": "aGhoaGhoaGhoaGg="}}], 413, 'Value for key "k" is too large'),
        ([{"KV": {"Key": "k" * 4000}}], 413, "too large, max size: 2000 bytes. See https://www"),
    ],
)  # fmt: skip
def test_bad_transactions(body: Any, status: int, text: str) -> None:
    api, _ = make(Agent(), kv_value_bytes_max=8, txn_bytes_max=2000)
    answer = put(api, "/v1/txn", body)
    assert answer.status == status
    assert text in answer.body.decode()


def test_the_log_is_followed_at_a_level_of_its_own() -> None:
    api, _ = make(Agent())
    log = logging.getLogger("proconsul.test")

    async def scenario() -> None:
        answer = await ask(api, "GET", "/v1/agent/monitor?loglevel=debug")
        assert answer.stream is not None
        first = asyncio.ensure_future(anext(answer.stream))
        await asyncio.sleep(0)
        log.debug("below the level of the agent's own log")
        async with asyncio.timeout(5):
            assert (await first).endswith(b"agent.test: below the level of the agent's own log\n")
        await answer.stream.aclose()  # type: ignore[attr-defined]

    level = logging.getLogger("proconsul").level
    logging.getLogger("proconsul").setLevel(logging.INFO)
    try:
        asyncio.run(scenario())
        assert not log.isEnabledFor(logging.DEBUG)
    finally:
        logging.getLogger("proconsul").setLevel(level)
    assert get(api, "/v1/agent/monitor?loglevel=x").body == b"Bad request: Unknown log level: x"
