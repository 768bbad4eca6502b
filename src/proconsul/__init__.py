"""proconsul: service networking for several datacenters, wire-compatible with Consul."""

VERSION = "0.1.0"
"""This distribution's own version."""

CONSUL_VERSION = "1.8.7"
"""The Consul release whose behaviour and wire formats this one answers for; peers see it in tags."""
