"""The pool as `plan` sees it: tokenized and packed as in a build, with nothing written.

Of a source with more than `COUNTED` rows, only a seeded sample is tokenized; each sampled row stands for several.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from gradsift.builder.ingest import NothingUsableError, reason_kind, write_records
from gradsift.config import BuildConfig
from gradsift.data.conversation import Conversation, read_messages
from gradsift.data.encode import Encoded, Encoder
from gradsift.data.pool import read_rows, sample_rows
from gradsift.data.reading import reading_of
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

    rows: number that a build would take. sampled: number tokenized. seconds, pool_bytes: to read and store all `rows`.
    """

    config: BuildConfig
    encoder: Encoder
    max_length: int
    rows: int
    sampled: int
    sources: list[SourcePlan] = field(default_factory=list)
    excluded: dict[str, int] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    seconds: float = 0.0
    pool_bytes: int = 0
    _conversations: list[Conversation] = field(default_factory=list)

    @property
    def usable(self) -> int:
        """Number of usable rows among `rows`."""
        return round(sum(self.weights))

    def encode(self, batch: Batch) -> list[Encoded]:
        """The tokens of a batch of usable rows."""
        return [self.encoder.encode(self._conversations[position], self.max_length) for position in batch]

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
    result = Survey(config, encoder, max_length, sum(row_counts.values()), len(rows))
    counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    excluded: dict[str, float] = defaultdict(float)
    progress.stage("tokenize", "Tokenizing the pool", len(rows), "rows")
    start, sink = time.perf_counter(), pa.MockOutputStream()
    with closing(write_records(rows, sink, encoder, max_length)) as records:
        for row in records:
            share, source = row_counts[row["source"]] / tokenized[row["source"]], counts[row["source"]]
            source[row["status"]] += share
            if row["status"] == "excluded":
                excluded[reason_kind(row["reason"])] += share
            else:
                source["truncated"] += share * bool(row["n_cut"])
                source["prompt"] += share * row["n_prompt_tokens"]
                source["answer"] += share * row["n_answer_tokens"]
                result.lengths.append(row["n_prompt_tokens"] + row["n_answer_tokens"])
                result.weights.append(share)
                messages = read_messages(row["messages"])
                result._conversations.append(Conversation(messages, row["tools"] or "", row["prefix"]))
            progress.advance()
    scale = result.rows / result.sampled
    result.seconds = reading + (time.perf_counter() - start) * scale
    result.pool_bytes = round(sink.size() * scale)
    result.excluded = {r: round(n) for r, n in sorted(excluded.items(), key=lambda pair: -pair[1])}
    parts = ("usable", "excluded", "truncated", "prompt", "answer")
    result.sources = [
        SourcePlan(name, in_file[name], row_counts[name], *(round(counts[name][part]) for part in parts))
        for name in counts
    ]
    if not result.lengths:
        reasons = "; ".join(f"{count:,} x {reason}" for reason, count in list(result.excluded.items())[:3])
        raise NothingUsableError(f"None of the {result.rows:,} rows can be used: {reasons}.")
    return result
