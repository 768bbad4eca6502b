"""Identical reads share one evaluation until the next commit."""

from __future__ import annotations

from proconsul.domain.acl import AllowAll
from proconsul.domain.kv import KV_SET, DirEntry, KVSRequest
from proconsul.domain.messages import MessageType, encode_command
from proconsul.domain.options import ServiceSpecificRequest
from proconsul.rpc.shared_reads import ENTRIES_MAX, SharedReads
from proconsul.state.fsm import Fsm
from proconsul.state.store import Store
from proconsul.state.watch import Answer


class Asked:
    """Counts its evaluations."""

    def __init__(self, store: Store) -> None:
        self._store, self.count = store, 0

    def __call__(self) -> Answer[list[int]]:
        self.count += 1
        return Answer(7, [self.count], self._store.autopilot().watch)


def request(**fields: object) -> ServiceSpecificRequest:
    return ServiceSpecificRequest(**{"service_name": "web", **fields})  # type: ignore[arg-type]


def test_who_asks_the_same_gets_the_same_object() -> None:
    store, reads, everyone = Store(), SharedReads(), AllowAll()
    asked = Asked(store)
    first = reads.shared(store, "M", request(), everyone, asked)
    later = request(min_query_index=5, max_query_time_ns=9, token="t")
    assert reads.shared(store, "M", later, everyone, asked).value is first.value
    assert asked.count == 1


def test_what_differs_is_another_question() -> None:
    store, reads, everyone = Store(), SharedReads(), AllowAll()
    asked = Asked(store)
    questions = [
        ("M", request(), everyone),
        ("N", request(), everyone),
        ("M", request(), AllowAll()),
        ("M", request(service_tags=["a"]), everyone),
        ("M", request(node_meta_filters={"k": "v"}), everyone),
        ("M", request(connect=True), everyone),
    ]
    for method, asked_for, who in questions * 2:
        reads.shared(store, method, asked_for, who, asked)
    assert asked.count == len(questions)


def test_a_commit_ends_what_was_shared() -> None:
    fsm = Fsm()
    store, reads, everyone = fsm.store, SharedReads(), AllowAll()
    asked = Asked(store)
    reads.shared(store, "M", request(), everyone, asked)
    write = KVSRequest(op=KV_SET, dir_ent=DirEntry.of("k", b"v"))
    fsm.apply(3, encode_command(MessageType.KVS, write))
    reads.shared(store, "M", request(), everyone, asked)
    assert asked.count == 2


def test_memory_is_bounded() -> None:
    store, reads, everyone = Store(), SharedReads(), AllowAll()
    asked = Asked(store)
    for number in range(3 * ENTRIES_MAX):
        reads.shared(store, "M", request(service_name=str(number)), everyone, asked)
    assert len(reads) <= ENTRIES_MAX
