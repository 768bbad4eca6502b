"""`lock`: runs a command while holding a lock (`command/lock`)."""

from __future__ import annotations

import signal
import subprocess
import threading
from types import FrameType

from proconsul.config.goflags import Flag, Parsed, bool_flag, parse_int, string_flag
from proconsul.interfaces.cli.children import exit_text, start
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    SERVER_FLAGS,
    Command,
    CommandError,
    connect,
    err,
    out,
)
from proconsul.interfaces.cli.locking import InUseError, Lock, Lockable, Semaphore
from proconsul.util.goduration import parse_duration

KILL_GRACE_S = 5.0
RETRIES = 3
CHILD_FAILED = 2


class _Runner:
    """One run: what happened is noted, and whoever waits for it wakes."""

    def __init__(self, parsed: Parsed) -> None:
        self._parsed = parsed
        self._happened = threading.Event()
        self._shut_down = self._lost = False
        self._child: subprocess.Popen[bytes] | None = None

    def say(self, text: str) -> None:
        """What only -verbose shows."""
        if self._parsed["verbose"]:
            out(text)

    def signalled(self, number: int, _frame: FrameType | None) -> None:
        """The child hears of it as well."""
        self._shut_down = True
        if self._child is None:
            raise KeyboardInterrupt
        if self._child.poll() is None:
            self._child.send_signal(number)
        self._happened.set()

    def _lose(self) -> None:
        self._lost = True
        self._happened.set()

    def run(self, lock: Lockable) -> int:
        """The exit status."""
        self.say("Attempting lock acquisition")
        try:
            if not lock.acquire():
                raise CommandError("Shutdown triggered or timeout during lock acquisition")
        except KeyboardInterrupt:
            raise CommandError("Shutdown triggered or timeout during lock acquisition") from None
        except CommandError as error:
            if str(error).startswith("Shutdown"):
                raise
            raise CommandError(f"Lock acquisition failed: {error}") from None
        status = 0
        try:
            lock.watch(self._lose)
            status = self._child_status()
        finally:
            self._release(lock)
        return status if self._parsed["child-exit-code"] else 0

    def _child_status(self) -> int:
        parsed = self._parsed
        self.say("Starting handler")
        if parsed["pass-stdin"]:
            self.say("Stdin passed to handler process")
        try:
            child = self._child = start(
                parsed.args[1:],
                shell=parsed["shell"],
                environment={"CONSUL_LOCK_HELD": "true"},
                stdin=None if parsed["pass-stdin"] else subprocess.DEVNULL,
            )
        except CommandError as error:
            err(str(error))
            self.say("Child terminated, releasing lock")
            return CHILD_FAILED
        threading.Thread(target=self._wait_for, args=(child,), daemon=True).start()
        self._happened.wait()
        if self._shut_down or (self._lost and child.poll() is None):
            self.say(f"{'Shutdown triggered' if self._shut_down else 'Lock lost'}, killing child")
            self._kill(child)
            return 0
        if problem := exit_text(child):
            err(f"Error running handler: {problem}")
        self.say("Child terminated, releasing lock")
        return CHILD_FAILED if child.returncode else 0

    def _wait_for(self, child: subprocess.Popen[bytes]) -> None:
        child.wait()
        self._happened.set()

    def _kill(self, child: subprocess.Popen[bytes]) -> None:
        self.say(f"Terminating child pid {child.pid}")
        child.terminate()
        try:
            child.wait(KILL_GRACE_S)
            self.say("Child terminated")
        except subprocess.TimeoutExpired:
            self.say("Child did not exit after grace period of 5s")
            self.say(f"Killing child pid {child.pid}")
            child.kill()
            child.wait()

    def _release(self, lock: Lockable) -> None:
        try:
            lock.release()
        except CommandError as error:
            raise CommandError(f"Lock release failed: {error}") from None
        try:
            lock.cleanup()
            self.say("Cleanup succeeded")
        except InUseError:
            self.say("Cleanup aborted, lock in use")
        except CommandError as error:
            raise CommandError(f"Lock cleanup failed: {error}") from None


def _run(parsed: Parsed) -> int:
    if parsed["n"] <= 0:
        raise CommandError("Lock holder limit must be positive")
    if len(parsed.args) < 2:
        raise CommandError("Key prefix and child command must be specified")
    if parsed["timeout"] < 0:
        raise CommandError("Timeout must be positive")
    if parsed["monitor-retry"] < 0:
        raise CommandError("Number for 'monitor-retry' must be >= 0")
    prefix = parsed.args[0].removeprefix("/")
    what = " ".join(parsed.args[1:])
    name = parsed["name"] or f"Consul lock for '{what}' at '{prefix}'"
    client = connect(parsed)
    client.node_name()
    runner = _Runner(parsed)
    settings = (client, prefix, name, parsed["timeout"], parsed["monitor-retry"])
    lock: Lockable
    if parsed["n"] == 1:
        runner.say(f"Setting up lock at path: {prefix.rstrip('/')}/.lock")
        lock = Lock(*settings)
    else:
        runner.say(f"Setting up semaphore (limit {parsed['n']}) at prefix: {prefix}")
        lock = Semaphore(*settings, parsed["n"])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, runner.signalled)
    return runner.run(lock)


LOCK = Command(
    usage="""
Usage: proconsul lock [options] prefix child...

  Takes a lock below a prefix of keys, runs the child while it is held, and gives it
  back. With -n several may hold it. A child whose lock is lost is ended.""",
    run=_run,
    flags=(
        bool_flag("child-exit-code", "End with status 2 if the child fails."),
        Flag("n", "How many may hold it at once.", parse_int, 1, value_name="int"),
        Flag(
            "monitor-retry",
            "How many errors in a row do not yet count as losing the lock, a second apart.",
            parse_int,
            RETRIES,
            value_name="int",
        ),
        string_flag("name", "Name of the session; made from the child's command by default."),
        bool_flag("pass-stdin", "The child gets our standard input."),
        bool_flag("shell", "Run the child by a shell, which SHELL may name.", True),
        Flag(
            "timeout", "How long to wait for the lock; 0 is for ever.", parse_duration, 0.0,
            value_name="duration",
        ),
        Flag(
            "try", "Deprecated, use -timeout.", parse_duration, 0.0, value_name="duration",
            dest="timeout",
        ),
        bool_flag("verbose", "Say what is done."),
        *CLIENT_FLAGS,
        *SERVER_FLAGS,
    ),
)  # fmt: skip
