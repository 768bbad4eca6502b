"""pytest plugin: where everything a test needs has to be there, a skip is a failure.

`PROCONSUL_REQUIRE_PEERS` concerns tests marked `peer`, `CI` those marked `netns`; `.ci/run` sets
both, the former unless the registry of the peers cannot be reached.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

_REQUIRED_BY = {"peer": "PROCONSUL_REQUIRE_PEERS", "netns": "CI"}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Turns the skip of a test that CI requires into a failure with the same reason."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()  # type: ignore[attr-defined]
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    for mark, variable in _REQUIRED_BY.items():
        if item.get_closest_marker(mark) and os.environ.get(variable):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            report.outcome = "failed"
            report.longrepr = f"{variable} is set, so this must not be left out: {reason}"
