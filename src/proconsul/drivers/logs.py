"""Structured logs in Consul's layout, as text or JSON.

Loggers are named `proconsul.<subsystem>` and print as `agent.<subsystem>`, Consul's names. A message
is one line; what a peer controls is escaped, so that nobody forges lines.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from typing_extensions import override

TRACE = 5
"""Below DEBUG, as hclog has it."""

_LEVELS = {"TRACE": TRACE, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERR": 40, "ERROR": 40}
_NAMES = {TRACE: "TRACE", 10: "DEBUG", 20: "INFO", 30: "WARN", 40: "ERROR", 50: "ERROR"}
MONITOR_LINES_MAX = 512
_BACKUPS_UNLIMITED = 1_000_000


def _subsystem(name: str) -> str:
    head, _, rest = name.partition(".")
    if head != "proconsul":
        return f"agent.{name}"
    return f"agent.{rest}" if rest and rest != "agent" else "agent"


def _stamp(created: float) -> str:
    base = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))
    return f"{base}.{int(created % 1 * 1000):03d}Z"


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class TextFormatter(logging.Formatter):
    """`2020-01-31T12:00:00.000Z [INFO]  agent.server: message`."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        level = f"[{_NAMES.get(record.levelno, record.levelname)}]".ljust(7)
        message = _one_line(record.getMessage())
        line = f"{_stamp(record.created)} {level} {_subsystem(record.name)}: {message}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One object a line, with hclog's keys (`@level`, `@message`, `@module`, `@timestamp`)."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "@level": _NAMES.get(record.levelno, record.levelname).lower(),
            "@message": record.getMessage(),
            "@module": _subsystem(record.name),
            "@timestamp": _stamp(record.created),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def setup(
    level: str,
    *,
    as_json: bool = False,
    file: str = "",
    rotate_bytes: int = 0,
    rotate_duration_s: float = 0.0,
    rotate_max_files: int = 0,
    stream: TextIO | None = None,
) -> None:
    """Send every `proconsul` logger's lines at `level` and above to `stream` and `file`."""
    logging.addLevelName(TRACE, "TRACE")
    formatter = JsonFormatter() if as_json else TextFormatter()
    handlers: list[logging.Handler] = [logging.StreamHandler(stream or sys.stdout)]
    if file:
        handlers.append(_file_handler(file, rotate_bytes, rotate_duration_s, rotate_max_files))
    root = logging.getLogger("proconsul")
    for old in root.handlers[:]:
        if old not in _monitors:
            root.removeHandler(old)
            old.close()
    _outputs[:] = handlers
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.propagate = False
    set_level(level)


def set_level(level: str) -> None:
    """Change the level of a running process (`log_level` is reloadable)."""
    for handler in _outputs:
        handler.setLevel(_LEVELS[level.upper()])
    _let_through()


def is_level(text: str) -> bool:
    """Whether there is such a level; case does not matter."""
    return text.upper() in _LEVELS


class Monitor(logging.Handler):
    """The log's lines from now on, at a level of its own; `close` it.

    A reader that is too slow loses lines, never holds up who logs.
    """

    def __init__(self, level: str, *, as_json: bool, wake: Callable[[], None]) -> None:
        """`wake` is called, on any thread, when there are lines where none were."""
        super().__init__(_LEVELS[level.upper()])
        self.setFormatter(JsonFormatter() if as_json else TextFormatter())
        self._lines: deque[str] = deque()
        self._wake = wake
        self.dropped = 0
        """Lines that the reader lost."""
        _monitors.append(self)
        logging.getLogger("proconsul").addHandler(self)
        _let_through()

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if len(self._lines) >= MONITOR_LINES_MAX:
            self.dropped += 1
            return
        self._lines.append(self.format(record) + "\n")
        self._wake()

    def take(self) -> str:
        """What has gathered, empty if nothing has."""
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        return "".join(lines)

    @override
    def close(self) -> None:
        if self in _monitors:
            _monitors.remove(self)
            logging.getLogger("proconsul").removeHandler(self)
            _let_through()
        super().close()


_outputs: list[logging.Handler] = []
_monitors: list[Monitor] = []


def _let_through() -> None:
    """Records are made for the one who wants the most of them; the others have levels too."""
    levels = [handler.level for handler in (*_outputs, *_monitors)]
    logging.getLogger("proconsul").setLevel(min(levels, default=logging.INFO))


def _file_handler(
    file: str, rotate_bytes: int, rotate_duration_s: float, max_files: int
) -> logging.Handler:
    from logging.handlers import RotatingFileHandler, TimedRotatingFileHandler

    kept = max_files if max_files > 0 else _BACKUPS_UNLIMITED
    if rotate_bytes:
        return RotatingFileHandler(file, maxBytes=rotate_bytes, backupCount=kept)
    seconds = int(rotate_duration_s) or 24 * 3600
    return TimedRotatingFileHandler(file, when="S", interval=seconds, backupCount=kept)
