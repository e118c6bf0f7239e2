"""Target features in a file: scores equal those with the model, and no other store or target set accepts them."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from commands import gradsift
from stores import contents, flip

import gradsift as api
from gradsift.builder import build as builder
from gradsift.config import BuildConfig
from gradsift.data.pool import Row
from gradsift.data.targets import TargetError, require_targets
from gradsift.datastore.store import Store
from gradsift.runtime.errors import GradsiftError, StoreError
from gradsift.runtime.progress import Progress
from gradsift.selection.score import score

METHODS = ("less", "rds", "bm25", "random")


@pytest.fixture(scope="module")
def rows(tiny_targets: Path) -> list[Row]:
    return require_targets(tiny_targets)


@pytest.fixture(scope="module")
def own_store(
    tiny_model: Path, tiny_pool: Path, tiny_config: BuildConfig, tmp_path_factory: pytest.TempPathFactory
) -> Store:
    """A store with a model of its own, which a test may move away."""
    folder = tmp_path_factory.mktemp("travelling")
    model = shutil.copytree(tiny_model, folder / "model")
    config = tiny_config.model_copy(update={"model": str(model)})
    return builder.build([tiny_pool], folder / "store", config, progress=Progress(quiet=True))


@pytest.fixture(scope="module")
def file(own_store: Store, rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features, made from a copy of the store without its shards."""
    folder = tmp_path_factory.mktemp("card")
    shutil.copytree(own_store.path, folder / "store", ignore=shutil.ignore_patterns("features", "metrics", "repr*"))
    return api.target_features(Store.open(folder / "store"), rows, folder / "targets.safetensors")


def test_without_the_model_it_scores_what_the_model_does(
    own_store: Store, rows: list[Row], tiny_targets: Path, file: Path, tmp_path: Path
) -> None:
    expected = score(_copy(own_store, tmp_path / "direct"), rows, METHODS)
    copy = _copy(own_store, tmp_path / "copy")
    model = Path(own_store.manifest.config.model)
    model.rename(tmp_path / "elsewhere")
    try:
        out = tmp_path / "scores.parquet"
        flags = [word for method in METHODS for word in ("--method", method)]
        inputs = ["--targets", tiny_targets, "--target-features", file]
        assert gradsift("score", copy.path, *inputs, *flags, "--out", out).code == 0
        pd.testing.assert_frame_equal(pd.read_parquet(out), expected)
        pd.testing.assert_frame_equal(score(copy, rows, ["rds"]), score(copy, rows, ["rds"], target_features=file))
        picks = tmp_path / "picks"
        again = _copy(own_store, tmp_path / "again")
        assert gradsift("select", again.path, *inputs, "--top", "5", "--method", "rds", "--out", picks).code == 0
        table = score(again, rows, ["less"])  # a later scoring with another method reuses the features
        pd.testing.assert_frame_equal(table, expected[expected["method"] == "less"])
    finally:
        (tmp_path / "elsewhere").rename(model)
    assert len((picks / "train.jsonl").read_text().splitlines()) == 5


def test_only_a_model_could_score_without_the_file(own_store: Store, rows: list[Row], tmp_path: Path) -> None:
    model = Path(own_store.manifest.config.model)
    model.rename(tmp_path / "elsewhere")
    try:
        with pytest.raises(GradsiftError, match="cannot be loaded"):
            score(_copy(own_store, tmp_path / "copy"), rows, ["less"])
    finally:
        (tmp_path / "elsewhere").rename(model)


def test_other_targets_are_refused(own_store: Store, rows: list[Row], file: Path, tmp_path: Path) -> None:
    changed = [*rows[:-1], replace(rows[-1], prefix="")]
    for others in (changed, rows[:-1], rows[::-1]):
        _refused(own_store, others, file, tmp_path, TargetError, "features of 3 targets, which are not the")


def test_another_store_is_refused(
    own_store: Store, tiny_store: Store, rows: list[Row], file: Path, tmp_path: Path
) -> None:
    _refused(tiny_store, rows, file, tmp_path, StoreError, "of another store")
    manifest = own_store.manifest
    first = manifest.checkpoints[0].model_copy(update={"projector": "another"})
    checkpoints = (first, *manifest.checkpoints[1:])
    for change in ({"checkpoints": checkpoints}, {"model_fingerprint": "0"}, {"encoder_fingerprint": "0"}):
        foreign = Store(own_store.path, manifest.model_copy(update=change))
        _refused(foreign, rows, file, tmp_path, StoreError, "of another store")


def test_a_damaged_or_foreign_file_is_refused(own_store: Store, rows: list[Row], file: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copy(file, tmp_path / "damaged"))
    flip(damaged, -5)
    foreign = own_store.shard_path("adam", 0, 0)
    noise = tmp_path / "noise"
    noise.write_bytes(b"\x00" * 100)
    for path in (damaged, noise, tmp_path / "missing"):
        _refused(own_store, rows, path, tmp_path, StoreError, "missing, damaged, or not a file of target features")
    _refused(own_store, rows, foreign, tmp_path, StoreError, "of another store")


def test_a_store_without_checkpoints_has_none(own_store: Store, rows: list[Row], tmp_path: Path) -> None:
    begun = Store(own_store.path, own_store.manifest.model_copy(update={"checkpoints": ()}))
    with pytest.raises(StoreError, match="no checkpoints yet"):
        api.target_features(begun, rows, tmp_path / "f")


def _copy(store: Store, to: Path) -> Store:
    shutil.copytree(store.path, to, ignore=shutil.ignore_patterns("scorings"))
    return Store.open(to)


def _refused(
    store: Store, rows: Sequence[Row], file: Path, tmp_path: Path, error: type[GradsiftError], message: str
) -> None:
    before = contents(store.path)
    with pytest.raises(error, match=message):
        score(store, rows, target_features=file)
    with pytest.raises(error, match=message):
        api.select(store, rows, "5", tmp_path / "picks", target_features=file)
    assert contents(store.path) == before
    assert not (tmp_path / "picks").exists()
