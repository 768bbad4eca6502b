"""The DNS server before a fake agent: what settings do, what fails, what is kept."""

from __future__ import annotations

from typing import Any

import dnslib
import pytest
from dns_fakes import Asked, FakeAgent, fleet, instance

from proconsul.domain.errors import NoLeaderError, NoPathToDatacenterError
from proconsul.domain.prepared_query import InAnyOrder
from proconsul.interfaces.dns import kept
from proconsul.interfaces.dns.instances import rfc1464
from proconsul.interfaces.dns.reverse import reverse_address
from proconsul.wire import dns

NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5


def addresses(answer: dnslib.DNSRecord) -> list[str]:
    return sorted(str(rr.rdata) for rr in answer.rr)


def test_sick_instances_are_left_out_and_warned_of_ones_too_where_so_configured() -> None:
    rows = [
        instance("a", "10.0.0.1"),
        instance("b", "10.0.0.2", status="warning"),
        instance("c", "10.0.0.3", status="critical"),
    ]
    assert addresses(Asked(FakeAgent(web=rows))("web.service.consul")) == ["10.0.0.1", "10.0.0.2"]
    strict = Asked(FakeAgent(web=rows), only_passing=True)
    assert addresses(strict("web.service.consul")) == ["10.0.0.1"]
    assert strict("web.service.consul", "AAAA").header.rcode == NOERROR
    assert strict("web.service.consul", "AAAA").auth[0].rtype == dns.SOA
    sick = Asked(FakeAgent(web=rows[2:]))("web.service.consul")
    assert (sick.header.rcode, sick.auth[0].rtype) == (NXDOMAIN, dns.SOA)


@pytest.mark.parametrize("edns", [0, 4096])
@pytest.mark.parametrize(("truncates", "flag"), [(True, 1), (False, 0)])
def test_limits_on_answers(edns: int, truncates: bool, flag: int) -> None:
    ask = Asked(FakeAgent(web=fleet(20)), udp_answer_limit=4, enable_truncate=truncates)
    answer = ask("web.service.consul", edns=edns)
    assert len(answer.rr) == (20 if edns else 4)
    assert answer.header.tc == (0 if edns else flag)
    assert len(ask("web.service.consul", tcp=True).rr) == 20
    assert len(ask("web.service.consul", "SRV", edns=edns).rr) == (20 if edns else 4)
    limited = Asked(FakeAgent(web=fleet(20)), a_record_limit=2, enable_truncate=True)
    answer = limited("web.service.consul", edns=edns)
    assert (len(answer.rr), answer.header.tc) == (2, 0)
    assert len(limited("web.service.consul", "SRV", tcp=True).rr) == 20


@pytest.mark.parametrize("kind", ["A", "SRV", "ANY"])
@pytest.mark.parametrize("edns", [512, 600, 1232, 4096])
def test_answers_fit_what_the_client_takes(kind: str, edns: int) -> None:
    ask = Asked(FakeAgent(web=fleet(400)), enable_truncate=True)
    query = dnslib.DNSRecord.question("web.service.consul", kind)
    query.add_ar(dnslib.EDNS0(udp_len=edns))
    for _ in range(3):
        data = ask.raw(bytes(query.pack()))
        answer = dnslib.DNSRecord.parse(data)
        assert len(data) <= edns + 4  # as in Consul, the OPT record comes on top
        assert answer.header.tc == 1
        assert answer.rr
        if edns > 512:
            assert len(data) > edns - 100


