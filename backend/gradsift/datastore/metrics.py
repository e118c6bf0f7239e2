"""Metrics shards: norms and loss of a range of rows, in one Parquet file that carries its own hash."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gradsift.datastore.shards import ShardError
from gradsift.runtime import atomic
from gradsift.runtime.hashing import hash_parts

METRICS = ("grad_norm", "update_norm", "loss")


def write_metrics(path: Path, params: str, start: int, splits: int, table: pa.Table) -> None:
    """Write the metrics of the usable rows from `start` on: columns row and `METRICS`.

    params: hash of everything that determines the numbers (`Store.params`). splits: batches halved for memory.
    """
    metadata = {"params": params, "start": str(start), "splits": str(splits), "sha256": _hash(table)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.open_for_write(path) as file:
        pq.write_table(table.replace_schema_metadata(metadata), file)


def read_metrics(path: Path, params: str, start: int) -> pa.Table:
    """Read a metrics shard and check it.

    Raises:
        ShardError: it is missing, damaged, made with other parameters, or of other rows.
    """
    try:
        table = pq.read_table(path)
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        intact = metadata["params"] == params and metadata["sha256"] == _hash(table)
    except FileNotFoundError as error:
        raise ShardError(f"{path} is missing; run the same build again to make it.") from error
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise ShardError(f"{path} is damaged ({error}); delete it and run the same build again.") from error
    if metadata.get("start") != str(start):
        raise ShardError(f"{path} covers other rows than its name says; delete it and run the same build again.")
    if not intact:
        raise ShardError(
            f"{path} is damaged: its content does not match its hash; delete it and run the same build again."
        )
    return table


def _hash(table: pa.Table) -> str:
    return hash_parts(name.encode() + table[name].to_numpy().tobytes() for name in table.column_names)
