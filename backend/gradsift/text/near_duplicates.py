"""Near-duplicates: texts whose sets of five-word runs overlap by a Jaccard index of at least 0.8, in groups.

MinHash signatures (Broder 1997), cut into bands (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section
3.4), propose pairs; the sets themselves decide; pairs that share a text are one group. A changed word takes five runs
with it, so a copy with one is found among texts of some fifty words and more. Shorter texts must have the same words,
but for one or two at an end; below five words all of them are one run.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable
from itertools import islice
from typing import IO

import numpy as np

from gradsift.text.words import tokenize

SIMILAR = 0.8  # Jaccard index from which two texts are near-duplicates
RUN = 5  # words
BANDS, BAND = 25, 5  # no band in common: once in 20,000 times for sets that overlap by 0.8, every second time by 0.5
PROMISING = 0.7  # share of equal slots from which sets are compared: almost 3 standard deviations below SIMILAR
NEIGHBORS = 16  # pairs per text and band: a template that thousands of rows share must not cost their square
TIRED, SURE = 64, 0.85  # a pair whose two sets were compared in vain so often has to promise so much, likewise
_BATCH = 2000

_random = np.random.default_rng(0)
_PLACES = _random.integers(2**64, size=RUN, dtype=np.uint64) | np.uint64(1)
_SLOTS = _random.integers(2**64, size=BANDS * BAND, dtype=np.uint64) | np.uint64(1)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, as in splitmix64


def near_duplicates(
    texts: Iterable[str], scratch: IO[bytes], done: Callable[[int], None] = lambda texts: None
) -> np.ndarray:
    """For each text the position of the first of its group, (texts,) int64; its own where it has no near-duplicate.

    Texts are compared by `tokenize`'s words, those without any by what is between blanks; an empty one is like none.

    scratch: an empty file open for writing and reading, for the sets (some 8 bytes a word). `done(n)` is called after
    every n texts read.
    """
    first: dict[bytes, int] = {}
    near: list[int] = []
    distinct: list[int] = []  # positions of the texts that are like none before them, word by word
    signatures, ends = [np.empty((0, len(_SLOTS)), np.uint32)], [0]
    rest = iter(texts)
    while batch := list(islice(rest, _BATCH)):
        fresh = []
        for position, text in enumerate(batch, start=len(near)):
            words = tokenize(text) or text.lower().split()
            near.append(first.setdefault(_digest(words), position) if words else position)
            if words and near[-1] == position:
                distinct.append(position)
                fresh.append(words)
        if fresh:
            runs, starts = _runs(fresh)
            signatures.append(_signatures(runs, starts))
            for members in map(np.unique, np.split(runs, starts[1:])):
                scratch.write(members.data)
                ends.append(ends[-1] + len(members))
        done(len(batch))
    scratch.flush()
    groups, positions = np.array(near, np.int64), np.array(distinct, np.int64)
    if len(distinct):
        sets = np.memmap(scratch, np.uint64, mode="r")
        groups[positions] = positions[_Groups(np.concatenate(signatures), sets, np.array(ends)).found()]
    return groups[groups]


class _Groups:
    """signatures: (n, BANDS * BAND) uint32. sets: the members of every set, one after another, sorted. ends: (n+1,)."""

    def __init__(self, signatures: np.ndarray, sets: np.ndarray, ends: np.ndarray) -> None:
        self.signatures, self.sets, self.ends, self.sizes = signatures, sets, ends, np.diff(ends)
        self.root = np.arange(len(signatures))  # of a set's group: its first set
        self.refused = np.zeros(len(signatures), np.int32)  # comparisons in vain

    def found(self) -> np.ndarray:
        """(n,) the first set of each set's group. In a band, sets that share the next one too are compared first."""
        keys = self._keys(0)
        for band in range(BANDS):
            following = self._keys((band + 1) % BANDS)
            order = np.lexsort((following, keys))
            ordered = keys[order]
            for apart in range(1, NEIGHBORS + 1):
                at = np.flatnonzero(ordered[apart:] == ordered[:-apart])
                if not len(at):
                    break
                self._compare(order[at], order[at + apart])
            keys = following
        return self.root

    def _keys(self, band: int) -> np.ndarray:
        """(n,) one number per set for the slots of a band."""
        slots = self.signatures[:, band * BAND : (band + 1) * BAND].astype(np.uint64)
        return (slots * _PLACES[:BAND]).sum(1)

    def _compare(self, left: np.ndarray, right: np.ndarray) -> None:
        """Join the groups of each pair that is similar, (pairs,) and (pairs,) numbers of sets."""
        small, large = np.sort([self.sizes[left], self.sizes[right]], axis=0)
        open_ = (self.root[left] != self.root[right]) & (small >= SIMILAR * large)
        left, right = left[open_], right[open_]
        equal = [
            (self.signatures[left[at : at + _BATCH]] == self.signatures[right[at : at + _BATCH]]).mean(1)
            for at in range(0, len(left), _BATCH)
        ]
        tired = self.refused[left] + self.refused[right] >= TIRED
        promising = np.concatenate([*equal, []]) >= np.where(tired, SURE, PROMISING)
        for pair in zip(left[promising].tolist(), right[promising].tolist(), strict=True):
            a, b = map(self._root, pair)
            if a != b:
                if self._jaccard(*pair) >= SIMILAR:
                    self.root[max(a, b)] = min(a, b)
                else:
                    self.refused[list(pair)] += 1
        while (self.root != self.root[self.root]).any():
            self.root = self.root[self.root]

    def _root(self, member: int) -> int:
        while self.root[member] != member:
            member = int(self.root[member])
        return member

    def _jaccard(self, left: int, right: int) -> float:
        a, b = (self.sets[self.ends[i] : self.ends[i + 1]] for i in (left, right))
        common = len(np.intersect1d(a, b, assume_unique=True))
        return common / (len(a) + len(b) - common)


def _digest(words: list[str]) -> bytes:
    return hashlib.blake2b(" ".join(words).encode(), digest_size=16).digest()


def _runs(texts: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of every text's runs of RUN words, one text after another, (runs,) uint64, and where each text starts."""
    padded = [[*map(zlib.crc32, map(str.encode, words)), *[0] * (RUN - len(words))] for words in texts]
    lengths = np.array([len(words) for words in padded])
    words = np.array([word for text in padded for word in text], np.uint64)
    text = np.repeat(np.arange(len(texts)), lengths)
    count = len(words) - RUN + 1
    runs = np.zeros(count, np.uint64)
    for place, factor in enumerate(_PLACES):
        runs += words[place : place + count] * factor
    runs = (runs ^ (runs >> np.uint64(32))) * _MIX
    whole = text[:count] == text[RUN - 1 :]
    return (runs ^ (runs >> np.uint64(32)))[whole], np.cumsum(lengths - RUN + 1) - (lengths - RUN + 1)


def _signatures(runs: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(texts, BANDS * BAND) uint32: per slot the least multiply-shift hash (Dietzfelbinger 1997) of a text's runs."""
    slots = np.empty((len(starts), len(_SLOTS)), np.uint32)
    for slot, factor in enumerate(_SLOTS):
        slots[:, slot] = np.minimum.reduceat((runs * factor) >> np.uint64(32), starts)
    return slots
