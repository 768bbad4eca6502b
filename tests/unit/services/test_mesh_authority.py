"""The mesh's CA on the leader: beginning, leaves, rotation, a secondary's intermediate.

What it signs is judged by OpenSSL, with the clock of today: the state's clock follows it here.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from authority_support import (
    CLUSTER,
    Datacenter,
    accepted,
    made_primary,
    run,
)
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from proconsul.domain import connect as ca
from proconsul.domain.ca_config import AuthorityConfig
from proconsul.domain.messages import MessageType
from proconsul.domain.spiffe import AgentId, ServiceId, SigningId
from proconsul.drivers.mesh_keys import generate
from proconsul.mesh.certificates import facts_of, key_pem_of, load_certificate
from proconsul.services.server.ca_limits import RateLimitedError, SigningLimits
from proconsul.util.errors import ProconsulError

HOUR_NS = 3_600_000_000_000


def test_the_primary_makes_one_root_and_knows_it_again() -> None:
    async def test() -> None:
        primary = await made_primary()
        index = primary.index
        await primary.ca.initialize_primary()
        assert primary.index == index
        root = primary.ca.active_root()
        facts = facts_of(root.root_cert)
        assert root.id == facts.fingerprint
        assert root.signing_key_id == facts.subject_key_id
        assert facts.uris == (f"spiffe://{CLUSTER}.consul",)
        assert root.external_trust_domain == CLUSTER

    run(test())


def test_state_under_an_id_of_former_times_is_moved() -> None:
    async def test() -> None:
        primary = await made_primary()
        provider = primary.ca.provider()
        state = provider.state
        assert state is not None
        await provider.forget()
        await provider.save(
            ca.CAConsulProviderState(
                id=",", private_key=state.private_key, root_cert=state.root_cert
            )
        )
        await primary.ca.initialize_primary()
        assert provider.root_pem == state.root_cert
        assert primary.store.connect.provider_state(",") is None

    run(test())


def test_a_lost_key_is_not_replaced_behind_everybodys_back() -> None:
    async def test() -> None:
        primary = await made_primary()
        await primary.ca.provider().forget()
        with pytest.raises(ProconsulError, match="is not the active root"):
            await primary.ca.initialize_primary()

    run(test())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"PrivateKeyBits": 384, "LeafCertTTL": "1h"},
        {"PrivateKeyType": "rsa", "PrivateKeyBits": "2048"},
    ],
)
def test_leaves_verify(settings: dict[str, Any]) -> None:
    async def test() -> None:
        primary = await made_primary(**settings)
        leaf, key = await primary.leaf("web")
        assert accepted(leaf, key, primary.roots_pem)
        assert not accepted(leaf, key, (await made_primary()).roots_pem)
        uri = f"spiffe://{CLUSTER}.consul/ns/default/dc/dc1/svc/web"
        assert (leaf.service, leaf.service_uri, leaf.agent) == ("web", uri, "")
        certificate = load_certificate(leaf.cert_pem)
        common_name = certificate.subject.rfc4514_string()
        assert common_name == "CN=web.svc.default.11111111.consul"
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert not basic.ca
        assert facts_of(leaf.cert_pem).authority_key_id == primary.ca.active_root().signing_key_id
        other, _ = await primary.leaf("web")
        assert other.serial_number != leaf.serial_number
        assert other.modify_index > leaf.modify_index

    run(test())


def test_an_agent_gets_its_trust_domain_corrected() -> None:
    async def test() -> None:
        primary = await made_primary()
        leaf, key = await primary.issue(AgentId("unknown", "dc1", "Node-1"), "localhost")
        assert accepted(leaf, key, primary.roots_pem)
        assert leaf.agent == "Node-1"
        assert leaf.agent_uri == f"spiffe://{CLUSTER}.consul/agent/client/dc/dc1/id/Node-1"

    run(test())


@pytest.mark.parametrize(
    ("identity", "names", "refusal"),
    [
        (ServiceId("other.consul", "default", "dc1", "web"), (), "different trust domain"),
        (ServiceId(f"{CLUSTER}.consul", "default", "dc2", "web"), (), "different datacenter: dc2"),
        (AgentId("unknown", "dc9", "n"), (), "different datacenter: dc9"),
        (AgentId("unknown", "dc1", "n"), ("server.dc1.consul",), "names of servers"),
        (AgentId("unknown", "dc1", "n"), ("x.server.dc2.Consul.",), "names of servers"),
        (AgentId("unknown", "dc1", "n"), ("*.dc1.consul",), "names of servers"),
    ],
)
def test_leaves_that_nobody_may_have(identity: Any, names: tuple[str, ...], refusal: str) -> None:
    async def test() -> None:
        primary = await made_primary()
        with pytest.raises(ProconsulError, match=refusal):
            await primary.issue(identity, *names)

    run(test())


async def _ask_for(primary: Datacenter, *uris: str) -> None:
    from cryptography.hazmat.primitives import hashes, serialization

    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    made = builder.add_extension(names, critical=False).sign(
        ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()
    )
    await primary.signer.identify(made.public_bytes(serialization.Encoding.PEM).decode())


def test_one_request_is_for_one_identity() -> None:
    async def test() -> None:
        primary = await made_primary()
        uri = f"spiffe://{CLUSTER}.consul/ns/default/dc/dc1/svc/"
        with pytest.raises(ProconsulError, match="invalid number of URIs: 2"):
            await _ask_for(primary, f"{uri}web", f"{uri}db")
        with pytest.raises(ProconsulError, match="must be a service or agent ID"):
            await _ask_for(primary, SigningId(CLUSTER).uri)

    run(test())


def test_before_there_is_a_ca_nothing_is_signed() -> None:
    async def test() -> None:
        nothing = Datacenter("dc2", is_primary=False)
        with pytest.raises(ProconsulError, match="CA provider is nil"):
            await nothing.signer.sign_intermediate("")
        with pytest.raises(ProconsulError, match="CA root is nil"):
            await nothing.issue(AgentId("unknown", "dc2", "n"))
        await nothing.apply(
            MessageType.CONNECT_CA,
            ca.CARequest(op=ca.CA_SET_CONFIG, config=nothing.ca.first_config(CLUSTER)),
        )
        with pytest.raises(ProconsulError, match="CA root is nil"):
            await nothing.issue(AgentId("unknown", "dc2", "n"))

    run(test())


def test_through_a_rotation_old_and_new_leaves_are_taken_by_old_and_new_trust() -> None:
    async def test() -> None:
        primary = await made_primary()
        old_roots, (old_leaf, old_key) = primary.roots_pem, await primary.leaf()
        before = primary.ca.provider()
        await primary.rotate()
        new_leaf, new_key = await primary.leaf()
        assert accepted(new_leaf, new_key, old_roots), "the cross-signed root must come along"
        assert accepted(new_leaf, new_key, primary.ca.active_root().root_cert)
        assert accepted(old_leaf, old_key, primary.roots_pem)
        assert before.state is None, "the old key is not kept"
        assert len(primary.root_ids) == 2
        config = primary.ca.config
        assert config is not None
        assert config.cluster_id == CLUSTER
        await primary.ca.initialize_primary()
        assert len(primary.root_ids) == 2

    run(test())


def test_old_roots_are_forgotten_after_two_lives_of_a_leaf() -> None:
    async def test() -> None:
        primary = await made_primary(LeafCertTTL="1h")
        await primary.rotate(PrivateKey=key_pem_of(generate()), LeafCertTTL="1h")
        primary.now_ns += 2 * HOUR_NS - 10**9
        await primary.ca.prune()
        assert len(primary.root_ids) == 2
        primary.now_ns += 2 * 10**9
        await primary.ca.prune()
        assert primary.root_ids == [primary.ca.active_root().id]

    run(test())


def test_settings_without_a_new_key_keep_the_root() -> None:
    async def test() -> None:
        primary = await made_primary()
        root = primary.ca.active_root().id
        await primary.rotate(LeafCertTTL="24h", PrivateKeyBits=384)
        assert primary.root_ids == [root]
        assert primary.ca.provider().config.leaf_ttl_ns == 24 * HOUR_NS

    run(test())


def test_the_users_own_root_and_what_is_wrong_with_it() -> None:
    async def test() -> None:
        primary, other = await made_primary(), await made_primary()
        state = other.ca.provider().state
        assert state is not None
        config_before, states = primary.ca.config, dict(primary.store.tables.ca_provider_states)
        for config, refusal in (
            ({"RootCert": state.root_cert}, "must provide a private key"),
            (
                {"RootCert": state.root_cert, "PrivateKey": key_pem_of(generate())},
                "belong together",
            ),
            ({"PrivateKey": "none"}, "private key cannot be read"),
            ({"LeafCertTTL": "59m"}, "leaf cert TTL must be greater or equal than 1h0m0s"),
        ):
            with pytest.raises(ProconsulError, match=refusal) as refused:
                await primary.rotate(**config)
            assert "BEGIN" not in str(refused.value)
        assert primary.ca.config == config_before
        assert primary.store.tables.ca_provider_states == states
        with pytest.raises(ProconsulError, match='unknown CA provider "x"'):
            await primary.ca.update_configuration(ca.CAConfiguration(provider="x"))
        await primary.rotate(RootCert=state.root_cert, PrivateKey=state.private_key)
        leaf, key = await primary.leaf()
        assert accepted(leaf, key, other.roots_pem)

    run(test())


def test_without_cross_signing_a_rotation_must_be_forced() -> None:
    async def test() -> None:
        primary = await made_primary(DisableCrossSigning=True)
        with pytest.raises(ProconsulError, match="does not support cross-signing"):
            await primary.rotate()
        states = primary.store.tables.ca_provider_states
        assert len(states) == 1, "the new key is not left behind"
        config = {"PrivateKey": key_pem_of(generate())}
        await primary.ca.update_configuration(
            ca.CAConfiguration(provider="consul", config=config, force_without_cross_signing=True)
        )
        assert not primary.ca.active_root().intermediate_certs

    run(test())


def test_limits_of_signing() -> None:
    async def test() -> None:
        limits, config = SigningLimits(), AuthorityConfig(csr_per_second_max=1.0)
        async with limits.admitted(config):
            pass
        with pytest.raises(RateLimitedError, match="Rate limit reached, try again later"):
            async with limits.admitted(config):
                pass
        config = AuthorityConfig(csr_per_second_max=0, csr_concurrent_max=1)
        async with limits.admitted(config):
            with pytest.raises(RateLimitedError):
                async with limits.admitted(config):
                    pass
        async with limits.admitted(config):
            pass

    run(test())


def test_settings_that_somebody_else_has_changed() -> None:
    async def test() -> None:
        primary = await made_primary()
        seen = primary.ca.config
        assert seen is not None
        await primary.rotate(LeafCertTTL="24h")
        late = replace(seen, config={"LeafCertTTL": "48h"})
        with pytest.raises(ProconsulError, match="it changed meanwhile"):
            await primary.ca.update_configuration(late)
        assert primary.ca.provider().config.leaf_ttl_ns == 24 * HOUR_NS
        await asyncio.gather(primary.rotate(), primary.rotate())
        assert len(primary.root_ids) == 3, "one after the other"

    run(test())
