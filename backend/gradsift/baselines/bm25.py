"""BM25: how well a pool row's words match a target's (rank-bm25's BM25Okapi defines the numbers)."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import regex
from rank_bm25 import BM25Okapi

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"(?=[\p{{L}}\p{{N}}])(?:[{_UNSPACED}]\p{{M}}*|(?:(?![{_UNSPACED}])[\p{{L}}\p{{N}}]\p{{M}}*)+)")
_ASCII_WORD = re.compile("[a-z0-9]+")  # the same words where the text is ASCII, in a third of the time


def tokenize(text: str) -> list[str]:
    """Lower-cased runs of letters, numbers and their marks; single characters of scripts written without spaces."""
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text.lower())


def bm25_scores(
    documents: Sequence[str], queries: Sequence[str], done: Callable[[int], None] = lambda words: None
) -> np.ndarray:
    """BM25Okapi of every document for every query, (documents, queries) float32.

    A query's score is the sum over its words, so each distinct word is scored once for all queries. `done(1)` is called
    after each of the `distinct_words(queries)`.
    """
    index = BM25Okapi([tokenize(document) or [""] for document in documents])
    counts = [Counter(tokenize(query)) for query in queries]
    scores = np.zeros((len(documents), len(queries)))
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
