"""The route table (`agent/http_register.go`). New endpoints are added here, nowhere else."""

from __future__ import annotations

from proconsul.interfaces.http import (
    acl,
    acl_authorize,
    acl_legacy,
    agent,
    agent_services,
    catalog,
    config,
    connect,
    coordinate,
    discovery_chain,
    federation,
    health,
    intentions,
    kv,
    monitor,
    operator,
    ops,
    prepared_query,
    session,
    snapshot,
    txn,
    ui,
)
from proconsul.interfaces.http.api import Handler, HttpApi, Route
from proconsul.interfaces.http.ports import AgentPort, HttpApiConfig

GET, PUT, POST = ("GET",), ("PUT",), ("POST",)
ANY = ("GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS")
"""For handlers that see to methods themselves."""
ROW = ("GET", "PUT", "DELETE")

Entry = tuple[str, tuple[str, ...], Handler]

ACL_ROUTES: tuple[Entry, ...] = tuple(
    (pattern, methods, acl.with_acls(handler))
    for pattern, methods, handler in (
        ("/v1/acl/bootstrap", PUT, acl.bootstrap),
        ("/v1/acl/replication", GET, acl.replication),
        ("/v1/acl/create", PUT, acl_legacy.create),
        ("/v1/acl/update", PUT, acl_legacy.update),
        ("/v1/acl/destroy/", PUT, acl_legacy.destroy),
        ("/v1/acl/info/", GET, acl_legacy.info),
        ("/v1/acl/clone/", PUT, acl_legacy.clone),
        ("/v1/acl/list", GET, acl_legacy.every),
        ("/v1/acl/login", POST, acl.no_logins),
        ("/v1/acl/logout", POST, acl.no_logins),
        ("/v1/acl/policies", GET, acl.policies),
        ("/v1/acl/policy", PUT, acl.create_policy),
        ("/v1/acl/policy/", ROW, acl.policy),
        ("/v1/acl/policy/name/", GET, acl.policy_by_name),
        ("/v1/acl/roles", GET, acl.roles),
        ("/v1/acl/role", PUT, acl.create_role),
        ("/v1/acl/role/", ROW, acl.role),
        ("/v1/acl/role/name/", GET, acl.role_by_name),
        ("/v1/acl/rules/translate", POST, acl.translate_rules),
        ("/v1/acl/rules/translate/", GET, acl.translate_token),
        ("/v1/acl/tokens", GET, acl.tokens),
        ("/v1/acl/token", PUT, acl.create_token),
        ("/v1/acl/token/self", GET, acl.own_token),
        ("/v1/acl/token/", ROW, acl.token),
        ("/v1/acl/binding-rules", GET, acl.rules),
        ("/v1/acl/binding-rule", PUT, acl.no_logins),
        ("/v1/acl/binding-rule/", ROW, acl.rule),
        ("/v1/acl/auth-methods", GET, acl.methods),
        ("/v1/acl/auth-method", PUT, acl.no_logins),
        ("/v1/acl/auth-method/", ROW, acl.method),
        ("/v1/internal/acl/authorize", POST, acl_authorize.authorize),
    )
)
"""401 for all of them while ACLs are off."""


