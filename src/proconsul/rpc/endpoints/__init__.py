"""Consul's RPC endpoints, one module a service (`Catalog`, `KVS`, ...).

Each module has `endpoints(server)`, a list for the `EndpointTable`. What a handler needs of the
server it runs on is `EndpointServer`; it never knows whether the call came from afar.
"""
