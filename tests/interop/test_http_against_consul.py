"""The HTTP API beside a real `consul agent -dev` that is asked the same.

Two forms of "ours": the HTTP interface on top of RPC to the very same Consul server (so that both
answer from one state, and bodies must be equal byte for byte), and a whole agent of ours, given by
`PROCONSUL_HTTP_OURS` as a base URL.
"""

from __future__ import annotations

import asyncio
import difflib
import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from agent_support import OURS, Agents, ready

from proconsul.domain.base import decode, encode
from proconsul.domain.errors import DomainError
from proconsul.drivers.http import Request, Response
from proconsul.interfaces.http.ports import HttpApiConfig
from proconsul.interfaces.http.routes import build_api
from proconsul.rpc.methods import METHODS

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "interfaces" / "http"))
from http_fake_agent import FakeAgent

pytestmark = pytest.mark.peer
Answer = tuple[int, dict[str, str], bytes]

# Headers that both sides must have alike; the rest (Date, ...) says nothing about the API.
COMPARED = (
    "Allow", "Content-Type", "Content-Security-Policy", "Location", "Vary", "X-Consul-Index",
    "X-Consul-Knownleader", "X-Consul-Effective-Consistency", "X-Consul-Reason",
    "X-Content-Type-Options",
)  # fmt: skip

SETUP: tuple[tuple[str, str, str], ...] = (
    ("PUT", "/v1/kv/t/a?flags=42", "he<l>l&o"),
    ("PUT", "/v1/kv/t/b/c", ""),
    ("PUT", "/v1/kv/t/%E2%98%83", "snow"),
    (
        "PUT", "/v1/catalog/register",
        '{"Node":"n1","Address":"1.1.1.1","NodeMeta":{"rack":"7"},"Service":{"Service":"web",'
        '"Port":80,"Tags":["a","b"],"Meta":{"k":"v"},"TaggedAddresses":{"wan":{"Address":"9.9.9.9",'
        '"Port":1}}},"Checks":[{"Name":"c","Status":"passing","Definition":{"HTTP":"http://x",'
        '"Interval":"10s","Timeout":"1m0.5s"}},{"CheckID":"w","Name":"w","Status":"warning",'
        '"ServiceID":"web"}]}',
    ),
    (
        "PUT", "/v1/catalog/register",
        '{"Node":"n2","Address":"2.2.2.2","TaggedAddresses":{"wan":"3.3.3.3"},"Service":{"Service":'
        '"gw","ID":"gw-1","Kind":"mesh-gateway","Port":8443,"Meta":{"consul-wan-federation":"1"},'
        '"Proxy":{"Config":{"a":{"b":[1,"x"]}},"Expose":{"Checks":true}}}}',
    ),
    (
        "PUT", "/v1/catalog/register",
        '{"Node":"n2","Address":"2.2.2.2","Service":{"Service":"web-proxy","Kind":"connect-proxy",'
        '"Port":1,"Proxy":{"DestinationServiceName":"web","Upstreams":[{"DestinationName":"db",'
        '"LocalBindPort":99}],"MeshGateway":{"Mode":"local"}}}}',
    ),
)  # fmt: skip

