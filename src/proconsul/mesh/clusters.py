"""Envoy clusters and their endpoints: how a gateway reaches what is behind a name.

After the reference's agent/xds/{clusters,endpoints}.go, with what it lacks so that one gateway or
server that swallows packets does not stop the others: short connect timeouts, ejection upon the
first failure to connect, and sockets that notice a dead peer. There are no active health checks:
they would open connections across the WAN all the time.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import (
    address_pb2,
    config_source_pb2,
    health_check_pb2,
    socket_option_pb2,
)
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from proconsul.mesh.resources import Resource
from proconsul.mesh.snapshot import Endpoint

SERVER_CONNECT_TIMEOUT_S = 1.0
"""A server is on the gateway's LAN: fail fast, the next attempt goes to another one."""
REMOTE_CONNECT_TIMEOUT_S = 2.0
"""Leaves room for one retransmitted SYN (after 1 s) on a lossy WAN."""
EJECTION_S_BASE = 5.0
EJECTION_S_MAX = 30.0
"""A gateway that came back is tried again after this time at the latest."""
WEIGHT_MAX = 128
CONNECTIONS_MAX = 16_384
BUFFER_BYTES_MAX = 256 * 1024

# Linux numbers, which Envoy takes as they are. An idle connection is probed after KEEPALIVE_IDLE_S
# (less would cost traffic in an idle federation); data or probes that stay unacknowledged for
# USER_TIMEOUT_MS end it, where the kernel alone would retransmit for a quarter of an hour.
SOL_SOCKET, SO_KEEPALIVE = 1, 9
IPPROTO_TCP, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT = 6, 4, 5, 6, 18
KEEPALIVE_IDLE_S = 15
KEEPALIVE_INTERVAL_S = 3
KEEPALIVE_PROBES = 3
USER_TIMEOUT_MS = 10_000


def duration(seconds: float) -> Duration:
    """A protobuf duration, exact to the millisecond."""
    ms = round(seconds * 1000)
    return Duration(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def socket_address(host: str, port: int) -> address_pb2.Address:
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=host, port_value=port)
    )


def dead_peer_options() -> list[socket_option_pb2.SocketOption]:
    """Socket options by which both ends of a gateway notice a peer that vanished silently."""
    values = [
        (SOL_SOCKET, SO_KEEPALIVE, 1),
        (IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
        (IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S),
        (IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES),
        (IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
    ]
    return [
        socket_option_pb2.SocketOption(level=level, name=name, int_value=value)
        for level, name, value in values
    ]


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def make_cluster(
    name: str, endpoints: Iterable[Endpoint], connect_timeout_s: float
) -> tuple[Resource, Resource | None]:
    """A cluster and its endpoints, None where the cluster itself carries them.

    Endpoints come by EDS; as soon as one has a host name all go into a STRICT_DNS cluster, since
    EDS takes addresses only.
    """
    members = _deduplicated(endpoints)
    assignment = _assignment(name, members)
    cluster = cluster_pb2.Cluster(
        name=name,
        connect_timeout=duration(connect_timeout_s),
        per_connection_buffer_limit_bytes=UInt32Value(value=BUFFER_BYTES_MAX),
        circuit_breakers=_circuit_breakers(),
        outlier_detection=_outlier_detection(),
        ignore_health_on_host_removal=True,
        upstream_bind_config=address_pb2.BindConfig(socket_options=dead_peer_options()),
    )
    # Hosts that are ejected or reported critical are avoided only as long as another one is left:
    # with none, trying is better than refusing. (Below 1 percent means: with none.)
    cluster.common_lb_config.healthy_panic_threshold.value = 1.0
    if not all(is_ip(member.host) for member in members):
        _resolve_by_dns(cluster)
        cluster.load_assignment.CopyFrom(assignment)
        return Resource.of(name, cluster), None
    cluster.type = cluster_pb2.Cluster.EDS
    cluster.eds_cluster_config.eds_config.CopyFrom(
        config_source_pb2.ConfigSource(
            ads=config_source_pb2.AggregatedConfigSource(), resource_api_version="V3"
        )
    )
    return Resource.of(name, cluster), Resource.of(name, assignment)


def _resolve_by_dns(cluster: cluster_pb2.Cluster) -> None:
    cluster.type = cluster_pb2.Cluster.STRICT_DNS
    cluster.dns_lookup_family = cluster_pb2.Cluster.V4_PREFERRED
    cluster.respect_dns_ttl = True
    cluster.dns_refresh_rate.CopyFrom(duration(10))
    cluster.dns_failure_refresh_rate.base_interval.CopyFrom(duration(1))
    cluster.dns_failure_refresh_rate.max_interval.CopyFrom(duration(5))
    # A name that does not resolve must not hold up the listener of all other datacenters.
    cluster.wait_for_warm_on_init.CopyFrom(BoolValue(value=False))


def _deduplicated(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Sorted by address; of entries with one address, a healthy one counts.

    Entries without a usable address are left out: one of them would make Envoy reject them all.
    """
    found: dict[tuple[str, int], Endpoint] = {}
    for endpoint in sorted(endpoints):
        if not endpoint.host or not 0 < endpoint.port < 65536:
            continue
        key = (endpoint.host, endpoint.port)
        if key not in found or endpoint.healthy:
            found[key] = endpoint
    return [found[key] for key in sorted(found)]


def _assignment(name: str, endpoints: list[Endpoint]) -> Any:
    members = [
        endpoint_components_pb2.LbEndpoint(
            endpoint=endpoint_components_pb2.Endpoint(
                address=socket_address(endpoint.host, endpoint.port)
            ),
            health_status=(
                health_check_pb2.HEALTHY if endpoint.healthy else health_check_pb2.UNHEALTHY
            ),
            load_balancing_weight=UInt32Value(value=min(max(endpoint.weight, 1), WEIGHT_MAX)),
        )
        for endpoint in endpoints
    ]
    locality = endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=members)
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=name, endpoints=[locality] if members else []
    )


def _circuit_breakers() -> circuit_breaker_pb2.CircuitBreakers:
    # Envoy's default of 1024 would cap all RPC of a datacenter.
    limit = UInt32Value(value=CONNECTIONS_MAX)
    return circuit_breaker_pb2.CircuitBreakers(
        thresholds=[
            circuit_breaker_pb2.CircuitBreakers.Thresholds(
                max_connections=limit, max_pending_requests=limit
            )
        ]
    )


def _outlier_detection() -> outlier_detection_pb2.OutlierDetection:
    """Eject upon the first connect that fails, all hosts if need be, for 5 to 30 s."""
    off, all_of_them = UInt32Value(value=0), UInt32Value(value=100)
    return outlier_detection_pb2.OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=UInt32Value(value=1),
        enforcing_consecutive_local_origin_failure=all_of_them,
        max_ejection_percent=all_of_them,
        interval=duration(1),
        base_ejection_time=duration(EJECTION_S_BASE),
        max_ejection_time=duration(EJECTION_S_MAX),
        enforcing_consecutive_5xx=off,
        enforcing_consecutive_gateway_failure=off,
        enforcing_success_rate=off,
        enforcing_local_origin_success_rate=off,
    )
