"""Locks and semaphores on keys, as Consul's client has them (`api/lock.go`, `api/semaphore.go`).

Ours and Consul's contend for the same keys, so flags, values and the order of requests are theirs.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from typing_extensions import override

from proconsul.interfaces.cli.client import ApiError, Client
from proconsul.interfaces.cli.command import CommandError
from proconsul.util.goduration import format_duration

LOCK_FLAG = 0x2DDCCBC058A50C18
SEMAPHORE_FLAG = 0xE0F69A2BAA414DE0
"""Each tells a key of its kind from the other's, and from anybody's."""
KEY = ".lock"
SESSION_TTL_S = 15
WAIT_S = 15.0
LOCK_DELAY_RETRY_S = 5.0
MONITOR_RETRY_S = 1.0


class InUseError(CommandError):
    """Somebody else holds it, so it cannot be cleaned up."""


class Lockable(Protocol):
    """What the command needs of either kind."""

    def acquire(self) -> bool:
        """Wait for it; False if the time was up. Raises `CommandError`."""
        ...

    def watch(self, lost: Callable[[], None]) -> None:
        """Call `lost` on another thread, once it is not ours any more."""
        ...

    def release(self) -> None: ...

    def cleanup(self) -> None:
        """Remove what nobody uses. Raises `InUseError`."""
        ...


class _Session:
    """A session that is renewed until it is destroyed."""

    def __init__(self, client: Client, name: str, behavior: str) -> None:
        self._client = client
        body: dict[str, str] = {"Name": name, "TTL": f"{SESSION_TTL_S}s"}
        if behavior:
            body["Behavior"] = behavior
        try:
            self.id = str(json.loads(client.put_json("/v1/session/create", body))["ID"])
        except CommandError as error:
            raise CommandError(f"failed to create session: {error}") from None
        self._over = threading.Event()
        threading.Thread(target=self._renew, daemon=True).start()

    def _renew(self) -> None:
        while not self._over.wait(SESSION_TTL_S / 2):
            try:
                self._client.put(f"/v1/session/renew/{self.id}")
            except ApiError as error:
                if error.status == 404:
                    return
            except CommandError:
                continue

    def destroy(self) -> None:
        self._over.set()
        try:
            self._client.put(f"/v1/session/destroy/{self.id}")
        except CommandError:
            return  # its TTL ends it


class _Held:
    """What both kinds have in common. `once_s` is how long to try; 0 is for ever."""

    behavior = ""
    """Of the session; empty for its default."""

    def __init__(self, client: Client, prefix: str, name: str, once_s: float, retries: int) -> None:
        self._client, self._prefix = client, prefix.rstrip("/")
        self._name, self._once_s, self._retries = name, once_s, retries
        self._key = f"{self._prefix}/{KEY}" if self._prefix else KEY
        self._session: _Session | None = None

    @property
    def session_id(self) -> str:
        assert self._session is not None
        return self._session.id

    def _waits(self) -> Callable[[], float | None]:
        """How many seconds the next query may wait; None once the time is up."""
        began, wait_s = time.monotonic(), self._once_s or WAIT_S
        tried = False

        def next_wait() -> float | None:
            nonlocal tried
            if not self._once_s or not tried:
                tried = True
                return wait_s
            left = wait_s - (time.monotonic() - began)
            return left if left >= 0 else None

        return next_wait

    def acquire(self) -> bool:
        """See `Lockable.acquire`."""
        self._session = _Session(self._client, self._name, self.behavior)
        got = False
        try:
            got = self._acquire()
        finally:
            if not got:
                self._end_session()
        return got

    def _acquire(self) -> bool:
        raise NotImplementedError

    def _read(self, query: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
        raise NotImplementedError

    def _is_ours(self, rows: list[dict[str, Any]]) -> bool:
        raise NotImplementedError

    def watch(self, lost: Callable[[], None]) -> None:
        """See `Lockable.watch`."""
        threading.Thread(target=self._watch, args=(lost,), daemon=True).start()

    def _watch(self, lost: Callable[[], None]) -> None:
        index, retries = 0, self._retries
        while True:
            query: dict[str, Any] = {"consistent": "", **({"index": str(index)} if index else {})}
            try:
                rows, index = self._read(query)
                if not self._is_ours(rows):
                    break
                retries = self._retries
            except ApiError as error:
                # No status: nobody answered at all, which may pass too.
                if retries <= 0 or error.status not in (0, 500):
                    break
                time.sleep(MONITOR_RETRY_S)
                retries, index = retries - 1, 0
            except CommandError:
                break
        lost()

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.destroy()


class Lock(_Held):
    """One key, held by one session."""

    @override
    def _read(self, query: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
        rows, index = self._client.get_indexed(f"/v1/kv/{self._key}", query)
        return rows or [], index

    @override
    def _is_ours(self, rows: list[dict[str, Any]]) -> bool:
        return bool(rows) and rows[0].get("Session") == self.session_id

    @override
    def _acquire(self) -> bool:
        next_wait, index = self._waits(), 0
        while (wait_s := next_wait()) is not None:
            query = {"wait": format_duration(wait_s), **({"index": str(index)} if index else {})}
            try:
                rows, found = self._read(query)
            except CommandError as error:
                raise CommandError(f"failed to read lock: {error}") from None
            if rows and rows[0]["Flags"] != LOCK_FLAG:
                raise CommandError("Existing key does not match lock use")
            if self._is_ours(rows):
                return True
            if rows and rows[0].get("Session"):
                index = found
                continue
            if self._put("acquire"):
                return True
            rows, found = self._read({"wait": format_duration(wait_s)})
            if rows and rows[0].get("Session"):
                index = found
            else:
                time.sleep(LOCK_DELAY_RETRY_S)  # its last holder's session was invalidated
        return False

    def _put(self, what: str) -> bool:
        query = {"flags": str(LOCK_FLAG), what: self.session_id}
        try:
            return b"true" in self._client.put(f"/v1/kv/{self._key}", b"", query)
        except CommandError as error:
            raise CommandError(f"failed to {what} lock: {error}") from None

    def release(self) -> None:
        """Give it back."""
        try:
            self._put("release")
        finally:
            self._end_session()

    def cleanup(self) -> None:
        """See `Lockable.cleanup`."""
        try:
            rows, _ = self._read({})
        except CommandError as error:
            raise CommandError(f"failed to read lock: {error}") from None
        if not rows:
            return
        if rows[0]["Flags"] != LOCK_FLAG:
            raise CommandError("Existing key does not match lock use")
        if rows[0].get("Session") or not _removed(self._client, self._key, rows[0], "lock"):
            raise InUseError("Lock in use")


class Semaphore(_Held):
    """`limit` sessions share a prefix; who holds is written in its key `.lock`."""

    behavior = "delete"

    def __init__(
        self, client: Client, prefix: str, name: str, once_s: float, retries: int, limit: int
    ) -> None:
        super().__init__(client, prefix, name, once_s, retries)
        self._limit = limit

    @override
    def _read(self, query: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
        path = f"/v1/kv/{self._prefix}/" if self._prefix else "/v1/kv/"
        rows, index = self._client.get_indexed(path, {**query, "recurse": ""})
        return rows or [], index

    @override
    def _is_ours(self, rows: list[dict[str, Any]]) -> bool:
        return self.session_id in self._state(rows)[1]["Holders"]

    def _state(self, rows: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The key's row, and its value without holders that are gone."""
        row = next((one for one in rows if one["Key"] == self._key), None)
        if row is None:
            row = {"Flags": SEMAPHORE_FLAG, "ModifyIndex": 0, "Value": None}
        if row["Flags"] != SEMAPHORE_FLAG:
            raise CommandError("Existing key does not match semaphore use")
        value: dict[str, Any] = {"Limit": self._limit, "Holders": {}}
        if row["Value"]:
            try:
                value = json.loads(base64.b64decode(row["Value"]))
            except ValueError as error:
                raise CommandError(f"lock decoding failed: {error}") from None
        alive = {one.get("Session") for one in rows}
        holders = {name: True for name in value.get("Holders") or {} if name in alive}
        return row, {"Limit": value.get("Limit", 0), "Holders": holders}

    @override
    def _acquire(self) -> bool:
        query = {"flags": str(SEMAPHORE_FLAG), "acquire": self.session_id}
        contender = f"/v1/kv/{self._prefix}/{self.session_id}"
        if b"true" not in self._client.put(contender, b"", query):
            raise CommandError("failed to make contender entry: <nil>")
        next_wait, index = self._waits(), 0
        while (wait_s := next_wait()) is not None:
            asked = {"wait": format_duration(wait_s), **({"index": str(index)} if index else {})}
            try:
                rows, found = self._read(asked)
            except CommandError as error:
                raise CommandError(f"failed to read prefix: {error}") from None
            row, state = self._state(rows)
            if state["Limit"] != self._limit:
                raise CommandError(
                    f"semaphore limit conflict (lock: {state['Limit']}, local: {self._limit})"
                )
            if len(state["Holders"]) >= self._limit:
                index = found
                continue
            state["Holders"][self.session_id] = True
            if self._write(state, row["ModifyIndex"]):
                return True
        return False

    def _write(self, state: dict[str, Any], index: int) -> bool:
        query = {"flags": str(SEMAPHORE_FLAG), "cas": str(index)}
        try:
            answer = self._client.put(f"/v1/kv/{self._key}", json.dumps(state).encode(), query)
        except CommandError as error:
            raise CommandError(f"failed to update lock: {error}") from None
        return b"true" in answer

    def release(self) -> None:
        """Give back our share."""
        try:
            while True:
                row, state = self._state(self._read({})[0])
                if state["Holders"].pop(self.session_id, None) is None:
                    break
                if self._write(state, row["ModifyIndex"]):
                    break
            self._client.delete(f"/v1/kv/{self._prefix}/{self.session_id}")
        finally:
            self._end_session()

    def cleanup(self) -> None:
        """See `Lockable.cleanup`."""
        try:
            rows, _ = self._read({})
        except CommandError as error:
            raise CommandError(f"failed to read prefix: {error}") from None
        row, state = self._state(rows)
        if not row["ModifyIndex"]:
            return
        if state["Holders"] or not _removed(self._client, self._key, row, "semaphore"):
            raise InUseError("Semaphore in use")


def _removed(client: Client, key: str, row: dict[str, Any], what: str) -> bool:
    try:
        return b"true" in client.delete(f"/v1/kv/{key}", {"cas": str(row["ModifyIndex"])})
    except CommandError as error:
        raise CommandError(f"failed to remove {what}: {error}") from None
