"""Text that knows where it comes from, through everything that a chat template does to it.

A template may trim a message, split it at `</think>`, join it to a header: the pieces of a `Tracked` string still say
which message, which part of it and which of its characters they are. All else about them is an ordinary string.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, SupportsIndex

NOWHERE = -1  # the turn of text that belongs to no message
MESSAGE = "message"  # the part of a whole message
UNKNOWN = -1  # the position of text that was rewritten, as JSON for instance


class Run(NamedTuple):
    """`size` characters of one origin.

    turn, part, at: the message, its part and the position in that part's text; `part` is "" for the template's own
    text. host: the message that the template was rendering when it wrote them, None if it has not written them yet.
    generation: they were written inside of {% generation %}.
    """

    size: int
    turn: int = NOWHERE
    part: str = ""
    at: int = UNKNOWN
    host: int | None = None
    generation: bool = False


class Tracked(str):
    """A string with the origin of its characters. `_runs` covers it exactly."""

    __slots__ = ("_runs",)
    _runs: tuple[Run, ...]

    def __str__(self) -> str:
        return self  # `str(value)` in a compiled template keeps the origin

    def __add__(self, other: str) -> str:
        return join((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> str:
        return join((other, self)) if isinstance(other, str) else NotImplemented

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        text = str.__getitem__(self, key)
        if not isinstance(key, slice):
            start = range(len(self))[key]
            return self._part(start, start + 1)
        start, stop, step = key.indices(len(self))
        return self._part(start, max(start, stop)) if step == 1 else text

    def __iter__(self) -> Iterator[str]:
        return (self._part(at, at + 1) for at in range(len(self)))

    def strip(self, chars: str | None = None, /) -> str:
        start = len(self) - len(str.lstrip(self, chars))
        return self._part(start, max(start, len(str.rstrip(self, chars))))

    def lstrip(self, chars: str | None = None, /) -> str:
        return self._part(len(self) - len(str.lstrip(self, chars)), len(self))

    def rstrip(self, chars: str | None = None, /) -> str:
        return self._part(0, len(str.rstrip(self, chars)))

    def removeprefix(self, prefix: str, /) -> str:
        return self._part(len(prefix) if self.startswith(prefix) else 0, len(self))

    def removesuffix(self, suffix: str, /) -> str:
        return self._part(0, len(self) - (len(suffix) if suffix and self.endswith(suffix) else 0))

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._pieces(str.split(self, sep, maxsplit), sep or "")

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._pieces(str.rsplit(self, sep, maxsplit), sep or "")

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self._pieces(str.splitlines(self, keepends))

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        head, mark, tail = self._pieces(str.partition(self, sep))
        return head, mark, tail

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        head, mark, tail = self._pieces(str.rpartition(self, sep))
        return head, mark, tail

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        return join(self.split(old, count), new) if old else str.replace(self, old, new, count)

    def lower(self) -> str:
        return self._like(str.lower(self))

    def upper(self) -> str:
        return self._like(str.upper(self))

    def capitalize(self) -> str:
        return self._like(str.capitalize(self))

    def title(self) -> str:
        return self._like(str.title(self))

    def _like(self, text: str) -> str:
        return tracked(text, self._runs) if len(text) == len(self) else text

    def _part(self, start: int, stop: int) -> str:
        return tracked(str.__getitem__(self, slice(start, stop)), _cut(self._runs, start, stop))

    def _pieces(self, pieces: Iterable[str], between: str = "") -> list[str]:
        """The pieces, which stand in this order in the text, with `between` or else blanks between them."""
        found, at = [], 0
        for piece in pieces:
            at = at if between else str.index(self, piece, at)
            found.append(self._part(at, at + len(piece)))
            at += len(piece) + len(between)
        return found


class TrackedDict(dict[str, Any]):
    """A message, a tool call or another object of a row. turn: its message, `NOWHERE` for a tool."""

    __slots__ = ("_part", "_turn")

    def __init__(self, values: Mapping[str, Any], turn: int, part: str) -> None:
        super().__init__(values)
        self._turn, self._part = turn, part


def tracked(text: str, runs: Iterable[Run]) -> Tracked:
    """`text` with the runs that cover it."""
    made = Tracked(text)
    made._runs = tuple(runs)
    return made


def origin(text: str, turn: int, part: str) -> Tracked:
    """`text` as the `part` of a message."""
    return tracked(text, [Run(len(text), turn, part, 0)])


def runs_of(text: str) -> tuple[Run, ...]:
    """The origin of a string's characters."""
    return text._runs if isinstance(text, Tracked) else (Run(len(text)),)


def join(pieces: Iterable[Any], between: str = "") -> Tracked:
    """The pieces as one string, each with its origin."""
    texts, runs = list[str](), list[Run]()
    gap = runs_of(between) if between else ()
    for piece in pieces:
        text = piece if isinstance(piece, str) else str(piece)
        if texts:
            runs.extend(gap)
        texts.append(text)
        runs.extend(runs_of(text))
    return tracked(str.join(between, texts), runs)


def track(value: Any, turn: int, part: str) -> Any:
    """A JSON value whose objects and strings, keys included, come from the `part` of a message."""
    if isinstance(value, str):
        return tracked(value, [Run(len(value), turn, part)])
    if isinstance(value, Mapping):
        return TrackedDict({track(k, turn, part): track(v, turn, part) for k, v in value.items()}, turn, part)
    if isinstance(value, list):
        return [track(item, turn, part) for item in value]
    return value


def to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, **more: Any) -> str:
    """The filter `tojson` of chat templates, whose result comes from where the value came from."""
    if isinstance(value, list) and indent is None:  # of several calls, say: each item from where it came from
        items = [to_json(item, ensure_ascii, indent, separators, **more) for item in value]
        return join(["[", join(items, separators[0] if separators else ", "), "]"])
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, **more)
    source = _source(value)
    return text if source is None else tracked(text, [Run(len(text), *source)])


def _source(value: Any) -> tuple[int, str] | None:
    if isinstance(value, TrackedDict):
        return value._turn, value._part
    if isinstance(value, Tracked):
        return next(((run.turn, run.part) for run in value._runs if run.part), None)
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((found for item in items if (found := _source(item)) is not None), None)


def _cut(runs: Iterable[Run], start: int, stop: int) -> Iterator[Run]:
    """The runs between two positions."""
    first = 0
    for run in runs:
        low, high = max(start, first), min(stop, first + run.size)
        if low < high:
            at = run.at + low - first if run.at != UNKNOWN else UNKNOWN
            yield run._replace(size=high - low, at=at)
        first += run.size
