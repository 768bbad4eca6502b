"""From configured entries to addresses: literals, names with several records, `provider=...`.

`DiscoveryResolver` is what `federation.retry_join` is given. Providers are handed over explicitly:
`DiscoveryResolver(installed_discover())` has those built in and third parties'.
"""

from proconsul.federation.discovery.provider import DiscoveryError, Provider
from proconsul.federation.discovery.resolver import (
    Discover,
    DiscoveryResolver,
    default_providers,
    installed_discover,
    installed_providers,
)

__all__ = [
    "Discover",
    "DiscoveryError",
    "DiscoveryResolver",
    "Provider",
    "default_providers",
    "installed_discover",
    "installed_providers",
]
