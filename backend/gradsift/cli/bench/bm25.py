"""`gradsift bench bm25`: counts the words of a large pool once, and queries 200 of them, compared with rank-bm25.

By default the pool is made of the sample's sentences. rank-bm25 holds every document in Python, so it gets a sample of
them, in turn with our index of the same documents, and the scores are compared.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gradsift.cli.bench.pairs import timed
from gradsift.cli.bench.synthetic import passages, sentences
from gradsift.data.pool import read_rows
from gradsift.runtime.errors import UsageError
from gradsift.runtime.progress import Progress
from gradsift.scoring.bm25 import Bm25Index, bm25_index, bm25_scores
from gradsift.scoring.bm25_index import read_words, write_words
from gradsift.text.words import distinct_words, tokenize

WORDS, RUNS = 200, 9  # words of a query, and pairs of queries
_SAMPLE = 5000  # documents for rank-bm25
_PART = 8192


def bench_bm25(pool: Sequence[str], rows: int, progress: Progress) -> dict[str, Any]:
    """Index `rows` synthetic documents or the rows of `pool`, query the index, and compare.

    Raises:
        UsageError: the pool has no row to index.
    """
    texts: Callable[[], Iterator[str]] = (lambda: _pool(pool)) if pool else (lambda: _synthetic(rows))
    progress.stage("bench-index", "Counting words", 0 if pool else rows, "rows")
    start = time.perf_counter()
    index = bm25_index(texts(), progress.advance)
    count_seconds = time.perf_counter() - start
    if not index.documents:
        raise UsageError("There is no row with text in the pool: give a file of instructions.")
    query = _query(index)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "words.safetensors"
        write_words(file, index, "bench")
        size = file.stat().st_size
        del index
        open_seconds = timed(lambda: read_words(file, "bench"))()
        mapped = read_words(file, "bench")
        assert mapped is not None
        query_seconds = [timed(lambda: bm25_scores(mapped, [query]))() for _ in range(RUNS)]
        documents = mapped.documents
    return {
        "bm25": {
            "documents": documents,
            "query_words": len(distinct_words([query])),
            "index_s": round(count_seconds, 2),
            "index_bytes": size,
            "open_s": round(open_seconds, 3),
            "query_s": round(statistics.median(query_seconds), 4),
            **_beside_rank_bm25(_spread(texts(), documents), query, progress),
        }
    }


def _beside_rank_bm25(documents: list[str], query: str, progress: Progress) -> dict[str, Any]:
    from rank_bm25 import BM25Okapi

    progress.stage("bench-rank-bm25", "Beside rank-bm25", RUNS, "pairs")
    ours, theirs = bm25_index(documents), BM25Okapi([tokenize(text) or [""] for text in documents])
    words, ratios = tokenize(query), []
    for _ in range(RUNS):
        slow = timed(lambda: theirs.get_scores(words))()
        ratios.append(slow / timed(lambda: bm25_scores(ours, [query]))())
        progress.advance()
    scores, expected = bm25_scores(ours, [query])[:, 0], theirs.get_scores(words)
    return {
        "sample": len(documents),
        "speedup_over_rank_bm25": round(statistics.median(ratios), 1),
        "largest_difference": float(np.abs(scores - expected).max()),
        "largest_difference_of_largest_score": float(np.abs(scores - expected).max() / np.abs(expected).max()),
    }


def _query(index: Bm25Index) -> str:
    """Distinct words, drawn in proportion to their documents, so that common ones, which cost most, are among them."""
    shares = np.diff(index.starts) / index.starts[-1]
    count = min(WORDS, int((shares > 0).sum()))
    drawn = np.random.default_rng(0).choice(len(index.words), count, replace=False, p=shares)
    return " ".join(index.words[number] for number in drawn)


def _spread(texts: Iterator[str], count: int) -> list[str]:
    """`_SAMPLE` of `count` documents, evenly spread."""
    step = max(1, count // _SAMPLE)
    return [text for number, text in enumerate(texts) if number % step == 0][:_SAMPLE]


def _synthetic(rows: int) -> Iterator[str]:
    rng, known = np.random.default_rng(0), sentences()
    for start in range(0, rows, _PART):
        yield from passages(rng, known, min(_PART, rows - start), 5)


def _pool(paths: Sequence[str]) -> Iterator[str]:
    return (row.conversation.text for row in read_rows(list(paths)) if row.messages)
