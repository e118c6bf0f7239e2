"""The gradient datastore on disk: manifest, pool, checkpoints, shards; what belongs to it, and what is missing.

    STORE/manifest.json            every parameter, hashes, row counts, checkpoints with mean lr and weight
    STORE/pool.parquet             every row read, with its original line and tokens (appended: pool-2.parquet)
    STORE/warmup/                  subset's rows, loss curve
    STORE/checkpoints/epoch-1/     see training/checkpoint.py
    STORE/features/epoch-1/        adam-00000.safetensors ...      see shards.py
    STORE/representations/epoch-1/ rds-00000.safetensors ...
    STORE/representations/base/    rds+-00000.safetensors ...      of the base model, see scoring/base_model.py
    STORE/metrics/epoch-1/         00000.parquet: row, grad_norm, update_norm, loss
    STORE/scorings/                kept scorings, see scoring/scoring.py
    STORE/index/                   see text/index.py, scoring/bm25_index.py, datastore/verified.py
    STORE/job/                     status and log of the last run

An intact shard is its own record of progress. A build promises the bytes of everything except `representations/base`
and the last three folders. They do not depend on time or place: an interrupted and resumed build ends with the same
bytes as an uninterrupted one.
"""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from gradsift.datastore.manifest import SCHEMA_VERSION, Manifest, Part
from gradsift.datastore.metrics import METRICS, read_metrics, write_metrics
from gradsift.datastore.pool_files import PoolFiles, pool_file
from gradsift.datastore.shards import Shard, ShardError, read_shard
from gradsift.datastore.tokens import StoredTokens
from gradsift.datastore.verified import Checked
from gradsift.runtime import atomic
from gradsift.runtime.errors import StoreError
from gradsift.runtime.hashing import hash_file, hash_json
from gradsift.training.checkpoint import Checkpoint

MANIFEST = "manifest.json"
BASE_KINDS = ("rds+", "draft")  # shards of the base model, made when a method first asks for them
_POOL_COLUMNS = (  # of pool.parquet, without text and tokens
    *("row", "id", "source", "task", "file", "line", "schema", "sha256"),
    *("n_prompt_tokens", "n_answer_tokens", "n_cut", "status", "reason"),
)


