"""The listener of a gateway: TLS passed through unterminated, routed by explicit server names.

After `makeMeshGatewayListener` in the reference's agent/xds/listeners.go, but for two things. There
is no catch-all chain that forwards to whatever cluster a client names: an unknown name is closed.
And everything but the named filter chains is constant, so that Envoy applies every change in place:
it keeps the listening socket, and the connections of all chains that did not change.
"""

from __future__ import annotations

from collections.abc import Mapping

from envoy.config.core.v3 import backoff_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.direct_response.v3 import config_pb2 as direct_response_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf.wrappers_pb2 import UInt32Value

from proconsul.mesh.clusters import BUFFER_BYTES_MAX, dead_peer_options, duration, socket_address
from proconsul.mesh.resources import Resource, packed
from proconsul.mesh.snapshot import Bind

CONNECT_ATTEMPTS_MAX = 6
"""Enough to get past two dead gateways of three, and over the second in which one restarts."""
CONNECT_BACKOFF_S = (0.05, 1.0)
CLIENT_HELLO_TIMEOUT_S = 5.0
ACCEPTS_PER_EVENT_MAX = 16


def make_listener(bind: Bind, stat_prefix: str, routes: Mapping[str, tuple[str, ...]]) -> Resource:
    """A listener whose name tells its address, with one filter chain per route.

    `routes` maps a cluster's name to the server names (exact, or `*.suffix`) that lead to it.
    """
    listener = listener_pb2.Listener(
        name=f"{bind.name}:{bind.host}:{bind.port}",
        stat_prefix=stat_prefix,
        address=socket_address(bind.host, bind.port),
        listener_filters=[
            listener_components_pb2.ListenerFilter(
                name="envoy.filters.listener.tls_inspector",
                typed_config=packed(tls_inspector_pb2.TlsInspector()),
            )
        ],
        listener_filters_timeout=duration(CLIENT_HELLO_TIMEOUT_S),
        filter_chains=[
            _chain(cluster, tuple(sorted(set(names)))) for cluster, names in sorted(routes.items())
        ],
        default_filter_chain=_refusal(),
        per_connection_buffer_limit_bytes=UInt32Value(value=BUFFER_BYTES_MAX),
        max_connections_to_accept_per_socket_event=UInt32Value(value=ACCEPTS_PER_EVENT_MAX),
        socket_options=dead_peer_options(),
    )
    return Resource.of(listener.name, listener)


def _chain(cluster: str, names: tuple[str, ...]) -> listener_components_pb2.FilterChain:
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix=f"mesh_gateway.{cluster}",
        cluster=cluster,
        max_connect_attempts=UInt32Value(value=CONNECT_ATTEMPTS_MAX),
        backoff_options=backoff_pb2.BackoffStrategy(
            base_interval=duration(CONNECT_BACKOFF_S[0]),
            max_interval=duration(CONNECT_BACKOFF_S[1]),
        ),
    )
    return listener_components_pb2.FilterChain(
        name=cluster,
        filter_chain_match=listener_components_pb2.FilterChainMatch(server_names=names),
        filters=[
            listener_components_pb2.Filter(
                name="envoy.filters.network.tcp_proxy", typed_config=packed(proxy)
            )
        ],
    )


def _refusal() -> listener_components_pb2.FilterChain:
    """Close connections that name nothing known; also makes a listener valid without any route."""
    return listener_components_pb2.FilterChain(
        name="refused",
        filters=[
            listener_components_pb2.Filter(
                name="envoy.filters.network.direct_response",
                typed_config=packed(direct_response_pb2.Config()),
            )
        ],
    )
