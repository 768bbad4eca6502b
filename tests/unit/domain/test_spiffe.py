"""SPIFFE ids and common names, with the reference's own cases (agent/connect/*_test.go)."""

from __future__ import annotations

import pytest

from proconsul.domain import ca_config, spiffe
from proconsul.domain.spiffe import AgentId, ServiceId, SigningId

HOUR_NS = 3_600_000_000_000
TRUST = SigningId("11111111-2222-3333-4444-555555555555")


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        (
            "spiffe://1234.consul/ns/default/dc/dc01/svc/web",
            ServiceId("1234.consul", "default", "dc01", "web"),
        ),
        ("spiffe://1234.consul/agent/client/dc/dc1/id/uuid", AgentId("1234.consul", "dc1", "uuid")),
        (
            "spiffe://1234.consul/ns/foo%2Fbar/dc/bar%2Fbaz/svc/baz%2Fqux",
            ServiceId("1234.consul", "foo/bar", "bar/baz", "baz/qux"),
        ),
        ("spiffe://1234.consul", SigningId("1234", "consul")),
    ],
)
def test_ids(uri: str, found: spiffe.SpiffeId) -> None:
    assert spiffe.parse(uri) == found
    if "%" not in uri:
        assert found.uri == uri


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("http://google.com/", "SPIFFE ID must have 'spiffe' scheme"),
        ("spiffe://x.consul/svc/web", "SPIFFE ID is not in the expected format"),
        ("spiffe://x.consul/ns/a/dc/b/svc/c/d", "SPIFFE ID is not in the expected format"),
        ("spiffe://nodot", "SPIFFE ID is not in the expected format"),
        ("spiffe://[x", "SPIFFE ID is not in the expected format"),
        ("spiffe://x.consul/" + "a" * 5000, "longer than 4096"),
    ],
)
def test_no_ids(uri: str, complaint: str) -> None:
    with pytest.raises(spiffe.SpiffeError, match=complaint):
        spiffe.parse(uri)


def test_who_signs_for_whom() -> None:
    assert TRUST.can_sign(TRUST)
    assert TRUST.can_sign(ServiceId(TRUST.host.upper(), "defAUlt", "dc1", "WEB"))
    assert not TRUST.can_sign(ServiceId("other.consul", "default", "dc1", "web"))
    assert not TRUST.can_sign(SigningId(TRUST.cluster_id, "evil"))
    assert not TRUST.can_sign(AgentId(TRUST.host, "dc1", "node"))


def test_common_names_fit_into_certificates() -> None:
    plain = ServiceId(TRUST.host, "default", "dc1", "Web_1")
    assert plain.common_name == "web1.svc.default.11111111.consul"
    long = ServiceId(TRUST.host, "default", "dc1", "w" * 100)
    assert len(long.common_name) <= spiffe.COMMON_NAME_MAX
    agent = AgentId(TRUST.host, "dc1", "Node-" + "x" * 100)
    assert len(agent.common_name) <= spiffe.COMMON_NAME_MAX
    assert agent.common_name.startswith("nodex")
    name = spiffe.authority_common_name("Abc123xyz9", TRUST.cluster_id, primary=False)
    assert name == "sec-abc123xy.consul.ca.11111111.consul"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, 72 * HOUR_NS),
        ({"LeafCertTTL": "24h"}, 24 * HOUR_NS),
        ({"LeafCertTTL": b"24h"}, 24 * HOUR_NS),
        ({"leafcertttl": 24 * HOUR_NS}, 24 * HOUR_NS),
        ({"LeafCertTTL": "1s", "SkipValidate": "true"}, 10**9),
    ],
)
def test_settings_in_every_writing(raw: dict[str, object], expected: int) -> None:
    assert ca_config.parse(raw).leaf_ttl_ns == expected


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ({"LeafCertTTL": "soon"}, 'error decoding .LeafCertTTL.: time: invalid duration "soon"'),
        ({"LeafCertTTL": []}, "expected type 'int', got unconvertible type 'list'"),
        ({"PrivateKey": {"x": "secret"}}, "'PrivateKey' expected type 'string'"),
        ({"PrivateKeyBits": "many"}, "cannot parse 'PrivateKeyBits'"),
        ({"CSRMaxPerSecond": 1e999}, "cannot parse 'CSRMaxPerSecond'"),
        ({"IntermediateCertTTL": "100h"}, r"3 \* LeafCertTTL \(>=216h0m0s\)"),
    ],
)
def test_settings_that_are_refused(raw: dict[str, object], complaint: str) -> None:
    with pytest.raises(ca_config.CaConfigError, match=complaint) as refused:
        ca_config.parse(raw)
    assert "secret" not in str(refused.value)
    assert ca_config.parse_lenient(raw).private_key_bits == 256


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(ca_config.parse({"PrivateKey": "secret"}))
