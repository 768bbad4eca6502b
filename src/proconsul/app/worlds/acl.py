"""The tokens of a world whose ACLs deny by default, made in the primary as an operator makes them."""

from __future__ import annotations

from proconsul.app.worlds.api import Api
from proconsul.app.worlds.spec import AclSpec
from proconsul.app.worlds.waiting import until

AGENT_RULES = """
node_prefix "" { policy = "write" }
service_prefix "" { policy = "read" }
"""
"""Of an agent: its node and its own services, whatever they are called, by their tokens."""

REPLICATION_RULES = """
acl = "write"
operator = "write"
service_prefix "" {
  policy = "read"
  intentions = "read"
}
"""
"""Of a secondary's servers, as Consul's guides have it: ACLs with their tokens, config entries, CA
certificates, federation states, intentions."""


def make_tokens(api: Api, acl: AclSpec, timeout_s: float = 30.0) -> None:
    """Give the tokens their rights, as soon as the primary, whose `api` it is, has a leader.

    Raises WorldError.
    """
    for name, secret, rules in (
        ("agent", acl.agent, AGENT_RULES),
        ("replication", acl.replication, REPLICATION_RULES),
    ):

        def make(name: str = name, secret: str = secret, rules: str = rules) -> None:
            known = {policy["Name"] for policy in api.get("/v1/acl/policies")}
            if name not in known:
                api.put("/v1/acl/policy", {"Name": name, "Rules": rules})
            token = {"SecretID": secret, "Description": name, "Policies": [{"Name": name}]}
            api.put("/v1/acl/token", token)

        until(make, f"the {name} token", timeout_s)
