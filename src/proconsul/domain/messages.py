"""The types of Raft log entries and snapshot records (`structs.MessageType`)."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from proconsul.domain.base import encode

IGNORE_UNKNOWN_TYPE_FLAG = 128
"""Set on a type that servers which do not know it may skip."""


class MessageType(IntEnum):
    """First byte of a Raft log entry and of each snapshot record. Only ever extended."""

    REGISTER = 0
    DEREGISTER = 1
    KVS = 2
    SESSION = 3
    ACL = 4
    TOMBSTONE = 5
    COORDINATE_BATCH_UPDATE = 6
    PREPARED_QUERY = 7
    TXN = 8
    AUTOPILOT = 9
    AREA = 10
    ACL_BOOTSTRAP = 11
    INTENTION = 12
    CONNECT_CA = 13
    CONNECT_CA_PROVIDER_STATE = 14
    CONNECT_CA_CONFIG = 15
    INDEX = 16
    ACL_TOKEN_SET = 17
    ACL_TOKEN_DELETE = 18
    ACL_POLICY_SET = 19
    ACL_POLICY_DELETE = 20
    CONNECT_CA_LEAF = 21
    CONFIG_ENTRY = 22
    ACL_ROLE_SET = 23
    ACL_ROLE_DELETE = 24
    ACL_BINDING_RULE_SET = 25
    ACL_BINDING_RULE_DELETE = 26
    ACL_AUTH_METHOD_SET = 27
    ACL_AUTH_METHOD_DELETE = 28
    CHUNKING_STATE = 29
    FEDERATION_STATE = 30


def encode_command(type_: MessageType, request: Any) -> bytes:
    """A Raft log entry: the type's byte and the request."""
    return bytes((type_,)) + encode(request)
