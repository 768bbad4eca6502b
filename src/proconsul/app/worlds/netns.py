"""Network namespaces by name: making, entering and removing them; commands in them.

Namespaces of a world begin with `pc<pid>-`. Those whose process is gone are what a crash left
behind, and are removed by the next world.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from proconsul.app.worlds.spec import WorldError

_RUN = Path("/run/netns")
_ETC = Path("/etc/netns")
_NAME = re.compile(r"pc(\d+)-")
_CLONE_NEWNET = 0x40000000


def run(argv: Sequence[str], text: str = "") -> str:
    """Run a command of the network tools; its output. Raises WorldError with its complaint."""
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    except OSError as error:
        raise WorldError(f"cannot run {argv[0]}: {error}") from error
    if done.returncode != 0:
        raise WorldError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def ip_batch(commands: Sequence[str], namespace: str = "") -> None:
    """Several `ip` commands in one process."""
    where = ["-n", namespace] if namespace else []
    run(["ip", *where, "-batch", "-"], "\n".join(commands) + "\n")


def why_not() -> str:
    """Why this process cannot have network namespaces; empty if it can."""
    if os.geteuid() != 0:
        return "not root"
    for tool in ("ip", "iptables", "iptables-restore", "iptables-save"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    name = f"pc{os.getpid()}-try{threading.get_ident() % 1000}"
    try:
        run(["ip", "netns", "add", name])
        try:
            run(["ip", "netns", "exec", name, "iptables", "-t", "nat", "-S"])
        finally:
            run(["ip", "netns", "del", name])
    except WorldError as error:
        return str(error)
    return ""


def add(name: str) -> None:
    run(["ip", "netns", "add", name])
    ip_batch(["link set lo up"], name)


def remove(name: str) -> None:
    """Never raises; also ends what still runs in the namespace."""
    with contextlib.suppress(WorldError):
        for pid in run(["ip", "netns", "pids", name]).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    with contextlib.suppress(WorldError):
        run(["ip", "netns", "del", name])
    shutil.rmtree(_ETC / name, ignore_errors=True)


def remove_stale() -> list[str]:
    """Remove the namespaces of worlds whose process is gone; their names."""
    stale = []
    for directory in (_RUN, _ETC):
        if not directory.is_dir():
            continue
        for entry in directory.iterdir():
            match = _NAME.match(entry.name)
            if match and not Path(f"/proc/{match.group(1)}").exists():
                stale.append(entry.name)
    for name in sorted(set(stale)):
        remove(name)
    return stale


def command(name: str, argv: Sequence[str]) -> list[str]:
    """The command that becomes `argv` within the namespace (same process id)."""
    return ["ip", "netns", "exec", name, *argv]


def resolver(name: str, address: str) -> None:
    """Programs in the namespace ask this DNS server."""
    directory = _ETC / name
    directory.mkdir(parents=True, exist_ok=True)
    directory.joinpath("resolv.conf").write_text(
        f"nameserver {address}\noptions timeout:1 attempts:2\n", encoding="ascii"
    )


@contextlib.contextmanager
def entered(name: str) -> Iterator[None]:
    """The calling thread is in the namespace meanwhile: sockets made then stay there."""
    with (
        Path("/proc/thread-self/ns/net").open("rb") as own,
        (_RUN / name).open("rb") as target,
    ):
        _setns(target.fileno())
        try:
            yield
        finally:
            _setns(own.fileno())


def connect(name: str, address: tuple[str, int], timeout_s: float) -> socket.socket:
    """A TCP connection that starts within the namespace. Raises OSError."""
    with entered(name):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.settimeout(timeout_s)
    try:
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def _setns(descriptor: int) -> None:
    if _libc().setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
