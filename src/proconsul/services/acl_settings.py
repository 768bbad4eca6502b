"""Settings of the ACL system (`acl` in the configuration), for servers and clients alike."""

from __future__ import annotations

from dataclasses import dataclass, field

TOKEN_LIFE_S_MIN = 60.0
TOKEN_LIFE_S_MAX = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class AclSettings:
    """Durations in seconds. The agent's own tokens are in `services.agent.tokens`: they may change."""

    enabled: bool = False
    default_policy: str = "allow"
    down_policy: str = "extend-cache"
    token_ttl_s: float = 30.0
    policy_ttl_s: float = 30.0
    role_ttl_s: float = 30.0
    disabled_ttl_s: float = 120.0
    """How long a client takes ACLs for off after its servers said so."""
    enable_key_list_policy: bool = False
    token_replication: bool = False
    """Whether a secondary copies the primary's tokens, and may have its own."""
    master_token: str = field(default="", repr=False)
    """The secret of a token for everything, which the primary's leader makes."""
    token_life_s_min: float = TOKEN_LIFE_S_MIN
    token_life_s_max: float = TOKEN_LIFE_S_MAX

    @property
    def allows_by_default(self) -> bool:
        """What no rule speaks of."""
        return not self.enabled or self.default_policy == "allow"
