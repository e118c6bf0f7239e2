"""Whether a store is intact: every hash and every row is checked."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gradsift.datastore.manifest import Part
from gradsift.datastore.shards import read_tensors
from gradsift.datastore.store import BASE_KINDS, Store
from gradsift.runtime.errors import GradsiftError
from gradsift.runtime.hashing import hash_bytes, hash_file
from gradsift.runtime.progress import Progress


def verify(path: str | Path, progress: Progress | None = None) -> list[str]:
    """Check the store at `path`; returns one sentence per problem, an empty list for an intact store.

    This checks the manifest's own hash, the hash of every fixed file, every original line against its sha256, the
    counts, every shard against its hash, its parameters and the rows it should cover, and every kept scoring.

    Raises:
        StoreError: there is no store that can be opened.
    """
    store = Store.open(path)
    progress = progress or Progress(quiet=True)
    problems = [f"{missing} is missing." for missing in store.missing()]
    problems += _files(store)
    problems += _rows(store)
    problems += _shards(store, progress)
    for file in sorted((store.path / "scorings").glob("*/*.safetensors")):
        problems += _attempt(partial(read_tensors, file))
    return problems


def _files(store: Store) -> list[str]:
    problems = []
    for name, expected in store.manifest.files.items():
        path = store.path / name
        if not path.is_file():
            problems.append(f"{path} is missing.")
        elif hash_file(path) != expected:
            problems.append(f"{path} is damaged: its content does not match its hash.")
    return problems


def _rows(store: Store) -> list[str]:
    problems: list[str] = []
    first = 0
    for name, part in zip(store.pool_names, store.manifest.parts, strict=True):
        if (store.path / name).is_file():  # otherwise `_files` has reported it
            problems += _part(store.path / name, first, part)
        first += part.rows
    return problems


def _part(path: Path, first: int, part: Part) -> list[str]:
    problems, rows, usable = [], first, 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(1000, columns=["row", "raw", "sha256", "status"]):
            for row, raw, expected, status in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                usable += status == "usable"
                if row != rows or hash_bytes(raw) != expected:
                    problems.append(f"{path}: row {rows} differs from the line that was read.")
                rows += 1
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        return [f"{path} cannot be read: {error}."]
    if (rows - first, usable) != (part.rows, part.usable):
        problems.append(
            f"{path} holds {rows - first} rows, {usable} usable; the manifest says {part.rows} and {part.usable}."
        )
    return problems


def _shards(store: Store, progress: Progress) -> list[str]:
    problems = []
    epochs, ranges = range(len(store.epochs)), range(len(store.shard_ranges))
    progress.stage("verify", "Verifying shards", len(epochs) * len(ranges), "shards")
    for epoch in epochs:
        for index in ranges:
            for kind in store.kinds:
                if store.shard_path(kind, epoch, index).is_file():
                    problems += _attempt(partial(store.shard, kind, epoch, index))
            if store.shard_path("metrics", epoch, index).is_file():
                problems += _attempt(partial(store.read_metrics, epoch, index))
            progress.advance()
    for kind in BASE_KINDS:
        for index in ranges:
            if store.shard_path(kind, 0, index).is_file():
                problems += _attempt(partial(store.shard, kind, 0, index))
    return problems


def _attempt(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except GradsiftError as error:
        return [str(error)]
    return []
