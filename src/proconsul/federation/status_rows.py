"""Parts of the federation's status report that need no asking, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from proconsul.domain.catalog import CRITICAL, META_WAN_FEDERATION, CheckServiceNode
from proconsul.domain.federation import FederationState
from proconsul.federation.locator import Gateway, usable
from proconsul.federation.replicator import ReplicationStatus
from proconsul.federation.status_causes import Cause, failure_of
from proconsul.util.errors import ProconsulError


def replication_json(status: ReplicationStatus | None) -> dict[str, Any] | None:
    """None in the primary. Only a leader replicates: elsewhere `Running` is false."""
    if status is None:
        return None
    failure = failure_of(ProconsulError(status.last_error)) if status.last_error else None
    return {
        "Running": status.running,
        "LastSuccess": _time(status.last_success),
        "LastFailure": _time(status.last_failure),
        "LastError": status.last_error,
        "Remedy": failure.remedy if failure is not None and failure.cause is Cause.ACL else "",
        "FailuresInARow": status.failures_in_a_row,
        "RemoteIndex": status.remote_index,
        "LagStates": status.lag,
        "LagIndexes": status.lag_indexes,
    }


def _time(seconds: float) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def state_json(state: FederationState | None) -> dict[str, Any] | None:
    """A federation state in short; None where there is none."""
    if state is None:
        return None
    nodes = state.mesh_gateways or []
    return {
        "Gateways": len(nodes),
        "UsableGateways": len(usable(nodes)),
        "ModifyIndex": state.modify_index,
        "PrimaryModifyIndex": state.primary_modify_index,
    }


def unusable_json(nodes: Sequence[CheckServiceNode]) -> list[dict[str, Any]]:
    """Registered gateways that are left out, and why."""
    good = {id(node) for node in usable(nodes)}
    out = []
    for node in nodes:
        if id(node) in good:
            continue
        critical = [check for check in node.checks or () if check.status == CRITICAL]
        if critical:
            reason = f"critical check {critical[0].check_id!r}: {critical[0].output}".rstrip(": ")
        else:
            reason = f"no service meta {META_WAN_FEDERATION}=1: started without -expose-servers"
        out.append({"Address": str(Gateway(node.best_address(wan=False))), "Reason": reason})
    return out
