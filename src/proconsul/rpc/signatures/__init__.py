"""The signatures of RPCs by subject; `rpc.methods` puts them together."""
