"""Parquet, Arrow files and saved data sets: as many records as the file says it has rows."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gradsift.data.records import PoolError, Record
from gradsift.data.streams import BREAKS, COMPRESSIONS, break_reason, clause

_MISSING = 100_000  # rows that cannot be read and are still told one by one


def read_parquet(stream: IO[bytes], path: Path, left_out: list[str]) -> Iterator[Record]:
    """Parquet, in batches of 64 records. Where a row group is damaged, each row that cannot be read is a bad record."""
    from pyarrow.parquet import ParquetFile

    from gradsift.data.columns import Columns

    with _seekable(stream, path) as file:
        try:
            table = ParquetFile(file)
            columns = Columns(table.schema_arrow, path.name)
            leaves = _leaves(table, columns)
            sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        except PoolError:
            raise
        except Exception as error:  # a damaged footer makes the library raise many types
            raise PoolError(f"{path} is not a readable Parquet file: {clause(error)}.") from error
        left_out += [f"the column {name} (numbers)" for name in columns.skipped]
        first = 1
        for group, size in enumerate(sizes):
            done, reason = 0, ""
            for batch_size in (64, 1):  # one by one where a batch fails
                skip = done
                try:
                    for batch in table.iter_batches(batch_size, [group], leaves):
                        fresh = batch.slice(min(skip, batch.num_rows))
                        skip -= batch.num_rows - fresh.num_rows
                        yield from columns.records(fresh, first + done)
                        done += fresh.num_rows
                    break
                except PoolError:
                    raise
                except Exception as error:  # a damaged page makes the library raise many types
                    reason = f"the file is damaged here: {clause(error)}"
            if done < size:
                yield from _missing(first + done, size - done, reason or "the file ends before this row")
            first += max(size, done)


def read_arrow(stream: IO[bytes], path: Path, left_out: list[str]) -> Iterator[Record]:
    """Arrow's IPC format, as a file or as a stream (which `datasets` writes into its cache)."""
    import pyarrow as pa

    from gradsift.data.columns import Columns

    with _seekable(stream, path) as file:
        try:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            reader: Any = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
            columns = Columns(reader.schema, path.name)
            batches = range(reader.num_record_batches) if is_file else itertools.count()
        except PoolError:
            raise
        except Exception as error:  # as above
            raise PoolError(f"{path} is not a readable Arrow file: {clause(error)}.") from error
        left_out += [f"the column {name} (numbers)" for name in columns.skipped]
        first = 1
        for number in batches:
            try:
                batch = reader.get_batch(number) if is_file else reader.read_next_batch()
                batch.validate()
            except StopIteration:
                return
            except Exception as error:
                yield Record(first, b"", None, break_reason(error))
                first += 1
                if not is_file:
                    return
                continue
            yield from columns.records(batch, first)
            first += batch.num_rows


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder was written by `datasets`' `save_to_disk`."""
    names = ("state.json", "dataset_dict.json")
    return any((folder / name).is_file() for name in names)


def read_saved_dataset(folder: Path, left_out: list[str]) -> Iterator[Record]:
    """A folder written by `save_to_disk`; of several splits, `train`.

    left_out: gets the other splits.

    Raises:
        PoolError: it cannot be loaded, or has several splits but no `train`.
    """
    from datasets import Dataset, load_from_disk

    from gradsift.data.columns import Columns

    try:
        dataset = load_from_disk(str(folder))
    except Exception as error:  # a damaged folder makes the library raise anything
        raise PoolError(f"{folder} cannot be loaded as a saved data set: {clause(error)}.") from error
    if not isinstance(dataset, Dataset):
        splits = list(dataset)
        if not splits:
            raise PoolError(f"{folder} is a saved data set without a split: check that this is the right data.")
        split = "train" if "train" in splits else splits[0]
        if split != "train" and len(splits) > 1:
            raise PoolError(f"{folder} has the splits {', '.join(splits)}; name one of them, as {folder}/{split}.")
        left_out += [f"the split {name} ({len(dataset[name]):,})" for name in splits if name != split]
        dataset = dataset[split]
    columns = Columns(dataset.data.schema, folder.name)
    left_out += [f"the column {name} (numbers)" for name in columns.skipped]
    done = 0
    try:
        for table in dataset.with_format("arrow").iter(batch_size=64):
            for batch in table.to_batches():
                yield from columns.records(batch, done + 1)
                done += batch.num_rows
    except PoolError:
        raise
    except Exception as error:  # as above
        yield from _missing(done + 1, len(dataset) - done, break_reason(error))


def _leaves(table: Any, columns: Any) -> list[str] | None:
    """The columns to read, by their paths; of a picture that also has a path, its bytes are not. None: all."""
    paths = [table.schema.column(at).path for at in range(len(table.schema))]
    names = table.schema_arrow.names
    if any("." in name for name in names):
        return None
    media = {path: path.rpartition(".") for path in paths if path.partition(".")[0] in columns.media}
    spared = {path for path, (parent, _, leaf) in media.items() if leaf == "bytes" and f"{parent}.path" in media}
    return [path for path in paths if path not in spared and path.partition(".")[0] not in columns.skipped]


def _missing(first: int, count: int, reason: str) -> Iterator[Record]:
    for number in range(first, first + min(count, _MISSING)):
        yield Record(number, b"", None, reason)
    if count > _MISSING:
        yield Record(first + _MISSING, b"", None, f"{reason}; {count - _MISSING:,} more rows that the file claims")


@contextmanager
def _seekable(stream: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    """A stream that can seek, which these formats need: a compressed file is unpacked into a temporary one."""
    if path.suffix.lower() not in COMPRESSIONS:
        yield stream
        return
    with tempfile.TemporaryFile() as file:
        try:
            shutil.copyfileobj(stream, file)
        except BREAKS as error:
            raise PoolError(f"{path} cannot be decompressed: {clause(error)}.") from error
        file.seek(0)
        yield file
