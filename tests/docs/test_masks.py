"""What is learned against the training templates of trl (docs/oracle.py), and the page about it (docs/masks.py)."""

import json
import logging
import re
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="trl is not installed: pip install --no-deps trl==1.16.0")

from drawn import draw, without
from masks import conversations, figures, measure, report
from oracle import RULES, Cut, Family, Tokens, _aligned, different_texts, marked_tokenizer, templates, twins

from gradsift.data.encode import Encoder

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    logging.disable(logging.WARNING)  # transformers warns of every template
    yield marked_tokenizer(str(smollm2))
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def pool():
    """Other conversations than the page's."""
    return draw(70, 7)


@pytest.mark.parametrize("name", twins())
def test_every_difference_from_the_training_twin_is_named_and_every_turn_ends(name, tokenizer, pool):
    family = Family(name, tokenizer)
    found = measure(family, conversations(family, pool, 30, 5))
    assert found["equal"] + found["named"] + found["refused"] == found["conversations"] == 35
    assert found["equal"] + found["named"] >= 25
    assert found["ended"] == found["turns"] > 30
    for conversation in pool[:12]:
        fitted = without(conversation, family.lacking)
        if family.compare(fitted).outcome != "refused":
            assert family.tagged_differences(fitted) == []


@pytest.mark.parametrize("name", templates())
def test_every_template_is_rendered_as_transformers_renders_it(name, tokenizer, pool):
    template = templates()[name]
    encoder = Encoder(tokenizer, template)
    assert [different_texts(encoder, template, conversation) for conversation in pool[:5]] == [[]] * 5


def test_a_wrong_mask_is_not_explained(tokenizer, pool, monkeypatch):
    """The comparison finds what it is for: a header that is learned, an end that is not."""
    family = Family("llama3", tokenizer)
    conversation = without(next(one for one in pool if len(one.messages) > 4), family.lacking)
    assert family.compare(conversation).outcome == "equal"
    right = family.ours.encode(conversation)
    first = right.supervised.index(True)
    for change in (first - 1, first, max(at for at, one in enumerate(right.supervised) if one)):
        wrong = [one != (at == change) for at, one in enumerate(right.supervised)]
        encoded = type(right)(right.ids, wrong, right.n_prompt, right.n_answer, 0)
        monkeypatch.setattr(family.ours, "encode", lambda *_, encoded=encoded: encoded)
        assert family.compare(conversation).outcome == "unexplained"


def test_texts_are_aligned_by_what_only_the_twin_writes():
    assert _aligned("a b", "a b", 0, 0) == []
    assert _aligned("a b", "a c", 0, 0) is None
    assert _aligned("a b", "a <think>\n\n</think>\n\nb", 0, 0) == [Cut("earlier", 2, 21)]
    assert _aligned("a \nb", "a <think>\nx</think>\n\nb", 0, 0)[0].rule == "earlier"


def test_tokens_are_cut_with_their_text():
    tokens = Tokens("abcdef", [(0, 2), (2, 4), (4, 6)], [True, False, True]).without([Cut("earlier", 1, 4)])
    assert (tokens.text, tokens.offsets, tokens.cut) == ("aef", [(0, 1), (1, 1), (1, 3)], {0, 1})
    assert tokens.onto(Tokens("aef", [(0, 1), (1, 2), (2, 3)], [])).learned == [False, True, True]


def test_page_and_figures_agree():
    page, found = (DOCS / "masks.md").read_text(), json.loads((DOCS / "figures" / "masks.json").read_text())
    lines = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    keys = ("family", "conversations", "equal", "named", "refused")
    assert [dict(zip(keys, (name, *map(int, counts)), strict=True)) for name, *counts in lines] == found
    assert [one["family"] for one in found] == twins()
    for one in found:
        assert one["equal"] + one["named"] + one["refused"] == one["conversations"]
        assert one["equal"] + one["named"] >= 200
    ended, turns = re.search(r"end token: ([\d,]+) of ([\d,]+)", page).groups()
    assert ended == turns
    for rule in RULES.values():
        assert rule.removeprefix("the ").removeprefix("a ").removeprefix("an ") in page.lower()


def test_the_page_is_made_of_the_figures():
    one = {"family": "x", "conversations": 3, "equal": 1, "named": 1, "refused": 1, "turns": 4, "ended": 4}
    found = [{**one, "rules": {rule: int(rule == "break") for rule in RULES}, "reasons": {"it raises: 'no'": 1}}]
    assert "| `x` | 3 | 1 | 1 | 1 | the line break after the end token (1) |" in report(found)
    assert figures(found) == [{key: one[key] for key in ("family", "conversations", "equal", "named", "refused")}]
