"""BM25 gives rank-bm25's numbers, with words as Unicode defines them (method, section 3)."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import regex
from conversations import pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from gradsift.data.pool import read_rows
from gradsift.runtime.paths import studio
from gradsift.scoring import bm25
from gradsift.scoring.bm25 import bm25_index, bm25_scores, matched_words
from gradsift.text.words import distinct_words, tokenize, word_spans

DOCUMENTS = [
    "The cat sat on the mat.",
    "The dog chased the cat, the cat chased the mouse!",
    "",
    "Ein Hund und eine Katze",
    "কলকাতা ভারতের একটি শহর",
    "the the the the",
    "巴黎是法国的首都",
    "42 is the answer; the answer is 42",
]
QUERIES = [
    "the cat",
    "cat cat cat dog",
    "nothing here is known, zzz",
    "",
    "কলকাতা কোথায়?",
    "法国 首都 首都",
    "THE ANSWER?",
    "?!",
]


@pytest.fixture(scope="module", autouse=True, params=[0, bm25.SMALL], ids=["counted here", "counted by rank-bm25"])
def small(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the tests both for a pool too large for rank-bm25 and for a small one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bm25, "SMALL", request.param)
        yield request.param


def okapi(documents, queries) -> np.ndarray:
    """rank-bm25's scores for whole queries."""
    index = BM25Okapi([tokenize(document) or [""] for document in documents])
    return np.stack([index.get_scores(tokenize(query)) for query in queries], 1)


class TestScores:
    def test_equal_rank_bm25_on_whole_queries(self):
        result = bm25_scores(bm25_index(DOCUMENTS), QUERIES)
        assert result.shape == (8, 8)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, okapi(DOCUMENTS, QUERIES), atol=1e-6)
        assert result[1, 1] > result[0, 1] > 0
        assert not result[:, [3, 7]].any()

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.lists(st.sampled_from("abcde"), max_size=12).map(" ".join), min_size=1, max_size=8),
        st.lists(st.lists(st.sampled_from("abcdexy"), max_size=8).map(" ".join), min_size=1, max_size=4),
    )
    def test_any_texts(self, documents, queries):
        """Common words have a negative idf, which rank-bm25 replaces; repeated and unknown words count alike."""
        np.testing.assert_allclose(bm25_scores(bm25_index(documents), queries), okapi(documents, queries), atol=1e-5)

    @pytest.mark.parametrize("size", [1, 3, 8, 100])
    def test_any_part_and_block(self, monkeypatch, size):
        """Documents are counted part by part and scored block by block; both are reported."""
        monkeypatch.setattr("gradsift.scoring.bm25._PART", size)
        monkeypatch.setattr("gradsift.scoring.bm25._BLOCK", size)
        indexed, scored = [], []
        result = bm25_scores(bm25_index(iter(DOCUMENTS), indexed.append), QUERIES, scored.append)
        np.testing.assert_allclose(result, okapi(DOCUMENTS, QUERIES), atol=1e-6)
        assert sum(indexed) == sum(scored) == len(DOCUMENTS)
        assert len(indexed) == len(scored) == -(-len(DOCUMENTS) // size)

    def test_weights_are_rank_bm25s(self):
        """Including those it replaces because they are negative."""
        expected = BM25Okapi([tokenize(document) or [""] for document in DOCUMENTS]).idf
        result = bm25_index(DOCUMENTS).weights({*expected, "zzz"})
        assert result == pytest.approx(expected)
        assert {word for word, weight in result.items() if weight == min(result.values())} == {"the"}

    def test_a_long_query_over_many_documents(self):
        """Within 1e-6 of the largest score, the precision of float32."""
        rng = np.random.default_rng(0)
        words = np.array([f"w{n}" for n in range(2000)])
        documents = [" ".join(words[rng.zipf(1.3, rng.integers(1, 300)) % 2000]) for _ in range(600)]
        queries = [" ".join(words[rng.zipf(1.2, 200) % 2000]) for _ in range(3)]
        result, expected = bm25_scores(bm25_index(documents), queries), okapi(documents, queries)
        assert np.abs(result - expected).max() <= 1e-6 * expected.max()


class TestBothWays:
    """Counting by rank-bm25 or here gives the same index, so ranks do not change when a pool grows past `SMALL`."""

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=12).map(" ".join), min_size=1, max_size=30))
    def test_are_equal_to_the_last_bit(self, documents):
        tokens = [tokenize(document) or [""] for document in documents]
        self.assert_equal(bm25._of_okapi(tokens), bm25._counted([tokens[:3], tokens[3:]] if tokens[3:] else [tokens]))

    def test_of_a_large_vocabulary(self):
        rng = np.random.default_rng(0)
        tokens = [[f"w{n}" for n in rng.zipf(1.2, 200) % 5000] for _ in range(500)]
        self.assert_equal(bm25._of_okapi(tokens), bm25._counted([tokens]))

    def test_of_the_embedded_sample(self):
        rows = read_rows([studio() / "assets" / "sample" / "pool"])
        tokens = [tokenize("\n".join(text for _, text in pairs(row.messages))) for row in rows]
        self.assert_equal(bm25._of_okapi(tokens), bm25._counted([tokens]))

    def test_what_a_word_adds_is_its_score_of_rank_bm25(self):
        index = bm25_index(DOCUMENTS)
        scores = okapi(DOCUMENTS, index.words)
        for number, word in enumerate(index.words):
            if word:
                first, last = index.starts[number : number + 2]
                alone = np.zeros(len(DOCUMENTS), np.float32)
                alone[index.rows[first:last]] = index.gains[first:last]
                np.testing.assert_array_equal(alone, scores[:, number].astype(np.float32))

    def test_which_way_is_a_matter_of_the_pools_size(self, small, monkeypatch):
        ways = []
        monkeypatch.setattr(bm25, "BM25Okapi", lambda *given, **more: ways.append(1) or BM25Okapi(*given, **more))
        bm25_index(DOCUMENTS)
        assert ways == ([1] if small else [])

    def test_a_pool_without_documents(self):
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # from the mean length
            assert bm25_index([]).documents == 0

    @staticmethod
    def assert_equal(one, two):
        assert one.words == two.words
        for name in ("idf", "starts", "rows", "gains"):
            a, b = getattr(one, name), getattr(two, name)
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes()), name


