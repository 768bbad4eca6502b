"""Wake-ups after commits: which questions a write concerns, and who waits for them.

A question is named by a hashable key (`keys` in this module make them). A transaction collects
the keys it touches; after its commit every callback registered for one of them is called once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
Callback = Callable[[], None]

_KV = "kv"
_KV_PREFIX = "kv-prefix"


def kv_key(key: str) -> Hashable:
    """Changes of exactly this key."""
    return (_KV, key)


def kv_prefix_key(prefix: str) -> Hashable:
    """Changes of any key that starts with `prefix`."""
    return (_KV_PREFIX, prefix)


class _Registration:
    __slots__ = ("callback", "keys")

    def __init__(self, callback: Callback, keys: tuple[Hashable, ...]) -> None:
        self.callback: Callback | None = callback
        self.keys = keys


class WatchRegistry:
    """The waiting callbacks of one store, by key."""

    __slots__ = ("_by_key", "_prefix_lengths", "generation", "version")

    def __init__(self) -> None:
        self._by_key: dict[Hashable, dict[_Registration, None]] = {}
        self._prefix_lengths: dict[int, int] = {}
        self.version = 0
        """Counts commits, so that a watch taken before one and added after it is noticed."""
        self.generation = 0
        """Counts replacements of the whole state, after which indexes no longer compare."""

    def __len__(self) -> int:
        """Keys that somebody waits for."""
        return len(self._by_key)

    def register(self, keys: tuple[Hashable, ...], callback: Callback) -> _Registration:
        registration = _Registration(callback, keys)
        for key in keys:
            waiting = self._by_key.get(key)
            if waiting is None:
                waiting = self._by_key[key] = {}
                self._count_prefix(key, 1)
            waiting[registration] = None
        return registration

    def unregister(self, registration: _Registration) -> None:
        registration.callback = None
        for key in registration.keys:
            waiting = self._by_key.get(key)
            if waiting is None or registration not in waiting:
                continue
            del waiting[registration]
            if not waiting:
                del self._by_key[key]
                self._count_prefix(key, -1)

    def fire(self, touched: Iterable[Hashable]) -> None:
        """Call everyone who waits for one of `touched`, each once."""
        self.version += 1
        if not self._by_key:
            return
        woken: dict[_Registration, None] = {}
        for key in touched:
            waiting = self._by_key.get(key)
            if waiting:
                woken.update(waiting)
            if self._prefix_lengths and isinstance(key, tuple) and key[0] == _KV:
                for length in self._prefix_lengths:
                    if length <= len(key[1]):
                        waiting = self._by_key.get((_KV_PREFIX, key[1][:length]))
                        if waiting:
                            woken.update(waiting)
        self._wake(woken)

    def fire_all(self) -> None:
        """Call everyone, for when the whole state was replaced."""
        self.version += 1
        self.generation += 1
        woken: dict[_Registration, None] = {}
        for waiting in self._by_key.values():
            woken.update(waiting)
        self._wake(woken)

    def _wake(self, woken: dict[_Registration, None]) -> None:
        callbacks = []
        for registration in woken:
            if registration.callback is not None:
                callbacks.append(registration.callback)
                self.unregister(registration)
        for callback in callbacks:
            callback()

    def _count_prefix(self, key: Hashable, change: int) -> None:
        if not (isinstance(key, tuple) and key[0] == _KV_PREFIX):
            return
        length = len(key[1])
        count = self._prefix_lengths.get(length, 0) + change
        if count:
            self._prefix_lengths[length] = count
        else:
            del self._prefix_lengths[length]


class Watch:
    """What an answer depends on. Costs nothing until `add` is called."""

    __slots__ = ("_keys", "_registrations", "_registry", "_version", "generation")

    def __init__(self, registry: WatchRegistry, keys: tuple[Hashable, ...]) -> None:
        self._registry = registry
        self._keys = keys
        self._version = registry.version
        self.generation = registry.generation
        """Which state the answer is of; another one after a restore."""
        self._registrations: dict[Callback, _Registration] = {}

    def add(self, callback: Callback) -> None:
        """Call `callback` once, after the next commit that concerns the answer.

        If anything was committed since the answer was computed, it is called before `add`
        returns, since that commit may have been a relevant one.
        """
        if self._registry.version != self._version:
            callback()
            return
        self.cancel(callback)
        self._registrations[callback] = self._registry.register(self._keys, callback)

    def cancel(self, callback: Callback) -> None:
        """Forget `callback`; harmless if it was called or never added."""
        registration = self._registrations.pop(callback, None)
        if registration is not None:
            self._registry.unregister(registration)

    def merged(self, other: Watch) -> Watch:
        """A watch that fires when either would."""
        both = Watch(self._registry, (*self._keys, *other._keys))
        both._version = min(self._version, other._version)
        both.generation = min(self.generation, other.generation)
        return both


class Answer(NamedTuple, Generic[T]):
    """A query's result: the index to block on (never 0), the value, and what wakes it."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    value: T
    watch: Watch
