"""The README's tour, word for word: three machines (namespaces) between which only 8443 is open."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from proconsul.app.worlds import netns
from proconsul.testing import peers

pytestmark = [pytest.mark.netns, pytest.mark.peer]

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"<!-- tour: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)
STEP_S = 30.0
_ONLY_GATEWAYS = """*filter
:INPUT ACCEPT [0:0]
-A INPUT -i lan -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -i lan -p tcp --dport 8443 -j ACCEPT
-A INPUT -i lan -s {own} -j ACCEPT
-A INPUT -i lan -j DROP
COMMIT
"""


def blocks() -> dict[str, str]:
    found = dict(BLOCK.findall(README.read_text(encoding="utf-8")))
    if shutil.which("curl") is None:
        found["use"] = re.sub(r"(?m)^curl .*\n", "", found["use"])
    return found


class Machine:
    """A shell in a namespace, into which the blocks are typed."""

    def __init__(self, number: int, directory: Path) -> None:
        self.number, self.directory = number, directory
        self.namespace = f"pc{os.getpid()}-tour{number}"
        self.address = f"10.9.0.{number}"
        self._steps = 0

    @contextmanager
    def running(self, switch: str) -> Iterator[None]:
        netns.add(self.namespace)
        try:
            port = f"port{self.number}"
            netns.ip_batch(
                [
                    f"link add lan netns {self.namespace} type veth peer name {port}",
                    f"link set {port} master bridge up",
                ],
                switch,
            )
            netns.ip_batch(
                ["link set lan up", f"addr add {self.address}/24 dev lan"], self.namespace
            )
            rules = _ONLY_GATEWAYS.format(own=self.address)
            netns.run(netns.command(self.namespace, ["iptables-restore"]), rules)
            self.directory.mkdir()
            environment = {
                **{k: v for k, v in os.environ.items() if not k.startswith("CONSUL_")},
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            }
            with subprocess.Popen(
                netns.command(self.namespace, ["bash", "--norc"]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=environment,
            ) as self._shell:
                try:
                    self.types("set -m")
                    yield
                finally:
                    netns.remove(self.namespace)
                    self._shell.kill()
        finally:
            netns.remove(self.namespace)

    def types(self, text: str) -> str:
        """What a block prints. Fails the test where its last command does, or nothing ends."""
        output, status = self.tries(text)
        assert status == 0, f"machine {self.number}: {text}\n{output}\n{self.logs()}"
        return output

    def tries(self, text: str) -> tuple[str, int]:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._steps += 1
        end = f"end-of-step-{self._steps}"
        self._shell.stdin.write(f"{text}\necho; echo {end} $?\n".encode())
        self._shell.stdin.flush()
        output, deadline = b"", time.monotonic() + STEP_S
        while end.encode() not in output or not output.endswith(b"\n"):
            ready, _, _ = select.select([self._shell.stdout], [], [], deadline - time.monotonic())
            assert ready, f"machine {self.number} does not end: {text}\n{output!r}\n{self.logs()}"
            got = os.read(self._shell.stdout.fileno(), 65536)
            assert got, f"machine {self.number}: the shell has ended\n{output!r}"
            output += got
        print(f"[{time.monotonic():.2f}] machine {self.number}: {text.strip()[:60]!r}")
        said, _, status = output.decode().rpartition(end)
        return said.strip(), int(status)

    def logs(self) -> str:
        paths = sorted(self.directory.glob("tour/*.log"))
        return "\n".join(f"--- {p.name}\n" + "\n".join(_tail(p)) for p in paths)


def _tail(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]


@contextmanager
def three_machines(directory: Path) -> Iterator[list[Machine]]:
    switch = f"pc{os.getpid()}-tour"
    machines = [Machine(number, directory / f"machine{number}") for number in (1, 2, 3)]
    netns.add(switch)
    with ExitStack() as stack:
        stack.callback(netns.remove, switch)
        netns.ip_batch(["link add bridge type bridge", "link set bridge up"], switch)
        for machine in machines:
            stack.enter_context(machine.running(switch))
        yield machines


def _until(machine: Machine, command: str, wanted: str) -> str:
    deadline = time.monotonic() + STEP_S
    while True:
        output, _ = machine.tries(command)
        if re.search(wanted, output, re.DOTALL):
            return output
        assert time.monotonic() < deadline, f"no {wanted!r} in:\n{output}\n{machine.logs()}"
        time.sleep(0.2)


def test_the_tour_of_the_readme(tmp_path: Path) -> None:
    peers.namespaces()
    peers.envoy()
    tour = blocks()
    assert set(tour) == {
        "first", "identity", "configuration", "secondary", "start", "look", "use", "break",
    }  # fmt: skip
    with three_machines(tmp_path) as machines:
        first, second, _ = machines
        first.types(tour["first"])
        for machine in machines:
            _copy(first.directory / "tour", machine)
            identity = tour["identity"].replace("DC=dc1", f"DC=dc{machine.number}")
            machine.types(identity.replace("IP=10.9.0.1 ", f"IP={machine.address} "))
            machine.types(tour["configuration"])
            if machine is not first:
                machine.types(tour["secondary"])
        for machine in machines:
            machine.types(tour["start"])
        three_alive = r"s1\.dc1 .*alive.*s1\.dc2 .*alive.*s1\.dc3 .*alive"
        for machine in machines:
            _until(machine, "proconsul members -wan", three_alive)
            _until(machine, "proconsul federation status && echo whole", "whole")
            seen = machine.types(tour["look"])
            assert re.search(three_alive, seen, re.DOTALL)
        used = second.types(tour["use"])
        assert "\nhello\n" in used
        assert "Registered service: web" in used
        _break_and_mend(first, second, tour)


def _copy(source: Path, machine: Machine) -> None:
    """What step 1 says to copy."""
    if machine.number != 1:
        (machine.directory / "tour").mkdir()
        for pattern in ("consul-agent-ca.pem", "gossip.key", f"dc{machine.number}-*"):
            for path in source.glob(pattern):
                shutil.copy(path, machine.directory / "tour")
        machine.types("cd tour")


def _break_and_mend(first: Machine, second: Machine, tour: dict[str, str]) -> None:
    second.types("kill %3")
    seen = _until(first, tour["break"].strip(), "not all reachable")
    assert "dc2" in seen
    gateway = tour["start"][tour["start"].index("proconsul connect envoy") :]
    second.types(gateway)
    _until(first, "proconsul federation status && echo whole", "whole")
