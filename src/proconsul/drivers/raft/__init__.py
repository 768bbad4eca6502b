"""Raft with disk, clock and network: `node.RaftNode` is the entrance."""
