"""A `Selection`: its rows and table follow ranking and budget; what it writes, and which gradient it used."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradsift
from gradsift.builder.build import build
from gradsift.config import BuildConfig
from gradsift.data.pool import Row
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError
from gradsift.runtime.progress import Progress
from gradsift.scoring.choices import make_choices
from gradsift.scoring.score_targets import score_targets
from gradsift.selection.budget import Budget
from gradsift.selection.picks import picked, ranked, read_traits
from gradsift.selection.ranking import rank
from gradsift.workspace.demo import demo_config
from gradsift.workspace.workspace import sample_pool

COLUMNS = ["rank", "row", "id", "source", "task", "score", "tokens", "best_subtask", "file", "line", "sha256"]
WAYS = [
    ({}, {}),
    ({"report": True, "bundle": True, "compress": "gzip"}, {"cap": "30%", "seed": 2, "method": "random"}),
    ({"format": "less", "report": True}, {"aggregate": "mean", "without_targets": [1], "accepted": [3]}),
    ({"format": "parquet"}, {"gradient": "sgd", "diverse": True, "drop_leaks": True}),
]


@pytest.fixture
def targets(tiny_targets: Path) -> list[Row]:
    return read_targets(tiny_targets).rows


@pytest.fixture(scope="module")
def sgd_first(tiny_pool: Path, tiny_config: BuildConfig, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store whose first kind of gradient is not Adam's."""
    config = tiny_config.model_copy(update={"gradients": ("sgd", "adam"), "epochs": 1})
    return build([tiny_pool], tmp_path_factory.mktemp("sgd") / "store", config, progress=Progress(quiet=True))


def test_rows_are_the_best_by_the_ranking(tiny_store: Store, targets: list[Row]) -> None:
    selection = gradsift.pick(tiny_store, targets, "20%")
    scoring = score_targets(tiny_store, targets, ["less"])
    ranking = rank(scoring, "less")
    assert selection.rows.tolist() == scoring.rows[ranking.order[:8]].tolist()
    assert len(selection) == 8
    assert selection.method == "less"
    assert selection.gradient == "adam"


@pytest.mark.parametrize("choices", [{}, {"aggregate": "mean", "cap": "2"}, {"rejected": [3], "length_matched": True}])
@pytest.mark.parametrize("top", ["7", "300tokens"])
def test_rows_equal_ranking_and_budget_by_hand(tiny_store: Store, targets: list[Row], top: str, choices: dict) -> None:
    selection = gradsift.pick(tiny_store, targets, top, method="rds", **choices)
    scoring = score_targets(tiny_store, targets, ["rds"])
    traits, every = read_traits(tiny_store, scoring), make_choices(**choices)
    positions = picked(ranked(scoring, "rds", every, traits), Budget.parse(top), every, traits)
    assert selection.rows.tolist() == scoring.rows[positions].tolist()
    assert selection.tokens == traits.n_tokens[positions].sum()


def test_the_table_has_a_line_per_pick(tiny_store: Store, targets: list[Row]) -> None:
    selection = gradsift.pick(tiny_store, targets, "6", cap="2")
    table = selection.table()
    assert list(table.columns) == COLUMNS
    assert table["row"].tolist() == selection.rows.tolist()
    assert table["rank"].is_monotonic_increasing
    assert table["tokens"].sum() == selection.tokens
    assert table["source"].value_counts().max() <= 2
    scores = gradsift.score(tiny_store, targets).set_index("row").loc[selection.rows]
    for column in ("rank", "id", "source", "score", "best_subtask"):
        assert table[column].tolist() == scores[column].tolist()
    pool = tiny_store.pool().loc[selection.rows]
    for column in ("task", "file", "line", "sha256"):
        assert table[column].tolist() == pool[column].tolist()


def test_picks_are_read_with_their_text(tiny_store: Store, targets: list[Row]) -> None:
    selection = gradsift.pick(tiny_store, targets, "5", method="bm25")
    texts = tiny_store.texts(selection.rows)
    picks = list(selection.read())
    assert [pick.conversation for pick in picks] == texts["conversation"].tolist()
    assert [pick.rank for pick in picks] == selection.table()["rank"].tolist()
    assert [pick.id for pick in selection.read(selection.positions[1:3])] == [pick.id for pick in picks[1:3]]
    assert list(selection.read(np.empty(0, dtype=np.int64))) == []


