"""Why a step towards another datacenter failed, in words, and what to do about it.

`failure_of` looks at one error alone; what it cannot tell apart behind a gateway, an end of the
connection before ServerHello, `federation.status` finds out by asking more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from proconsul.domain.errors import ACL_NOT_FOUND, NO_LEADER, PERMISSION_DENIED
from proconsul.drivers.tcp import ConnectError
from proconsul.drivers.tls_errors import (
    TlsAlpnError,
    TlsClientCertificateError,
    TlsEofError,
    TlsError,
    TlsExpiredError,
    TlsNameError,
    TlsTimeoutError,
    TlsUnknownAuthorityError,
)
from proconsul.rpc.dialer import Hop, HopError
from proconsul.rpc.errors import DeadlineError, RemoteError


class Cause(Enum):
    """What is wrong, as far as it is known. The values are part of the JSON output."""

    UNKNOWN_DATACENTER = "unknown-datacenter"
    NO_GATEWAY = "no-gateway"
    GATEWAY_REFUSED = "gateway-refused"
    GATEWAY_SILENT = "gateway-silent"
    GATEWAY_ROUTES_NOTHING = "gateway-routes-nothing"
    GATEWAY_LACKS_ROUTE = "gateway-lacks-route"
    REMOTE_GATEWAY_UNREACHABLE = "remote-gateway-unreachable"
    REMOTE_SERVERS_UNREACHABLE = "remote-servers-unreachable"
    BEYOND_GATEWAY = "beyond-gateway"
    SERVER_DOWN = "server-down"
    SERVER_UNREACHABLE = "server-unreachable"
    MISSING_NAME = "certificate-lacks-name"
    UNKNOWN_AUTHORITY = "certificate-of-unknown-authority"
    OUR_AUTHORITY_UNKNOWN = "our-certificate-of-unknown-authority"
    EXPIRED = "certificate-expired"
    NOT_YET_VALID = "certificate-not-yet-valid"
    OUR_CERTIFICATE_EXPIRED = "our-certificate-expired"
    OUR_CERTIFICATE_REFUSED = "our-certificate-refused"
    NO_COMMON_PROTOCOL = "no-common-protocol"
    NOT_TLS = "not-tls"
    ACL = "acl"
    NO_LEADER = "no-leader"
    RPC = "rpc"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed step. `needed` and `offered` are names of certificates."""

    hop: Hop
    cause: Cause
    reason: str
    remedy: str = ""
    gateway: str = ""
    needed: str = ""
    offered: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """The fields that a failed row has."""
        out: dict[str, Any] = {
            "Hop": self.hop.value,
            "Cause": self.cause.value,
            "Reason": self.reason,
            "Remedy": self.remedy,
        }
        if self.gateway:
            out["Gateway"] = self.gateway
        if self.needed:
            out["NeededName"] = self.needed
            out["OfferedNames"] = list(self.offered)
        return out


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it, outermost first."""
    for _ in range(16):
        if error is None:
            return
        yield error
        error = error.__cause__


def is_silent(failure: Failure) -> bool:
    """Whether behind a gateway this may mean anything: nothing was heard of the server."""
    return failure.cause is Cause.BEYOND_GATEWAY


def failure_of(error: BaseException) -> Failure:
    """What one error says by itself."""
    hop_error = next((e for e in chain(error) if isinstance(e, HopError)), None)
    gateway = hop_error.gateway if hop_error is not None else ""
    hop = hop_error.hop if hop_error is not None else Hop.RPC
    reason = hop_error.reason if hop_error is not None else str(error)
    tls = next((e for e in chain(error) if isinstance(e, TlsError)), None)
    if tls is not None:
        return _of_tls(tls, hop, reason, gateway)
    connect = next((e for e in chain(error) if isinstance(e, ConnectError)), None)
    if connect is not None:
        return _of_connect(connect, reason, gateway)
    if hop is Hop.NO_GATEWAY:
        return Failure(hop, Cause.NO_GATEWAY, reason)
    if hop is Hop.UNKNOWN_DATACENTER:
        return Failure(hop, Cause.UNKNOWN_DATACENTER, reason)
    return _of_rpc(error, hop, reason, gateway)


def _of_connect(error: ConnectError, reason: str, gateway: str) -> Failure:
    if error.refused:
        return Failure(
            Hop.DIAL,
            Cause.GATEWAY_REFUSED,
            reason,
            "nobody listens there: start the gateway (its Envoy), or correct its registered "
            "address and port",
            gateway,
        )
    return Failure(
        Hop.DIAL,
        Cause.GATEWAY_SILENT,
        reason,
        "no answer: the host is down, or a firewall or a missing route drops the packets",
        gateway,
    )


def _of_tls(error: TlsError, hop: Hop, reason: str, gateway: str) -> Failure:
    text = str(error)
    # The peer judges our certificate after the handshake: then the hop is still TLS, not RPC.
    hop = Hop.TLS if hop is Hop.RPC else hop
    match error:
        case TlsNameError():
            return Failure(
                Hop.TLS,
                Cause.MISSING_NAME,
                reason,
                f"issue that server a certificate with the name {error.needed!r} "
                "(`tls cert create -server -dc DATACENTER -node NODE`) and reload it",
                gateway,
                error.needed,
                error.offered,
            )
        case TlsExpiredError():
            return _expired(text, reason, gateway)
        case TlsUnknownAuthorityError():
            ours = "does not know the CA of our certificate" in text
            return Failure(
                Hop.TLS,
                Cause.OUR_AUTHORITY_UNKNOWN if ours else Cause.UNKNOWN_AUTHORITY,
                reason,
                "all datacenters need certificates of one CA: compare `ca_file` and `cert_file` "
                "on both sides",
                gateway,
            )
        case TlsClientCertificateError():
            return Failure(
                Hop.TLS,
                Cause.OUR_CERTIFICATE_REFUSED,
                reason,
                "check `cert_file` here: the other side wants a certificate of its CA, "
                "valid now, good for client authentication",
                gateway,
            )
        case TlsAlpnError():
            return Failure(
                Hop.ALPN,
                Cause.NO_COMMON_PROTOCOL,
                reason,
                "the peer is no server of a federation through mesh gateways: is "
                "`connect.enable_mesh_gateway_wan_federation` on there, and its version new enough?",
                gateway,
            )
        case TlsEofError() | TlsTimeoutError():
            return Failure(hop, Cause.BEYOND_GATEWAY, reason, "", gateway)
        case _:
            return Failure(
                hop, Cause.NOT_TLS, reason, "is this address a mesh gateway's listener?", gateway
            )


def _expired(text: str, reason: str, gateway: str) -> Failure:
    if "our certificate" in text:
        cause, remedy = (
            Cause.OUR_CERTIFICATE_EXPIRED,
            "renew `cert_file` here, or set the clock of the other host right",
        )
    elif "not yet valid" in text:
        cause, remedy = Cause.NOT_YET_VALID, "one of the two hosts' clocks is wrong: compare them"
    else:
        cause, remedy = (
            Cause.EXPIRED,
            "renew that server's certificate; if it is not expired, the clock here is wrong",
        )
    return Failure(Hop.TLS, cause, reason, remedy, gateway)


def is_denial(reason: str) -> bool:
    """Whether that is how Consul says that a token's rights do not suffice, or that it is unknown."""
    return PERMISSION_DENIED in reason or ACL_NOT_FOUND in reason


