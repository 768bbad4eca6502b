"""Worlds of agents: federated datacenters on one machine, with their networks, gateways and proofs.

`proconsul dev`, the end-to-end tests and the benchmarks build on them. Code here is synchronous:
a world is a script over processes, and waits by polling with deadlines.
"""
