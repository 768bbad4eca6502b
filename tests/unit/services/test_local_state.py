from __future__ import annotations

import pytest

from proconsul.domain import catalog as c
from proconsul.services.agent.local import LocalState, LocalStateError


def _state(interval_s: float = 0.0, *, discard_output: bool = False) -> LocalState:
    state = LocalState("web", interval_s, discard_output=discard_output)
    state.add_service(c.NodeService(id="s1", service="shop", tags=["v1"]), "token")
    state.add_check(c.HealthCheck(check_id="up", service_id="s1", status=c.CRITICAL), now=10.0)
    return state


def test_checks_take_node_and_service_from_their_owner() -> None:
    check = _state().check("up")
    assert check is not None
    assert (check.node, check.service_name, check.service_tags) == ("web", "shop", ["v1"])


def test_unknown_ids_are_refused_in_the_references_words() -> None:
    state = _state()
    with pytest.raises(
        LocalStateError, match=r'Unknown service "x"\. Ensure that the service ID is'
    ):
        state.remove_service("x")
    with pytest.raises(LocalStateError, match='Unknown check "x"'):
        state.remove_check("x")
    with pytest.raises(LocalStateError, match='ServiceID "x" does not exist'):
        state.add_check(c.HealthCheck(check_id="y", service_id="x"), now=0)
    state.remove_service("s1")
    with pytest.raises(LocalStateError):
        state.remove_service("s1")
    with pytest.raises(LocalStateError):
        state.remove_check("up")  # went with its service
    assert state.services() == state.checks() == {}
    assert state.service_token("s1") == "token"  # needed to deregister it
    state.update_check("up", c.PASSING, "", 0.0)
    assert state.checks() == {}


def test_registering_the_same_again_changes_nothing() -> None:
    state = _state()
    version = state.version
    state.add_service(c.NodeService(id="s1", service="shop", tags=["v1"]), "token")
    assert state.version == version
    state.add_service(c.NodeService(id="s1", service="shop", tags=["v1"]), "other token")
    assert state.version == version + 1


def test_critical_since_counts_from_the_first_failure() -> None:
    state = _state()
    state.update_check("up", c.CRITICAL, "still", 15.0)
    assert [(k.check_id, s) for k, s in state.critical_for(30.0)] == [("up", 20.0)]
    state.update_check("up", c.WARNING, "", 31.0)
    assert list(state.critical_for(40.0)) == []
    state.update_check("up", c.CRITICAL, "", 50.0)
    assert [s for _, s in state.critical_for(60.0)] == [10.0]


def test_output_is_deferred_only_while_in_sync() -> None:
    state = _state(interval_s=60.0)
    entry = state.check_entries()["up"]
    state.update_check("up", c.CRITICAL, "a", 20.0)
    assert entry.deferred_until is None
    assert not entry.in_sync
    entry.in_sync = True
    state.update_check("up", c.CRITICAL, "b", 20.0)
    state.update_check("up", c.CRITICAL, "c", 30.0)
    assert entry.in_sync
    assert entry.deferred_until == 80.0
    assert state.flush_deferred(79.0) == 80.0
    assert entry.in_sync
    assert state.flush_deferred(80.0) is None
    assert not entry.in_sync
    entry.in_sync = True
    state.update_check("up", c.CRITICAL, "d", 90.0)
    state.update_check("up", c.PASSING, "d", 91.0)  # a status never waits
    assert not entry.in_sync
    assert entry.deferred_until is None


def test_output_can_be_discarded() -> None:
    state = _state(discard_output=True)
    state.update_check("up", c.PASSING, "secret", 0.0)
    check = state.check("up")
    assert check is not None
    assert check.output == ""
    version = state.version
    state.update_check("up", c.PASSING, "other", 0.0)
    assert state.version == version


def test_subscribers_may_leave_while_they_are_called() -> None:
    state = _state()
    seen: list[int] = []

    def once() -> None:
        seen.append(state.version)
        unsubscribe()

    unsubscribe = state.subscribe(once)
    state.remove_check("up")
    state.remove_service("s1")
    assert len(seen) == 1
    assert state.stats() == {"services": "0", "checks": "0"}
