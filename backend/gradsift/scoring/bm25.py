"""BM25: how well a pool row's words match a target's.

rank-bm25's BM25Okapi defines the numbers. In pools of up to `SMALL` documents it also counts and weighs the words; it
keeps a dict for every document, so larger pools are counted here, to the same numbers bit for bit. Both ways end in one
index of what each word adds to each document, and every query is answered from it. (`get_scores` would add the same
numbers in another order, which breaks some ties by rounding: ranks would depend on the size of the pool.)
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from rank_bm25 import BM25Okapi

from gradsift.text.words import tokenize

K1, B, EPSILON = 1.5, 0.75, 0.25  # BM25Okapi's defaults
SMALL = 4096  # most documents that BM25Okapi counts itself, which takes well under a second
_PART, _BLOCK = 4096, 32768  # documents held as words at once, and documents scored at once
MOST_MATCHED, ENOUGH = 12, 0.8  # the words shown as matched: at most so many, and this share of the weight


@dataclass(frozen=True)
class Bm25Index:
    """The words of n documents: which documents have each of V words, and what it adds to their scores.

    words: in order of first occurrence. idf: (V,) float64 weights. Word w occurs in the documents rows[starts[w] :
    starts[w + 1]], ascending; each occurrence in a query adds the gains at the same places, (occurrences,) float32.
    """

    documents: int
    words: list[str]
    idf: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    gains: np.ndarray

    def weights(self, words: Container[str]) -> dict[str, float]:
        """The idf of each of `words` that the index has."""
        return {word: float(idf) for word, idf in zip(self.words, self.idf, strict=True) if word in words}


def bm25_index(documents: Iterable[str], done: Callable[[int], None] = lambda documents: None) -> Bm25Index:
    """Count the documents' words, part by part; `done(n)` is called after every n documents.

    The numbers are BM25Okapi's with its defaults: a word in most documents would have a negative idf, which is replaced
    by `EPSILON` times the mean over all words. A document without words counts as one empty word.
    """
    parts = _tokenized(documents, done)
    first: list[list[str]] = []
    for part in parts:
        first += part
        if len(first) > SMALL:
            return _counted(chain([first], parts))
    return _of_okapi(first) if first else _counted([])


def _tokenized(documents: Iterable[str], done: Callable[[int], None]) -> Iterator[list[list[str]]]:
    remaining = iter(documents)
    while part := list(islice(remaining, _PART)):
        yield [tokenize(text) or [""] for text in part]
        done(len(part))


def _of_okapi(documents: list[list[str]]) -> Bm25Index:
    """An index of the words as rank-bm25 counts and weighs them."""
    okapi = BM25Okapi(documents, k1=K1, b=B, epsilon=EPSILON)
    ids = {word: number for number, word in enumerate(okapi.idf)}
    word = np.fromiter(map(ids.__getitem__, chain.from_iterable(okapi.doc_freqs)), np.int64)
    count = np.fromiter(chain.from_iterable(counts.values() for counts in okapi.doc_freqs), np.int32)
    row = np.repeat(np.arange(len(documents), dtype=np.int32), [len(counts) for counts in okapi.doc_freqs])
    order = np.argsort(word, kind="stable")
    frequency, idf = np.bincount(word, minlength=len(ids)), np.fromiter(okapi.idf.values(), np.float64)
    return _index(list(ids), idf, frequency, row[order], count[order], np.array(okapi.doc_len))


def _counted(parts: Iterable[list[list[str]]]) -> Bm25Index:
    """The same index for any number of documents, of which only one part at a time is held as words."""
    ids: dict[str, int] = defaultdict(lambda: len(ids))
    lengths, counted = [np.empty(0, np.int64)], [(np.empty(0, np.int64),) * 2]
    for tokens in parts:
        lengths.append(np.array([len(words) for words in tokens]))
        word = np.fromiter(map(ids.__getitem__, chain.from_iterable(tokens)), np.int64)
        first = sum(map(len, lengths[:-1]))
        row = np.repeat(np.arange(first, first + len(tokens)), lengths[-1])
        counted.append(np.unique(row << 32 | word, return_counts=True))
    length, keys = np.concatenate(lengths), np.concatenate([keys for keys, _ in counted])
    order = np.argsort((keys & 0xFFFFFFFF).astype(np.int32), kind="stable")
    rows = (keys >> 32).astype(np.int32)[order]
    counts = np.concatenate([counts.astype(np.int32) for _, counts in counted])[order]
    frequency = np.bincount(keys & 0xFFFFFFFF, minlength=len(ids))
    return _index(list(ids), _idf(frequency, len(length)), frequency, rows, counts, length)


def _idf(frequency: np.ndarray, documents: int) -> np.ndarray:
    """(V,) weights of words that occur in `frequency` documents each, equal to BM25Okapi's to the last bit."""
    sizes, size = np.unique(frequency, return_inverse=True)
    idf = np.array([math.log(documents - n + 0.5) - math.log(n + 0.5) for n in sizes.tolist()])[size]
    if (common := idf < 0).any():
        idf[common] = EPSILON * (np.cumsum(idf)[-1] / len(idf))  # `sum` adds in another order
    return idf


def _index(
    words: list[str], idf: np.ndarray, frequency: np.ndarray, rows: np.ndarray, counts: np.ndarray, length: np.ndarray
) -> Bm25Index:
    """What each word adds to the documents that have it (BM25Okapi's formula); arrays are sorted by word, then row."""
    damping = K1 * (1 - B + B * length / length.mean())
    gains = np.repeat(idf, frequency) * (counts * (K1 + 1) / (counts + damping[rows]))
    return Bm25Index(len(length), words, idf, np.append(0, np.cumsum(frequency)), rows, gains.astype(np.float32))


def bm25_scores(
    index: Bm25Index, queries: Sequence[str], done: Callable[[int], None] = lambda documents: None
) -> np.ndarray:
    """BM25Okapi of every document of the index for every query, (documents, queries) float32.

    A query's score is the sum over its words, repeated words included. `done(n)` is called after every n documents.
    """
    columns_of: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for column, query in enumerate(queries):
        for word, count in Counter(tokenize(query)).items():
            columns_of[word].append((column, count))
    known = [(number, columns_of[word]) for number, word in enumerate(index.words) if word in columns_of]
    scores = np.empty((index.documents, len(queries)), dtype=np.float32)
    for start in range(0, index.documents, _BLOCK):
        stop = min(start + _BLOCK, index.documents)
        block = np.zeros((len(queries), stop - start))
        for number, columns in known:
            first, last = index.starts[number : number + 2]
            low, high = first + np.searchsorted(index.rows[first:last], [start, stop])
            at, gains = index.rows[low:high] - start, index.gains[low:high]
            for column, count in columns:
                block[column, at] += count * gains
        scores[start:stop] = block.T
        done(stop - start)
    return scores


def matched_words(texts: Iterable[str], idf: Mapping[str, float]) -> list[str]:
    """The words of `texts` that make the match, heaviest first: those in `idf`, without the light ones at the end.

    The list stops once it has four fifths of the weight of all of them, or `MOST_MATCHED` words, so "the" is seldom in
    it. idf: weight of every word that may match, such as those of one subtask's targets.
    """
    matches = {word for text in texts for word in tokenize(text) if word in idf}
    ordered = sorted(matches, key=lambda word: (-idf[word], word))
    total, before = sum(idf[word] for word in ordered), 0.0
    heaviest: list[str] = []
    for word in ordered[:MOST_MATCHED]:
        if heaviest and before >= ENOUGH * total:
            break
        heaviest.append(word)
        before += idf[word]
    return heaviest
