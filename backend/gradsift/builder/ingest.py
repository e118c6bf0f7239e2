"""The first stage of a build: every row of the pool goes into `pool.parquet`, tokenized once to see which are usable.

Every row is either usable or excluded with a reason. A bad line becomes an excluded row with its original bytes;
nothing is dropped or cut without being counted.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gradsift.data.encode import Encoder, RenderError
from gradsift.data.pool import Row, read_rows, sample_rows
from gradsift.datastore.manifest import SourceInfo
from gradsift.runtime import atomic
from gradsift.runtime.errors import GradsiftError
from gradsift.runtime.hashing import hash_bytes
from gradsift.runtime.progress import Progress

ROW_GROUP = 1000
SHOWN = 10  # files, and excluded rows, that a build prints; the store lists them all
MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("reasoning", pa.string()),
        ("tool_calls", pa.list_(pa.struct([("name", pa.string()), ("arguments", pa.string()), ("id", pa.string())]))),
        ("name", pa.string()),
        ("call_id", pa.string()),
        ("learned", pa.bool_()),
    ]
)
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("source", pa.string()),
        ("task", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("schema", pa.string()),
        ("messages", pa.list_(MESSAGE)),
        ("tools", pa.string()),
        ("prefix", pa.string()),
        ("raw", pa.binary()),
        ("sha256", pa.string()),
        ("n_prompt_tokens", pa.int32()),
        ("n_answer_tokens", pa.int32()),
        ("n_cut", pa.int32()),
        ("status", pa.string()),
        ("reason", pa.string()),
    ]
)


class NothingUsableError(GradsiftError):
    """The pool has no usable row."""


@dataclass
class Intake:
    """Counts and fingerprint of a pool that was read, for the manifest. examples: the first excluded rows."""

    fingerprint: str = ""
    rows: int = 0
    usable: int = 0
    truncated: int = 0
    excluded: Counter = field(default_factory=Counter)
    schemas: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    by_source: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    examples: list[str] = field(default_factory=list)

    def report(self) -> list[str]:
        """Lines to print at once: how each file was read, and the first excluded rows."""
        files = [
            f"{file}: {', '.join(f'{n:,} {schema}' for schema, n in c.items())}" for file, c in self.schemas.items()
        ]
        more = [f"and {len(files) - SHOWN} more files"] if len(files) > SHOWN else []
        return [*files[:SHOWN], *more, *self.examples]

    def sources(self) -> tuple[SourceInfo, ...]:
        """Coverage of every source, in the order of first appearance."""
        return tuple(SourceInfo(source=source, **counts) for source, counts in self.by_source.items())


def ingest(
    paths: Sequence[str | Path],
    out: Path,
    encoder: Encoder,
    max_length: int,
    limit_per_source: int | None,
    seed: int,
    progress: Progress,
    *,
    first: int = 0,
    taken: Iterable[str] = (),
) -> Intake:
    """Read, encode and write the pool to `out` (a Parquet file).

    first: number of the first row. taken: ids that other rows of the store already have.

    Raises:
        PoolError: a path cannot be read at all.
        NothingUsableError: there are no rows, or no row has a supervised token left.
    """
    intake = Intake()
    rows: Iterable[Row] = read_rows(paths, taken)
    if limit_per_source is not None:
        rows, in_file = sample_rows(rows, limit_per_source, seed)
        for source, count in in_file.items():
            intake.by_source[source]["rows_in_file"] = count
    progress.stage("read", "Reading and tokenizing the pool", len(rows) if isinstance(rows, list) else 0, "rows")
    digest = hashlib.sha256()
    with atomic.open_for_write(out) as file, closing(write_records(rows, file, encoder, max_length, first)) as records:
        for record in records:
            _count(intake, record, limit_per_source is None)
            digest.update(_identity(record).encode())
            progress.advance()
        if not intake.usable:
            raise NothingUsableError(_nothing_usable(intake, paths))
    intake.fingerprint = digest.hexdigest()[:32]
    return intake


def write_records(
    rows: Iterable[Row], sink: Any, encoder: Encoder, max_length: int, first: int = 0
) -> Generator[dict[str, Any], None, None]:
    """Encode rows and write them to `sink` (a file for Parquet), group by group; yields each record once written."""
    records = _records(rows, encoder, max_length, first)
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        while group := list(islice(records, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, SCHEMA))
            yield from group


def reason_kind(reason: str) -> str:
    """A row's reason without its numbers and details, so that similar ones count together."""
    return re.sub(r"\d+", "N", reason.partition(":")[0])


def _records(rows: Iterable[Row], encoder: Encoder, max_length: int, first: int) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, start=first):
        counts, reason = (0, 0, 0), row.reason
        if not reason:
            try:
                encoded = encoder.encode(row.conversation, max_length)
                counts = (encoded.n_prompt, encoded.n_answer, encoded.n_cut)
                if not encoded.n_answer:
                    reason = f"no answer token is left: the answer begins after token {max_length}"
                    reason = reason if encoded.n_cut else "the answer has no token to learn"
            except RenderError as error:
                reason = str(error)
        yield {
            "row": number,
            "id": row.id,
            "source": row.source,
            "task": row.task,
            "file": row.file,
            "line": row.line,
            "schema": row.schema,
            "messages": [message.record() for message in row.messages],
            "tools": row.tools or None,
            "prefix": row.prefix,
            "raw": row.raw,
            "sha256": hash_bytes(row.raw),
            **dict(zip(("n_prompt_tokens", "n_answer_tokens", "n_cut"), counts, strict=True)),
            "status": "excluded" if reason else "usable",
            "reason": reason,
        }


def _count(intake: Intake, record: dict[str, Any], whole_file: bool) -> None:
    source = intake.by_source[record["source"]]
    source.update({"rows_in_file": int(whole_file), "rows_in_store": 1})
    intake.rows += 1
    intake.schemas[record["file"]][record["schema"] or "unreadable"] += 1
    if record["status"] == "excluded":
        source["excluded"] += 1
        intake.excluded[reason_kind(record["reason"])] += 1
        if len(intake.examples) < SHOWN:
            intake.examples.append(f"{record['file']}, line {record['line']}: {record['reason']}")
        return
    source["usable"] += 1
    intake.usable += 1
    if record["n_cut"]:
        source["truncated"] += 1
        intake.truncated += 1


def _identity(record: dict[str, Any]) -> str:
    return "\t".join(str(record[key]) for key in ("row", "id", "source", "sha256", "status")) + "\n"


def _nothing_usable(intake: Intake, paths: Sequence[str | Path]) -> str:
    where = ", ".join(str(path) for path in paths)
    if not intake.rows:
        return f"The pool {where} has no rows: give files with at least one conversation."
    reasons = "; ".join(f"{count} x {reason}" for reason, count in intake.excluded.most_common(5))
    hint = " Raise --max-length." if any(r.startswith("no answer token") for r in intake.excluded) else ""
    return f"None of the {intake.rows} rows of {where} can be used: {reasons}.{hint}"
