"""In-memory metrics in the manner of armon/go-metrics: counters, gauges and samples by interval.

`/v1/agent/metrics` shows the newest *finished* interval (10 s each, the last minute is kept), as
Consul does; Prometheus gets running totals. Names are full and Consul's own (`consul.rpc.request`),
labels a tuple of (name, value) pairs. An instance is passed to whoever counts.
Call it from the event loop only. One call costs about 0.5 microseconds.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]
_Key: TypeAlias = str | tuple[str, Labels]

INTERVAL_S = 10.0
RETAIN_S = 60.0
SERIES_MAX = 20_000
RECENT_VALUES = 256
PROMETHEUS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_QUANTILES = (0.5, 0.9, 0.99)
_PROMETHEUS_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_:]")


class Aggregate:
    """Count, sum, sum of squares, least and greatest of the values of one series."""

    __slots__ = ("count", "greatest", "least", "recent", "squares", "sum")

    def __init__(self, *, keep_recent: bool = False) -> None:
        self.count = 0
        self.sum = 0.0
        self.squares = 0.0
        self.least = math.inf
        self.greatest = -math.inf
        self.recent: deque[float] | None = deque(maxlen=RECENT_VALUES) if keep_recent else None

    def ingest(self, value: float) -> None:
        """Count one value."""
        self.count += 1
        self.sum += value
        self.squares += value * value
        self.least = min(self.least, value)
        self.greatest = max(self.greatest, value)
        if self.recent is not None:
            self.recent.append(value)

    def merge(self, other: Aggregate) -> None:
        """Add what `other` has seen."""
        self.count += other.count
        self.sum += other.sum
        if other.recent:
            self.recent = other.recent

    def mean(self) -> float:
        """Arithmetic mean, 0 of nothing."""
        return self.sum / self.count if self.count else 0.0

    def stddev(self) -> float:
        """Sample standard deviation as go-metrics computes it; 0 below two values."""
        if self.count < 2:
            return 0.0
        numerator = self.count * self.squares - self.sum * self.sum
        return math.sqrt(max(0.0, numerator) / (self.count * (self.count - 1)))


class Interval:
    """What happened in `[start, start + INTERVAL_S)`, start in seconds since the Unix epoch."""

    __slots__ = ("counters", "gauges", "samples", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.counters: dict[_Key, Aggregate] = {}
        self.gauges: dict[_Key, float] = {}
        self.samples: dict[_Key, Aggregate] = {}


class Metrics:
    """The registry. `wall` gives seconds since the epoch; without it there is one interval."""

    def __init__(self, wall: Callable[[], float] = lambda: 0.0) -> None:
        self._wall = wall
        start = self._align(wall())
        self._current = Interval(start)
        self._ends = start + INTERVAL_S
        self._finished: deque[Interval] = deque(maxlen=int(RETAIN_S / INTERVAL_S))
        self._counter_totals: dict[_Key, Aggregate] = {}
        self._sample_totals: dict[_Key, Aggregate] = {}
        self._gauge_last: dict[_Key, float] = {}
        self.dropped = 0
        """Values refused since there were already `SERIES_MAX` series of their kind."""

    def incr(self, name: str, value: float = 1, labels: Labels = ()) -> None:
        """Add `value` to a counter."""
        self._ingest(self._interval().counters, name, value, labels, keep_recent=False)

    def sample(self, name: str, value: float, labels: Labels = ()) -> None:
        """Record one observation; Consul's timers are in milliseconds."""
        self._ingest(self._interval().samples, name, value, labels, keep_recent=True)

    def gauge(self, name: str, value: float, labels: Labels = ()) -> None:
        """Set a value that holds until it is set again."""
        gauges = self._interval().gauges
        key: _Key = (name, labels) if labels else name
        if key not in gauges and len(gauges) >= SERIES_MAX:
            self.dropped += 1
            return
        gauges[key] = value

    def shift(self, name: str, by: float) -> None:
        """Move a gauge without labels, which begins at 0."""
        current = self._interval().gauges
        before = current[name] if name in current else self._gauge_last.get(name, 0.0)
        self.gauge(name, before + by)

    def counter(self, name: str, labels: Labels = ()) -> float:
        """The running total of a counter, for tests and status pages."""
        key: _Key = (name, labels) if labels else name
        total = self._counter_totals.get(key)
        now = self._current.counters.get(key)
        return (total.sum if total else 0.0) + (now.sum if now else 0.0)

    def summary(self) -> dict[str, Any]:
        """The body of `/v1/agent/metrics`: the newest finished interval, else the running one."""
        running = self._interval()
        interval = self._finished[-1] if self._finished else running
        stamp = datetime.fromtimestamp(interval.start, UTC)
        gauges = [
            {"Name": name, "Value": _number(value), "Labels": dict(labels)}
            for name, labels, value in _sorted(interval.gauges)
        ]
        return {
            "Timestamp": stamp.strftime("%Y-%m-%d %H:%M:%S +0000 UTC"),
            "Gauges": gauges,
            "Points": [],
            "Counters": [_sampled(*entry) for entry in _sorted(interval.counters)],
            "Samples": [_sampled(*entry) for entry in _sorted(interval.samples)],
        }

    def prometheus(self) -> str:
        """Text exposition format 0.0.4: totals since the start, gauges as last set."""
        current = self._interval()
        counters = _totalled(self._counter_totals, current.counters)
        samples = _totalled(self._sample_totals, current.samples)
        lines: list[str] = []
        seen: set[str] = set()

        def head(name: str, kind: str) -> str:
            flat = _PROMETHEUS_FORBIDDEN.sub("_", name)
            if flat not in seen:
                seen.add(flat)
                lines.extend((f"# HELP {flat} {flat}", f"# TYPE {flat} {kind}"))
            return flat

        for name, labels, value in _sorted({**self._gauge_last, **current.gauges}):
            lines.append(f"{head(name, 'gauge')}{_braces(labels)} {_number(value)}")
        for name, labels, total in _sorted(counters):
            lines.append(f"{head(name, 'counter')}{_braces(labels)} {_number(total.sum)}")
        for name, labels, total in _sorted(samples):
            flat = head(name, "summary")
            values = sorted(total.recent or ())
            for quantile in _QUANTILES:
                at = (
                    values[min(len(values) - 1, int(quantile * len(values)))]
                    if values
                    else math.nan
                )
                shown = _braces((*labels, ("quantile", str(quantile))))
                lines.append(f"{flat}{shown} {_number(at)}")
            lines.append(f"{flat}_sum{_braces(labels)} {_number(total.sum)}")
            lines.append(f"{flat}_count{_braces(labels)} {total.count}")
        return "\n".join(lines) + "\n" if lines else ""

    def _ingest(
        self,
        series: dict[_Key, Aggregate],
        name: str,
        value: float,
        labels: Labels,
        *,
        keep_recent: bool,
    ) -> None:
        key: _Key = (name, labels) if labels else name
        found = series.get(key)
        if found is None:
            if len(series) >= SERIES_MAX:
                self.dropped += 1
                return
            found = series[key] = Aggregate(keep_recent=keep_recent)
        found.ingest(value)

    def _interval(self) -> Interval:
        now = self._wall()
        # A clock set back must not stop the intervals: any jump starts a new one.
        if self._ends - INTERVAL_S <= now < self._ends:
            return self._current
        done = self._current
        self._finished.append(done)
        _merge_into(self._counter_totals, done.counters)
        _merge_into(self._sample_totals, done.samples)
        for key, value in done.gauges.items():
            if key in self._gauge_last or len(self._gauge_last) < SERIES_MAX:
                self._gauge_last[key] = value
        start = self._align(now)
        self._current, self._ends = Interval(start), start + INTERVAL_S
        return self._current

    @staticmethod
    def _align(now: float) -> float:
        return now - now % INTERVAL_S


