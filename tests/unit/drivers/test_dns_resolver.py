"""Answers of name servers that no resolver should send, but some do."""

from __future__ import annotations

import dnslib
import pytest

from proconsul.drivers import dns_resolver


def test_an_unassigned_rcode_is_told_as_a_number() -> None:
    answer = dnslib.DNSRecord.question("gw.example", "A").reply()
    answer.header.rcode = 14
    parsed = dns_resolver._parse(answer.pack())
    with pytest.raises(dns_resolver.DnsError, match="server answered 14"):
        dns_resolver._answers(parsed, "gw.example", "A")


@pytest.mark.parametrize("data", [b"", b"\0" * 11, b"\0\1\x81\x80\0\1\0\1\0\0\0\0\xc0"])
def test_noise_is_a_malformed_answer(data: bytes) -> None:
    with pytest.raises(dns_resolver.DnsError, match="malformed"):
        dns_resolver._parse(data)
