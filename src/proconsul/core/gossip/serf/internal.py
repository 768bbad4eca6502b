"""Queries that serf nodes ask each other behind the application's back (`internal_query.go`).

Their names begin with `_serf_`: ping (the ack is the answer), conflict, and the four about keys.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Final

import msgspec

from proconsul.core.gossip.serf.config import SerfError
from proconsul.core.gossip.serf.context import Context
from proconsul.core.gossip.serf.events import QueryEvent
from proconsul.core.gossip.serf.queries import Queries
from proconsul.util.errors import ProconsulError, WireError
from proconsul.wire import serf as wire
from proconsul.wire.memberlist_crypto import Keyring
from proconsul.wire.serf_decode import decode_key_request

PREFIX: Final = "_serf_"
CONFLICT: Final = PREFIX + "conflict"
_NO_KEYRING = "No keyring to modify (encryption not enabled)"


class InternalQueries:
    """Answers them. `keyring` is None without encryption."""

    def __init__(self, context: Context, queries: Queries, keyring: Keyring | None) -> None:
        self._context, self._queries, self._keyring = context, queries, keyring

    def handle(self, event: QueryEvent) -> None:
        """Answer `event`, whose name begins with `PREFIX`."""
        match event.name.removeprefix(PREFIX):
            case "ping":
                pass
            case "conflict":
                self._conflict(event)
            case "list-keys":
                self._list_keys(event)
            case "install-key" | "use-key" | "remove-key" as operation:
                self._change_keys(operation, event)
            case name:
                self._context.log.warning("unhandled internal query %r", name)

    def _conflict(self, event: QueryEvent) -> None:
        """Where do we believe the node in question to be? The node itself does not vote."""
        node = event.payload.decode("utf-8", "surrogateescape")
        if node == self._context.config.node_name:
            return
        member = self._context.roster.get(node)
        answer = None
        if member is not None:
            answer = wire.WireMember(
                name=member.name,
                address=member.address,
                tags=dict(member.tags),
                status=member.status,
                protocol=(member.protocol_min, member.protocol_max, member.protocol_cur),
                delegate=(member.delegate_min, member.delegate_max, member.delegate_cur),
            )
        self._queries.respond(event, wire.encode_conflict_response(answer))

    def _change_keys(self, operation: str, event: QueryEvent) -> None:
        keyring = self._keyring
        if keyring is None:
            self._answer(event, wire.KeyResponse(False, _NO_KEYRING))
            return
        self._context.log.info("Received %s query", operation)
        change = {"install-key": keyring.add, "use-key": keyring.use}.get(operation, keyring.remove)
        try:
            change(decode_key_request(event.payload))
            if (save := self._context.config.save_keyring) is not None:
                save(keyring.keys)
        except WireError as error:
            self._context.log.error("malformed key request: %s", error)
            self._answer(event, wire.KeyResponse(False))
        except (ProconsulError, ValueError) as error:
            self._context.log.error("failed to %s: %s", operation, error)
            self._answer(event, wire.KeyResponse(False, str(error)))
        else:
            self._answer(event, wire.KeyResponse(True))

    def _list_keys(self, event: QueryEvent) -> None:
        if self._keyring is None:
            message = "Keyring is empty (encryption not enabled)"
            self._answer(event, wire.KeyResponse(False, message))
            return
        self._context.log.info("Received list-keys query")
        keys = tuple(b64encode(key).decode() for key in self._keyring.keys)
        response = wire.KeyResponse(True, "", keys, keys[0])
        for count in range(len(keys) - 1, -1, -1):
            if self._queries.response_fits(event, wire.encode_key_response(response)):
                break
            response = msgspec.structs.replace(
                response,
                keys=keys[:count],
                message=f"truncated key list response, showing first {count} of {len(keys)} keys",
            )
        if response.message:
            self._context.log.warning("%s", response.message)
        self._answer(event, response)

    def _answer(self, event: QueryEvent, response: wire.KeyResponse) -> None:
        try:
            self._queries.respond(event, wire.encode_key_response(response))
        except SerfError as error:
            self._context.log.error("failed to respond to key query: %s", error)
