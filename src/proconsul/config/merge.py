"""Later sources over earlier ones: scalars override, lists append, maps overlay.

As `agent/config/merge.go`; in addition it is remembered which source set which key, so that an
error can name the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proconsul.config.decode import Tree
from proconsul.config.schema import ROOT
from proconsul.config.sources import Source


class Merged:
    """The merged settings, with the origin of each key."""

    def __init__(self) -> None:
        self._tree: Tree = {}
        self._origins: dict[str, str] = {}

    def get(self, path: str, default: Any = None) -> Any:
        """The value at a dotted path, or `default` where no source set it."""
        node: Any = self._tree
        for part in path.split("."):
            if not isinstance(node, dict) or part not in node:
                return default
            node = node[part]
        return node

    def origin(self, path: str) -> str:
        """The source that last set this key or something below it; "" for none."""
        if path in self._origins:
            return self._origins[path]
        below = [v for k, v in self._origins.items() if k.startswith((path + ".", path + "["))]
        return below[-1] if below else ""

    def add(self, source: Source) -> None:
        """Merge one more source over what is there."""
        tree = dict(source.tree)
        for single, plural in (("check", "checks"), ("service", "services")):
            # Single definitions join the list, or a later one would clobber an earlier one
            if single in tree:
                tree[plural] = [*tree.get(plural, ()), *tree.pop(single)]
        self._merge(self._tree, tree, ROOT, source.name, "")

    def _merge(self, into: Tree, tree: Tree, schema: Any, source: str, path: str) -> None:
        for key, value in tree.items():
            spec = schema.get(key) if isinstance(schema, dict) else None
            old = into.get(key)
            if isinstance(spec, dict) and isinstance(value, dict):
                self._merge(into.setdefault(key, {}), value, spec, source, f"{path}{key}.")
                continue
            if isinstance(value, list):
                if value:
                    self._origins[path + key] = source
                into[key] = [*(old or ()), *value]
            elif isinstance(value, dict):
                into[key] = {**(old or {}), **value}
                self._origins[path + key] = source
            else:
                into[key] = value
                self._origins[path + key] = source


def merge(sources: Iterable[Source]) -> Merged:
    """Merge in order."""
    merged = Merged()
    for source in sources:
        merged.add(source)
    return merged
