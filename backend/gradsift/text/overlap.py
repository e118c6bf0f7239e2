"""Which examples share text with a conversation: whole turns, short questions, or thirteen words in a row.

Words are those of `words.tokenize`: lower-cased runs of letters and digits, and single characters in scripts without
spaces (Han, Kana, Thai, Lao, Khmer, Burmese), where thirteen words are thus thirteen characters. A text without such
words is split at blanks. System turns are ignored, since prompts like "You are a helpful assistant" are in every file.
A conversation and an example match in one of three ways:

    equal        they have a turn, or the whole text, with the same words; turns of fewer than 5 words count only
                 between two user turns, since answers like "Yes." mean little
    contained    the example's question (a user turn, or a text without a role), or the whole example, has 5 to 12 words
                 and occurs word for word
    run          they share 13 words in a row, across turns if need be (Brown et al. 2020, appendix C)
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Literal
from zlib import crc32

import numpy as np

from gradsift.text.words import tokenize, word_spans

RUN = 13  # words
SHORTEST = 5  # words of a text that means something by itself
MOST_HITS = 3  # examples listed for one conversation; the others are counted
_AROUND = 160  # characters quoted before and after the shared text
_LONGEST = 600  # characters quoted of the shared text
_FEWEST_BITS = 12
_random = np.random.default_rng(0)
_PLACES = _random.integers(2**64, size=RUN, dtype=np.uint64) | np.uint64(1)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, as in splitmix64

Turns = Sequence[tuple[str, str]]  # (role, text); the role is "" if there is none
_Worded = list[tuple[str, list[str]]]


@dataclass(frozen=True, slots=True)
class Example:
    """A text that conversations are compared with."""

    file: str
    line: int  # from 1
    id: str
    turns: Turns


@dataclass(frozen=True, slots=True)
class Quote:
    """The shared text as it appears on one side, with its context."""

    before: str
    shared: str
    after: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A run of `words` words that a conversation shares with example number `example`; quotes on request."""

    kind: Literal["equal", "contained", "run"]
    words: int
    example: int
    yours: Quote | None
    theirs: Quote | None


@dataclass(frozen=True, slots=True)
class _Span:
    kind: Literal["equal", "contained", "run"]
    words: int
    mine: int  # number of the first shared word
    theirs: int


class Matcher:
    """Examples prepared for comparison with any number of conversations; takes about 100 bytes per word of theirs."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = list(examples)
        self._turns = [_worded(example.turns) for example in self.examples]
        self._words = [_flat(turns) for turns in self._turns]
        self._equal: dict[tuple[str, str], list[int]] = {}
        for number, turns in enumerate(self._turns):
            for key in _keys(turns):
                self._equal.setdefault(key, []).append(number)
        self._starts = _starts(self._words)
        self._tables = self._make_tables()

    def _make_tables(self) -> "dict[int, _Table]":
        """By length, the windows of the examples' words that matter: all of 13 words, and shorter whole texts."""
        positions: dict[int, list[int]] = {length: [] for length in range(SHORTEST, RUN)}
        for start, turns, words in zip(self._starts.tolist(), self._turns, self._words, strict=False):
            firsts = accumulate((len(part) for _, part in turns), initial=0)
            texts = {(first, len(part)) for first, (role, part) in zip(firsts, turns, strict=False) if _asks(role)}
            for first, length in texts | {(0, len(words))}:
                if length in positions:
                    positions[length].append(start + first)
        codes = _codes(chain.from_iterable(self._words))
        owner = np.repeat(np.arange(len(self._words)), [len(words) for words in self._words])
        tables = {}
        for length, hashes in _window_hashes(codes):
            if length == RUN:
                at = np.flatnonzero(owner[: len(hashes)] == owner[RUN - 1 :])
            else:
                at = np.array(positions.get(length, []), dtype=np.int64)
            if len(at):
                tables[length] = _Table(hashes[at], at)
        return tables

    def find(self, conversations: Sequence[Turns], quote: bool = True) -> list[tuple[tuple[Hit, ...], int]]:
        """For each conversation its hits, at most three, longest first, and how many more examples it hits.

        Of several examples with the same thirteen words only the first counts, so more may share them than are counted.
        """
        worded = [_worded(turns) for turns in conversations]
        words = [_flat(turns) for turns in worded]
        spans: list[dict[int, _Span]] = [{} for _ in words]  # example -> the longest shared text
        for number, turns in enumerate(worded):
            for key in _keys(turns):
                for example in self._equal.get(key, ()):
                    _keep(spans[number], example, _equal_span(key, turns, self._turns[example]))
        for number, mine, example, theirs, length in self._candidates(words):
            span = _extended(words[number], mine, self._words[example], theirs, length)
            if span is not None:
                _keep(spans[number], example, span)
        return [self._hits(turns, by_example, quote) for turns, by_example in zip(conversations, spans, strict=True)]

    def _candidates(self, words: list[list[str]]) -> Iterator[tuple[int, int, int, int, int]]:
        """Windows with equal hashes, one per shared run: conversation, its word, example, its word, length."""
        starts, codes = _starts(words), _codes(chain.from_iterable(words))
        owner = np.repeat(np.arange(len(words)), [len(part) for part in words])
        for length, hashes in _window_hashes(codes):
            if length not in self._tables:
                continue
            mine, theirs = self._tables[length].find(hashes)
            inside = owner[mine] == owner[mine + length - 1]
            mine, theirs = mine[inside], theirs[inside]
            continues = np.zeros(len(mine), dtype=bool)
            continues[1:] = (np.diff(mine) == 1) & (np.diff(theirs) == 1) & (np.diff(owner[mine]) == 0)
            mine, theirs = mine[~continues], theirs[~continues]
            number, example = owner[mine], np.searchsorted(self._starts, theirs, side="right") - 1
            columns = (number, mine - starts[number], example, theirs - self._starts[example])
            for entry in zip(*(column.tolist() for column in columns), strict=True):
                yield (*entry, length)

    def _hits(self, turns: Turns, spans: dict[int, _Span], quote: bool) -> tuple[tuple[Hit, ...], int]:
        best = sorted(spans.items(), key=lambda item: (-item[1].words, item[0]))
        hits = []
        for example, span in best[:MOST_HITS]:
            yours = _quote(turns, span.mine, span.words) if quote else None
            theirs = _quote(self.examples[example].turns, span.theirs, span.words) if quote else None
            hits.append(Hit(span.kind, span.words, example, yours, theirs))
        return tuple(hits), len(best) - len(hits)


