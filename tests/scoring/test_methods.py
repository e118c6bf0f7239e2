"""The registry of methods: a new one appears on the command line, in `score`'s table and in the app by itself."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from boards import board
from streamlit.testing.v1 import AppTest
from toy import TARGETS
from typer.testing import CliRunner

from gradsift.cli.main import cli
from gradsift.data.targets import parse_targets, read_targets
from gradsift.datastore.store import Store
from gradsift.model import load
from gradsift.runtime.errors import StoreError, UsageError
from gradsift.scoring import methods
from gradsift.scoring.methods import METHODS, get_method, look, register
from gradsift.scoring.score_targets import score_targets
from gradsift.selection.score import score

ROOT = Path(__file__).resolve().parents[2]
FILE = '''
"""The shortest answers."""

import torch

from gradsift.datastore.shards import write_tensors
from gradsift.scoring.method import Method


class Toy(Method):
    name, label, description = "toy", "Toy method", "the shortest answers, whatever the targets"

    def compute(self, context):
        lengths = context.store.pool()["n_answer_tokens"].loc[context.scoring.rows].to_numpy(dtype="float32")
        (path,) = self.files(context.scoring, context.gradient)
        write_tensors(path, {"scores": torch.from_numpy(-lengths)}, {"kind": self.name})

    def evidence(self, scoring, gradient, seed, rows, groups):
        ((arrays, weight),) = self.kept(scoring, gradient)
        return [scoring.for_every_target(arrays["scores"][rows], weight)]


METHODS = (Toy(),)
'''
WITH_THE_FILE = """
import sys
from gradsift.scoring import methods
methods.__path__.append(sys.argv.pop(1))
methods.discover()
from gradsift.cli.main import main
main()
"""


@pytest.fixture
def toy() -> Iterator[str]:
    """The name of a method that a program has registered."""
    namespace: dict = {"__name__": "toy"}
    exec(FILE, namespace)
    (method,) = namespace["METHODS"]
    register(method)
    yield method.name
    del METHODS[method.name]


def shortest(table: pd.DataFrame, store: Store) -> bool:
    """Whether a table ranks the rows with the shortest answers first."""
    lengths = store.pool()["n_answer_tokens"].loc[table["row"]].to_numpy()
    return len(table) == len(store.scored_rows) and (table["score"] == -lengths).all()


class TestANewMethod:
    def test_is_in_the_table_of_score(self, toy, tiny_copy, tiny_targets):
        table = score(tiny_copy, read_targets(tiny_targets).rows, ["less", toy])
        assert table["method"].unique().tolist() == ["less", toy]
        own = table[table["method"] == toy]
        assert shortest(own, tiny_copy)
        assert own.sort_values("rank")["score"].is_monotonic_decreasing
        assert set(own["best_subtask"]) == {""}  # it ignores the targets

    def test_is_kept_like_the_others(self, toy, tiny_copy, tiny_targets):
        targets = read_targets(tiny_targets).rows
        scoring = score_targets(tiny_copy, targets, ["random"])
        assert not scoring.has(toy)
        with pytest.raises(StoreError, match="toy has not scored these targets yet"):
            scoring.evidence(toy)
        (path,) = get_method(toy).files(score_targets(tiny_copy, targets, [toy]), "adam")
        before = path.stat()
        assert score_targets(tiny_copy, targets, [toy]).has(toy)
        assert path.stat() == before

    def test_is_known_to_the_command_line(self, toy, tiny_copy, tiny_targets, tmp_path):
        given = [
            "score",
            str(tiny_copy.path),
            "--targets",
            str(tiny_targets),
            "--out",
            str(tmp_path / "scores.parquet"),
        ]
        done = CliRunner().invoke(cli, [*given, "--method", toy])
        assert done.exit_code == 0, done.output
        assert shortest(pd.read_parquet(tmp_path / "scores.parquet"), tiny_copy)

    def test_has_a_column_in_the_app(self, toy, scored):
        store = Store.open(scored.store_path("toy"))
        assert score_targets(store, parse_targets(TARGETS).rows, [toy]).has(toy)
        at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
        for name, value in {"store": "toy", "targets": "two", "budget": "10"}.items():
            at.query_params[name] = value
        at.run()
        at.switch_page("../pages/compare.py").run()
        assert not at.exception, at.exception
        columns = {column["key"]: column for column in board(at)}
        assert list(columns) == list(METHODS)
        assert "Toy method" in columns[toy]["head"]
        assert look(toy).mark in columns[toy]["head"]
        lengths = store.pool()["n_answer_tokens"]
        picked = [int(lengths[card["row"]]) for card in columns[toy]["cards"]]
        assert picked == sorted(lengths[store.scored_rows])[:10]

    def test_may_be_a_file_that_nothing_names(self, tiny_copy, tiny_targets, tmp_path):
        """In another process, in which the package of methods has one more folder."""
        (tmp_path / "plugins").mkdir()
        (tmp_path / "plugins" / "shortest.py").write_text(FILE)

        def gradsift(*arguments: str) -> str:
            command = [sys.executable, "-c", WITH_THE_FILE, str(tmp_path / "plugins"), *arguments]
            wide = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
            done = subprocess.run(command, capture_output=True, text=True, env=wide)
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert "random, toy; may be repeated" in gradsift("score", "--help")
        out = tmp_path / "scores.parquet"
        given = ("--targets", str(tiny_targets), "--method", "toy", "--out", str(out), "--json")
        assert json.loads(gradsift("score", str(tiny_copy.path), *given))["best_score"].keys() == {"toy"}
        assert shortest(pd.read_parquet(out), tiny_copy)

    def test_takes_nobodys_name(self, toy):
        with pytest.raises(ValueError, match="there is already a method 'toy'"):
            register(type(get_method(toy))())
        assert look(toy) == look(toy)
        assert look(toy) not in [method.look for method in METHODS.values()]


class TestRegistry:
    def test_lists_the_methods_in_their_order(self):
        expected = ["less", "bm25", "rds", "rds+", "draft", "dsir", "length", "loss", "random"]
        assert list(METHODS) == expected
        methods.discover()  # again: nothing new
        assert list(METHODS) == expected
        with pytest.raises(UsageError, match="no method 'lesser'; choose among less, bm25"):
            get_method("lesser")

    def test_can_be_read_without_the_libraries_that_compute(self):
        code = "import sys, gradsift.scoring.methods as m; print(len(m.METHODS), {'torch', 'numpy'} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split(maxsplit=1) == [str(len(METHODS)), "set()\n"]

    @pytest.mark.parametrize("names", [["rds+", "draft"], ["less", "rds"]])
    def test_methods_that_share_their_work_load_the_model_once(self, names, tiny_copy, tiny_targets, monkeypatch):
        shutil.rmtree(tiny_copy.path / "representations" / "base", ignore_errors=True)
        shutil.rmtree(tiny_copy.path / "scorings", ignore_errors=True)
        loads, real = [], load.load_model
        monkeypatch.setattr(load, "load_model", lambda *given: loads.append(given) or real(*given))
        scoring = score_targets(tiny_copy, read_targets(tiny_targets).rows, names)
        assert all(scoring.has(name) for name in names)
        assert len(loads) == 1