@pytest.mark.parametrize(("written", "options"), WAYS)
def test_select_writes_what_a_selection_writes(
    tiny_store: Store, targets: list[Row], tmp_path: Path, written: dict, options: dict
) -> None:
    one = gradsift.pick(tiny_store, targets, "25%", **options).write(tmp_path / "one" / "picks", **written)
    two = gradsift.select(tiny_store, targets, "25%", tmp_path / "two" / "picks", **written, **options)
    assert one.name == two.name
    files = [{file.name: file.read_bytes() for file in path.parent.iterdir()} for path in (one, two)]
    assert files[0] == files[1]
    assert "manifest.json" in files[0]


def test_one_selection_writes_several_formats(tiny_store: Store, targets: list[Row], tmp_path: Path) -> None:
    selection = gradsift.pick(tiny_store, targets, "4")
    for format in ("messages", "alpaca"):
        selection.write(tmp_path / format, format=format)
    lines = [(tmp_path / format / "picks.csv").read_text() for format in ("messages", "alpaca")]
    assert lines[0] == lines[1]


def test_a_folder_that_cannot_be_written_is_refused_before_any_scoring(
    tiny_copy: Store, targets: list[Row], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is a store, which an export would overwrite"):
        gradsift.select(tiny_copy, targets, "4", tiny_copy.path)
    with pytest.raises(UsageError, match="no export format"):
        gradsift.select(tiny_copy, targets, "4", tmp_path / "out", format="csv")
    assert not (tiny_copy.path / "scorings").exists()
    with pytest.raises(UsageError, match="is a store, which an export would overwrite"):
        gradsift.pick(tiny_copy, targets, "4", method="bm25").write(tiny_copy.path)


def test_the_default_gradient_is_the_stores_first_and_recorded(
    sgd_first: Store, targets: list[Row], tmp_path: Path
) -> None:
    scores = gradsift.score(sgd_first, targets)
    assert scores["score"].tolist() == gradsift.score(sgd_first, targets, gradient="sgd")["score"].tolist()
    assert scores["score"].tolist() != gradsift.score(sgd_first, targets, gradient="adam")["score"].tolist()
    for named, used in ((None, "sgd"), ("sgd", "sgd"), ("adam", "adam")):
        out = tmp_path / str(named)
        gradsift.select(sgd_first, targets, "6", out, gradient=named, report=True)
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["gradient"] == used
        assert json.loads((out / "choices.json").read_text()) == manifest["choices"] == {"gradient": used}
        assert f"<tr><th>gradient</th><td>{used} (changed)</td></tr>" in (out / "report.html").read_text()
    assert (tmp_path / "None" / "train.jsonl").read_bytes() == (tmp_path / "sgd" / "train.jsonl").read_bytes()


def test_adams_gradient_is_not_recorded_if_it_is_the_first(
    tiny_store: Store, targets: list[Row], tmp_path: Path
) -> None:
    for named in (None, "adam"):
        gradsift.select(tiny_store, targets, "6", tmp_path / str(named), gradient=named)
        manifest = json.loads((tmp_path / str(named) / "manifest.json").read_text())
        assert (manifest["gradient"], manifest["choices"]) == ("adam", {})
        assert not (tmp_path / str(named) / "choices.json").exists()


@pytest.mark.slow
def test_three_lines_of_python_on_the_sample_by_the_demos_settings(tiny_model: Path, tmp_path: Path) -> None:
    """As in the documentation, in a separate Python process; the demo's own model is too large for this test."""
    smaller = {"model": str(tiny_model), "template": "chat", "dim": 256, "limit_per_source": 4, "max_length": 128}
    config = demo_config().model_copy(update=smaller)
    build([sample_pool()[0].parent], tmp_path / "demo", config, progress=Progress(quiet=True))
    targets = sample_pool()[0].parents[1] / "targets" / "yes-no.jsonl"
    code = f"""
import gradsift
store = gradsift.Store.open({str(tmp_path / "demo")!r})
targets = gradsift.read_targets({str(targets)!r}).rows
s = gradsift.pick(store, targets, "3")
print(len(s.rows), len(s.table()), s.write({str(tmp_path / "one")!r}))
gradsift.select(store, targets, "3", {str(tmp_path / "two")!r})
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(gradsift.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["3", "3", str(tmp_path / "one" / "train.jsonl")]
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]
