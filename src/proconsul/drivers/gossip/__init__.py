"""Gossip on real sockets, files and time: transports, the snapshot file, and `GossipPool`."""
