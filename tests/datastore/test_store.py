"""What a store reports about itself, what it refuses, and what a flipped bit anywhere in it leads to."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from stores import flip

from gradsift.analysis.summary import inspect
from gradsift.data.pool import Row
from gradsift.data.targets import read_targets
from gradsift.datastore.metrics import METRICS
from gradsift.datastore.shards import ShardError, decode, encode, read_shard, read_tensors, write_shard
from gradsift.datastore.store import Store
from gradsift.export.selection import select
from gradsift.runtime.errors import GradsiftError, StoreError
from gradsift.selection.score import score


@pytest.fixture
def targets(tiny_targets: Path) -> list[Row]:
    return read_targets(tiny_targets).rows


def test_numbers_add_up(tiny_store: Store) -> None:
    manifest = tiny_store.manifest
    assert tiny_store.complete
    assert manifest.rows == 42 == len(tiny_store.pool())
    assert manifest.usable == 40 == len(tiny_store.rows) == tiny_store.scored.sum()
    assert manifest.usable + sum(manifest.excluded.values()) == manifest.rows
    coverage = tiny_store.coverage()
    assert coverage["rows_in_store"].sum() == manifest.rows
    assert (coverage["usable"] + coverage["excluded"]).equals(coverage["rows_in_store"])
    assert tiny_store.shard_ranges == [(0, 8), (8, 16), (16, 24), (24, 32), (32, 40)]
    assert tiny_store.weights.sum() == pytest.approx(1)


def test_pool_holds_no_text_and_metrics_cover_usable_rows(tiny_store: Store) -> None:
    pool = tiny_store.pool()
    assert pool.index.tolist() == list(range(42))
    assert not {"messages", "raw", "prefix"} & set(pool.columns)
    metrics = tiny_store.metrics()
    assert list(metrics.columns) == ["epoch", "row", *METRICS]
    for _, frame in metrics.groupby("epoch"):
        assert frame["row"].tolist() == tiny_store.rows.tolist()
    assert list(tiny_store.loss_curve().columns) == ["step", "epoch", "loss", "learning_rate", "grad_norm"]
    assert len(tiny_store.loss_curve()) == 10


def test_fingerprint_is_of_content(tiny_store: Store, tiny_copy: Store) -> None:
    assert tiny_copy.fingerprint == tiny_store.fingerprint
    (part,) = tiny_copy.manifest.parts
    other = part.model_copy(update={"pool_fingerprint": "another"})
    changed = tiny_copy.manifest.model_copy(update={"parts": (other,)})
    assert Store(tiny_copy.path, changed).fingerprint != tiny_store.fingerprint


@pytest.mark.parametrize("dtype", ["int8", "fp16", "bit"])
def test_a_shard_gives_back_its_rows(tmp_path: Path, dtype: str) -> None:
    x = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    x[3, 5], x[4] = torch.nan, 0
    write_shard(tmp_path / "s", "made of this", 8, dtype, x)
    shard = read_shard(tmp_path / "s", "made of this")
    assert (shard.start, shard.stop, shard.dtype) == (8, 28, dtype)
    rows = torch.cat([block for _, block in shard.blocks()])
    good = [i for i in range(20) if i not in (3, 4)]
    assert torch.allclose(rows[good].norm(dim=1), torch.ones(18), atol=1e-6)
    cosines = torch.cosine_similarity(rows[good], x[good])
    assert cosines.min() > {"int8": 0.9999, "fp16": 0.999999, "bit": 0.7}[dtype]
    assert not rows[[3, 4]].any()
    assert shard.norm[3].isnan()
    assert torch.allclose(shard.norm[good], x[good].norm(dim=1))


def test_one_bit_is_a_sign(tmp_path: Path) -> None:
    x = torch.tensor([[1.0, -2.0, 3.0, -4.0, 5.0, 6.0, -7.0, 8.0]])
    q, scale, norm = encode(x, "bit")
    assert (decode(q, "bit") == x.sign()).all()
    assert scale.item() == pytest.approx(8**-0.5)
    assert norm.item() == pytest.approx(x.norm().item())


def test_a_shard_of_other_parameters_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "s", "these", 0, "int8", torch.ones(1, 8))
    with pytest.raises(ShardError, match="made with other parameters"):
        read_shard(tmp_path / "s", "those")


def test_a_flipped_bit_anywhere_in_a_shard_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_shard(path, "p", 0, "int8", torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in (0, 3, 7):
            path.write_bytes(whole)
            flip(path, position, bit)
            with pytest.raises(ShardError, match="damaged"):
                read_tensors(path)


def test_metrics_flipped_anywhere_are_noticed_or_read_the_same(tiny_copy: Store) -> None:
    path = tiny_copy.shard_path("metrics", 0, 0)
    whole, expected = path.read_bytes(), tiny_copy.read_metrics(0, 0).to_pydict()
    noticed = 0
    for position in range(0, len(whole), 5):
        path.write_bytes(whole)
        flip(path, position, position % 8)
        try:
            assert tiny_copy.read_metrics(0, 0).to_pydict() == expected
        except ShardError:
            noticed += 1
    assert noticed > len(whole) / 20


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_half_a_shard_is_no_shard(tiny_copy: Store, cut: int) -> None:
    for kind in ("adam", "rds", "metrics"):
        path = tiny_copy.shard_path(kind, 0, 1)
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(ShardError, match=path.name):
            tiny_copy.read_metrics(0, 1) if kind == "metrics" else tiny_copy.shard(kind, 0, 1)


def test_a_shard_under_another_name_is_refused(tiny_copy: Store) -> None:
    shutil.copy(tiny_copy.shard_path("adam", 0, 0), tiny_copy.shard_path("adam", 0, 1))
    with pytest.raises(ShardError, match="other rows than its name says"):
        tiny_copy.shard("adam", 0, 1)
    shutil.copy(tiny_copy.shard_path("adam", 1, 0), tiny_copy.shard_path("adam", 0, 0))
    with pytest.raises(ShardError, match="other parameters"):
        tiny_copy.shard("adam", 0, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a gradsift store"),
        ("{", "cannot be read"),
        ("[]", "another version"),
        ('{"schema_version": 99}', "another version"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, content: str | bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(StoreError, match=message):
        Store.open(tmp_path)


def test_a_changed_manifest_is_damaged(tiny_copy: Store) -> None:
    path = tiny_copy.path / "manifest.json"
    record = json.loads(path.read_text())
    record["usable"] = 39
    path.write_text(json.dumps(record))
    with pytest.raises(StoreError, match="does not match its hash"):
        Store.open(tiny_copy.path)


def test_a_flipped_manifest_never_opens_as_something_else(tiny_copy: Store) -> None:
    path = tiny_copy.path / "manifest.json"
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole)
        flip(path, position, position % 8)
        try:
            assert Store.open(tiny_copy.path).fingerprint == tiny_copy.fingerprint
        except StoreError:
            continue


def test_a_damaged_pool_is_refused_before_anything_is_scored(tiny_copy: Store, targets: list[Row]) -> None:
    flip(tiny_copy.path / "pool.parquet", 2000)
    with pytest.raises(StoreError, match=r"pool\.parquet is damaged"):
        score(Store.open(tiny_copy.path), targets, ["bm25"])
    (tiny_copy.path / "pool.parquet").write_bytes(b"PAR1 no more")

    def scoring(store: Store) -> None:
        score(store, targets)

    for read in (Store.pool, inspect, lambda store: store.rows, lambda store: store.texts([0]), scoring):
        with pytest.raises(StoreError, match=r"pool\.parquet is damaged"):
            read(Store.open(tiny_copy.path))
    (tiny_copy.path / "pool.parquet").unlink()
    with pytest.raises(StoreError, match=r"pool\.parquet is missing"):
        Store.open(tiny_copy.path).pool()


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "moments.safetensors", "state.json", "adapter_config.json"]
)
def test_a_damaged_checkpoint_is_refused(tiny_copy: Store, targets: list[Row], name: str) -> None:
    flip(tiny_copy.path / "checkpoints" / "epoch-2" / name, -9)
    with pytest.raises(StoreError, match=rf"epoch-2/{name} is damaged"):
        score(tiny_copy, targets)


@pytest.mark.parametrize("kind", ["adam", "rds", "metrics"])
def test_scoring_refuses_a_damaged_shard_and_names_it(tiny_copy: Store, targets: list[Row], kind: str) -> None:
    path = tiny_copy.shard_path(kind, 1, 2)
    flip(path, 60 if kind == "metrics" else -1)  # a number; most of a small Parquet file repeats its schema
    with pytest.raises(ShardError, match=path.name):
        score(tiny_copy, targets, ["less", "rds"])


def test_scoring_refuses_an_unfinished_store(tiny_copy: Store, targets: list[Row]) -> None:
    tiny_copy.shard_path("rds", 1, 4).unlink()
    assert not tiny_copy.complete
    with pytest.raises(
        StoreError,
        match=r"not finished: files are missing \(1, the first is rds-00004\.safetensors\); run the same build again",
    ):
        score(tiny_copy, targets)


def test_rows_that_are_not_finite_are_listed_and_never_selected(
    tiny_copy: Store, targets: list[Row], tmp_path: Path
) -> None:
    _spoil(tiny_copy, positions=[3, 17])
    store = Store.open(tiny_copy.path)
    lost = store.rows[[3, 17]].tolist()
    assert inspect(store)["not_finite_rows"] == lost
    assert len(store.scored_rows) + len(lost) == store.manifest.usable
    methods = ["less", "rds", "bm25", "random"]
    table = score(store, targets, methods)
    assert not set(lost) & set(table["row"])
    assert np.isfinite(table["score"]).all()
    for method in methods:
        assert sorted(table[table["method"] == method]["rank"]) == list(range(1, 39))
        path = select(store, targets, "100%", tmp_path / method, method=method)
        assert len(path.read_text().splitlines()) == 38


def test_a_store_without_one_finite_row_says_so(tiny_copy: Store, targets: list[Row]) -> None:
    _spoil(tiny_copy, positions=list(range(40)))
    with pytest.raises(StoreError, match=r"No row .* has a finite gradient"):
        score(Store.open(tiny_copy.path), targets)


def _spoil(store: Store, positions: list[int]) -> None:
    """Make rows not finite at the first checkpoint, as a build with such rows would have written them."""
    for index, (start, stop) in enumerate(store.shard_ranges):
        inside = [position - start for position in positions if start <= position < stop]
        if not inside:
            continue
        shard = store.shard("adam", 0, index)
        rows = torch.cat([block for _, block in shard.blocks()])
        rows[inside] = torch.nan
        write_shard(shard.path, store.params("adam", 0, index), start, shard.dtype, rows)
        columns = {name: store.read_metrics(0, index)[name].to_numpy().copy() for name in METRICS}
        columns["update_norm"][inside] = np.nan
        store.write_metrics(0, index, columns, 0)


def test_every_error_is_one_sentence(tiny_copy: Store) -> None:
    tiny_copy.shard_path("adam", 0, 0).write_bytes(b"")
    with pytest.raises(GradsiftError) as caught:
        tiny_copy.shard("adam", 0, 0)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
