"""Consul's replicated state: tables, watches, the FSM that alone writes them, and snapshots."""