SAME_STATE = (
    "/v1/kv/t/a", "/v1/kv/t/a?raw", "/v1/kv/t/b/c", "/v1/kv/t/b/c?raw", "/v1/kv/nope",
    "/v1/kv/t/?recurse", "/v1/kv/nope?recurse", "/v1/kv/t/?keys", "/v1/kv/t/?keys&separator=/",
    "/v1/kv/?keys&seperator=/", "/v1/kv/nope?keys", "/v1/kv/t/%E2%98%83", "/v1/kv/t/a?stale",
    "/v1/kv/t/a?consistent", "/v1/kv/", "/v1/kv/x?wait=abc", "/v1/kv/x?index=-1",
    "/v1/kv/x?stale&consistent", "/v1/kv/x?cached&consistent", "/v1/kv/x?max_stale=foo",
    "/v1/kv/x?dc=nope", "/v1/kv/x?a=%zz", "/v1/kv/a%00b", "/v1/kv/a%zz", "/v1/kv", "//v1/kv/x",
    "/v1/kv/a//b?x=1", "/v1/kv/../x", "/v1", "/zzz", "/v1/catalog/nodes/",
    "/v1/catalog/datacenters", "/v1/catalog/nodes", "/v1/catalog/nodes?stale",
    "/v1/catalog/nodes?consistent", "/v1/catalog/nodes?node-meta=rack:7",
    "/v1/catalog/nodes?node-meta=rack:8", "/v1/catalog/nodes?near=_agent", "/v1/catalog/services",
    "/v1/catalog/services?node-meta=rack:7", "/v1/catalog/service/web",
    "/v1/catalog/service/web?tag=a&tag=b", "/v1/catalog/service/web?tag=z",
    "/v1/catalog/service/gw", "/v1/catalog/service/web-proxy", "/v1/catalog/service/nope",
    "/v1/catalog/service/", "/v1/catalog/node/n1", "/v1/catalog/node/n2", "/v1/catalog/node/nope",
    "/v1/catalog/node/", "/v1/catalog/node-services/n1", "/v1/catalog/node-services/nope",
    "/v1/health/node/n1", "/v1/health/node/nope", "/v1/health/node/", "/v1/health/checks/web",
    "/v1/health/state/any", "/v1/health/state/warning", "/v1/health/state/bogus",
    "/v1/health/state/", "/v1/health/service/web", "/v1/health/service/web?passing",
    "/v1/health/service/web?passing=false", "/v1/health/service/web?passing=x",
    "/v1/health/service/gw", "/v1/health/service/web-proxy", "/v1/health/service/nope",
    "/v1/status/leader", "/v1/status/peers", "/v1/internal/federation-states",
    "/v1/internal/federation-state/dc1", "/v1/internal/federation-state/nope",
    "/v1/internal/federation-state/", "/v1/internal/federation-states/mesh-gateways",
    "/v1/agent/service/nope", "/v1/agent/health/service/id/nope", "/v1/agent/health/service/id/",
    "/v1/agent/health/service/name/nope", "/v1/agent/health/service/name/nope?format=text",
    "/v1/agent/members?wan=1&segment=a", "/v1/agent/metrics?format=prometheus",
)  # fmt: skip

METHODS_TO_TRY = (
    ("POST", "/v1/kv/x"), ("HEAD", "/v1/kv/x"), ("OPTIONS", "/v1/kv/x"), ("PATCH", "/v1/agent/self"),
    ("DELETE", "/v1/catalog/nodes"), ("OPTIONS", "/v1/catalog/register"),
    ("PUT", "/v1/kv/"), ("DELETE", "/v1/kv/"), ("PUT", "/v1/kv/x?cas=abc"),
    ("PUT", "/v1/kv/x?flags=99999999999999999999999"), ("PUT", "/v1/kv/x?cas=1&acquire=a"),
    ("DELETE", "/v1/kv/x?cas=1&recurse"), ("PUT", "/v1/agent/service/maintenance/"),
    ("PUT", "/v1/agent/service/maintenance/a"), ("PUT", "/v1/agent/maintenance"),
    ("PUT", "/v1/agent/maintenance?enable=q"), ("PUT", "/v1/catalog/register"),
    ("PUT", "/v1/agent/check/update/x"), ("PUT", "/v1/agent/service/register"),
    ("PUT", "/v1/agent/check/register"), ("PUT", "/v1//kv"),
)  # fmt: skip

