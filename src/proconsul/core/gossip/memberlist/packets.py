"""Outgoing packets: piggybacked rumours, compression, CRC, encryption (`net.go`)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from proconsul.core.gossip.memberlist.config import MemberlistConfig
from proconsul.core.gossip.memberlist.membership import Membership
from proconsul.core.gossip.memberlist.types import Address, Delegate, Node, Output, SendPacket
from proconsul.util.address import host_port
from proconsul.util.clock import Rng
from proconsul.wire.memberlist_crypto import NONCE_BYTES, overhead_bytes
from proconsul.wire.memberlist_packet import (
    COMPOUND_ENTRY_BYTES,
    COMPOUND_HEADER_BYTES,
    CRC_BYTES,
    USER_BYTES,
    add_crc,
    encode_compress,
    make_compound,
)

_COMPOUND_MAX = 255
_CRC_VERSION = 5


class Sealer:
    """Encrypts what goes out, if it is to be encrypted."""

    __slots__ = ("_config", "_random", "keyring")

    def __init__(self, config: MemberlistConfig, rng: Rng) -> None:
        self._config = config
        self._random = config.random_bytes or rng.randbytes
        self.keyring = config.keyring if config.verify_outgoing else None

    @property
    def overhead(self) -> int:
        """Bytes that it adds to a packet."""
        if self.keyring is None:
            return 0
        return overhead_bytes(self._config.encryption_version)

    def nonce(self) -> bytes:
        """Fresh for every message; none without encryption."""
        return self._random(NONCE_BYTES) if self.keyring is not None else b""

    def seal(self, packet: bytes) -> bytes:
        """A packet as it goes out."""
        if self.keyring is None:
            return packet
        return self.keyring.seal(packet, self._config.encryption_version, self.nonce())


class PacketSender:
    """Turns messages into `SendPacket` outputs that fill, and never exceed, one datagram."""

    def __init__(
        self,
        config: MemberlistConfig,
        delegate: Delegate,
        membership: Membership,
        sealer: Sealer,
        emit: Callable[[Output], None],
        log: logging.Logger,
    ) -> None:
        self._config = config
        self._delegate = delegate
        self._membership = membership
        self._sealer = sealer
        self._emit = emit
        self._log = log
        self._room = (
            config.udp_buffer_bytes - COMPOUND_HEADER_BYTES - max(sealer.overhead, CRC_BYTES)
        )

    def send(self, node: str, address: Address, message: bytes) -> None:
        """Send `message`, and rumours that fit beside it."""
        rumours = self._rumours(self._room - len(message) - COMPOUND_ENTRY_BYTES)
        if rumours:
            message = make_compound([message, *rumours[: _COMPOUND_MAX - 1]])
        self.send_alone(node, address, message)

    def gossip(self, choose: Callable[[], list[Node]]) -> None:
        """Send rumours, if there are any, to each of the nodes that `choose` then chooses."""
        rumours = self._rumours(self._room)
        if not rumours:
            return  # five times a second, nearly always
        for index, node in enumerate(choose()):
            if index:
                rumours = self._rumours(self._room)
                if not rumours:
                    return
            message = rumours[0] if len(rumours) == 1 else make_compound(rumours[:_COMPOUND_MAX])
            self.send_alone(node.name, node.address, message)

    def send_alone(self, name: str, address: Address, message: bytes) -> None:
        """Send `message` and nothing else. Without a name, where names are required, it is lost."""
        config = self._config
        if not name:
            name = self._membership.name_at(address)
            if not name and config.require_node_names:
                self._log.warning("cannot send to %s: node names are required", host_port(address))
                return
        if config.compress and len(message) >= config.compress_min_bytes:
            smaller = encode_compress(message)
            if len(smaller) < len(message):
                message = smaller
        if self._sealer.keyring is None:
            node = self._membership.nodes.get(name)
            # Encryption authenticates: a CRC beside it would only cost bytes.
            if node is not None and node.protocol_max >= _CRC_VERSION:
                message = add_crc(message)
        else:
            message = self._sealer.seal(message)
        self._emit(SendPacket(name, address, message))

    def _rumours(self, room: int) -> list[bytes]:
        rumours = self._membership.broadcasts.get(COMPOUND_ENTRY_BYTES, room)
        room -= sum(map(len, rumours)) + COMPOUND_ENTRY_BYTES * len(rumours)
        overhead = COMPOUND_ENTRY_BYTES + USER_BYTES
        if room > overhead:
            rumours += [b"\x08" + m for m in self._delegate.get_broadcasts(overhead, room)]
        return rumours