@pytest.mark.parametrize("meta", [None, {"rack": "7"}])
@pytest.mark.parametrize("count", [2, 4, 12, 60])
def test_kept_srv_answers_are_cut_as_new_ones_are(count: int, meta: dict[str, str] | None) -> None:
    rows = [instance(f"n{n:03}", f"10.0.1.{n}", port=n, meta=meta) for n in range(count)]
    for edns in (0, *range(400, 2400, 97), 4096):
        agent = FakeAgent(web=rows)
        ask = Asked(agent, enable_truncate=True)
        query = dnslib.DNSRecord.question("web.service.consul", "SRV")
        if edns:
            query.add_ar(dnslib.EDNS0(udp_len=edns))
        answers = [ask.raw(bytes(query.pack())) for _ in range(4)]
        assert len(agent.calls) == 2
        new, _, *again = (dnslib.DNSRecord.parse(answer) for answer in answers)
        assert len({len(answer) for answer in answers}) == 1, edns
        for answer in again:
            assert answer.header.bitmap == new.header.bitmap
            assert (len(answer.rr), len(answer.ar)) == (len(new.rr), len(new.ar)), edns
            targets = {str(rr.rdata.target) for rr in answer.rr}
            assert len(targets) == len(answer.rr)
            assert {str(rr.rname) for rr in answer.ar} - {"."} == targets


def test_srv_answers_with_shared_targets_and_aliases_are_made_anew() -> None:
    for rows in (
        [instance("a", "10.0.0.1"), instance("a", "10.0.0.1", port=81)],
        [instance("a", "10.0.0.1"), instance("b", "10.0.0.2", own="x.example")],
        [instance("a", "10.0.0.1"), instance("b", "10.0.0.2", own="10.9.9.9", meta={"a": "b"})],
    ):  # fmt: skip
        agent = FakeAgent(web=rows)
        ask = Asked(agent)
        assert len(ask("web.service.consul", "SRV").rr) == 2
        ask("web.service.consul", "SRV")
        assert len(agent.calls) == 2


def test_tcp_answers_stay_below_64_kib() -> None:
    rows = fleet(4000)
    query = bytes(dnslib.DNSRecord.question("web.service.consul", "SRV").pack())
    data = Asked(FakeAgent(web=rows)).raw(query, tcp=True)
    assert 60_000 < len(data) < 65_535
    answer = dnslib.DNSRecord.parse(data)
    assert {str(rr.rdata.target) for rr in answer.rr} == {str(rr.rname) for rr in answer.ar}


def test_every_instance_has_its_turn() -> None:
    ask = Asked(FakeAgent(web=fleet(20)))
    seen = {address for _ in range(100) for address in addresses(ask("web.service.consul"))}
    assert len(seen) == 20
    orders = {tuple(str(rr.rdata) for rr in ask("web.service.consul", edns=4096).rr)
              for _ in range(20)}  # fmt: skip
    assert len(orders) == 20


def test_answers_are_kept_until_the_state_changes_or_a_second_has_passed() -> None:
    agent = FakeAgent(web=[instance("a", "10.0.0.1")])
    ask = Asked(agent)
    first = ask("web.service.consul")
    assert ask("web.service.consul").rr == first.rr
    assert len(agent.calls) == 1
    agent.services["web"] = [instance("a", "10.0.0.2")]
    agent.version = 2
    assert addresses(ask("web.service.consul")) == ["10.0.0.2"]
    ask.now += 1
    ask("web.service.consul")
    assert len(agent.calls) == 3
    ask("nope.service.consul")
    ask("nope.service.consul")
    assert len(agent.calls) == 4
    ask.token = "other"
    ask("nope.service.consul")
    assert agent.calls[4][1].token == "other"
    query = dnslib.DNSRecord.question("web.service.consul")
    query.header.id = 77
    assert ask.raw(bytes(query.pack()))[:2] == b"\0M"


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "BYTES_MAX", 2000)
    agent = FakeAgent(web=fleet(3), many=fleet(100))
    ask = Asked(agent)
    for name in ("many", "many", "many", "web", "web", "web"):
        ask(f"{name}.service.consul")
    assert [request.service_name for _, request in agent.calls] == ["many"] * 3 + ["web"] * 2
    for number in range(60):
        ask(f"{number}.nope.consul")
    before = len(agent.calls)
    ask("web.service.consul")
    assert len(agent.calls) == before
    monkeypatch.setattr(kept, "ENTRIES_MAX", 1)
    ask = Asked(agent)
    for name in ("nope", "nope", "none", "none"):
        ask(f"{name}.service.consul")
    assert len(agent.calls) == before + 3