def routes() -> dict[str, Route]:
    """All endpoints by pattern; one that ends with `/` takes everything below it."""
    table: tuple[Entry, ...] = (
        ("/v1/agent/self", GET, agent.self_),
        ("/v1/agent/host", GET, agent.host),
        ("/v1/agent/members", GET, agent.members),
        ("/v1/agent/metrics", GET, agent.metrics),
        ("/v1/agent/maintenance", PUT, agent.maintenance),
        ("/v1/agent/reload", PUT, agent.reload),
        ("/v1/agent/join/", PUT, agent.join),
        ("/v1/agent/monitor", GET, monitor.monitor),
        ("/v1/agent/leave", PUT, agent.leave),
        ("/v1/agent/force-leave/", PUT, agent.force_leave),
        ("/v1/agent/services", GET, agent_services.services),
        ("/v1/agent/service/", GET, agent_services.service),
        ("/v1/agent/service/register", PUT, agent_services.register_service),
        ("/v1/agent/service/deregister/", PUT, agent_services.deregister_service),
        ("/v1/agent/service/maintenance/", PUT, agent_services.service_maintenance),
        ("/v1/agent/health/service/id/", GET, agent_services.health_by_id),
        ("/v1/agent/health/service/name/", GET, agent_services.health_by_name),
        ("/v1/agent/checks", GET, agent_services.checks),
        ("/v1/agent/check/register", PUT, agent_services.register_check),
        ("/v1/agent/check/deregister/", PUT, agent_services.deregister_check),
        ("/v1/agent/check/pass/", PUT, agent_services.pass_check),
        ("/v1/agent/check/warn/", PUT, agent_services.warn_check),
        ("/v1/agent/check/fail/", PUT, agent_services.fail_check),
        ("/v1/agent/check/update/", PUT, agent_services.update_check),
        ("/v1/agent/token/", PUT, acl_legacy.agent_token),
        *ACL_ROUTES,
        ("/v1/catalog/register", PUT, catalog.register),
        ("/v1/catalog/deregister", PUT, catalog.deregister),
        ("/v1/catalog/datacenters", GET, catalog.datacenters),
        ("/v1/catalog/nodes", GET, catalog.nodes),
        ("/v1/catalog/services", GET, catalog.services),
        ("/v1/catalog/service/", GET, catalog.service),
        ("/v1/catalog/node/", GET, catalog.node),
        ("/v1/catalog/node-services/", GET, catalog.node_services),
        ("/v1/catalog/gateway-services/", GET, catalog.gateway_services),
        ("/v1/config", PUT, config.apply),
        ("/v1/config/", ("GET", "DELETE"), config.config),
        ("/v1/discovery-chain/", ("GET", "POST"), discovery_chain.read),
        ("/v1/connect/intentions", ("GET", "POST"), intentions.intentions),
        ("/v1/connect/intentions/", ("GET", "PUT", "DELETE"), intentions.intention),
        ("/v1/connect/intentions/match", GET, intentions.match),
        ("/v1/connect/intentions/check", GET, intentions.check),
        ("/v1/connect/ca/roots", GET, coordinate.ca_roots),
        ("/v1/agent/connect/ca/roots", GET, coordinate.agent_ca_roots),
        ("/v1/agent/connect/ca/leaf/", GET, connect.leaf),
        ("/v1/agent/connect/authorize", ("POST",), connect.authorize),
        ("/v1/connect/ca/configuration", ("GET", "PUT"), connect.configuration),
        ("/v1/coordinate/update", PUT, coordinate.coordinate_update),
        ("/v1/coordinate/datacenters", GET, coordinate.coordinate_datacenters),
        ("/v1/coordinate/nodes", GET, coordinate.coordinate_nodes),
        ("/v1/coordinate/node/", GET, coordinate.coordinate_node),
        ("/v1/event/fire/", PUT, ops.event_fire),
        ("/v1/event/list", GET, ops.event_list),
        ("/v1/operator/keyring", ops.KEYRING_METHODS, ops.keyring),
        ("/v1/operator/raft/configuration", GET, operator.raft_configuration),
        ("/v1/operator/raft/peer", ("DELETE",), operator.raft_peer),
        (
            "/v1/operator/autopilot/configuration",
            ("GET", "PUT"),
            operator.autopilot_configuration,
        ),
        ("/v1/operator/autopilot/health", GET, operator.server_health),
        ("/v1/catalog/connect/", GET, catalog.connect),
        ("/v1/health/connect/", GET, health.connect),
        ("/v1/health/ingress/", GET, health.ingress),
        ("/v1/internal/ui/nodes", GET, ui.nodes),
        ("/v1/internal/ui/node/", GET, ui.node),
        ("/v1/internal/ui/services", GET, ui.services),
        ("/v1/internal/ui/gateway-services-nodes/", GET, ui.gateway_services),
        ("/v1/health/node/", GET, health.node),
        ("/v1/health/checks/", GET, health.checks),
        ("/v1/health/state/", GET, health.state),
        ("/v1/health/service/", GET, health.service),
        ("/v1/internal/federation-states", GET, federation.states),
        ("/v1/internal/federation-states/mesh-gateways", GET, federation.mesh_gateways),
        ("/v1/internal/federation-state/", GET, federation.state),
        ("/v1/internal/federation-status", GET, federation.status),
        ("/v1/kv/", ("GET", "PUT", "DELETE"), kv.kv),
        ("/v1/query", ("GET", "POST"), prepared_query.general),
        ("/v1/query/", ANY, prepared_query.specific),
        ("/v1/session/create", PUT, session.create),
        ("/v1/session/destroy/", PUT, session.destroy),
        ("/v1/session/renew/", PUT, session.renew),
        ("/v1/session/info/", GET, session.info),
        ("/v1/session/node/", GET, session.node),
        ("/v1/session/list", GET, session.every),
        ("/v1/snapshot", ("GET", "PUT"), snapshot.snapshot),
        ("/v1/status/leader", GET, health.leader),
        ("/v1/status/peers", GET, health.peers),
        ("/v1/txn", PUT, txn.txn),
    )
    return {pattern: Route(pattern, methods, handler) for pattern, methods, handler in table}


def build_api(agent_port: AgentPort, config: HttpApiConfig) -> HttpApi:
    """The API of an agent, ready to be given to `HttpServer`."""
    return HttpApi(agent_port, config, routes())
