"""Picks as files: their content, that they add up, and that they are reproducible."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conversations import records

from gradsift import score, select
from gradsift.data.pool import Row
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.model import load
from gradsift.runtime.errors import UsageError
from gradsift.scoring.score_targets import score_targets
from gradsift.selection.picks import read_traits

METHODS = ("less", "rds", "bm25", "random")


@pytest.fixture
def targets(tiny_targets: Path) -> list[Row]:
    return read_targets(tiny_targets).rows


@pytest.fixture
def table(tiny_store: Store, targets: list[Row]) -> pd.DataFrame:
    return score(tiny_store, targets, METHODS)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_kept_scoring_needs_no_model(
    tiny_copy: Store, targets: list[Row], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = score(tiny_copy, targets, METHODS)
    kept = {path: path.stat().st_mtime_ns for path in (tiny_copy.path / "scorings").rglob("*") if path.is_file()}

    def gone(model: str) -> str:
        raise load.ModelError(f"{model} is gone")

    monkeypatch.setattr(load, "locate", gone)
    pd.testing.assert_frame_equal(score(tiny_copy, targets, METHODS), first)
    mean = score(tiny_copy, targets, ["less"], aggregate="mean", similarity="dot", target_pooling="mean-of-cosines")
    assert mean["score"].tolist() != first["score"][:40].tolist()
    assert len(lines(select(tiny_copy, targets, "3", tmp_path / "picks"))) == 3
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    with pytest.raises(load.ModelError):
        score(tiny_copy, targets[:2], ["less"])


@pytest.mark.parametrize(
    ("top", "count"),
    [("5%", 2), ("7.4%", 2), ("7.5%", 3), ("0.01%", 1), ("100%", 40), ("1", 1), ("17", 17), ("4000", 40)],
)
def test_budgets_in_rows(tiny_store: Store, targets: list[Row], tmp_path: Path, top: str, count: int) -> None:
    assert len(lines(select(tiny_store, targets, top, tmp_path, method="bm25"))) == count
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["picked_rows"] == count
    assert manifest["budget"] == top


def test_a_token_budget_is_kept(tiny_store: Store, targets: list[Row], tmp_path: Path) -> None:
    picked = lines(select(tiny_store, targets, "300tokens", tmp_path))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert 0 < manifest["picked_tokens"] <= 300
    scoring = score_targets(tiny_store, targets, ["less"])
    best = score(tiny_store, targets).sort_values("rank")
    tokens = dict(zip(scoring.rows, read_traits(tiny_store, scoring).n_tokens, strict=True))
    running = np.cumsum([tokens[row] for row in best["row"]])
    assert len(picked) == (running <= 300).sum()
    with pytest.raises(UsageError, match="A budget of 3 tokens is less than the best row's"):
        select(tiny_store, targets, "3tokens", tmp_path)


@pytest.mark.parametrize("top", ["", "0", "0%", "101%", "-5", "2.5", "5 percent", "all", "5%%", "nan%", "1e3"])
def test_what_is_not_a_budget(tiny_store: Store, targets: list[Row], tmp_path: Path, top: str) -> None:
    with pytest.raises(UsageError, match=r"is not a budget; use a share \(5%\)"):
        select(tiny_store, targets, top, tmp_path)


def test_files_of_an_export(tiny_store: Store, targets: list[Row], table: pd.DataFrame, tmp_path: Path) -> None:
    path = select(tiny_store, targets, "5", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("README.md", "SHA256SUMS", "axolotl.yaml", "dataset_info.json", "manifest.json", "picks.csv"),
        *("scores.parquet", "train.jsonl"),
    ]
    best = table[table["method"] == "less"].sort_values("rank").head(5)
    expected = tiny_store.texts(best["row"])["conversation"].map(lambda conversation: records(conversation.messages))
    assert [line["messages"] for line in lines(path)] == expected.tolist()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "scores.parquet"), table[table["method"] == "less"])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["store"] == tiny_store.fingerprint
    assert manifest["data"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (manifest["scored_rows"], manifest["targets"], manifest["subtasks"]) == (40, 3, ["boxes", "cats"])


def test_less_lines_are_the_sources_lines(
    tiny_store: Store, tiny_pool: Path, targets: list[Row], tmp_path: Path
) -> None:
    source = {name: (tiny_pool / name).read_bytes().split(b"\n") for name in ("facts.jsonl", "talk.jsonl")}
    path = select(tiny_store, targets, "10", tmp_path, format="less", method="random")
    ranked = pd.read_parquet(tmp_path / "scores.parquet").sort_values("rank").head(10)
    pool = tiny_store.pool().loc[ranked["row"]]
    expected = [source[file][line - 1] for file, line in zip(pool["file"], pool["line"], strict=True)]
    assert path.read_bytes() == b"\n".join(expected) + b"\n"


@pytest.mark.parametrize("method", METHODS)
def test_exports_come_out_the_same_again(tiny_store: Store, targets: list[Row], tmp_path: Path, method: str) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        select(tiny_store, targets, "25%", folder, method=method, seed=3)
    for name in ("train.jsonl", "scores.parquet", "manifest.json", "README.md"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
