"""The certificate authority's structs (`agent/structs/connect_ca.go`)."""

from __future__ import annotations

from typing import Any

from msgspec import Raw, field

from proconsul.domain.base import GoStruct, Int64, Uint64
from proconsul.domain.federation import ZERO_TIME
from proconsul.domain.options import QueryMeta, WriteRequest

CA_SET_ROOTS = "set-roots"
CA_SET_CONFIG = "set-config"
CA_SET_PROVIDER_STATE = "set-provider-state"
CA_DELETE_PROVIDER_STATE = "delete-provider-state"
CA_SET_ROOTS_AND_CONFIG = "set-roots-config"
CA_INCREMENT_PROVIDER_SERIAL = "increment-provider-serial"
CA_LEAF_INCREMENT_INDEX = "increment-index"


class CARoot(GoStruct, frozen=True, gc=False):
    """A root certificate. `signing_key` is never sent to clients."""

    id: str = ""
    name: str = ""
    serial_number: Uint64 = 0
    signing_key_id: str = ""
    external_trust_domain: str = ""
    raw_not_before: Raw = ZERO_TIME
    raw_not_after: Raw = ZERO_TIME
    root_cert: str = ""
    intermediate_certs: list[str] | None = None
    signing_cert: str = ""
    signing_key: str = ""
    active: bool = False
    raw_rotated_out_at: Raw = ZERO_TIME
    private_key_type: str = ""
    private_key_bits: Int64 = 0
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


class IndexedCARoots(QueryMeta, frozen=True, gc=False):
    """The trusted roots and the trust domain (`<cluster id>.<domain>`)."""

    active_root_id: str = ""
    trust_domain: str = ""
    roots: list[CARoot] | None = None


class CAConfiguration(GoStruct, frozen=True, gc=False):
    cluster_id: str = ""
    provider: str = ""
    config: dict[str, Any] | None = None
    state: dict[str, str] | None = None
    force_without_cross_signing: bool = False
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


class CAConsulProviderState(GoStruct, frozen=True, gc=False):
    """The built-in provider's key and certificates: a secret of the servers."""

    id: str = ""
    private_key: str = ""
    root_cert: str = ""
    intermediate_cert: str = ""
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


class CARequest(WriteRequest, frozen=True, gc=False):
    """A change of the CA; `index` is what a set of roots expects to replace."""

    op: str = ""
    datacenter: str = ""
    index: Int64 = 0
    roots: list[CARoot] | None = None
    config: CAConfiguration | None = None
    provider_state: CAConsulProviderState | None = None


class CALeafRequest(WriteRequest, frozen=True, gc=False):
    op: str = CA_LEAF_INCREMENT_INDEX
    datacenter: str = ""


class CASignRequest(WriteRequest, frozen=True, gc=False):
    datacenter: str = ""
    csr: str = field(default="", name="CSR")


class IssuedCert(GoStruct, frozen=True, gc=False):
    serial_number: str = ""
    cert_pem: str = ""
    private_key_pem: str = ""
    service: str = ""
    service_uri: str = ""
    agent: str = ""
    agent_uri: str = ""
    raw_valid_after: Raw = ZERO_TIME
    raw_valid_before: Raw = ZERO_TIME
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


class SignedResponse(GoStruct, frozen=True, gc=False):
    """What AutoEncrypt gives an agent: its certificate, and whom to trust."""

    issued_cert: IssuedCert = IssuedCert()
    connect_ca_roots: IndexedCARoots = field(default=IndexedCARoots(), name="ConnectCARoots")
    manual_ca_roots: list[str] | None = field(default=None, name="ManualCARoots")
    gossip_key: str = ""
    verify_server_hostname: bool = False