def test_queries_whose_order_is_chance_are_kept() -> None:
    agent = FakeAgent(web=InAnyOrder(fleet(3)), near=fleet(1))
    ask = Asked(agent)
    for kind in ("A", "SRV"):
        found = {tuple(str(rr.rdata) for rr in ask("web.query.consul", kind).rr) for _ in range(60)}
        assert len(found) == 6
    assert len(agent.calls) == 4
    for _ in range(3):
        ask("near.query.consul")
    assert len(agent.calls) == 7


def test_what_must_not_be_kept() -> None:
    agent = FakeAgent(web=fleet(3))
    ask = Asked(agent, allow_stale=False)
    ask("web.service.consul")
    ask("web.service.consul")
    assert len(agent.calls) == 2
    ask = Asked(agent)
    for _ in range(2):
        ask("web.query.consul")
        agent.error = NoLeaderError()
        assert ask("web.service.consul").header.rcode == SERVFAIL
        agent.error = None
    assert len(agent.calls) == 6
    agent.version, agent.later = None, True
    ask = Asked(agent)
    assert len(ask("web.service.consul").rr) == 3
    agent.services["web"] = []
    assert ask("web.service.consul").header.rcode == NXDOMAIN


def test_failures() -> None:
    agent = FakeAgent()
    ask = Asked(agent)
    for error, rcode in ((NoLeaderError(), SERVFAIL), (NoPathToDatacenterError(), NXDOMAIN),
                         (TimeoutError(), SERVFAIL)):  # fmt: skip
        agent.error = error
        for name in ("web.service.consul", "n.node.consul", "q.query.consul"):
            assert ask(name).header.rcode == rcode
    assert ask("1.0.0.10.in-addr.arpa", "PTR").header.rcode == SERVFAIL
    assert ask("consul", "NS").header.rcode == NOERROR


def test_few_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    agent = FakeAgent()
    agent.error = NoLeaderError()
    ask = Asked(agent)
    for _ in range(50):
        ask("web.service.consul")
    assert len(caplog.records) == 10
    ask.now += 10
    ask("web.service.consul")
    assert "40 errors and warnings like this one were not logged" in caplog.text


def test_answers_too_stale_are_asked_for_again() -> None:
    agent = FakeAgent(web=[instance("a", "10.0.0.1")])
    agent.last_contact_ns = 6_000_000_000
    ask = Asked(agent, max_stale_ns=5_000_000_000)
    assert addresses(ask("web.service.consul")) == ["10.0.0.1"]
    assert [request.allow_stale for _, request in agent.calls] == [True, False]
    assert all(request.token == "token" for _, request in agent.calls)
    Asked(agent)("web.service.consul")
    assert agent.metrics.counter("consul.dns.stale_queries") == 1


def test_the_agents_cache_is_asked_where_so_configured() -> None:
    agent = FakeAgent(web=[instance("a", "10.0.0.1")])
    ask = Asked(agent, use_cache=True, cache_max_age_ns=5)
    for _ in range(2):
        for name in ("web.service.consul", "a.node.consul", "web.query.consul"):
            assert addresses(ask(name)) == ["10.0.0.1"]
    assert len(agent.calls) == 3
    assert agent.calls[0][1].max_age_ns == 5
    agent.last_contact_ns = 10
    stale = Asked(agent, use_cache=True, max_stale_ns=5)
    agent.cache.kept.clear()
    assert addresses(stale("web.service.consul")) == ["10.0.0.1"]
    assert [request.allow_stale for _, request in agent.calls[3:]] == [True, False]


