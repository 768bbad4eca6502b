"""KV reads and writes a second over HTTP: a server of ours beside a real Consul server.

    .venv/bin/python -m bench.http_kv [--acl] [--base DIRECTORY] [--consul PATH] [--seconds 2]

Whole servers with a log on disk; both sync every write. With `--acl` all is denied by default, and
requests bring a token whose policy has a rule for these keys among others. Needs `wrk`.
"""

from __future__ import annotations

import argparse
import json
import tempfile

from bench import beside

PUT = """
local count = 0
request = function()
  count = count + 1
  return wrk.format("PUT", "/v1/kv/w" .. (count % 1000), nil, "a value of some length: 1234567890")
end
"""
RULES = """
key_prefix "" { policy = "read" }
key_prefix "w" { policy = "write" }
key "secret" { policy = "deny" }
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
"""


def token(host: str) -> str:
    """A new token with RULES."""
    answer = b""
    for path, body in (
        ("policy", {"Name": "bench", "Rules": RULES}),
        ("token", {"Policies": [{"Name": "bench"}]}),
    ):
        status, answer = beside.request(host, "PUT", f"/v1/acl/{path}", body, token=beside.MASTER)
        if status != 200:
            raise SystemExit(f"{path}: {status} {answer!r}")
    return str(json.loads(answer)["SecretID"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    beside.arguments(parser)
    parser.add_argument("--acl", action="store_true")
    options = parser.parse_args()
    config = beside.ACL if options.acl else {}
    with (
        tempfile.NamedTemporaryFile("w", suffix=".lua") as put,
        beside.servers(beside.programs(options), "127.57.0", config) as found,
    ):
        put.write(PUT)
        put.flush()
        tokens = {n: token(one.host) if options.acl else "" for n, one in found.items()}

        def load(connections: int, script: str) -> beside.Load:
            def run(name: str, server: beside.Running) -> float:
                url = f"http://{server.host}:{beside.PORT}/v1/kv/x"
                return beside.wrk(
                    url, options.seconds, connections, token=tokens[name], script=script
                )

            return run

        loads = {f"GET, {count} connections": load(count, "") for count in (1, 32)}
        loads |= {f"PUT, {count} connections": load(count, put.name) for count in (1, 16, 64)}
        turns = {what: (run, found) for what, run in loads.items()}
        beside.compare(turns, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
