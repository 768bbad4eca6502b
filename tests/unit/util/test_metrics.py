"""The metrics registry, against the shapes of go-metrics."""

from __future__ import annotations

from proconsul.util import metrics as module
from proconsul.util.metrics import Metrics


def test_summary_shows_the_newest_finished_interval() -> None:
    now = [1_000_000_000.0]
    registry = Metrics(lambda: now[0])
    registry.incr("consul.rpc.request")
    registry.incr("consul.rpc.request", 3)
    registry.sample("consul.raft.commitTime", 1.5, (("peer", "a"),))
    registry.gauge("consul.raft.applied_index", 12)
    now[0] += 10
    registry.incr("consul.other")
    summary = registry.summary()
    assert summary == {
        "Timestamp": "2001-09-09 01:46:40 +0000 UTC",
        "Gauges": [{"Name": "consul.raft.applied_index", "Value": 12, "Labels": {}}],
        "Points": [],
        "Counters": [
            {
                "Name": "consul.rpc.request", "Count": 2, "Rate": 0.4, "Sum": 4, "Min": 1, "Max": 3,
                "Mean": 2, "Stddev": 2**0.5, "Labels": {},
            }
        ],
        "Samples": [
            {
                "Name": "consul.raft.commitTime", "Count": 1, "Rate": 0.15, "Sum": 1.5, "Min": 1.5,
                "Max": 1.5, "Mean": 1.5, "Stddev": 0, "Labels": {"peer": "a"},
            }
        ],
    }  # fmt: skip


def test_prometheus_keeps_totals_over_intervals() -> None:
    now = [0.0]
    registry = Metrics(lambda: now[0])
    for _ in range(20):
        registry.incr("a.b-c", 2, (("x", 'q"\n'),))
        registry.sample("t", now[0])
        registry.gauge("g", now[0])
        now[0] += 10
    text = registry.prometheus()
    assert '# TYPE a_b_c counter\na_b_c{x="q\\"\\n"} 40\n' in text
    assert "t_sum 1900\nt_count 20\n" in text
    assert "# TYPE g gauge\ng 190\n" in text
    assert registry.counter("a.b-c", (("x", 'q"\n'),)) == 40


def test_a_clock_set_back_starts_a_new_interval() -> None:
    now = [100.0]
    registry = Metrics(lambda: now[0])
    registry.incr("a")
    now[0] = 50.0
    registry.incr("a")
    assert registry.counter("a") == 2


def test_series_are_bounded() -> None:
    registry = Metrics()
    for n in range(module.SERIES_MAX + 5):
        registry.incr("a", 1, (("n", str(n)),))
    assert registry.dropped == 5
