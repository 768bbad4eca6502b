"""Clusters of servers, ours and real Consul's mixed, for the tests of quorums."""

from __future__ import annotations

from typing import Any

from agent_support import OURS, QUICK, THEIRS, AgentProcess, Agents, until

Letters = dict[str, tuple[str, ...]]
PROGRAMS: Letters = {"o": OURS, "t": THEIRS}

STATE = (
    "/v1/kv/?recurse", "/v1/kv/?keys", "/v1/catalog/nodes", "/v1/catalog/services",
    "/v1/catalog/node/s0", "/v1/catalog/node/s1", "/v1/catalog/node/s2", "/v1/catalog/node/n1",
    "/v1/catalog/service/web", "/v1/catalog/service/gw", "/v1/health/state/any",
    "/v1/health/service/web", "/v1/internal/federation-states", "/v1/connect/ca/roots",
    "/v1/operator/autopilot/configuration", "/v1/status/leader",
)  # fmt: skip


class Cluster:
    """Servers by name, on addresses of their own, that expect each other."""

    def __init__(self, agents: Agents, mixture: str, patience: int = 4, **config: Any) -> None:
        self.servers = [
            agents.make(
                PROGRAMS[letter], f"s{i}", server=True, bootstrap_expect=len(mixture),
                connect={"enabled": True}, retry_interval="1s",
                # The impatient are the first to lead: the kind that the mixture has most of.
                performance={
                    **QUICK, "raft_multiplier": 1 if letter == mixture[1] else patience,
                }, **config,
            )
            for i, letter in enumerate(mixture)
        ]  # fmt: skip
        for server in self.servers:
            server.config["retry_join"] = [s.address for s in self.servers]
            server.start()

    def leader(self, among: list[AgentProcess] | None = None, seconds: float = 40) -> AgentProcess:
        """Whom all of `among` (all servers) call the leader."""
        among = among or self.servers

        def agreed() -> AgentProcess | None:
            said = {server.leader() for server in among}
            return next((s for s in among if said == {f"{s.address}:8300"}), None)

        return until(agreed, seconds)

    def settled(self) -> None:
        """Three voters, alive, with their nodes in the catalog."""
        self.leader()
        for server in self.servers:
            until(lambda s=server: voters(s) == self.names(), 60)
            until(lambda s=server: set(s.members().items()) == {(n, 1) for n in self.names()}, 60)
        until(lambda: len(self.servers[0].get("/v1/health/service/consul?passing")) == 3, 60)

    def names(self) -> set[str]:
        return {server.name for server in self.servers}

    def same_everywhere(self) -> dict[str, Any]:
        """The state as every server has it by itself, which must be the same within seconds."""

        def dump(server: AgentProcess) -> dict[str, Any]:
            found = {}
            for target in STATE:
                answer = server.ask("GET", target + ("&stale" if "?" in target else "?stale"))
                found[target] = (answer[0], answer[2], answer[1].get("X-Consul-Index"))
            return {key: _comparable(key, value) for key, value in found.items()}

        def equal() -> dict[str, Any]:
            first, *others = [dump(server) for server in self.servers]
            for server, other in zip(self.servers[1:], others, strict=True):
                for key, value in first.items():
                    assert value == other[key], f"{key} at {server.name}: {value} != {other[key]}"
            return first

        return until(equal, 20, 0.2)


def _comparable(target: str, answer: tuple[int, bytes, str | None]) -> Any:
    if target.startswith("/v1/catalog/services"):
        # Consul collects tags in a map: their order changes from one answer to the next.
        return answer[0], sorted(answer[1]), answer[2]
    return answer


def voters(server: AgentProcess) -> set[str]:
    """Names of the voters as a server sees them."""
    configuration = server.get("/v1/operator/raft/configuration?stale")
    # Null for a moment in a server that knows its leader already, but has no entry of it yet
    return {one["Node"] for one in configuration["Servers"] or () if one["Voter"]}


def write_something(server: AgentProcess, tag: str) -> None:
    """Writes of all sorts, through any server."""
    for i in range(8):
        assert until(lambda i=i: server.put(f"/v1/kv/{tag}/{i}?flags={i}", f"value {i}"), 20)
    server.ask("DELETE", f"/v1/kv/{tag}/3")
    server.put(
        "/v1/catalog/register",
        {
            "Node": "n1", "Address": "1.1.1.1", "NodeMeta": {"tag": tag},
            "Service": {"Service": "web", "Port": 80, "Tags": ["b", "a"], "Meta": {"k": tag}},
            "Checks": [{"Name": "c", "Status": "passing", "ServiceID": "web", "Notes": tag}],
        },
    )  # fmt: skip
    server.put(
        "/v1/catalog/register",
        {
            "Node": "n1", "Address": "1.1.1.1",
            "Service": {
                "Service": "gw", "Kind": "mesh-gateway", "Port": 8443,
                "Meta": {"consul-wan-federation": "1"},
                "TaggedAddresses": {"wan": {"Address": "9.9.9.9", "Port": 1}},
                "Proxy": {"Config": {"a": {"b": [1, "x", 1.5, {"c": True}]}}},
            },
        },
    )  # fmt: skip


def write_what_only_real_ones_write(server: AgentProcess, tag: str) -> None:
    """Commands of the real leader that ours must apply as a follower, or carry along."""
    for body in (
        {"Kind": "proxy-defaults", "Name": "global", "Config": {"tag": tag}},
        {"Kind": "service-defaults", "Name": "db", "Protocol": "http"},
        {"Kind": "service-resolver", "Name": "db", "ConnectTimeout": "3s"},
    ):
        server.put("/v1/config", body)
    server.ask("DELETE", "/v1/config/service-resolver/db")
    intention = {"SourceName": tag, "DestinationName": "db", "Action": "allow"}
    assert server.ask("POST", "/v1/connect/intentions", intention)[0] == 200
    assert server.ask("POST", "/v1/query", {"Name": tag, "Service": {"Service": "web"}})[0] == 200
    server.put("/v1/txn", [{"KV": {"Verb": "set", "Key": f"{tag}/txn", "Value": "dA=="}}])
    session = server.put("/v1/session/create", {"Name": tag, "TTL": "600s"})["ID"]
    assert server.put(f"/v1/kv/{tag}/locked?acquire={session}", b"l") is True
    server.put("/v1/operator/autopilot/configuration?cas=0", {"CleanupDeadServers": True})
    server.put("/v1/event/fire/e", b"x")


def write_by_its_own(cluster: Cluster, tag: str, among: list[AgentProcess] | None = None) -> None:
    """What a real leader can write, if one leads."""
    leader = cluster.leader(among)
    if not leader.ours:
        write_what_only_real_ones_write(leader, tag)
