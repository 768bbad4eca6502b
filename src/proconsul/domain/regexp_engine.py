"""The engine of `regexps`: an expression becomes a small program (Thompson).

A DFA that is built as it goes runs it over the text for `matches`, and a list of threads for `groups`.
"""

from __future__ import annotations

from typing import NamedTuple

from proconsul.domain.regexp_classes import Matcher
from proconsul.domain.regexp_syntax import (
    Alternate,
    Anchor,
    Capture,
    Char,
    Concat,
    Node,
    Parser,
    Repeat,
)
from proconsul.domain.regexps import PROGRAM_MAX, RegexpError

TRANSITIONS_MAX = 10_000
"""Remembered steps of one expression's DFA; then it starts to forget."""


class _Step(NamedTuple):
    """One instruction: take a character, or go on at a place, or fork, remember, match."""

    matcher: Matcher | None = None
    anchor: str = ""
    slot: int = -1
    next: tuple[int, ...] = ()
    """Where to go on, the preferred first; empty is a match."""


class _State(NamedTuple):
    """Of the DFA: where the threads stand, and what kind of character was read last."""

    places: frozenset[int]
    before: str


class Regexp:
    """A compiled expression; made by `compile_regexp`."""

    def __init__(self, source: str) -> None:
        parser = Parser(source)
        tree = parser.parse()
        self.source = source
        self.captures = parser.captures
        self._program: list[_Step] = []
        # The end stands first: whatever follows knows where to go on.
        self._program.append(_Step())
        self._start = self._emit(Capture(tree, 0), 0)
        self._first = _State(frozenset((self._start,)), "")
        self._steps: dict[tuple[_State, str], _State | bool] = {}
        self.work = 0
        """Places visited so far: what it has cost beyond steps that were known."""

    def matches(self, text: str) -> bool:
        """Whether `text` contains a match (`MatchString`)."""
        state = self._first
        steps = self._steps
        for char in text:
            found = steps.get((state, char))
            if found is None:
                found = self._learn(state, char)
            if found is True:
                return True
            state = found  # type: ignore[assignment]
        return self._closure(state.places, state.before, "")[1]

    def groups(self, text: str) -> list[str] | None:
        """The leftmost match and its groups (`FindStringSubmatch`); None if there is none."""
        count = 2 * (self.captures + 1)
        threads: list[tuple[int, tuple[int, ...]]] = []
        best: tuple[int, ...] | None = None
        before = ""
        for at in range(len(text) + 1):
            char = text[at : at + 1]
            if best is None:
                threads.append((self._start, (-1,) * count))
            live, won = self._follow(threads, before, char, at)
            best = won or best
            threads = [
                (step.next[0], slots)
                for place, slots in live
                if (step := self._program[place]).matcher is not None
                and char
                and step.matcher(char)
            ]
            if not threads and best is not None:
                break
            before = char
        if best is None:
            return None
        return [text[max(a, 0) : max(b, 0)] for a, b in zip(best[::2], best[1::2], strict=True)]

    # -- compiling

    def _add(self, step: _Step) -> int:
        if len(self._program) >= PROGRAM_MAX:
            raise RegexpError("expression too large", self.source)
        self._program.append(step)
        return len(self._program) - 1

    def _emit(self, node: Node, then: int) -> int:
        """Instructions for `node` that go on at `then`; where they begin."""
        match node:
            case Char(matches):
                return self._add(_Step(matcher=matches, next=(then,)))
            case Anchor(kind):
                return self._add(_Step(anchor=kind, next=(then,)))
            case Concat(parts):
                for part in reversed(parts):
                    then = self._emit(part, then)
                return then
            case Alternate(choices):
                return self._add(_Step(next=tuple(self._emit(c, then) for c in choices)))
            case Capture(of, number):
                inside = self._emit(of, self._add(_Step(slot=2 * number + 1, next=(then,))))
                return self._add(_Step(slot=2 * number, next=(inside,)))
            case Repeat():
                return self._emit_repeat(node, then)

    def _emit_repeat(self, node: Repeat, then: int) -> int:
        of, low, high, greedy = node
        if high is None:
            loop = self._add(_Step())
            inside = self._emit(of, loop)
            self._program[loop] = _Step(next=(inside, then) if greedy else (then, inside))
            # One more of what must be there: `x+` is `x x*`, and an empty `x` cannot loop.
            then = loop
        else:
            end = then
            for _ in range(high - low):
                inside = self._emit(of, then)
                then = self._add(_Step(next=(inside, end) if greedy else (end, inside)))
        for _ in range(low):
            then = self._emit(of, then)
        return then

    # -- running

    def _learn(self, state: _State, char: str) -> _State | bool:
        live, matched = self._closure(state.places, state.before, char)
        result: _State | bool = True
        if not matched:
            after = {
                step.next[0]
                for place in live
                if (step := self._program[place]).matcher is not None and step.matcher(char)
            }
            after.add(self._start)
            result = _State(frozenset(after), _kind(char))
        if len(self._steps) >= TRANSITIONS_MAX:
            self._steps.clear()
        self._steps[state, char] = result
        return result

    def _closure(self, places: frozenset[int], before: str, after: str) -> tuple[set[int], bool]:
        """All places that are reached between two characters, and whether one is the end."""
        reached: set[int] = set()
        waiting = list(places)
        while waiting:
            place = waiting.pop()
            if place in reached:
                continue
            reached.add(place)
            step = self._program[place]
            if place == 0:
                self.work += len(reached)
                return reached, True
            if step.matcher is None and (not step.anchor or _holds(step.anchor, before, after)):
                waiting.extend(step.next)
        self.work += len(reached)
        return reached, False

    def _follow(
        self, threads: list[tuple[int, tuple[int, ...]]], before: str, after: str, at: int
    ) -> tuple[list[tuple[int, tuple[int, ...]]], tuple[int, ...] | None]:
        """The threads in their order of preference up to the first that matched, and its slots."""
        reached: set[int] = set()
        live: list[tuple[int, tuple[int, ...]]] = []
        waiting = threads[::-1]
        while waiting:
            place, slots = waiting.pop()
            if place in reached:
                continue
            reached.add(place)
            step = self._program[place]
            if place == 0:
                return live, slots
            if step.matcher is not None:
                live.append((place, slots))
                continue
            if step.anchor and not _holds(step.anchor, before, after):
                continue
            if step.slot >= 0:
                slots = (*slots[: step.slot], at, *slots[step.slot + 1 :])
            waiting.extend((next_, slots) for next_ in reversed(step.next))
        return live, None


def _is_word(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char == "_")


def _kind(char: str) -> str:
    """A stand-in for all characters that anchors do not tell apart."""
    if char == "\n":
        return char
    return "w" if _is_word(char) else "."


def _holds(anchor: str, before: str, after: str) -> bool:
    """Whether an anchor holds between two characters; "" is the end of the text."""
    match anchor:
        case "begin_text":
            return not before
        case "end_text":
            return not after
        case "begin_line":
            return before in {"", "\n"}
        case "end_line":
            return after in {"", "\n"}
        case _:
            return (_is_word(before) != _is_word(after)) == (anchor == "word")
