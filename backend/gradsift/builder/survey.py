"""The pool as `plan` sees it: tokenized and packed as in a build, with nothing written.

Of a source with more than `COUNTED` rows, only a seeded sample is tokenized; each sampled row stands for several.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from gradsift.builder.ingest import NothingUsableError, write_rows
from gradsift.builder.reasons import Reasons
from gradsift.config import BuildConfig
from gradsift.data.encode import Encoded, Encoder
from gradsift.data.pool import Row, read_rows, sample_rows
from gradsift.data.reading import reading_of
from gradsift.datastore.tokens import TOKEN_COLUMNS, StoredTokens
from gradsift.model.batches import pack
from gradsift.runtime.progress import Progress
from gradsift.training.schedule import choose_rows, epoch_order

COUNTED = 5000  # rows tokenized per source

Batch = Sequence[int]  # positions of usable rows


@dataclass(frozen=True)
class SourcePlan:
    """One source: rows in its files, rows a build would take, and of these the usable, excluded and cut; tokens of the
    usable ones.
    """

    source: str
    rows_in_file: int
    rows: int
    usable: int
    excluded: int
    truncated: int
    prompt_tokens: int
    answer_tokens: int


@dataclass
class Survey:
    """The tokenized rows. lengths, weights: for each usable row, its tokens and how many pool rows it stands for.

    rows: number that a build would take, `usable` and `excluded` by reason. sampled: number tokenized. unused: rows by
    column that held text and was not used. seconds, pool_bytes: to read and store all `rows`.
    """

    config: BuildConfig
    max_length: int
    rows: int
    sampled: int
    sources: list[SourcePlan] = field(default_factory=list)
    excluded: dict[str, int] = field(default_factory=dict)
    unused: dict[str, int] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    seconds: float = 0.0
    pool_bytes: int = 0
    _tokens: list[pa.Table] = field(default_factory=list)

    @property
    def usable(self) -> int:
        """Number of usable rows among `rows`."""
        return sum(source.usable for source in self.sources)

    def encode(self, batch: Batch) -> list[Encoded]:
        """The tokens of a batch of usable rows."""
        return list(self._encoded.take(batch))

    @cached_property
    def _encoded(self) -> StoredTokens:
        return StoredTokens.of(self._tokens)

    def feature_batches(self, token_budget: int) -> list[Batch]:
        """The batches of one pass, packed as in a build: within shards of consecutive rows."""
        size = self.config.resolve_shard_rows(self.usable)
        return [
            [start + position for position in batch]
            for start in range(0, len(self.lengths), size)
            for batch in pack(self.lengths[start : start + size], token_budget)
        ]

    def warmup_batches(self, token_budget: int) -> list[Batch]:
        """The pieces of all optimizer steps of all epochs; empty if the config has checkpoints."""
        config = self.config
        if config.checkpoints:
            return []
        rows = choose_rows(len(self.lengths), config.warmup_fraction, config.seed)
        steps = [
            [rows[at] for at in order[start : start + config.batch_size]]
            for order in (epoch_order(len(rows), config.seed, epoch) for epoch in range(config.epochs))
            for start in range(0, len(order), config.batch_size)
        ]
        return [
            [step[at] for at in piece]
            for step in steps
            for piece in pack([self.lengths[position] for position in step], token_budget)
        ]

    def padded_tokens(self, batches: Sequence[Batch]) -> float:
        """Padded tokens of the batches, each weighted by how many rows its rows stand for."""
        return sum(
            padded(self.lengths, batch) * sum(self.weights[position] for position in batch) / len(batch)
            for batch in batches
        )


def padded(lengths: Sequence[int], batch: Batch) -> int:
    """Padded tokens of a batch."""
    return max(lengths[position] for position in batch) * len(batch)


def survey(
    pool: Sequence[str | Path], config: BuildConfig, encoder: Encoder, max_length: int, progress: Progress
) -> Survey:
    """Read a pool as a build would, and tokenize it or a sample of it.

    Raises:
        PoolError: a path cannot be read at all.
        NothingUsableError: no row has a supervised token left.
    """
    progress.stage("read", "Reading the pool", 0, "rows")
    start = time.perf_counter()
    rows, in_file = sample_rows(
        read_rows(pool, reading=reading_of(config)), min(config.limit_per_source or COUNTED, COUNTED), config.seed
    )
    reading = time.perf_counter() - start
    row_counts = {source: min(count, config.limit_per_source or count) for source, count in in_file.items()}
    tokenized = Counter(row.source for row in rows)
    shares = {source: row_counts[source] / count for source, count in tokenized.items()}
    result = Survey(config, max_length, sum(row_counts.values()), len(rows))
    tally = _Tally()
    progress.stage("tokenize", "Tokenizing the pool", len(rows), "rows")
    start, sink = time.perf_counter(), pa.MockOutputStream()
    with closing(write_rows(rows, sink, encoder, max_length)) as written:
        for chunk, table in written:
            tally.add(chunk, table, shares)
            usable = table.filter(pc.equal(table["status"], "usable"))
            result._tokens.append(usable.select(TOKEN_COLUMNS))
            result.lengths += pc.add(usable["n_prompt_tokens"], usable["n_answer_tokens"]).to_pylist()
            result.weights += [shares[source] for source in usable["source"].to_pylist()]
            progress.advance(len(chunk))
    scale = result.rows / result.sampled
    result.seconds = reading + (time.perf_counter() - start) * scale
    result.pool_bytes = round(sink.size() * scale)
    result.sources = [tally.source(name, in_file[name], row_counts[name]) for name in tally.by_source]
    if not result.lengths:
        raise NothingUsableError(f"None of the {result.rows:,} rows can be used: {tally.reasons.quoted(3)}.")
    result.excluded = _whole(tally.reasons.counts, result.rows - result.usable)
    result.unused = {name: round(n) for name, n in sorted(tally.unused.items(), key=lambda pair: -pair[1])}
    return result


@dataclass
class _Tally:
    """Counts of tokenized rows, each scaled to the rows it stands for."""

    by_source: dict[str, dict[str, float]] = field(default_factory=dict)
    reasons: Reasons = field(default_factory=Reasons)
    unused: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, rows: Sequence[Row], table: pa.Table, shares: Mapping[str, float]) -> None:
        columns = ("status", "reason", "n_cut", "n_prompt_tokens", "n_answer_tokens")
        for row, record in zip(rows, table.select(columns).to_pylist(), strict=True):
            share, source = shares[row.source], self.by_source.setdefault(row.source, defaultdict(float))
            for name in row.unused:
                self.unused[name] += share
            source[record["status"]] += share
            if record["status"] == "excluded":
                self.reasons.add(record["reason"], share)
                continue
            source["truncated"] += share * bool(record["n_cut"])
            source["prompt"] += share * record["n_prompt_tokens"]
            source["answer"] += share * record["n_answer_tokens"]

    def source(self, name: str, rows_in_file: int, rows: int) -> SourcePlan:
        """The counts of a source in whole numbers, where rows = usable + excluded."""
        counts = self.by_source[name]
        usable, truncated, prompt, answer = (round(counts[key]) for key in ("usable", "truncated", "prompt", "answer"))
        return SourcePlan(name, rows_in_file, rows, usable, rows - usable, truncated, prompt, answer)


def _whole(counts: Mapping[str, float], total: int) -> dict[str, int]:
    """Counts, the largest first, in whole numbers that add up to `total`: those with the largest remainders go up."""
    scale = total / sum(counts.values()) if counts else 0.0
    scaled = {name: count * scale for name, count in sorted(counts.items(), key=lambda pair: -pair[1])}
    whole = {name: int(count) for name, count in scaled.items()}
    by_remainder = sorted(scaled, key=lambda name: whole[name] - scaled[name])
    for name in by_remainder[: total - sum(whole.values())]:
        whole[name] += 1
    return whole
