"""Groups of near-duplicates: texts whose sets of five-word runs have a Jaccard index of at least 0.8.

MinHash signatures (Broder 1997), cut into bands (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section
3.4), propose pairs; the sets themselves decide; pairs that share a text form one group. A changed word alters five
runs, so a copy with one changed word is recognized from about fifty words on. Shorter texts must have the same words
except for one or two at an end; a text of fewer than five words is a single run.
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
BANDS, BAND = 25, 5  # sets with Jaccard index 0.8 share no band once in 20,000 times, those with 0.5 every other time
PROMISING = 0.7  # share of equal slots above which sets are compared: almost 3 standard deviations below SIMILAR
NEIGHBORS = 16  # pairs per text and band, so that thousands of rows of one template do not cost their square
TIRED, SURE = 64, 0.85  # after so many failed comparisons of its sets, a pair needs this share of equal slots
_BATCH = 2000

_random = np.random.default_rng(0)
_PLACES = _random.integers(2**64, size=RUN, dtype=np.uint64) | np.uint64(1)
_SLOTS = _random.integers(2**64, size=BANDS * BAND, dtype=np.uint64) | np.uint64(1)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, as in splitmix64


def near_duplicates(
    texts: Iterable[str], scratch: IO[bytes], done: Callable[[int], None] = lambda texts: None
) -> np.ndarray:
    """(texts,) int64: for each text the position of the first text in its group; its own if it has no near-duplicate.

    Texts are compared by the words of `tokenize`, or split at blanks if they have none; empty texts match nothing.

    scratch: an empty file open for writing and reading, for the sets (about 8 bytes per word). `done(n)` is called
    after every n texts.
    """
    first: dict[bytes, int] = {}
    near: list[int] = []
    distinct: list[int] = []  # positions of texts that equal no earlier one, word by word
    signatures, ends = [np.empty((0, len(_SLOTS)), np.uint32)], [0]
    stream = iter(texts)
    while batch := list(islice(stream, _BATCH)):
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
        groups[positions] = positions[_Groups(np.concatenate(signatures), sets, np.array(ends)).roots()]
    return groups[groups]


class _Groups:
    """signatures: (n, BANDS * BAND) uint32. sets: sorted members of all sets, concatenated. ends: (n+1,)."""

    def __init__(self, signatures: np.ndarray, sets: np.ndarray, ends: np.ndarray) -> None:
        self.signatures, self.sets, self.ends, self.sizes = signatures, sets, ends, np.diff(ends)
        self.root = np.arange(len(signatures))  # the first set of each set's group
        self.refused = np.zeros(len(signatures), np.int32)  # failed comparisons of each set

    def roots(self) -> np.ndarray:
        """(n,) the first set of each set's group. In each band, sets that share the next one as well come first."""
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
        """(n,) one number per set for its slots in a band."""
        slots = self.signatures[:, band * BAND : (band + 1) * BAND].astype(np.uint64)
        return (slots * _PLACES[:BAND]).sum(1)

    def _compare(self, left: np.ndarray, right: np.ndarray) -> None:
        """Join the groups of each similar pair. left, right: (pairs,) numbers of sets."""
        small, large = np.sort([self.sizes[left], self.sizes[right]], axis=0)
        candidates = (self.root[left] != self.root[right]) & (small >= SIMILAR * large)
        left, right = left[candidates], right[candidates]
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
    """Hashes of every text's runs of RUN words, concatenated (runs,) uint64, and where each text starts."""
    padded = [[*map(zlib.crc32, map(str.encode, words)), *[0] * (RUN - len(words))] for words in texts]
    lengths = np.array([len(words) for words in padded])
    words = np.array([word for text in padded for word in text], np.uint64)
    text = np.repeat(np.arange(len(texts)), lengths)
    count = len(words) - RUN + 1
    runs = np.zeros(count, np.uint64)
    for place, factor in enumerate(_PLACES):
        runs += words[place : place + count] * factor
    runs = (runs ^ (runs >> np.uint64(32))) * _MIX
    inside = text[:count] == text[RUN - 1 :]
    return (runs ^ (runs >> np.uint64(32)))[inside], np.cumsum(lengths - RUN + 1) - (lengths - RUN + 1)


def _signatures(runs: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(texts, BANDS * BAND) uint32: per slot the least multiply-shift hash (Dietzfelbinger 1997) of a text's runs."""
    slots = np.empty((len(starts), len(_SLOTS)), np.uint32)
    for slot, factor in enumerate(_SLOTS):
        slots[:, slot] = np.minimum.reduceat((runs * factor) >> np.uint64(32), starts)
    return slots
