"""Discovery chains: what config entries make of a service's name (`agent/consul/discoverychain`)."""
