"""Catalog, health, KV, sessions, coordinates, federation states, operators' calls, status."""

from __future__ import annotations

from proconsul.domain import autopilot as ap
from proconsul.domain import catalog as c
from proconsul.domain import coordinate as co
from proconsul.domain import federation as f
from proconsul.domain import kv, txn
from proconsul.domain import operator as op
from proconsul.domain import options as o
from proconsul.domain import session as ss
from proconsul.domain.base import GoStruct
from proconsul.rpc.signatures.base import Empty
from proconsul.rpc.table import Method, Route


class RaftStats(GoStruct, frozen=True, gc=False):
    """`Status.RaftStats` (autopilot.ServerStats): how far this server's log is."""

    last_contact: str = ""
    last_term: int = 0
    last_index: int = 0


_HERE, _DC, _LEADER, _PRIMARY = Route.HERE, Route.DATACENTER, Route.LEADER, Route.PRIMARY

SIGNATURES = (
    Method("Status.Ping", Empty | None, Empty, _HERE),
    Method("Status.Leader", o.DCSpecificRequest, str, _DC),
    Method("Status.Peers", o.DCSpecificRequest, list[str] | None, _DC),
    Method("Status.RaftStats", Empty | None, RaftStats, _HERE),
    Method("Catalog.Register", c.RegisterRequest, Empty, _LEADER, is_read=False),
    Method("Catalog.Deregister", c.DeregisterRequest, Empty, _LEADER, is_read=False),
    Method("Catalog.ListDatacenters", o.DatacentersRequest, list[str] | None, _HERE),
    Method("Catalog.ListNodes", o.DCSpecificRequest, c.IndexedNodes, _LEADER),
    Method("Catalog.ListServices", o.DCSpecificRequest, c.IndexedServices, _LEADER),
    Method("Catalog.ServiceList", o.DCSpecificRequest, c.IndexedServiceList, _LEADER),
    Method("Catalog.ServiceNodes", o.ServiceSpecificRequest, c.IndexedServiceNodes, _LEADER),
    Method("Catalog.NodeServices", o.NodeSpecificRequest, c.IndexedNodeServices, _LEADER),
    Method("Catalog.NodeServiceList", o.NodeSpecificRequest, c.IndexedNodeServiceList, _LEADER),
    Method("Health.ChecksInState", o.ChecksInStateRequest, c.IndexedHealthChecks, _LEADER),
    Method("Health.NodeChecks", o.NodeSpecificRequest, c.IndexedHealthChecks, _LEADER),
    Method("Health.ServiceChecks", o.ServiceSpecificRequest, c.IndexedHealthChecks, _LEADER),
    Method("Health.ServiceNodes", o.ServiceSpecificRequest, c.IndexedCheckServiceNodes, _LEADER),
    Method("KVS.Apply", kv.KVSRequest, bool, _LEADER, is_read=False),
    Method("KVS.Get", kv.KeyRequest, kv.IndexedDirEntries, _LEADER),
    Method("KVS.List", kv.KeyRequest, kv.IndexedDirEntries, _LEADER),
    Method("KVS.ListKeys", kv.KeyListRequest, kv.IndexedKeyList, _LEADER),
    Method("Txn.Apply", txn.TxnRequest, txn.TxnResponse, _LEADER, is_read=False),
    Method("Txn.Read", txn.TxnReadRequest, txn.TxnReadResponse, _LEADER),
    Method("Session.Apply", ss.SessionRequest, str, _LEADER, is_read=False),
    Method("Session.Get", ss.SessionSpecificRequest, ss.IndexedSessions, _LEADER),
    Method("Session.List", ss.SessionSpecificRequest, ss.IndexedSessions, _LEADER),
    Method("Session.NodeSessions", o.NodeSpecificRequest, ss.IndexedSessions, _LEADER),
    # Not a read: the timer is the leader's. Repeated, it does no harm; but it is cheap to ask.
    Method("Session.Renew", ss.SessionSpecificRequest, ss.IndexedSessions, _LEADER, is_read=False),
    Method("Internal.NodeInfo", o.NodeSpecificRequest, c.IndexedNodeDump, _LEADER),
    Method("Internal.NodeDump", o.DCSpecificRequest, c.IndexedNodeDump, _LEADER),
    Method("Internal.ServiceDump", o.ServiceDumpRequest, c.IndexedCheckServiceNodes, _LEADER),
    Method("Coordinate.Update", co.CoordinateUpdateRequest, Empty, _LEADER, is_read=False),
    Method("Coordinate.ListNodes", o.DCSpecificRequest, co.IndexedCoordinates, _LEADER),
    Method(
        "Coordinate.ListDatacenters",
        Empty | None,
        list[co.DatacenterMap] | None,
        _HERE,
    ),
    Method("Coordinate.Node", o.NodeSpecificRequest, co.IndexedCoordinates, _LEADER),
    Method("FederationState.Apply", f.FederationStateRequest, bool, _PRIMARY, is_read=False),
    Method(
        "FederationState.Get",
        f.FederationStateQuery,
        f.FederationStateResponse,
        _LEADER,
        datacenter_field="target_datacenter",
    ),
    Method("FederationState.List", o.DCSpecificRequest, f.IndexedFederationStates, _LEADER),
    Method(
        "FederationState.ListMeshGateways",
        o.DCSpecificRequest,
        c.DatacenterIndexedCheckServiceNodes,
        _LEADER,
    ),
    Method(
        "Operator.RaftGetConfiguration",
        o.DCSpecificRequest,
        op.RaftConfigurationResponse,
        _LEADER,
    ),
    Method(
        "Operator.RaftRemovePeerByAddress",
        op.RaftRemovePeerRequest,
        Empty,
        _LEADER,
        is_read=False,
    ),
    Method("Operator.RaftRemovePeerByID", op.RaftRemovePeerRequest, Empty, _LEADER, is_read=False),
    Method("Operator.AutopilotGetConfiguration", o.DCSpecificRequest, op.AutopilotConfig, _LEADER),
    Method(
        "Operator.AutopilotSetConfiguration",
        op.AutopilotSetConfigRequest,
        bool,
        _LEADER,
        is_read=False,
    ),
    # Not a read: only the leader knows, whatever staleness the request allows.
    Method(
        "Operator.ServerHealth",
        o.DCSpecificRequest,
        ap.OperatorHealthReply,
        _LEADER,
        is_read=False,
    ),
)
