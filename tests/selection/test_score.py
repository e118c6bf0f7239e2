"""Scores as a table: its content, its reproducibility, and what is refused."""

import json
from pathlib import Path

import pandas as pd
import pytest

from gradsift import score
from gradsift.builder.build import build
from gradsift.config import BuildConfig
from gradsift.data.pool import Row
from gradsift.data.targets import TargetError, parse_targets, read_targets
from gradsift.datastore.shards import ShardError
from gradsift.datastore.store import Store
from gradsift.model import load
from gradsift.runtime.errors import StoreError
from gradsift.runtime.progress import Progress
from gradsift.scoring.methods import get_method
from gradsift.scoring.score_targets import score_targets

METHODS = ("less", "rds", "bm25", "random")
COLUMNS = ["row", "id", "source", "method", "score", "rank", "best_subtask"]


@pytest.fixture
def targets(tiny_targets: Path) -> list[Row]:
    return read_targets(tiny_targets).rows


@pytest.fixture
def table(tiny_store: Store, targets: list[Row]) -> pd.DataFrame:
    return score(tiny_store, targets, METHODS)


def test_one_line_per_method_and_usable_row(tiny_store: Store, table: pd.DataFrame) -> None:
    assert list(table.columns) == COLUMNS
    assert table["method"].unique().tolist() == list(METHODS)
    pool = tiny_store.pool()
    for method, frame in table.groupby("method"):
        assert frame["row"].tolist() == tiny_store.rows.tolist()
        assert sorted(frame["rank"]) == list(range(1, 41))
        assert frame.sort_values("rank")["score"].is_monotonic_decreasing
        assert frame["id"].tolist() == pool.loc[frame["row"], "id"].tolist()
        served = get_method(method).sees_targets & (frame["score"] != 0)  # the others serve no subtask
        assert set(frame.loc[served, "best_subtask"]) <= {"boxes", "cats"}
        assert set(frame.loc[~served, "best_subtask"]) <= {""}
    less = table[table["method"] == "less"]["score"]
    assert less.between(-1, 1).all()
    assert less.nunique() > 30


def test_scores_come_out_the_same_again(tiny_copy: Store, targets: list[Row], table: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(score(tiny_copy, targets, METHODS), table)


def test_another_gradient_kind_reuses_the_targets_features(
    tiny_copy: Store, targets: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    adam = score(tiny_copy, targets)
    monkeypatch.setattr(load, "load_model", None)
    sgd = score(tiny_copy, targets, gradient="sgd")
    assert adam["score"].tolist() != sgd["score"].tolist()
    with pytest.raises(StoreError, match="holds adam, sgd gradients, not sign"):
        score(tiny_copy, targets, gradient="sign")


def test_a_damaged_kept_scoring_is_named(tiny_copy: Store, targets: list[Row]) -> None:
    scoring = score_targets(tiny_copy, targets, ["less"])
    path = scoring.path / "adam-epoch-2.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ShardError, match=r"adam-epoch-2\.safetensors is damaged .*delete it and run the same command"):
        score(tiny_copy, targets)
    path.unlink()
    score(tiny_copy, targets)


def test_a_scoring_cut_off_goes_on(tiny_copy: Store, targets: list[Row], table: pd.DataFrame) -> None:
    scoring = score_targets(tiny_copy, targets, METHODS)
    (scoring.path / "rds-epoch-2.safetensors").unlink()
    (scoring.path / "targets-epoch-1.safetensors").unlink()
    (scoring.path / ".tmp-left").touch()
    pd.testing.assert_frame_equal(score(tiny_copy, targets, METHODS), table)
    assert not (scoring.path / ".tmp-left").exists()


def test_ids_are_stable_and_ties_go_by_row(tiny_model: Path, tiny_config: BuildConfig, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "the same"}, {"role": "assistant", "content": "row"}]
    (tmp_path / "same.jsonl").write_text((json.dumps({"id": "x", "messages": turns}) + "\n") * 20)
    config = tiny_config.model_copy(update={"epochs": 1, "gradients": ("adam",)})
    store = build([tmp_path / "same.jsonl"], tmp_path / "store", config, progress=Progress(quiet=True))
    table = score(store, parse_targets("Q: the same\nA: row").rows, ["bm25"])
    assert table["score"].nunique() == 1
    assert table["rank"].tolist() == list(range(1, 21))
    assert table["id"].tolist() == ["x", *(f"x#{n}" for n in range(2, 21))]


@pytest.mark.parametrize("method", METHODS)
def test_targets_that_cannot_be_used_are_named_by_number(tiny_store: Store, targets: list[Row], method: str) -> None:
    long = parse_targets(f"Q: {'word ' * 600}\nA: yes").rows
    with pytest.raises(
        TargetError, match=r"^Target 4 \([\d,]+ tokens, more than the model's window of 512\) cannot be used"
    ):
        score(tiny_store, [*targets, *long], [method])
    with pytest.raises(TargetError, match=r"^Target 1 \(.*\), 2 \(.*\), 3 .*, 4 .*, 5 .* and 2 more cannot be used"):
        score(tiny_store, long * 7, [method])
    with pytest.raises(TargetError, match="no target examples"):
        score(tiny_store, [], [method])
