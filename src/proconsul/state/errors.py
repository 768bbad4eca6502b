"""Errors of the state store. The FSM returns them as results; endpoints turn them into answers."""

from __future__ import annotations

from proconsul.util.errors import ProconsulError


class StateError(ProconsulError):
    """A command that the state refuses. It changed nothing; every server refuses it alike."""


class FsmError(ProconsulError):
    """A log entry or snapshot that this server cannot apply: going on would diverge."""


MISSING_NODE = "Missing node registration"
MISSING_SERVICE = "Missing service registration"
MISSING_SESSION_ID = "Missing session ID"
MISSING_CA_ROOT_ID = "Missing CA Root ID"
