"""Child processes of commands: by shell or directly, with the signals of their parent.

After Consul's `agent/exec` and `ForwardSignals`.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from proconsul.interfaces.cli.command import CommandError

_FORWARDED = (signal.SIGINT, signal.SIGTERM)


def start(
    args: Sequence[str],
    *,
    shell: bool,
    environment: Mapping[str, str],
    stdin: int | None = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a child. A shell's words are joined; `SHELL` may name another one.

    Raises `CommandError`.
    """
    command = [os.environ.get("SHELL") or "/bin/sh", "-c", " ".join(args)] if shell else list(args)
    try:
        return subprocess.Popen(command, stdin=stdin, env={**os.environ, **environment})
    except OSError as error:
        if isinstance(error, FileNotFoundError) and "/" not in command[0]:
            raise CommandError(
                f'Error starting handler: exec: "{command[0]}": executable file not found in $PATH'
            ) from None
        raise CommandError(
            f"Error starting handler: fork/exec {command[0]}: {(error.strerror or '').lower()}"
        ) from None


def exit_text(child: subprocess.Popen[bytes]) -> str:
    """How a finished child failed, in Go's words; empty if it did not."""
    status = child.returncode
    if status < 0:
        return f"signal: {signal.strsignal(-status) or -status}".lower()
    return f"exit status {status}" if status else ""


@contextmanager
def signals_forwarded(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """What is sent to us reaches the child meanwhile."""

    def forward(number: int, _frame: FrameType | None) -> None:
        if child.poll() is None:
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
