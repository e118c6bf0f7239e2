"""Choices: what is allowed, what their file contains, and which gradient is the default."""

import json

import pytest

from gradsift.runtime.errors import UsageError
from gradsift.scoring.choices import Choices, PickingChoices, RankingChoices, make_choices, read_choices


@pytest.mark.parametrize("cap", ["0", "0%", "101%", "-3", "many", "3.5", "1e3"])
def test_what_is_not_a_cap_is_refused(cap):
    with pytest.raises(UsageError, match="the most that one source may have"):
        make_choices(cap=cap)


@pytest.mark.parametrize("numbers", [5, "12", [1.7], [None], [True], [float("inf")], ["x"]])
def test_what_is_not_a_number_is_refused(numbers, tmp_path):
    with pytest.raises(UsageError, match="is not allowed"):
        make_choices(accepted=numbers)
    (tmp_path / "choices.json").write_text(json.dumps({"without_targets": numbers}).replace("Infinity", "1e999"))
    with pytest.raises(UsageError, match="is not a file of choices"):
        read_choices(tmp_path / "choices.json")


def test_choices_come_back_from_their_file(tmp_path):
    choices = make_choices(cap="30%", accepted=[5, 3, 3], without_targets=[2], aggregate="mean")
    (tmp_path / "choices.json").write_text(json.dumps(choices.changed))
    assert read_choices(tmp_path / "choices.json") == choices
    assert choices.accepted == (3, 5)
    assert choices.for_ranking == RankingChoices(without_targets=(2,), aggregate="mean")
    (tmp_path / "choices.json").write_text('{"caps": 3}')
    for path in (tmp_path / "choices.json", tmp_path / "nowhere.json"):
        with pytest.raises(UsageError, match="is not a file of choices"):
            read_choices(path)


def test_a_file_of_choices_is_flat_with_ranking_first():
    every = [*RankingChoices.model_fields, *PickingChoices.model_fields]
    assert list(Choices().model_dump()) == every
    assert Choices(seed=3, cap="2").changed == {"seed": 3, "cap": "2"}


def test_what_concerns_picking_ranks_alike():
    picking = make_choices(cap="2", accepted=[1], rejected=[2], diverse=True, drop_duplicates=True, only_accepted=True)
    assert picking.for_ranking == Choices().for_ranking == RankingChoices()
    for field, value in (("seed", 1), ("gradient", "sgd"), ("length_matched", True), ("without_targets", (1,))):
        assert make_choices(**{field: value}).for_ranking != RankingChoices()


@pytest.mark.parametrize(
    ("named", "first", "recorded"),
    [
        (None, "adam", {}),
        ("adam", "adam", {}),  # as in files written when Adam's was the default of every store
        ("sgd", "adam", {"gradient": "sgd"}),
        (None, "sgd", {"gradient": "sgd"}),
        ("sgd", "sgd", {"gradient": "sgd"}),
        ("adam", "sgd", {"gradient": "adam"}),
    ],
)
def test_a_record_means_the_same_gradient_again(named, first, recorded):
    choices = make_choices(gradient=named, cap="3")
    record = choices.record(first)
    assert record == {**recorded, "cap": "3"}
    assert (make_choices(**record).gradient or first) == (named or first)
    assert make_choices(**record).record(first) == record