def denied(primary: str, right: str, reason: str, *, has_token: bool) -> Failure:
    """The primary denies our server `operator = "<right>"` on federation states."""
    wanted = f'a token of {primary} with `operator = "write"`'
    if not has_token:
        what = "no replication token is set here"
        remedy = f"set acl.tokens.replication on this datacenter's servers to {wanted}"
    elif ACL_NOT_FOUND in reason:
        what = f"{primary} does not know the replication token that is set here"
        remedy = f"correct acl.tokens.replication on this datacenter's servers: {wanted}"
    else:
        what = f'the replication token lacks `operator = "{right}"`'
        remedy = f"give it that right in {primary}, or set acl.tokens.replication to {wanted}"
    reason = f"{primary} denies us to {right} federation states: {reason}; {what}"
    return Failure(Hop.ACL, Cause.ACL, reason, remedy)


def _of_rpc(error: BaseException, hop: Hop, reason: str, gateway: str) -> Failure:
    if is_denial(reason):
        remedy = (
            "correct this server's replication token (`acl.tokens.replication`), which the primary does "
            'not know: a token with `operator = "write"` there'
            if ACL_NOT_FOUND in reason
            else "give this server a replication token (`acl.tokens.replication`) with "
            '`operator = "write"` in the primary datacenter'
        )
        return Failure(Hop.ACL, Cause.ACL, reason, remedy, gateway)
    if NO_LEADER in reason:
        return Failure(
            Hop.RPC, Cause.NO_LEADER, reason, "the datacenter has no leader: look at its servers"
        )
    if isinstance(error, DeadlineError | TimeoutError):
        return Failure(hop, Cause.RPC, reason or "no answer in time", "is the server overloaded?")
    remedy = "" if isinstance(error, RemoteError) else "look at the server's log"
    return Failure(hop, Cause.RPC, reason, remedy, gateway)
