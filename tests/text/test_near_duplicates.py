"""Near-duplicates, compared with a search over all pairs of sets of five-word runs."""

import json
import random
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsift.text.near_duplicates import near_duplicates
from gradsift.text.words import tokenize


def groups(texts: list[str]) -> list[int]:
    with tempfile.TemporaryFile() as scratch:
        return near_duplicates(texts, scratch).tolist()


def runs(text: str) -> frozenset[tuple[str, ...]]:
    words = tokenize(text) or text.lower().split()
    return frozenset(tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4)) if words)


def by_all_pairs(texts: list[str], similar: float = 0.8) -> list[int]:
    sets, near = [runs(text) for text in texts], list(range(len(texts)))
    for right in range(len(texts)):
        for left in range(right):
            either = len(sets[left] | sets[right])
            if either and len(sets[left] & sets[right]) / either >= similar:
                old, new = max(near[left], near[right]), min(near[left], near[right])
                near = [new if group == old else group for group in near]
    return near


def sentence(chance: random.Random, length: int) -> list[str]:
    return [f"w{chance.randrange(2000)}" for _ in range(length)]


def changed(chance: random.Random, words: list[str], times: int) -> list[str]:
    copy = list(words)
    for _ in range(times):
        copy[chance.randrange(len(copy))] = f"x{chance.randrange(10**6)}"
    return copy


def test_groups_are_those_of_all_pairs() -> None:
    """Families of texts of 1 to 200 words with 0 to 10 changed words: overlaps from 1 down to 0."""
    chance, texts = random.Random(0), []
    for _ in range(60):
        words = sentence(chance, chance.choice([1, 3, 5, 8, 40, 60, 100, 200]))
        texts += [words, *(changed(chance, words, chance.randrange(11)) for _ in range(5))]
    chance.shuffle(texts)
    joined = [" ".join(words) for words in texts]
    expected = by_all_pairs(joined)
    assert groups(joined) == expected
    assert 30 < sum(near != row for row, near in enumerate(expected)) < 300


def test_real_texts_are_grouped_as_by_all_pairs(shared_data) -> None:
    files = sorted((shared_data / "pool").glob("*.jsonl"))
    lines = [line for path in files for line in path.read_text().split("\n")[:150]]
    texts = ["\n".join(turn["content"] for turn in json.loads(line)["messages"]) for line in lines]
    texts += [text.replace(".", " indeed.", 1) for text in texts[::3]]
    assert groups(texts) == by_all_pairs(texts)


def test_a_thousand_rows_of_one_template_are_one_group() -> None:
    """More texts than are compared with each other in one band."""
    words = sentence(random.Random(1), 150)
    assert groups([" ".join([*words, f"number {n}"]) for n in range(1000)]) == [0] * 1000


def test_a_template_whose_rows_differ_more_is_no_group() -> None:
    chance = random.Random(2)
    words = sentence(chance, 60)
    texts = [" ".join([*words, *sentence(chance, 30)]) for _ in range(100)]
    assert groups(texts) == by_all_pairs(texts) == list(range(100))


def test_copies_are_found_among_rows_of_a_template_that_just_are_none() -> None:
    """Most pairs overlap by 0.7 to 0.75, so that many comparisons fail before the copies meet."""
    chance = random.Random(3)
    words = sentence(chance, 100)
    texts = [[*words, *sentence(chance, 16)] for _ in range(300)]
    texts += [[*text[:-1], "copied"] for text in texts[::30]]
    joined = [" ".join(text) for text in texts]
    expected = by_all_pairs(joined)
    assert sum(near != row for row, near in enumerate(expected)) == 10
    assert groups(joined) == expected


LONG = " ".join(f"word{n}" for n in range(60))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a copy", "other", "a copy"], [0, 1, 0]),
        (["Yes.", "yes", "YES!", "no"], [0, 0, 0, 3]),
        (["one two three four", "one two three five"], [0, 1]),  # too short for anything but equal words
        (["what is 2 + 3? it is 5", "what is 2 + 4? it is 6"], [0, 1]),
        ([LONG, LONG.replace("word30", "another")], [0, 0]),
        ([LONG, LONG.replace("word30", "another").replace("word45", "third")], [0, 1]),
        ([LONG, f"{LONG} more", f"{LONG} more and"], [0, 0, 0]),
        (["", "  \n", ""], [0, 1, 2]),  # empty texts match nothing
        (["!!!", "???", "!!!", "🙂  🙂", "🙂 🙂"], [0, 1, 0, 3, 3]),
        (["今天天气很好我们去公园玩吧" * 5, "今天天气很好我们去公园玩吧" * 5 + "好"], [0, 0]),
        (["কলকাতা ভারতের একটি শহর", "কলকাতা ভারতের একটি শহর।", "ঢাকা ভারতের একটি শহর"], [0, 0, 2]),
        ([], []),
    ],
)
def test_what_is_near(texts: list[str], expected: list[int]) -> None:
    assert groups(texts) == by_all_pairs(texts) == expected


def test_a_group_is_named_by_its_first_text_across_batches() -> None:
    texts = [f"{n} {n}" for n in range(5000)]
    texts[4321], texts[4999] = texts[7], texts[7]
    near = groups(texts)
    assert np.flatnonzero(np.array(near) != np.arange(5000)).tolist() == [4321, 4999]
    assert near[4321] == near[4999] == 7


def test_every_text_is_counted_once() -> None:
    counts: list[int] = []
    with tempfile.TemporaryFile() as scratch:
        near_duplicates((f"text {n}" for n in range(4500)), scratch, counts.append)
    assert sum(counts) == 4500


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab c.한", max_size=40), max_size=12))
def test_any_texts(texts: list[str]) -> None:
    assert groups(texts) == by_all_pairs(texts)
