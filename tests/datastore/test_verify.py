"""`verify` finds every change to what a build promised, and says where."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stores import contents, flip

from gradsift import score
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.datastore.verify import verify
from gradsift.runtime.errors import StoreError


def test_a_whole_store_has_no_problem(tiny_store: Store) -> None:
    assert verify(tiny_store.path) == []


def test_a_flipped_bit_in_any_file_is_found_and_named(tiny_copy: Store) -> None:
    """In metrics, a bit of a number: most of a small Parquet file repeats what a reader needs only once."""
    for name, content in contents(tiny_copy.path).items():
        if name == "manifest.json":
            continue
        flip(tiny_copy.path / name, 60 if name.startswith("metrics") else len(content) // 2)
        assert any(name in problem for problem in verify(tiny_copy.path)), name
        (tiny_copy.path / name).write_bytes(content)
    assert verify(tiny_copy.path) == []


def test_every_missing_file_is_found_and_named_once(tiny_copy: Store) -> None:
    for name, content in contents(tiny_copy.path).items():
        if name == "manifest.json":
            continue
        (tiny_copy.path / name).unlink()
        assert [problem for problem in verify(tiny_copy.path) if name in problem] == [
            f"{tiny_copy.path / name} is missing."
        ]
        (tiny_copy.path / name).write_bytes(content)


def test_no_store_or_a_damaged_manifest_is_an_error(tiny_copy: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a gradsift store"):
        verify(tmp_path)
    flip(tiny_copy.path / "manifest.json", 300)
    with pytest.raises(StoreError, match=r"manifest\.json"):
        verify(tiny_copy.path)


def test_all_problems_are_reported_not_only_the_first(tiny_copy: Store) -> None:
    tiny_copy.shard_path("adam", 0, 0).unlink()
    flip(tiny_copy.shard_path("rds", 1, 3), -1)
    flip(tiny_copy.path / "checkpoints" / "epoch-1" / "state.json", 5)
    problems = verify(tiny_copy.path)
    named = ("adam-00000.safetensors is missing", "rds-00003.safetensors is damaged", "epoch-1/state.json is damaged")
    assert len(problems) >= 3
    for name in named:
        assert any(name in problem for problem in problems)


def test_rows_are_checked_against_their_own_hashes(tiny_copy: Store) -> None:
    """It is found even if somebody rewrote the pool and the manifest to match."""
    path = tiny_copy.path / "pool.parquet"
    table = pq.read_table(path)
    raw = table["raw"].to_pylist()
    raw[5] = b"another line"
    column = table.schema.get_field_index("raw")
    pq.write_table(table.set_column(column, "raw", pa.array(raw, pa.binary())).slice(0, 41), path)
    problems = verify(tiny_copy.path)
    assert any(problem.endswith("row 5 differs from the line that was read.") for problem in problems)
    assert any("holds 41 rows, 39 usable; the manifest says 42 and 40" in problem for problem in problems)


def test_a_shard_at_another_place_is_found(tiny_copy: Store) -> None:
    shutil.copy(tiny_copy.shard_path("adam", 0, 0), tiny_copy.shard_path("adam", 0, 2))
    assert any("adam-00002.safetensors covers other rows" in problem for problem in verify(tiny_copy.path))


def test_metrics_at_another_place_are_found(tiny_copy: Store) -> None:
    shutil.copy(tiny_copy.shard_path("metrics", 0, 0), tiny_copy.shard_path("metrics", 0, 2))
    assert any("00002.parquet covers other rows" in problem for problem in verify(tiny_copy.path))


def test_kept_scorings_are_checked(tiny_copy: Store, tiny_targets: Path) -> None:
    score(tiny_copy, read_targets(tiny_targets).rows, ["less", "bm25"])
    assert verify(tiny_copy.path) == []
    kept = sorted((tiny_copy.path / "scorings").rglob("*.safetensors"))
    assert len(kept) == 5
    flip(kept[0], -1)
    assert [kept[0].name in problem for problem in verify(tiny_copy.path)] == [True]


def test_a_manifest_that_names_files_outside_the_store_is_refused(tiny_copy: Store) -> None:
    """A store may come from a stranger."""
    files = {**tiny_copy.manifest.files, "../../etc/passwd": "0" * 64}
    Store(tiny_copy.path, tiny_copy.manifest.model_copy(update={"files": files})).save_manifest()
    with pytest.raises(StoreError, match="does not fit"):
        Store.open(tiny_copy.path)
    assert json.loads((tiny_copy.path / "manifest.json").read_text())["files"] == files
