"""DNS through agents whose servers are the other program's, and queries that fail over to it.

Two datacenters, joined over the WAN: one of ours with a real client, one real with a client of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dnslib
import pytest
from agent_support import OURS, THEIRS, Agents, needs_consul, ready, until
from dns_support import Ask, exchange

pytestmark = needs_consul
DNS = {"dns": 8600}


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Servers and clients by datacenter."""
    agents = Agents(tmp_path_factory.mktemp("across"))
    try:
        servers = {
            dc: agents.server(program, f"{dc}-server", datacenter=dc, ports=DNS)
            for dc, program in (("dc1", OURS), ("dc2", THEIRS))
        }
        clients = {
            dc: agents.client(program, f"{dc}-client", servers[dc], datacenter=dc, ports=DNS)
            for dc, program in (("dc1", THEIRS), ("dc2", OURS))
        }
        for server in servers.values():
            ready(server)
        until(lambda: servers["dc1"].ask("PUT", f"/v1/agent/join/{servers['dc2'].address}?wan=1")
              [0] == 200)  # fmt: skip
        for dc, client in clients.items():
            ready(client)
            client.put("/v1/agent/service/register", {"Name": f"only-{dc}", "Port": 80})
            servers[dc].put(
                "/v1/catalog/register",
                {"Node": "x", "Address": "10.1.1.1", "Service": {"Service": "web", "Port": 1}},
            )
        yield {**{f"{dc}-server": one for dc, one in servers.items()},
               **{f"{dc}-client": one for dc, one in clients.items()}}  # fmt: skip
    finally:
        agents.close()


def answered(agent: Any, name: str, kind: str = "A") -> list[str]:
    data = exchange(agent.address, Ask(name, kind, edns=1400).packed())
    return sorted(str(rr.rdata) for rr in dnslib.DNSRecord.parse(data).rr)


def test_every_agent_answers_for_every_datacenter(estate: dict[str, Any]) -> None:
    for name, agent in estate.items():
        for dc in ("dc1", "dc2"):
            address = estate[f"{dc}-client"].address
            until(lambda a=agent, dc=dc: answered(a, f"only-{dc}.service.{dc}.consul"))
            assert answered(agent, f"only-{dc}.service.{dc}.consul") == [address], name
            (srv,) = answered(agent, f"only-{dc}.service.{dc}.consul", "SRV")
            assert srv == f"1 1 80 {dc}-client.node.{dc}.consul."
            assert answered(agent, f"{dc}-client.node.{dc}.consul") == [address]
        assert answered(agent, "1.1.1.10.in-addr.arpa", "PTR") == [f"x.node.{name[:3]}.consul."]
        assert answered(agent, "only-dc1.service.dc9.consul") == []


def test_prepared_queries_fail_over_to_the_other_program(estate: dict[str, Any]) -> None:
    for dc, other in (("dc1", "dc2"), ("dc2", "dc1")):
        server, client = estate[f"{dc}-server"], estate[f"{dc}-client"]
        for failover in ({"NearestN": 1}, {"Datacenters": ["dc9", other]}):
            service = {"Service": f"only-{other}", "Failover": failover, "Near": "_agent"}
            name = f"away-{'-'.join(failover)}"
            status, _, body = server.ask("POST", "/v1/query", {"Name": name, "Service": service})
            assert status == 200, body
            address = estate[f"{other}-client"].address
            for agent in (server, client):
                until(lambda a=agent, n=name: answered(a, f"{n}.query.consul"))
                assert answered(agent, f"{name}.query.consul") == [address]
                found = agent.get(f"/v1/query/{name}/execute")
                assert (found["Datacenter"], found["Failovers"]) == (other, 1)
                assert [row["Node"]["Node"] for row in found["Nodes"]] == [f"{other}-client"]


def test_templates_are_rendered_for_the_others_clients(estate: dict[str, Any]) -> None:
    for dc in ("dc1", "dc2"):
        client = estate[f"{dc}-client"]
        body = {
            "Name": "t-",
            "Template": {"Type": "name_prefix_match", "Regexp": "^t-(.+)$"},
            "Service": {"Service": "${match(1)}"},
        }
        status, _, text = client.ask("POST", "/v1/query", body)
        assert status == 200, text
        until(lambda client=client: answered(client, "t-web.query.consul") == ["10.1.1.1"])
        explained = client.get("/v1/query/t-web/explain")["Query"]["Service"]["Service"]
        assert explained == "web"