def test_ttls() -> None:
    ttl = {"web*": 3, "webber": 4, "*": 9, "w*": 5}
    ask = Asked(FakeAgent(web=fleet(1), webber=fleet(1), x=fleet(1)), service_ttl=ttl, node_ttl=8)
    found = {name: ask(f"{name}.service.consul").rr[0].ttl for name in ("web", "webber", "x")}
    assert found == {"web": 3, "webber": 4, "x": 9}
    assert ask("n0.node.consul").rr[0].ttl == 8


def test_weights_and_addresses_of_srv_records() -> None:
    from proconsul.domain.catalog import Weights

    rows = [
        instance("a", "10.0.0.1", weights=Weights(5, 2)),
        instance("b", "10.0.0.2", weights=Weights(5, 2), status="warning", own="2001:db8::1"),
    ]
    answer = Asked(FakeAgent(web=rows))("web.service.consul", "SRV")
    found = {str(rr.rdata.target): rr.rdata.weight for rr in answer.rr}
    assert found == {
        "a.node.dc1.consul.": 5,
        "20010db8000000000000000000000001.addr.dc1.consul.": 2,
    }
    assert {rr.rtype for rr in answer.ar} == {dns.A, dns.AAAA}


def test_names_that_no_message_can_hold_are_left_out() -> None:
    rows = [instance("x" * 64, "10.0.0.1"), instance("ok", "10.0.0.2")]
    answer = Asked(FakeAgent(web=rows))("web.service.consul", "SRV")
    assert [str(rr.rdata.target) for rr in answer.rr] == ["ok.node.dc1.consul."]
    host = [instance("host", "not..a.name")]
    assert Asked(FakeAgent(web=host))("web.service.consul").rr == []
    assert Asked(FakeAgent(web=host))("host.node.consul").rr == []


def test_other_domains() -> None:
    ask = Asked(FakeAgent(web=fleet(1)), alt_domain=(b"test", b"other"))
    assert len(ask("web.service.test.other").rr) == 1
    assert ask("web.service.consul.example").header.rcode == REFUSED
    assert ask("example.com").header.rcode == REFUSED


def test_recursors_are_asked_in_order() -> None:
    asked: list[Any] = []

    async def exchange(data: bytes, server: Any, tcp: bool, timeout: float) -> bytes:
        asked.append((server, tcp, timeout))
        query = dnslib.DNSRecord.parse(data)
        if server[1] == 1:
            raise TimeoutError
        reply = query.reply()
        if server[1] == 2:
            reply.header.rcode = SERVFAIL
        reply.add_answer(*dnslib.RR.fromZone(f"{query.q.qname} 60 A 192.0.2.{server[1]}"))
        return bytes(reply.pack())

    servers = (("192.0.2.1", 1), ("192.0.2.1", 2), ("192.0.2.1", 3))
    rows = [instance("a", "10.0.0.1", own="db.example.com")]
    ask = Asked(FakeAgent(web=rows), exchange, recursors=servers, recursor_timeout_s=0.5)
    assert addresses(ask("www.example.com", tcp=True)) == ["192.0.2.3"]
    assert asked == [(server, True, 0.5) for server in servers]
    alias = ask("web.service.consul")
    assert addresses(alias) == ["192.0.2.2", "db.example.com."]
    assert alias.header.ra == 1
    none = Asked(FakeAgent(), exchange, recursors=servers[:1])("www.example.com", edns=999)
    assert (none.header.rcode, none.header.ra, none.header.aa) == (SERVFAIL, 1, 0)
    assert none.ar[0].rtype == dns.OPT


def test_answers_to_other_questions_are_not_passed_on() -> None:
    async def exchange(data: bytes, _server: Any, _tcp: bool, _timeout: float) -> bytes:
        reply = dnslib.DNSRecord.question("evil.example").reply()
        reply.header.id = int.from_bytes(data[:2], "big")
        return bytes(reply.pack())

    ask = Asked(FakeAgent(), exchange, recursors=(("192.0.2.1", 53),))
    assert ask("www.example.com").header.rcode == SERVFAIL