def _merge_into(totals: dict[_Key, Aggregate], series: dict[_Key, Aggregate]) -> None:
    for key, aggregate in series.items():
        total = totals.get(key)
        if total is None:
            if len(totals) >= SERIES_MAX:
                continue
            total = totals[key] = Aggregate()
        total.merge(aggregate)


def _totalled(
    totals: dict[_Key, Aggregate], current: dict[_Key, Aggregate]
) -> dict[_Key, Aggregate]:
    result: dict[_Key, Aggregate] = {}
    _merge_into(result, totals)
    _merge_into(result, current)
    return result


def _sorted(series: dict[_Key, Any]) -> Iterable[tuple[str, Labels, Any]]:
    split = [((key, ()) if isinstance(key, str) else key, value) for key, value in series.items()]
    split.sort(key=lambda entry: entry[0])
    for (name, labels), value in split:
        yield name, labels, value


def _sampled(name: str, labels: Labels, total: Aggregate) -> dict[str, Any]:
    return {
        "Name": name,
        "Count": total.count,
        "Rate": _number(total.sum / INTERVAL_S),
        "Sum": _number(total.sum),
        "Min": _number(total.least),
        "Max": _number(total.greatest),
        "Mean": _number(total.mean()),
        "Stddev": _number(total.stddev()),
        "Labels": dict(labels),
    }


def _number(value: float) -> float:
    """Whole numbers without a fraction, as Go prints them."""
    return int(value) if math.isfinite(value) and value == int(value) else value


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    shown = ",".join(
        '{}="{}"'.format(
            _PROMETHEUS_FORBIDDEN.sub("_", name),
            value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"),
        )
        for name, value in labels
    )
    return "{" + shown + "}"
