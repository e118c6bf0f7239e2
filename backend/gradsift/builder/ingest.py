"""The first stage of a build: every row of the pool goes into `pool.parquet` with its tokens, encoded once and for all.

Every row is either usable or excluded with a reason. A bad line becomes an excluded row with its original bytes;
nothing is dropped or cut without being counted.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gradsift.builder.encoding import Chunk, encode_rows
from gradsift.builder.reasons import Reasons
from gradsift.builder.records import SCHEMA
from gradsift.config import BuildConfig
from gradsift.data.encode import Encoder
from gradsift.data.pool import Row, read_rows, sample_rows
from gradsift.data.reading import reading_of
from gradsift.data.reasons import shorten
from gradsift.datastore.manifest import Part, SourceInfo
from gradsift.runtime import atomic
from gradsift.runtime.errors import GradsiftError
from gradsift.runtime.progress import Progress

ROW_GROUP, _GROUP_BYTES = 1000, 64_000_000  # rows of a row group; fewer if their original lines are this long
SHOWN = 10  # files, unused columns and excluded rows that a build prints; the store lists them all


class NothingUsableError(GradsiftError):
    """The pool has no usable row."""


@dataclass
class Intake:
    """Counts and fingerprint of a pool that was read, for the manifest: rows = usable + excluded.

    unused: rows by column that held text and was not used. examples: the first excluded rows.
    """

    fingerprint: str = ""
    rows: int = 0
    usable: int = 0
    truncated: int = 0
    reasons: Reasons = field(default_factory=Reasons)
    unused: Counter[str] = field(default_factory=Counter)
    schemas: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    by_source: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    examples: list[str] = field(default_factory=list)

    @property
    def excluded(self) -> Counter[str]:
        """Rows by reason; similar reasons count together, under the first one in full."""
        return self.reasons.counts

    def report(self) -> list[str]:
        """Lines to print at once: how each file was read, what was not used, and the first excluded rows."""
        files = [
            f"{file}: {', '.join(f'{n:,} {schema}' for schema, n in c.items())}" for file, c in self.schemas.items()
        ]
        more = [f"and {len(files) - SHOWN} more files"] if len(files) > SHOWN else []
        return [*files[:SHOWN], *more, *unused_line(self.unused), *self.examples]

    def part(self, inputs: tuple[str, ...], config: BuildConfig) -> Part:
        """The rows as a part of a store. inputs: the files that they were read from."""
        return Part(
            inputs=inputs,
            limit_per_source=config.limit_per_source,
            pool_fingerprint=self.fingerprint,
            rows=self.rows,
            usable=self.usable,
            shard_rows=config.resolve_shard_rows(self.usable),
        )

    def sources(self) -> tuple[SourceInfo, ...]:
        """Coverage of every source, in the order of first appearance."""
        return tuple(SourceInfo(source=source, **counts) for source, counts in self.by_source.items())

    def add(self, rows: Sequence[Row], table: pa.Table, whole_files: bool) -> None:
        """Count rows. table: their records. whole_files: whether all rows of the files are taken."""
        columns = (table[name].to_pylist() for name in ("status", "reason", "n_cut"))
        for row, status, reason, n_cut in zip(rows, *columns, strict=True):
            source = self.by_source[row.source]
            source.update({"rows_in_file": int(whole_files), "rows_in_store": 1, status: 1})
            self.rows += 1
            self.schemas[row.file][row.schema or "unreadable"] += 1
            self.unused.update(name.encode("utf-8", "replace").decode() for name in row.unused)
            if status == "usable":
                self.usable += 1
                source["truncated"] += bool(n_cut)
                self.truncated += bool(n_cut)
                continue
            self.reasons.add(reason)
            if len(self.examples) < SHOWN:
                self.examples.append(f"{row.file}, line {row.line}: {reason}")


def ingest(
    paths: Sequence[str | Path],
    out: Path,
    encoder: Encoder,
    config: BuildConfig,
    max_length: int,
    progress: Progress,
    *,
    first: int = 0,
    taken: Iterable[str] = (),
) -> Intake:
    """Read, encode and write the pool to `out` (a Parquet file).

    config: how the files are read, and how many rows of each source. max_length: tokens kept of a row. first: number of
    the first row. taken: ids that other rows of the store already have.

    Raises:
        PoolError: a path cannot be read at all.
        NothingUsableError: there are no rows, or no row has a supervised token left.
    """
    intake, whole_files = Intake(), config.limit_per_source is None
    rows: Iterable[Row] = read_rows(paths, taken, reading_of(config))
    if not whole_files:
        rows, in_file = sample_rows(rows, config.limit_per_source, config.seed)
        for source, count in in_file.items():
            intake.by_source[source]["rows_in_file"] = count
    progress.stage("read", "Reading and tokenizing the pool", len(rows) if isinstance(rows, list) else 0, "rows")
    digest = hashlib.sha256()
    with atomic.open_for_write(out) as file, closing(write_rows(rows, file, encoder, max_length, first)) as written:
        for chunk, table in written:
            intake.add(chunk, table, whole_files)
            digest.update(_identity(table))
            progress.advance(len(chunk))
        if not intake.usable:
            raise NothingUsableError(_nothing_usable(intake, paths))
    intake.fingerprint = digest.hexdigest()[:32]
    return intake


def write_rows(
    rows: Iterable[Row], sink: Any, encoder: Encoder, max_length: int, first: int = 0
) -> Generator[tuple[Chunk, pa.Table], None, None]:
    """Encode rows and write them to `sink` (a file for Parquet); yields them in chunks, with their records."""
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        group: list[pa.Table] = []
        count = size = 0
        with closing(encode_rows(rows, encoder, max_length, first)) as chunks:
            for chunk, table in chunks:
                group.append(table)
                count, size = count + len(chunk), size + sum(len(row.raw) for row in chunk)
                if count >= ROW_GROUP or size >= _GROUP_BYTES:
                    writer.write_table(pa.concat_tables(group).combine_chunks())
                    group, count, size = [], 0, 0
                yield chunk, table
        if group:
            writer.write_table(pa.concat_tables(group).combine_chunks())


def unused_line(unused: Mapping[str, int]) -> list[str]:
    """A line that names the columns whose text is not used, the most frequent first; none if there are none."""
    ranked = sorted(unused.items(), key=lambda pair: -pair[1])
    names = [f"{shorten(name)} ({count:,})" for name, count in ranked[:SHOWN]]
    more = [f"{len(ranked) - SHOWN} more"] if len(ranked) > SHOWN else []
    return [f"columns with text that is not used, with their rows: {', '.join([*names, *more])}"] if names else []


def _identity(table: pa.Table) -> bytes:
    columns = (table[key].to_pylist() for key in ("row", "id", "source", "sha256", "status"))
    return "".join("\t".join(map(str, values)) + "\n" for values in zip(*columns, strict=True)).encode()


def _nothing_usable(intake: Intake, paths: Sequence[str | Path]) -> str:
    where = ", ".join(str(path) for path in paths)
    if not intake.rows:
        return f"The pool {where} has no rows: give files with at least one conversation."
    hint = " Raise --max-length." if any(r.startswith("no answer token") for r in intake.excluded) else ""
    return f"None of the {intake.rows} rows of {where} can be used: {intake.reasons.quoted(5)}.{hint}"
