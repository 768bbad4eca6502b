"""The questions that endpoints ask before they answer (`acl/authorizer.go`).

Every endpoint is handed an `Authorizer`; with ACLs off it is `AllowAll`.
"""

from __future__ import annotations

from typing import Protocol


class Authorizer(Protocol):
    """What one token may do. True allows; default policies are already applied."""

    def acl_read(self) -> bool: ...
    def acl_write(self) -> bool: ...
    def agent_read(self, node: str) -> bool: ...
    def agent_write(self, node: str) -> bool: ...
    def event_read(self, name: str) -> bool: ...
    def event_write(self, name: str) -> bool: ...
    def intention_default_allow(self) -> bool: ...
    def intention_read(self, service: str) -> bool: ...
    def intention_write(self, service: str) -> bool: ...
    def key_list(self, prefix: str) -> bool: ...
    def key_read(self, key: str) -> bool: ...
    def key_write(self, key: str) -> bool: ...
    def key_write_prefix(self, prefix: str) -> bool: ...
    def keyring_read(self) -> bool: ...
    def keyring_write(self) -> bool: ...
    def node_read(self, node: str) -> bool: ...
    def node_write(self, node: str) -> bool: ...
    def operator_read(self) -> bool: ...
    def operator_write(self) -> bool: ...
    def prepared_query_read(self, name: str) -> bool: ...
    def prepared_query_write(self, name: str) -> bool: ...
    def service_read(self, service: str) -> bool: ...
    def service_write(self, service: str) -> bool: ...
    def session_read(self, node: str) -> bool: ...
    def session_write(self, node: str) -> bool: ...
    def snapshot(self) -> bool: ...


class AllowAll:
    """The authorizer of a system without ACLs."""

    __slots__ = ()

    def acl_read(self) -> bool:
        return True

    def acl_write(self) -> bool:
        return True

    def agent_read(self, node: str) -> bool:
        return True

    def agent_write(self, node: str) -> bool:
        return True

    def event_read(self, name: str) -> bool:
        return True

    def event_write(self, name: str) -> bool:
        return True

    def intention_default_allow(self) -> bool:
        return True

    def intention_read(self, service: str) -> bool:
        return True

    def intention_write(self, service: str) -> bool:
        return True

    def key_list(self, prefix: str) -> bool:
        return True

    def key_read(self, key: str) -> bool:
        return True

    def key_write(self, key: str) -> bool:
        return True

    def key_write_prefix(self, prefix: str) -> bool:
        return True

    def keyring_read(self) -> bool:
        return True

    def keyring_write(self) -> bool:
        return True

    def node_read(self, node: str) -> bool:
        return True

    def node_write(self, node: str) -> bool:
        return True

    def operator_read(self) -> bool:
        return True

    def operator_write(self) -> bool:
        return True

    def prepared_query_read(self, name: str) -> bool:
        return True

    def prepared_query_write(self, name: str) -> bool:
        return True

    def service_read(self, service: str) -> bool:
        return True

    def service_write(self, service: str) -> bool:
        return True

    def session_read(self, node: str) -> bool:
        return True

    def session_write(self, node: str) -> bool:
        return True

    def snapshot(self) -> bool:
        return True
