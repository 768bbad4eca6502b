"""The node's identity across restarts: a random UUID in data_dir/node-id (setupNodeID)."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from proconsul.config.errors import SettingError
from proconsul.config.model import AgentConfig


def resolve_node_id(config: AgentConfig) -> str:
    """The configured, the persisted, or a new node id, which is then persisted.

    Blocking file I/O. In dev mode nothing is read or written. Raises SettingError where the file
    holds no UUID, or cannot be read or written.
    """
    if config.dev_mode and not config.data_dir:
        return config.node_id or str(uuid.uuid4())
    path = Path(config.data_dir) / "node-id"
    try:
        return _resolve(config, path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SettingError(
            f"data_dir cannot be used: {path}: {reason}", key="data_dir", source=config.data_dir,
            remedy="Name a directory that the agent may create and write to",
        ) from error  # fmt: skip


def _resolve(config: AgentConfig, path: Path) -> str:
    if config.node_id:
        _persist(path, config.node_id)
        return config.node_id
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip().lower()
    except FileNotFoundError:
        fresh = str(uuid.uuid4())
        _persist(path, fresh)
        return fresh
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise SettingError(
            f"{path} holds no UUID", key="node_id", source=str(path),
            remedy="Delete the file for a new identity, or restore it",
        ) from None  # fmt: skip


def _persist(path: Path, node_id: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="ascii") as file:
        file.write(node_id)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(0o600)
    temporary.replace(path)
