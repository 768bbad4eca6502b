"""Raft as hashicorp/raft 1.1.2 speaks it, without I/O: `machine.Raft` is the entrance."""
