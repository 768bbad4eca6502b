"""Where the real programs are that tests run against; a missing one skips the test, or fails it.

It fails where `PROCONSUL_REQUIRE_PEERS` is set, as `.ci/run` does when the registry they come from
answered, so that a green run means that nothing was left out.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from proconsul.app.worlds import netns
from proconsul.interfaces.cli.envoy_bootstrap import find_envoy
from proconsul.util.errors import ProconsulError

_CONSUL = Path(".peers/root/usr/bin/consul")


def consul() -> str:
    """The path of Consul 1.8.7: `PROCONSUL_CONSUL_BIN`, or what scripts/get-consul fetched."""
    given = os.environ.get("PROCONSUL_CONSUL_BIN", "")
    candidates = (
        [Path(given)] if given else [p / _CONSUL for p in (Path.cwd(), *Path.cwd().parents)]
    )
    for path in candidates:
        if os.access(path, os.X_OK):
            return str(path)
    return missing(
        f"no Consul at {candidates[0]}: run scripts/get-consul, or set PROCONSUL_CONSUL_BIN"
    )


def serf() -> str:
    """The path of Debian's Serf."""
    return shutil.which("serf") or missing("no serf: apt-get install serf")


def envoy() -> str:
    """The path of Envoy: `PROCONSUL_ENVOY_BIN`, or the wheel's."""
    try:
        return find_envoy(os.environ.get("PROCONSUL_ENVOY_BIN", ""))
    except ProconsulError as error:
        return missing(str(error))


def namespaces() -> None:
    """Skips or fails the test where network namespaces are refused."""
    if reason := netns.why_not():
        if os.environ.get("CI"):
            pytest.fail(f"no network namespaces: {reason}")
        pytest.skip(f"no network namespaces: {reason}")


def missing(reason: str) -> NoReturn:
    """End the test: a skip, or a failure where peers are required."""
    if os.environ.get("PROCONSUL_REQUIRE_PEERS"):
        pytest.fail(reason)
    pytest.skip(reason)
