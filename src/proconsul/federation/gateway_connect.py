"""One connection through one mesh gateway: TCP, then native TLS with SNI and one ALPN name.

Every failure is told by its hop. Behind a gateway an end of the connection before ServerHello means
that the gateway does not route the name, or that nothing it routes to answered.
"""

from __future__ import annotations

from proconsul.drivers.buffer import StreamError
from proconsul.drivers.stream import Stream
from proconsul.drivers.tcp import ConnectError, TcpStream, connect
from proconsul.drivers.tls import client_handshake
from proconsul.drivers.tls_config import TlsContexts
from proconsul.drivers.tls_errors import TlsAlpnError, TlsEofError, TlsError
from proconsul.rpc.dialer import Hop, HopError

UNACKED_S_MAX = 8.0
"""A gateway that swallows what we send is left after this, for another one."""


class GatewayTraffic:
    """Bytes that this server sent and received through gateways."""

    def __init__(self) -> None:
        self._open: set[TcpStream] = set()
        self._sent = self._received = 0

    def follow(self, stream: TcpStream) -> None:
        """Count this connection's bytes until it ends, and after."""
        self._open.add(stream)
        ended = stream.on_lost

        def lost() -> None:
            self._open.discard(stream)
            self._sent += stream.bytes_sent
            self._received += stream.bytes_received
            if ended is not None:
                ended()

        stream.on_lost = lost

    @property
    def connections(self) -> int:
        """Open connections to gateways."""
        return len(self._open)

    @property
    def sent(self) -> int:
        """Bytes, TLS included."""
        return self._sent + sum(s.bytes_sent for s in self._open)

    @property
    def received(self) -> int:
        """Bytes, TLS included."""
        return self._received + sum(s.bytes_received for s in self._open)


class GatewayConnect:
    """The `TlsConnect` of a `FederationDialer`."""

    def __init__(self, tls: TlsContexts, traffic: GatewayTraffic) -> None:
        self._tls, self._traffic = tls, traffic

    async def __call__(
        self, gateway: tuple[str, int], server_name: str, alpn: str, deadline: float
    ) -> Stream:
        """Raises `HopError`; its datacenter is filled in by the dialer."""
        try:
            raw = await connect(gateway, deadline, unacked_s_max=UNACKED_S_MAX)
        except ConnectError as error:
            raise HopError(Hop.DIAL, "", str(error)) from error
        self._traffic.follow(raw)
        try:
            return await client_handshake(
                raw,
                self._tls.client(verify=True, alpn=alpn),
                deadline=deadline,
                server_name=server_name,
                needed_name=server_name,
                alpn=alpn,
            )
        except StreamError as error:
            raise HopError(_hop(error), "", f"{server_name}: {_explain(error)}") from error
        except ValueError as error:
            raw.abort()
            reason = f"{server_name!r} cannot be a server name (SNI): {error}"
            raise HopError(Hop.SNI, "", reason) from error


def _hop(error: StreamError) -> Hop:
    if isinstance(error, TlsEofError) and error.before_server_hello:
        return Hop.SNI
    if isinstance(error, TlsAlpnError):
        return Hop.ALPN
    return Hop.TLS if isinstance(error, TlsError) else Hop.DIAL


def _explain(error: StreamError) -> str:
    if isinstance(error, TlsEofError) and error.before_server_hello:
        return (
            "the gateway closed the connection before any answer: it does not route this name, "
            "or could not reach what is behind it"
        )
    return str(error)
