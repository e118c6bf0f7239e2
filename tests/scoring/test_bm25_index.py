"""The pool's words are counted once, kept, and counted again when they change."""

import numpy as np
import pytest
import torch
from conversations import pairs
from rank_bm25 import BM25Okapi
from stores import flip

from gradsift.datastore.store import Store
from gradsift.runtime.errors import StoreError
from gradsift.runtime.progress import Progress
from gradsift.scoring import bm25_index
from gradsift.scoring.bm25 import bm25_scores
from gradsift.scoring.bm25_index import ensure_words, read_words, words_path, write_words
from gradsift.text.words import tokenize


def documents(store: Store) -> list[str]:
    conversations = store.texts(store.scored_rows)["conversation"]
    return ["\n".join(text for _, text in pairs(conversation.messages)) for conversation in conversations]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list whose only entry is the number of times the words were counted."""
    count, real = [0], bm25_index.bm25_index

    def counted(*args):
        count[0] += 1
        return real(*args)

    monkeypatch.setattr(bm25_index, "bm25_index", counted)
    return count


def test_kept_words_score_as_rank_bm25(tiny_copy: Store, counting: list[int]) -> None:
    texts = documents(tiny_copy)
    queries = [texts[3], "the cat of the capital", ""]
    okapi = BM25Okapi([tokenize(text) or [""] for text in texts])
    expected = np.stack([okapi.get_scores(tokenize(query)) for query in queries], 1)
    for _ in range(2):
        index = ensure_words(tiny_copy, Progress(quiet=True))
        np.testing.assert_allclose(bm25_scores(index, queries), expected, atol=1e-6 * expected.max())
        assert index.weights(set(index.words)) == pytest.approx(okapi.idf)
    assert counting == [1]


def test_what_is_kept_comes_back(tmp_path) -> None:
    made = bm25_index.bm25_index(["one two two", "", "কলকাতা 首都"])
    write_words(tmp_path / "w", made, "this")
    result = read_words(tmp_path / "w", "this")
    assert result is not None
    assert (result.documents, result.words) == (3, ["one", "two", "", "কলকাতা", "首", "都"])
    for name in ("idf", "starts", "rows", "gains"):
        np.testing.assert_array_equal(getattr(result, name), getattr(made, name))
    assert read_words(tmp_path / "w", "that") is None
    assert read_words(tmp_path / "none", "this") is None


def test_damaged_or_of_other_rows_is_made_again(tiny_copy: Store, counting: list[int]) -> None:
    ensure_words(tiny_copy, Progress(quiet=True))
    flip(words_path(tiny_copy), -1)
    ensure_words(tiny_copy, Progress(quiet=True))
    assert counting == [2]
    fewer = Store.open(tiny_copy.path)
    fewer.__dict__["scored"] = np.arange(40) != 7
    assert ensure_words(fewer, Progress(quiet=True)).documents == 39
    assert counting == [3]
    write_words(words_path(tiny_copy), bm25_index.bm25_index(["x"]), "another pool")
    assert ensure_words(tiny_copy, Progress(quiet=True)).documents == 40


def test_a_file_without_the_arrays_is_made_again(tiny_copy: Store) -> None:
    of = bm25_index._of(tiny_copy)
    words_path(tiny_copy).parent.mkdir(exist_ok=True)
    bm25_index.write_tensors(words_path(tiny_copy), {"idf": torch.ones(1)}, {"of": of})
    assert ensure_words(tiny_copy, Progress(quiet=True)).documents == 40


def test_a_damaged_pool_is_reported(tiny_copy: Store) -> None:
    assert len(tiny_copy.scored_rows) == 40
    (tiny_copy.path / "pool.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"pool\.parquet is damaged"):
        ensure_words(tiny_copy, Progress(quiet=True))