class Store:
    """A datastore opened for reading. Opening checks the manifest; `verify` checks everything."""

    def __init__(self, path: Path, manifest: Manifest, name: str = MANIFEST) -> None:
        self.path, self.manifest, self.name = path, manifest, name

    @classmethod
    def open(cls, path: str | Path, name: str = MANIFEST) -> "Store":
        """Open the store at `path`, complete or not. name: of the manifest's file (an append writes a second one).

        Raises:
            StoreError: there is no store, it is of another version, or its manifest is damaged.
        """
        path = Path(path)
        try:
            record = json.loads((path / name).read_text())
        except FileNotFoundError:
            raise StoreError(
                f"{path} is not a gradsift store: it has no {name}; make one with gradsift build."
            ) from None
        except (OSError, ValueError) as error:
            raise StoreError(f"{path / name} cannot be read ({error}); restore it or build again.") from error
        if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
            raise StoreError(f"{path} was written by another version of gradsift; build it again with this one.")
        expected = record.pop("sha256", None)
        if hash_json(record) != expected:
            raise StoreError(
                f"{path / name} is damaged: its content does not match its hash; restore it or build again."
            )
        try:
            return cls(path, Manifest.model_validate(record), name)
        except ValidationError as error:
            raise StoreError(
                f"{path / name} does not fit this version of gradsift: {error.errors()[0]['msg']}."
            ) from error

    def save_manifest(self) -> None:
        """Write the manifest with its own hash."""
        record = self.manifest.model_dump(mode="json")
        atomic.write_json(self.path / self.name, {**record, "sha256": hash_json(record)})

    # -- what it is made of -------------------------------------------------------------------------------------------

    @property
    def epochs(self) -> list[str]:
        """Names of the checkpoints, in order."""
        return [checkpoint.name for checkpoint in self.manifest.checkpoints]

    @property
    def weights(self) -> np.ndarray:
        """w_i = η̄_i / Σ η̄, (N,) float64."""
        return np.array([checkpoint.weight for checkpoint in self.manifest.checkpoints])

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the store's numbers; equal fingerprints mean interchangeable stores."""
        return hash_json(self.manifest.model_dump(mode="json"))[:16]

    @property
    def lineage(self) -> str:
        """Identifies what the store's row numbers refer to: its fingerprint before anything was appended."""
        return self.manifest.begun or self.fingerprint

    @cached_property
    def _shards(self) -> list[tuple[int, int, Part]]:
        """(start, stop, part) of every shard; each part has its own shard size, so that no shard spans two parts."""
        shards, first = [], 0
        for part in self.manifest.parts:
            stop = first + part.usable
            shards += [(at, min(at + part.shard_rows, stop), part) for at in range(first, stop, part.shard_rows)]
            first = stop
        return shards

    @property
    def shard_ranges(self) -> list[tuple[int, int]]:
        """(start, stop) positions among the usable rows of every shard."""
        return [(start, stop) for start, stop, _ in self._shards]

    def params(self, kind: str, epoch: int, index: int) -> str:
        """Hash of what determines a shard's numbers.

        kind: adam, sgd, sign, rds or one of `BASE_KINDS`. epoch, index: counted from 0.
        """
        m, part = self.manifest, self._shards[index][2]
        of_base = kind in BASE_KINDS  # of no checkpoint: they can be made before the warmup and do not depend on it
        place = f"checkpoints/{m.checkpoints[epoch].name}/" if not of_base else ""
        checkpoint = {k: v for k, v in m.files.items() if place and k.startswith(place)}
        inputs = [m.model_fingerprint, m.encoder_fingerprint, part.pool_fingerprint, m.dtype, m.token_budget]
        inputs.append(part.shard_rows)
        inputs += [m.config.max_length, kind, checkpoint]
        if kind == "draft":
            inputs.append(m.config.seed)
        if not of_base and kind != "rds":
            inputs += [m.checkpoints[epoch].projector, m.config.store_dtype, m.config.adam if kind == "adam" else ""]
        return hash_json(inputs)[:32]

    def shard_path(self, kind: str, epoch: int, index: int) -> Path:
        """Where a shard lies: kind adam, sgd, sign, rds, metrics, or one of `BASE_KINDS`."""
        return self._shard_folder(kind, epoch) / _shard_name(kind, index)

    def _shard_folder(self, kind: str, epoch: int) -> Path:
        if kind in BASE_KINDS:
            return self.path / "representations" / "base"
        folder = {"metrics": "metrics", "rds": "representations"}.get(kind, "features")
        return self.path / folder / self.manifest.checkpoints[epoch].name

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of shard that every epoch has, except metrics."""
        return (*self.manifest.config.gradients, "rds")

    def shards(self, kind: str, epoch: int) -> Iterator[Shard]:
        """Open every shard of a kind at an epoch in row order, each checked as `shard` does."""
        checked = Checked(self.path)
        try:
            for index in range(len(self.shard_ranges)):
                yield self.shard(kind, epoch, index, checked)
        finally:
            checked.save()

    def shard(self, kind: str, epoch: int, index: int, checked: Checked | None = None) -> Shard:
        """Open one shard, checked against its hash, its parameters and the rows it should cover.

        checked: files that were already hashed in their present state and need not be hashed again.
        """
        shard = read_shard(self.shard_path(kind, epoch, index), self.params(kind, epoch, index), checked)
        start, stop = self.shard_ranges[index]
        if (shard.start, shard.stop) != (start, stop) or len(shard.q) != stop - start:
            raise ShardError(
                f"{shard.path} covers other rows than its name says; delete it and run the same command again."
            )
        return shard

    def shard_paths(self) -> list[Path]:
        """The path of every shard that a finished build has, metrics included."""
        kinds = (*self.kinds, "metrics")
        epochs, ranges = range(len(self.epochs)), range(len(self._shards))
        return [self.shard_path(kind, epoch, index) for epoch in epochs for index in ranges for kind in kinds]

    def missing(self) -> list[Path]:
        """Files that a finished build would have and this store lacks (those present are not read)."""
        if not self.manifest.checkpoints:
            return [self.path / "checkpoints"]
        missing = []
        for epoch in range(len(self.epochs)):
            folders = {kind: self._shard_folder(kind, epoch) for kind in (*self.kinds, "metrics")}
            present = {kind: {file.name for file in folder.glob("*.*")} for kind, folder in folders.items()}
            expected = ((kind, _shard_name(kind, index)) for index in range(len(self._shards)) for kind in folders)
            missing += [folders[kind] / name for kind, name in expected if name not in present[kind]]
        return missing

    @property
    def complete(self) -> bool:
        """Whether every shard is present."""
        return not self.missing()

    def require_complete(self) -> None:
        """Raise `StoreError` if the build has not finished."""
        if missing := self.missing():
            raise StoreError(
                f"{self.path} is not finished: files are missing ({len(missing)}, the first is {missing[0].name}); "
                "run the same build again to finish it."
            )

    def check_file(self, name: str) -> None:
        """Check one of the manifest's `files` against its hash.

        Raises:
            StoreError: it is missing or damaged.
        """
        path = self.path / name
        if not path.is_file():
            raise StoreError(f"{path} is missing; restore it, or build again with --restart.")
        if hash_file(path) != self.manifest.files[name]:
            raise StoreError(
                f"{path} is damaged: its content does not match its hash; restore it, or build with --restart."
            )

    def checkpoint(self, epoch: int) -> Checkpoint:
        """Read the checkpoint of an epoch, which counts from 0, each of its files checked against its hash.

        Raises:
            StoreError: a file is missing or damaged.
        """
        folder = f"checkpoints/{self.manifest.checkpoints[epoch].name}"
        for name in self.manifest.files:
            if name.startswith(f"{folder}/"):
                self.check_file(name)
        return Checkpoint.load(self.path / folder)

    # -- its rows -----------------------------------------------------------------------------------------------------

    @property
    def pool_names(self) -> list[str]:
        """Names of the pool's files, in the order of their rows; `manifest.files` has their hashes."""
        return [pool_file(part) for part in range(len(self.manifest.parts))]

    def check_pool(self) -> None:
        """Check the pool's files against their hashes; raises `StoreError`."""
        for name in self.pool_names:
            self.check_file(name)

    @property
    def _pool(self) -> PoolFiles:
        return PoolFiles([self.path / name for name in self.pool_names])

    @cached_property
    def rows(self) -> np.ndarray:
        """Pool row numbers of the usable rows, ascending, (n,) int64: row i of every feature array is rows[i]."""
        table = self._pool.columns(["row", "status"])
        return table.filter(pc.equal(table["status"], "usable"))["row"].to_numpy()

    @property
    def ids(self) -> list[str]:
        """Id of every row of the pool, usable or not."""
        return self._pool.columns(["id"])["id"].to_pylist()

    @cached_property
    def scored(self) -> np.ndarray:
        """(n,) whether a usable row has finite numbers at every checkpoint; the others are never selected."""
        finite = np.ones(self.manifest.usable, dtype=bool)
        for epoch in range(len(self.epochs)):
            for index, (start, stop) in enumerate(self.shard_ranges):
                table = self.read_metrics(epoch, index)
                for name in METRICS:
                    finite[start:stop] &= np.isfinite(table[name].to_numpy())
        return finite

    @property
    def scored_rows(self) -> np.ndarray:
        """Pool row numbers of the rows that are scored."""
        return self.rows[self.scored]

    def pool(self) -> pd.DataFrame:
        """Every row without its text and tokens, indexed by `row`."""
        return self._pool.columns(_POOL_COLUMNS).to_pandas().set_index("row")

    def texts(self, rows: Any, raw: bool = True) -> pd.DataFrame:
        """Text of `rows`, in their order: row, conversation (a `Conversation`), raw (bytes).

        Reads only the row groups that hold them; without `raw`, which is as long as the rest, it takes half the time.
        """
        return self._pool.texts(rows, raw)

    def tokens(self, rows: Any) -> StoredTokens:
        """The tokens of `rows`, in their order, as the build encoded them; reads only the row groups that hold them."""
        return self._pool.tokens(rows)

    def write_metrics(self, epoch: int, index: int, columns: dict[str, np.ndarray], splits: int) -> None:
        """Write one shard's `METRICS`, each (rows,) float32. splits: batches halved for memory."""
        start, stop = self.shard_ranges[index]
        table = pa.table({"row": self.rows[start:stop], **{name: columns[name] for name in METRICS}})
        write_metrics(self.shard_path("metrics", epoch, index), self.params("rds", epoch, index), start, splits, table)

    def read_metrics(self, epoch: int, index: int) -> pa.Table:
        """One shard's metrics, checked against their hash, their parameters and the rows they should cover.

        Raises:
            ShardError: missing, damaged, or made with other parameters.
        """
        start, _ = self.shard_ranges[index]
        return read_metrics(self.shard_path("metrics", epoch, index), self.params("rds", epoch, index), start)

    def metrics(self) -> pd.DataFrame:
        """Gradient norm, update norm and loss of every usable row: epoch, row, grad_norm, update_norm, loss."""
        frames = []
        for epoch, name in enumerate(self.epochs):
            tables = [self.read_metrics(epoch, index) for index in range(len(self.shard_ranges))]
            frames.append(pa.concat_tables(tables).to_pandas().assign(epoch=name))
        return pd.concat(frames, ignore_index=True)[["epoch", "row", *METRICS]]

    def loss_curve(self) -> pd.DataFrame:
        """The warmup by optimizer step: step, epoch, loss, learning_rate, grad_norm; empty if no warmup was run."""
        path = self.path / "warmup" / "log.json"
        log = json.loads(path.read_text()) if path.is_file() else []
        return pd.DataFrame(log, columns=["step", "epoch", "loss", "learning_rate", "grad_norm"])

    def coverage(self) -> pd.DataFrame:
        """One line per source: rows_in_file, rows_in_store, usable, excluded, truncated."""
        return pd.DataFrame([source.model_dump() for source in self.manifest.sources])

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes on disk of features, representations, metrics, checkpoints, kept scorings, index and pool."""
        parts = ("features", "representations", "metrics", "checkpoints", "scorings", "index")
        sizes = {part: sum(f.stat().st_size for f in (self.path / part).rglob("*") if f.is_file()) for part in parts}
        return {**sizes, "pool": sum((self.path / name).stat().st_size for name in self.pool_names)}


def _shard_name(kind: str, index: int) -> str:
    return f"{index:05d}.parquet" if kind == "metrics" else f"{kind}-{index:05d}.safetensors"