class _Table:
    """A set of windows: where each hash first occurs. A bit per hash rules out most lookups at once."""

    def __init__(self, hashes: np.ndarray, at: np.ndarray) -> None:
        self._hashes, first = np.unique(hashes, return_index=True)
        self._at = at[first]
        bits = max(_FEWEST_BITS, int(len(self._hashes) * 16).bit_length())
        self._shift = np.uint64(64 - bits)
        self._bits = np.zeros(2**bits, dtype=bool)
        self._bits[self._hashes >> self._shift] = True

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in `hashes` whose hash is in the set, and where that hash first occurs there."""
        candidates = np.flatnonzero(self._bits[hashes >> self._shift])
        place = np.searchsorted(self._hashes, hashes[candidates]).clip(max=len(self._hashes) - 1)
        same = self._hashes[place] == hashes[candidates]
        return candidates[same], self._at[place[same]]


def _window_hashes(codes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """For each length from 1 to RUN, the hashes of all windows of that many words."""
    total = np.zeros(len(codes), dtype=np.uint64)
    for place, factor in enumerate(_PLACES):
        if len(codes) <= place:
            return
        total = total[: len(codes) - place] + codes[place:] * factor
        mixed = (total ^ (total >> np.uint64(32))) * _MIX
        yield place + 1, mixed ^ (mixed >> np.uint64(32))


def _codes(words: Iterable[str]) -> np.ndarray:
    return np.fromiter((crc32(word.encode("utf-8", "replace")) for word in words), dtype=np.uint64)


def _starts(texts: list[list[str]]) -> np.ndarray:
    """(texts,) where each text begins when they are concatenated."""
    return np.cumsum([0, *map(len, texts)])[:-1]


def _worded(turns: Iterable[tuple[str, str]]) -> _Worded:
    return [(role, _split(text)) for role, text in turns if role != "system"]


def _split(text: str) -> list[str]:
    return tokenize(text) or text.lower().split()


def _flat(turns: _Worded) -> list[str]:
    return [word for _, part in turns for word in part]


def _asks(role: str) -> bool:
    return role in ("user", "")


def _keys(turns: _Worded) -> Iterator[tuple[str, str]]:
    """The keys of all turns and of the whole text; equal keys mean equal words."""
    for role, part in turns:
        if len(part) >= SHORTEST:
            yield "turn", " ".join(part)
        elif part and role == "user":
            yield "user", " ".join(part)
    if whole := " ".join(_flat(turns)):
        yield "whole", whole


def _equal_span(key: tuple[str, str], mine: _Worded, theirs: _Worded) -> _Span:
    words = key[1].count(" ") + 1
    return _Span("equal", words, _first_of(key, mine), _first_of(key, theirs))


def _first_of(key: tuple[str, str], turns: _Worded) -> int:
    """Number of the first word of the turn that has this key."""
    first = 0
    for role, part in turns if key[0] != "whole" else ():
        if " ".join(part) == key[1] and (key[0] == "turn" or role == "user"):
            return first
        first += len(part)
    return 0


def _extended(mine: list[str], at: int, theirs: list[str], first: int, length: int) -> _Span | None:
    """The shared window, extended as far as possible if it is a run; None if only the hashes are equal."""
    if mine[at : at + length] != theirs[first : first + length]:
        return None
    if length < RUN:
        return _Span("contained", length, at, first)
    while at and first and mine[at - 1] == theirs[first - 1]:
        at, first, length = at - 1, first - 1, length + 1
    most = min(len(mine) - at, len(theirs) - first)
    while length < most and mine[at + length] == theirs[first + length]:
        length += 1
    return _Span("run", length, at, first)


def _keep(spans: dict[int, _Span], example: int, span: _Span) -> None:
    best = spans.get(example)
    if best is None or (span.words, span.kind == "equal") > (best.words, best.kind == "equal"):
        spans[example] = span


def _quote(turns: Turns, first: int, words: int) -> Quote:
    """The text of `words` words from number `first` on, counted over the turns, with some context."""
    texts = [text for role, text in turns if role != "system"]
    offsets = accumulate((len(text) + 2 for text in texts), initial=0)
    spans = [(start + o, end + o) for o, text in zip(offsets, texts, strict=False) for start, end in _spans(text)]
    text = "\n\n".join(texts)
    start, end = spans[first][0], spans[first + words - 1][1]
    before, shared, after = text[max(0, start - _AROUND) : start], text[start:end], text[end : end + _AROUND]
    if len(shared) > _LONGEST:
        shared = f"{shared[: _LONGEST // 2]} … {shared[-_LONGEST // 2 :]}"
    return Quote(f"{'…' * (start > _AROUND)}{before}", shared, f"{after}{'…' * (end + _AROUND < len(text))}")


def _spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of every word of `_split`."""
    words = tokenize(text)
    return word_spans(text, set(words)) if words else [match.span() for match in re.finditer(r"\S+", text)]
