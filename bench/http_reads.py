"""Reads of the catalog a second over HTTP: ours beside a real Consul.

    .venv/bin/python -m bench.http_reads [--acl] [--base DIRECTORY] [--consul PATH] [--seconds 2]

A service of 200 instances, at a server, plain, filtered and with ACLs; and at a client agent of the
same program, through its cache (`?cached`) and through its server. Needs `wrk`.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from functools import partial
from urllib.parse import quote

from bench import beside
from bench.http_kv import token

INSTANCES = 200
HEALTH = "/v1/health/service/web"
ONE = "/v1/health/service/one"
FILTERS = {
    "one of 200 by filter": 'Service.Port == 107 and "v2" in Service.Tags',
    "half of 200 by filter": '"v2" in Service.Tags',
}


def register(host: str, number: int, service: str) -> None:
    instance = {"Service": service, "ID": service, "Port": 100 + number,
                "Tags": ["a", f"v{1 + number % 2}"], "Meta": {"version": "1.2.3"}}  # fmt: skip
    check = {"CheckID": service, "ServiceID": service, "Name": service, "Status": "passing"}
    row = {"Node": f"n{number}", "Address": f"10.1.0.{number}", "Service": instance, "Check": check}
    status, body = beside.request(host, "PUT", "/v1/catalog/register", row, token=beside.MASTER)
    if status != 200:
        raise SystemExit(f"{host}: {status} {body!r}")


def answers(host: str, secret: str) -> bool:
    """Whether a client has found its server."""
    return beside.request(host, "GET", ONE, token=secret)[0] == 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    beside.arguments(parser)
    parser.add_argument("--acl", action="store_true")
    options = parser.parse_args()
    config = beside.ACL if options.acl else {}
    chosen = beside.programs(options)
    with ExitStack() as stack:
        servers = stack.enter_context(beside.servers(chosen, "127.57.1", config))
        tokens = {n: token(one.host) if options.acl else "" for n, one in servers.items()}
        clients = {}
        for number, program in enumerate(chosen, 1):
            server = servers[program.name].host
            for instance in range(INSTANCES):
                register(server, instance, "web")
            register(server, 0, "one")
            role = {"retry_join": [server], "ports": {"dns": -1}}
            clients[program.name] = stack.enter_context(
                beside.agent(program, f"127.57.2.{number}", {**role, **config})
            )
        for name, client in clients.items():
            beside.until(f"the client of {name}", partial(answers, client.host, tokens[name]))

        def load(path: str) -> beside.Load:
            def run(name: str, agent: beside.Running) -> float:
                url = f"http://{agent.host}:{beside.PORT}{path}"
                return beside.wrk(url, options.seconds, 16, token=tokens[name])

            return run

        loads = {"one instance": (load(ONE), servers), "200 instances": (load(HEALTH), servers)}
        for what, text in FILTERS.items():
            loads[what] = (load(f"{HEALTH}?filter={quote(text)}"), servers)
        loads["client: one instance"] = (load(ONE), clients)
        loads["client: one instance, ?cached"] = (load(f"{ONE}?cached"), clients)
        loads["client: 200 instances, ?cached"] = (load(f"{HEALTH}?cached"), clients)
        loads["client: key"] = (load("/v1/kv/x"), clients)
        beside.compare(loads, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
