"""The `acl` stanza as servers and clients want it."""

from __future__ import annotations

from proconsul.config.model import AgentConfig
from proconsul.services.acl_settings import AclSettings


def acl_settings(config: AgentConfig) -> AclSettings:
    """Who may do what."""
    acl = config.acl
    return AclSettings(
        enabled=acl.enabled,
        default_policy=acl.default_policy,
        down_policy=acl.down_policy,
        token_ttl_s=acl.token_ttl_s,
        policy_ttl_s=acl.policy_ttl_s,
        role_ttl_s=acl.role_ttl_s,
        disabled_ttl_s=acl.disabled_ttl_s,
        enable_key_list_policy=acl.enable_key_list_policy,
        token_replication=acl.enable_token_replication,
        master_token=acl.tokens.master,
    )
