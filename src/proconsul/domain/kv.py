"""The key-value store's structs (`agent/structs/structs.go`, `api/txn.go` for the operations)."""

from __future__ import annotations

from msgspec import Raw, field

from proconsul.domain.base import NIL, GoStruct, Uint64, bytes_of, raw_bytes
from proconsul.domain.options import QueryMeta, QueryOptions, WriteRequest

KV_SET = "set"
KV_DELETE = "delete"
KV_DELETE_CAS = "delete-cas"
KV_DELETE_TREE = "delete-tree"
KV_CAS = "cas"
KV_LOCK = "lock"
KV_UNLOCK = "unlock"
KV_GET = "get"
KV_GET_TREE = "get-tree"
KV_CHECK_SESSION = "check-session"
KV_CHECK_INDEX = "check-index"
KV_CHECK_NOT_EXISTS = "check-not-exists"
VALUE_NO_BYTES = "the value must be bytes"


class DirEntry(GoStruct, frozen=True, gc=False):
    """One key. `raw_value` is the value as it stands on the wire, `value` its bytes."""

    lock_index: Uint64 = 0
    key: str = ""
    flags: Uint64 = 0
    raw_value: Raw = NIL
    session: str = ""
    create_index: Uint64 = 0
    modify_index: Uint64 = 0

    @property
    def value(self) -> bytes:
        """The value; nil is empty. Raises `WireError` if a peer sent something else."""
        return bytes_of(self.raw_value)

    @classmethod
    def of(cls, key: str, value: bytes = b"", *, flags: int = 0, session: str = "",
           modify_index: int = 0) -> DirEntry:  # fmt: skip
        """A new entry. An empty value is nil, as Consul's own HTTP interface writes it."""
        return cls(
            key=key,
            raw_value=raw_bytes(value or None),
            flags=flags,
            session=session,
            modify_index=modify_index,
        )


class KVSRequest(WriteRequest, frozen=True, gc=False):
    """One operation on the store; `dir_ent.modify_index` is the index that a CAS expects."""

    datacenter: str = ""
    op: str = ""
    dir_ent: DirEntry = DirEntry()


class KeyRequest(QueryOptions, frozen=True, gc=False):
    """For `KVS.Get` and, with a prefix as key, `KVS.List`."""

    datacenter: str = ""
    key: str = ""


class KeyListRequest(QueryOptions, frozen=True, gc=False):
    """For `KVS.ListKeys`."""

    datacenter: str = ""
    prefix: str = ""
    separator: str = field(default="", name="Seperator")  # Go's own spelling


class IndexedDirEntries(QueryMeta, frozen=True, gc=False):
    entries: list[DirEntry] | None = None


class IndexedKeyList(QueryMeta, frozen=True, gc=False):
    keys: list[str] | None = None


class TombstoneRequest(WriteRequest, frozen=True, gc=False):
    """Forget deletions up to `reap_index` (operation `reap`)."""

    datacenter: str = ""
    op: str = "reap"
    reap_index: Uint64 = 0