class TestTokenize:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("The cat's 2nd hat", ["the", "cat", "s", "2nd", "hat"]),
            ("snake_case e-mail 3.14", ["snake", "case", "e", "mail", "3", "14"]),
            ("ÉCOLE Straße ΣΟΦΙΑ", ["école", "straße", "σοφια"]),
            ("e\u0301cole", ["e\u0301cole"]),  # a combining accent stays with its letter
            ("কলকাতা কোথায়?", ["কলকাতা", "কোথায়"]),
            ("हिन्दी में", ["हिन्दी", "में"]),
            ("مَرْحَبًا بالعالم", ["مَرْحَبًا", "بالعالم"]),
            ("巴黎 abc 首都", ["巴", "黎", "abc", "首", "都"]),
            ("Tokyo東京2020", ["tokyo", "東", "京", "2020"]),
            ("ひらがなカタカナ", list("ひらがなカタカナ")),
            ("한국어 단어", ["한국어", "단어"]),
            ("ភាសា។ မြန်မာ။", ["ភា", "សា", "မြ", "န်", "မာ"]),
            ("", []),
            (" \n\t!? — … 🙂", []),
        ],
    )
    def test_words(self, text, words):
        assert tokenize(text) == words

    def test_thai_characters_keep_their_marks(self):
        assert tokenize("น้ำที่") == ["น้", "ำ", "ที่"]

    @given(st.text(st.characters(max_codepoint=127)))
    def test_ascii_words_are_the_same_in_a_text_that_is_not_ascii(self, text):
        assert [*tokenize(text), "é"] == tokenize(f"{text} é")

    @given(st.text())
    def test_nothing_but_letters_numbers_and_marks(self, text):
        at, lowered = 0, text.lower()
        for word in tokenize(text):
            assert regex.fullmatch(r"[\p{L}\p{N}][\p{L}\p{N}\p{M}]*", word)
            at = lowered.index(word, at) + len(word)  # in the order of the text


class TestMatches:
    def test_the_heaviest_of_the_common_words_come_first_as_far_as_they_make_the_match(self):
        index = bm25_index(DOCUMENTS)
        idf = index.weights(set(index.words))
        about_targets = {word: idf[word] for word in distinct_words(["The cat chased a mouse"]) if word in idf}
        result = matched_words(DOCUMENTS[1:2], about_targets)
        common = sorted(set(tokenize(DOCUMENTS[1])) & set(about_targets), key=lambda word: (-idf[word], word))
        assert result == common[: len(result)]
        total = sum(idf[word] for word in common)
        assert sum(idf[word] for word in result) >= 0.8 * total > sum(idf[word] for word in result[:-1])
        assert "the" in common
        assert "the" not in result
        assert not matched_words(DOCUMENTS, {})

    def test_no_more_than_twelve_words(self):
        words = [f"w{n}" for n in range(40)]
        assert matched_words([" ".join(words)], dict.fromkeys(words, 1.0)) == sorted(words)[:12]

    @pytest.mark.parametrize(
        "text", [*DOCUMENTS, *QUERIES, "ÉCOLE İstanbul, İSTANBUL istanbul", "ΑΣ.α ΣΟΦΙΑΣ", "Tokyo東京2020"]
    )
    def test_spans_are_the_words_places(self, text):
        for word in set(tokenize(text)):
            spans = word_spans(text, {word})
            assert len(spans) == tokenize(text).count(word)
            lowered = text.lower()
            same = lowered if len(lowered) == len(text) else text
            assert all(same[start:end].lower() == word for start, end in spans)
        assert not word_spans(text, ())

    @given(st.text(st.characters(codec="utf-8"), max_size=40))
    def test_all_words_together_cover_what_the_tokens_are(self, text):
        words = tokenize(text)
        if len(text.lower()) == len(text):
            assert [text.lower()[start:end] for start, end in word_spans(text, set(words))] == words