BODIES = (
    ("/v1/catalog/register", '{"Node":"n1","Address":"1.1.1.1","Bogus":1}'),
    ("/v1/catalog/register", "{}"),
    ("/v1/catalog/register", '{"Node":5}'),
    ("/v1/catalog/deregister", "{}"),
    ("/v1/agent/service/register", "{"),
    ("/v1/agent/service/register", '{"Name":5}'),
    ("/v1/agent/service/register", '{"Name":"a","Bogus":1}'),
    ("/v1/agent/service/register", '{"Name":"a","Port":1.5}'),
    ("/v1/agent/service/register", '{"Name":"a","Check":{"Interval":"x"}}'),
    ("/v1/agent/service/register", '{"Name":"b","Check":{"HTTP":"http://x"}}'),
    ("/v1/agent/service/register", '{"Name":"b","Check":{"Status":"bad","TTL":"1s"}}'),
    ("/v1/agent/service/register", '{"Name":"b","Address":"::"}'),
    ("/v1/agent/service/register", '{"Name":"b","Weights":{"Passing":1,"Warning":-1}}'),
    ("/v1/agent/service/register", '{"Name":"b","Meta":{"consul-x":"1"}}'),
    ("/v1/agent/service/register", '{"Name":"b","Kind":"mesh-gateway"}'),
    ("/v1/agent/service/register", '{"Name":"b","Kind":"connect-proxy"}'),
    ("/v1/agent/check/register", "{}"),
    ("/v1/agent/check/register", '{"Name":"x"}'),
    ("/v1/agent/check/register", '{"Name":"x","Status":"q"}'),
    ("/v1/agent/check/update/x", '{"Status":"foo"}'),
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(base: str, method: str, target: str, body: str = "") -> Answer:
    connection = http.client.HTTPConnection(base, timeout=10)
    try:
        connection.request(method, target, body.encode() if body else None)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


class Consul:
    """A real server: its HTTP address, its RPC address, its node name."""

    def __init__(self, http_address: str, rpc_port: int) -> None:
        self.http = http_address
        self.rpc_port = rpc_port


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    root = Path(__file__).parents[2]
    binary = os.environ.get("PROCONSUL_CONSUL_BIN", str(root / ".peers/root/usr/bin/consul"))
    if not shutil.which(binary):
        pytest.skip("no consul binary: set PROCONSUL_CONSUL_BIN")
    http_port, rpc_port = free_port(), free_port()
    ports = {"-http-port": http_port, "-server-port": rpc_port, "-dns-port": -1, "-grpc-port": -1,
             "-serf-lan-port": free_port(), "-serf-wan-port": free_port()}  # fmt: skip
    config = tmp_path_factory.mktemp("consul") / "ui.hcl"
    config.write_text("ui = false\n")
    command = [binary, "agent", "-dev", "-bind", "127.0.0.1", "-node", "vm", "-log-level", "err",
               "-config-file", str(config)]  # fmt: skip
    for flag, value in ports.items():
        command += [flag, str(value)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = f"127.0.0.1:{http_port}"
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                if b"consul-network-segment" in ask(base, "GET", "/v1/catalog/node/vm")[2]:
                    break
            except OSError:
                pass
            assert time.monotonic() < deadline, "consul did not come up"
            time.sleep(0.05)
        fill(base)
        yield Consul(base, rpc_port)
    finally:
        process.kill()
        process.wait()


class BackedAgent(FakeAgent):
    """Its RPCs go to a real Consul server, each over a connection of its own."""

    def __init__(self, port: int) -> None:
        super().__init__(immediate=False)
        self._port = port

    async def rpc(self, method: str, request: Any) -> Any:
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as peer:
            header = msgpack.packb({"ServiceMethod": method, "Seq": 0}, use_bin_type=False)
            peer.sendall(b"\x00" + header + encode(request))
            raw = b""
            while True:
                raw += peer.recv(1 << 16)
                unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
                unpacker.feed(raw)
                try:
                    found = unpacker.unpack()
                    at = unpacker.tell()
                    unpacker.skip()
                except msgpack.OutOfData:
                    continue
                break
        if found[b"Error"]:
            raise DomainError(found[b"Error"].decode())
        return decode(raw[at : unpacker.tell()], METHODS[method].response)


def ours(consul: Consul, method: str, target: str, body: str = "") -> Answer:
    api = build_api(
        BackedAgent(consul.rpc_port), HttpApiConfig(datacenter="dc1", node_name="vm", dev_mode=True)
    )

    async def run() -> Response:
        request = Request(method, target.encode(), ("127.0.0.1", 1))
        request.body = body.encode()
        answer = api(request)
        return answer if isinstance(answer, Response) else await answer

    answer = asyncio.run(run())
    lines = [line.partition(b": ") for line in answer.head.split(b"\r\n") if line]
    return answer.status, {k.decode(): v.decode() for k, _, v in lines}, answer.body


def comparable(answer: Answer, method: str) -> tuple[Any, ...]:
    status, headers, body = answer
    shown = {name: headers[name] for name in COMPARED if name in headers}
    if method == "HEAD":
        body = b""
    return status, shown, body


@pytest.mark.parametrize("target", SAME_STATE)
def test_reads_of_the_same_state(consul: Consul, target: str) -> None:
    theirs = comparable(ask(consul.http, "GET", target), "GET")
    mine = comparable(ours(consul, "GET", target), "GET")
    if theirs[0] == 400 and not theirs[1].get("Vary"):
        # Go's server, not Consul, refused it: the text is its own.
        assert mine[0] == 400
        return
    if target.startswith("/v1/catalog/services"):
        # Consul collects tags in a map: their order changes from one answer to the next.
        assert sorted(mine[2]) == sorted(theirs[2])
        mine, theirs = mine[:2], theirs[:2]
    assert mine == theirs


@pytest.mark.parametrize(("method", "target"), METHODS_TO_TRY)
def test_methods_and_parameters(consul: Consul, method: str, target: str) -> None:
    theirs = ask(consul.http, method, target)
    assert comparable(ours(consul, method, target), method) == comparable(theirs, method)


@pytest.mark.parametrize(("target", "body"), BODIES)
def test_bodies_that_are_refused(consul: Consul, target: str, body: str) -> None:
    theirs = ask(consul.http, "PUT", target, body)
    assert theirs[0] != 200
    assert comparable(ours(consul, "PUT", target, body), "PUT") == comparable(theirs, "PUT")


@pytest.fixture(scope="module")
def ours_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A whole agent of ours in the same state: `PROCONSUL_HTTP_OURS`, or one started here."""
    given = os.environ.get("PROCONSUL_HTTP_OURS", "").removeprefix("http://")
    if given:
        fill(given)
        yield given
        return
    agents = Agents(tmp_path_factory.mktemp("ours"))
    agent = agents.make(OURS, "vm", ui=False)
    del agent.config["data_dir"]
    try:
        ready(agent.start("-dev"))
        fill(f"{agent.address}:8500")
        yield f"{agent.address}:8500"
    finally:
        agents.close()


def fill(base: str) -> None:
    """The state that is compared."""
    for method, target, body in SETUP:
        assert ask(base, method, target, body)[0] == 200


# What differs from agent to agent, wherever it stands: ids, addresses with ports, indexes, times.
_VOLATILE = (
    (re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), b"ID"),
    (re.compile(rb"127\.[0-9]+\.[0-9]+\.[0-9]+(:[0-9]+)?"), b"ADDRESS"),
    (re.compile(rb'("(?:Create|Modify|PrimaryModify|)Index"): *[0-9]+'), rb"\1: 1"),
    (re.compile(rb"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z"), b"TIME"),
    (re.compile(rb'("Port"): 8?[0-9]{4,}'), rb"\1: 1"),
    (re.compile(rb'("(?:port|wan_join_port)"): "[0-9]+"'), rb"\1: 1"),
    (re.compile(rb'("ContentHash"): "[0-9a-f]+"'), rb"\1: 1"),
    (re.compile(rb'("(?:Vec)"): \[[^]]*\]'), rb"\1: []"),
    (re.compile(rb'("(?:Error|Adjustment|Height)"): [-+.e0-9]+'), rb"\1: 1"),
)


def without_volatile(body: bytes) -> bytes:
    for pattern, replacement in _VOLATILE:
        body = pattern.sub(replacement, body)
    return body


def lines_of(body: bytes) -> list[str]:
    return without_volatile(body).decode("utf-8", "replace").splitlines()


def assert_alike(consul: Consul, ours_url: str, method: str, target: str, body: str = "") -> None:
    """Status, compared headers but for indexes, and body but for what is volatile."""
    theirs, mine = ask(consul.http, method, target, body), ask(ours_url, method, target, body)
    assert mine[0] == theirs[0]
    names = [name for name in COMPARED if name != "X-Consul-Index"]
    assert {n: mine[1].get(n) for n in names} == {n: theirs[1].get(n) for n in names}
    if theirs[0] == 400 and not theirs[1].get("Vary"):
        return  # Go's server, not Consul, refused it: the text is its own.
    texts = lines_of(theirs[2]), lines_of(mine[2])
    if "/agent/health/" in target:  # there Consul walks through a map
        texts = sorted(texts[0]), sorted(texts[1])
    difference = difflib.unified_diff(*texts, lineterm="")
    assert not (text := "\n".join(difference)), text


MORE_OF_AN_AGENT = (
    "/v1/agent/services", "/v1/agent/checks", "/v1/agent/members", "/v1/agent/members?wan=1",
    "/v1/operator/raft/configuration", "/v1/operator/autopilot/configuration",
    "/v1/coordinate/nodes?segment=none", "/v1/coordinate/node/none",
    "/v1/connect/ca/roots?pem=what", "/v1/status/leader?dc=nope", "/v1/catalog/node/vm",
    "/v1/health/node/vm", "/v1/health/service/consul", "/v1/agent/service/web-1",
    "/v1/agent/health/service/id/web-1", "/v1/agent/health/service/name/web",
    "/v1/agent/health/service/name/web?format=text", "/v1/agent/service/gateway",
    "/v1/catalog/node/vm?pretty=false", "/v1/catalog/node-services/vm",
)  # fmt: skip

REGISTRATIONS = (
    (
        "/v1/agent/service/register",
        '{"Name":"web","ID":"web-1","Port":80,"Tags":["b","a"],"Meta":{"k":"v"},"Weights":'
        '{"Passing":2},"EnableTagOverride":true,"Checks":[{"TTL":"10m","Status":"passing"},'
        '{"CheckID":"own","Name":"mine","TTL":"1h","Notes":"n","Status":'
        '"warning"}]}',
    ),
    (
        "/v1/agent/service/register",
        '{"name":"gateway","kind":"terminating-gateway","port":8443,"tagged_addresses":{"wan":{"address":'
        '"9.9.9.9","port":1}},"proxy":{"config":{"a":{"b":[1,"x",2.5,true]}}}}',
    ),
    (
        "/v1/agent/service/register",
        '{"Name":"p","Kind":"connect-proxy","Port":1,"Proxy":{"DestinationServiceName":"web",'
        '"Upstreams":[{"DestinationName":"db","LocalBindPort":9191,"Config":{"x":1}}]}}',
    ),
    ("/v1/agent/check/register", '{"Name":"disk","TTL":"10m","Notes":"n"}'),
    ("/v1/agent/check/warn/disk?note=hm", ""),
    ("/v1/agent/check/update/service:web-1:1", '{"Status":"passing","Output":"good"}'),
)


@pytest.fixture(scope="module")
def registered(consul: Consul, ours_url: str) -> Iterator[None]:
    """Both agents have the same services and checks of their own."""
    for target, body in REGISTRATIONS:
        assert_alike(consul, ours_url, "PUT", target, body)
    deadline = time.monotonic() + 10
    for base in (consul.http, ours_url):
        while b"disk" not in ask(base, "GET", "/v1/health/node/vm?filter=")[2]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    time.sleep(0.3)
    yield
    for base in (consul.http, ours_url):
        for name in ("web-1", "gateway", "p"):
            assert ask(base, "PUT", f"/v1/agent/service/deregister/{name}")[0] == 200
        assert ask(base, "PUT", "/v1/agent/check/deregister/disk")[0] == 200


@pytest.mark.parametrize("target", SAME_STATE)
def test_a_whole_agent(consul: Consul, ours_url: str, target: str) -> None:
    if target.startswith("/v1/catalog/services"):
        # Consul collects tags in a map: their order changes from one answer to the next.
        mine, theirs = (ask(base, "GET", target) for base in (ours_url, consul.http))
        assert sorted(mine[2]) == sorted(theirs[2])
        return
    assert_alike(consul, ours_url, "GET", target)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("target", MORE_OF_AN_AGENT)
def test_an_agents_own_registrations(consul: Consul, ours_url: str, target: str) -> None:
    assert_alike(consul, ours_url, "GET", target)


@pytest.mark.parametrize(("method", "target"), METHODS_TO_TRY)
def test_methods_of_a_whole_agent(consul: Consul, ours_url: str, method: str, target: str) -> None:
    assert_alike(consul, ours_url, method, target)


@pytest.mark.parametrize(("target", "body"), BODIES)
def test_bodies_that_a_whole_agent_refuses(
    consul: Consul, ours_url: str, target: str, body: str
) -> None:
    assert_alike(consul, ours_url, "PUT", target, body)


WRITES = (
    ("PUT", "/v1/kv/z/a", "x"), ("PUT", "/v1/kv/z/a?cas=0", "x"), ("PUT", "/v1/kv/z/b?cas=0", "y"),
    ("GET", "/v1/kv/z?recurse", ""), ("DELETE", "/v1/kv/z/a?cas=1", ""), ("DELETE", "/v1/kv/z/b", ""),
    ("GET", "/v1/kv/z?keys", ""), ("DELETE", "/v1/kv/z?recurse", ""), ("GET", "/v1/kv/z?keys", ""),

    ("PUT", "/v1/catalog/register", '{"Node":"n3","Address":"3.3.3.3","Service":{"Service":"s3"}}'),
    ("PUT", "/v1/catalog/deregister", '{"Node":"n3","ServiceID":"s3"}'),
    ("GET", "/v1/catalog/node/n3", ""), ("PUT", "/v1/catalog/deregister", '{"Node":"n3"}'),
    ("GET", "/v1/catalog/node/n3", ""), ("PUT", "/v1/agent/service/deregister/none", ""),
    ("PUT", "/v1/agent/check/deregister/none", ""), ("PUT", "/v1/agent/check/pass/none", ""),
    ("PUT", "/v1/agent/service/maintenance/none?enable=true", ""),
    ("PUT", "/v1/agent/maintenance?enable=true&reason=r", ""), ("GET", "/v1/agent/checks", ""),
    ("PUT", "/v1/agent/maintenance?enable=false", ""), ("GET", "/v1/agent/checks", ""),
    ("PUT", "/v1/agent/force-leave/none", ""),
)  # fmt: skip


def test_writes_one_after_the_other(consul: Consul, ours_url: str) -> None:
    for method, target, body in WRITES:
        assert_alike(consul, ours_url, method, target, body)
