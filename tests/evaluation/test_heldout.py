"""Held-out examples: which golds they have, and how answers are judged."""

import json

import pytest

from gradsift.evaluation.heldout import HeldOut, f1, metric, read_heldout
from gradsift.runtime.errors import GradsiftError


def heldout(tmp_path, **fields) -> HeldOut:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": fields.pop("said", "Paris")}]
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"messages": turns, **fields}) + "\n", encoding="utf-8")
    return read_heldout(path)[0]


class TestGolds:
    def test_answers_come_before_answer_before_the_last_turn(self, tmp_path):
        assert heldout(tmp_path, answers=["1939", "in 1939"], answer="x").golds == ("1939", "in 1939")
        assert heldout(tmp_path, answer="False").golds == ("False",)
        assert heldout(tmp_path).golds == ("Paris",)

    def test_the_last_answer_counts_though_a_turn_follows_it(self, tmp_path):
        turns = [("user", "capital?"), ("assistant", "Paris"), ("user", "thanks!")]
        messages = [{"role": role, "content": content} for role, content in turns]
        assert heldout(tmp_path, messages=messages).golds == ("Paris",)

    def test_an_empty_answers_leaves_the_answer(self, tmp_path):
        """As in a table with both columns."""
        for empty in (None, [], "", [None]):
            row = heldout(tmp_path, answers=empty, answer="ant bee", said="word " * 31)
            assert (row.golds, row.metric) == (("ant bee",), "accuracy")

    def test_numbers_and_booleans_count_as_written(self, tmp_path):
        assert heldout(tmp_path, answer=18).golds == ("18",)
        assert heldout(tmp_path, answer=0).judge("0") == 1
        assert heldout(tmp_path, answer=False).judge("false") == 1
        assert heldout(tmp_path, answers=[1939, "in 1939"]).golds == ("1939", "in 1939")

    def test_a_long_free_answer_has_none_and_is_not_judged(self, tmp_path):
        row = heldout(tmp_path, said="word " * 31)
        assert row.golds == ()
        assert metric([row]) is None
        with pytest.raises(ValueError, match="no short gold"):
            row.judge("word")

    def test_a_bad_row_is_refused_by_line(self, tmp_path):
        path = tmp_path / "bad.jsonl"
        path.write_text('{"messages": []}\n')
        with pytest.raises(GradsiftError, match="line 1"):
            read_heldout(path)


class TestJudge:
    @pytest.mark.parametrize(
        ("gold", "answer", "right"),
        [
            ("B", "B", 1), ("B", "(B) because", 1), ("B", " b.", 1), ("B", "A", 0), ("B", "Better", 0), ("B", "", 0),
            ("(B)", "So the answer is (B).", 1), ("A", "The cat", 0), ("False", "false, since", 1), ("No", "yes", 0),
            ("-9", "-9", 1), ("-9", "9", 0), ("1,200", "the answer is: 1200", 1), ("7", "7.0", 1), ("7", "none", 0),
            ("9,476,211", "9476211", 1), ("9,476,211", "9476212", 0), ("0", "-0.0", 1), ("0.1", "0.10", 1),
        ],
    )  # fmt: skip
    def test_closed_answers_are_right_or_wrong(self, tmp_path, gold, answer, right):
        row = heldout(tmp_path, answer=gold)
        assert row.closed
        assert metric([row]) == "accuracy"
        assert row.judge(answer) == right

    @pytest.mark.parametrize(
        ("gold", "answer", "right"),
        [
            ("ant bee cat", "ant bee cat", 1), ("ant bee cat", "So the answer is Ant bee cat.", 1),
            ("ant bee cat", "bee ant cat", 0), ("ant bee cat", "ant bee", 0),
            ("ant bee cat", "ant bee cat\nQ: more", 1),
            ("] )", "])", 1), ("] )", " ] )\n", 1), ("] )", "((((", 0), ("] )", "", 0), ("] )", "words", 0),
        ],
    )  # fmt: skip
    def test_the_one_right_answer_is_exact(self, tmp_path, gold, answer, right):
        """As in BBH's sorted words and brackets: in order, and signs count if there are no words."""
        row = heldout(tmp_path, answer=gold)
        assert metric([row]) == "accuracy"
        assert row.judge(answer) == right

    def test_spans_take_the_best_gold(self, tmp_path):
        row = heldout(tmp_path, answers=["the Eiffel Tower", "Tour Eiffel"])
        assert not row.closed
        assert metric([row]) == "f1"
        assert row.judge("Eiffel Tower") == 1
        assert row.judge("tour") == pytest.approx(2 * 1 * 0.5 / 1.5)

    def test_both_kinds_are_named_in_one_metric(self, tmp_path):
        assert metric([heldout(tmp_path, answer="B"), heldout(tmp_path)]) == "accuracy+f1"


class TestF1:
    def test_counts_repeated_words_once_each(self):
        assert f1("paris paris", "paris") == pytest.approx(2 * 0.5 * 1 / 1.5)

    def test_scripts_without_spaces_are_compared_by_character(self):
        assert f1("東京都", "東京") == pytest.approx(0.8)

    def test_a_gold_without_words_is_right_or_wrong(self):
        assert f1("[ ]", "[]") == 1
        assert f1("(((", "[]") == f1("", "[]") == f1("words", "[]") == 0

    def test_nothing_said(self):
        assert f1("", "paris") == 0
        assert f1("the", "a") == 1
