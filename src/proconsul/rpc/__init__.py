"""Consul's RPC: endpoint table, forwarding, blocking queries, connection pool."""