def test_answers_of_recursors_come_as_they_are_under_the_clients_id() -> None:
    sent: list[bytes] = []
    asked = dnslib.DNSRecord.question("www.example.com")
    # Names written out, where a packer would point back to the first one
    record = b"\3www\7example\3com\0\0\1\0\1\0\0\0\5\0\4\xc0\0\2\1"

    async def exchange(data: bytes, _server: Any, _tcp: bool, _timeout: float) -> bytes:
        sent.append(data)
        return data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + data[12:33] + record

    ask = Asked(FakeAgent(), exchange, recursors=(("192.0.2.1", 53),))
    answers = [ask.raw(bytes(asked.pack())) for _ in range(3)]
    for answer in answers:
        assert answer is not None
        assert answer[:2] == bytes(asked.pack())[:2]
        assert answer[33:] == record
    ids = {data[:2] for data in sent}
    assert len(sent) == 3
    assert ids != {bytes(asked.pack())[:2]}, "an id of its own for each"


def test_messages_that_are_none() -> None:
    ask = Asked(FakeAgent())
    answer = bytes.fromhex("123481800001000000000000")
    assert ask.raw(b"") is None
    assert ask.raw(answer) is None
    assert ask.raw(bytes.fromhex("1234010000020000000000000000010001")) == bytes.fromhex(
        "123481010000000000000000"
    )
    assert ask.raw(bytes.fromhex("1234280000010000000000000000010001")) == bytes.fromhex(
        "1234a8040000000000000000"
    )


def test_metadata_as_text() -> None:
    assert rfc1464("key", "value") == "key=value"
    assert rfc1464("k=e`y", "v`") == "k`=e``y=v``"
    assert rfc1464("  k ", "v") == "` ` k` =v"
    meta = {"rack": "7", "RFC1035-a": "plain"}
    ask = Asked(FakeAgent(web=[instance("a", "10.0.0.1", meta=meta)]))
    assert addresses(ask("a.node.consul", "TXT")) == ['"plain"', '"rack=7"']
    assert len(ask("a.node.consul").ar) == 2
    bare = Asked(FakeAgent(web=[instance("a", "10.0.0.1", meta=meta)]), node_meta_txt=False)
    assert bare("a.node.consul").ar == []
    assert len(bare("web.service.consul", "SRV").ar) == 1
    assert len(bare("a.node.consul", "ANY").rr) == 3


def test_reverse_addresses() -> None:
    assert reverse_address(dns.name_of("4.3.2.1.in-addr.arpa")) == "1.2.3.4"
    assert reverse_address(dns.name_of("3.2.1.in-addr.arpa")) == ""
    assert reverse_address(dns.name_of("999.3.2.1.in-addr.arpa")) == ""
    assert reverse_address(dns.name_of("1" + ".0" * 31 + ".ip6.arpa")) == "::1"
    assert reverse_address(dns.name_of("x" + ".0" * 31 + ".ip6.arpa")) == ""


def test_far_away_instances_are_shown_by_their_wan_address() -> None:
    from msgspec.structs import replace

    from proconsul.domain.catalog import ServiceAddress

    row = instance("a", "10.0.0.1", own="10.9.9.9")
    row = replace(
        row,
        node=replace(row.node, datacenter="dc2", tagged_addresses={"wan": "192.0.2.1"}),
        service=replace(row.service, tagged_addresses={"wan": ServiceAddress("192.0.2.2", 81)}),
    )
    ask = Asked(FakeAgent(web=[row]), translate_wan_addrs=True)
    assert addresses(ask("web.service.dc2.consul")) == ["192.0.2.2"]
    assert addresses(ask("web.service.consul")) == ["10.9.9.9"]
    assert ask("web.service.dc2.consul", "SRV").rr[0].rdata.port == 81
    assert addresses(ask("a.node.dc2.consul")) == ["192.0.2.1"]
