"""The store that the app is measured on: whole, scored, indexed. Times are measured by the command, not here."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gradsift.cli.bench.synthetic import EPOCHS, NAME, PER_SUBTASK, SUBTASKS, TARGETS, made_rows, make_workspace
from gradsift.cli.main import cli
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.datastore.verify import verify
from gradsift.scoring.methods import METHODS
from gradsift.scoring.scoring import open_scoring, scoring_path
from gradsift.selection.ranking import rank
from gradsift.text.index import has_index


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic workspace of 1,500 rows."""
    root = tmp_path_factory.mktemp("bench")
    make_workspace(root, 1500)
    return root


def test_the_store_is_whole_and_scored_by_every_method(made):
    store = Store.open(made / "stores" / NAME)
    assert store.complete
    assert len(store.epochs) == EPOCHS
    assert has_index(store)
    assert made_rows(made) == len(store.rows) == 1500
    shards = [problem for problem in verify(store.path) if "checkpoints" not in problem]
    assert shards == []  # it has no checkpoints: nothing was trained
    rows = read_targets(made / "targets" / f"{TARGETS}.jsonl").rows
    assert len(rows) == SUBTASKS * PER_SUBTASK
    scoring = open_scoring(store, scoring_path(store, rows))
    methods = [method for method in METHODS if scoring.has(method)]
    assert methods == ["less", "bm25", "rds", "random"]
    for method in methods:
        ranking = rank(scoring, method)
        assert np.isfinite(ranking.score).all()
        assert ranking.subtasks == tuple(f"subtask {j + 1}" for j in range(SUBTASKS))
    texts = store.texts(store.rows)["conversation"]
    assert len({conversation.messages[1].content for conversation in texts}) == 1500


def test_a_store_of_another_size_is_refused(made):
    found = CliRunner().invoke(cli, ["bench", "app", "--folder", str(made), "--rows", "2000"])
    assert found.exit_code != 0
    assert "1,500 rows" in str(found.exception)
