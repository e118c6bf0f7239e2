"""BM25: how well a pool row's words match a target's (rank-bm25's BM25Okapi defines the numbers)."""

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

import numpy as np
import regex
from rank_bm25 import BM25Okapi

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"(?=[\p{{L}}\p{{N}}])(?:[{_UNSPACED}]\p{{M}}*|(?:(?![{_UNSPACED}])[\p{{L}}\p{{N}}]\p{{M}}*)+)")
_ASCII_WORD = re.compile("[a-z0-9]+")  # the same words where the text is ASCII, in a third of the time
MOST_MATCHED, ENOUGH = 12, 0.8  # words that are shown as matched: how many at most, and what share of the weight


def tokenize(text: str) -> list[str]:
    """Lower-cased runs of letters, numbers and their marks; single characters of scripts written without spaces."""
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text.lower())


def bm25_index(documents: Sequence[str]) -> BM25Okapi:
    """The documents' words counted; `idf` of it maps each word to its weight."""
    return BM25Okapi([tokenize(document) or [""] for document in documents])


def bm25_scores(
    index: BM25Okapi, queries: Sequence[str], done: Callable[[int], None] = lambda words: None
) -> np.ndarray:
    """BM25Okapi of every document of the index for every query, (documents, queries) float32.

    A query's score is the sum over its words, so each distinct word is scored once for all queries. `done(1)` is called
    after each of the `distinct_words(queries)`.
    """
    counts = [Counter(tokenize(query)) for query in queries]
    scores = np.zeros((index.corpus_size, len(queries)))
    for word in distinct_words(queries):
        if word in index.idf:
            by_document = index.get_scores([word])
            for column, count in enumerate(counts):
                if count[word]:
                    scores[:, column] += count[word] * by_document
        done(1)
    return scores.astype(np.float32)


def distinct_words(queries: Sequence[str]) -> list[str]:
    """Every word of the queries once, in alphabetical order."""
    return sorted({word for query in queries for word in tokenize(query)})


def matched_words(texts: Iterable[str], idf: Mapping[str, float]) -> list[str]:
    """The words of `texts` that are in `idf`, those that weigh most first, as far as they make the match.

    That is until they have four fifths of the weight of all of them, and `MOST_MATCHED` at most: "the" is seldom one.
    idf: weight of every word that may match, such as those of one subtask's targets.
    """
    found = {word for text in texts for word in tokenize(text) if word in idf}
    ordered = sorted(found, key=lambda word: (-idf[word], word))
    total, before = sum(idf[word] for word in ordered), 0.0
    kept: list[str] = []
    for word in ordered[:MOST_MATCHED]:
        if kept and before >= ENOUGH * total:
            break
        kept.append(word)
        before += idf[word]
    return kept


def word_spans(text: str, words: Container[str]) -> list[tuple[int, int]]:
    """(start, end) of every occurrence in `text` of the words, which are as `tokenize` makes them."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters grow, such as İ
        return [found.span() for found in _WORD.finditer(text) if found[0].lower() in words]
    pattern = _ASCII_WORD if lowered.isascii() else _WORD
    return [found.span() for found in pattern.finditer(lowered) if found[0] in words]
