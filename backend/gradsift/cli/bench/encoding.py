"""`gradsift bench encoding`: rows a second from conversation to tokens, by one process and by several.

The pool's own rows and synthetic ones of 20 exchanges; both are repeated up to the same number of rows.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from gradsift.builder.encoding import available_cpus, encode_rows
from gradsift.config import BuildConfig
from gradsift.data.conversation import Message
from gradsift.data.encode import Encoder
from gradsift.data.pool import Row, read_rows
from gradsift.model import load
from gradsift.runtime.errors import UsageError
from gradsift.runtime.progress import Progress

EXCHANGES = 20


def bench_encoding(pool: Sequence[str | Path], config: BuildConfig, rows: int, progress: Progress) -> dict[str, Any]:
    """Encode `rows` rows of each kind, with one process and with one for every CPU, whose start is part of their time.

    Raises:
        UsageError: the pool has no usable row. GradsiftError: pool or model cannot be read.
    """
    encoder = Encoder(load.load_tokenizer(config.model), config.template, config.template_options)
    usable = [row for row in read_rows(pool) if not row.reason]
    if not usable:
        raise UsageError("The pool has no usable row to measure with.")
    kinds = {"pool": usable, f"{EXCHANGES}_exchanges": list(_long(usable))}
    workers, figures = available_cpus(), {}
    progress.stage("measure", "Encoding", 4 * rows, "rows")
    for kind, given in kinds.items():
        many = list(islice(cycle(given), rows))
        figures[kind] = {
            "rows": rows,
            "tokens_per_row": round(
                sum(len(encoder.encode(row.conversation).ids) for row in many[:100]) / len(many[:100]), 1
            ),
            "one_process_rows_per_s": _speed(many, encoder, config.max_length, 1, progress),
            "processes_rows_per_s": _speed(many, encoder, config.max_length, workers, progress),
        }
    return {"encoding": {"processes": workers, **figures}}


def _speed(rows: list[Row], encoder: Encoder, max_length: int, workers: int, progress: Progress) -> float:
    start = time.perf_counter()
    for chunk, _ in encode_rows(rows, encoder, max_length, workers=workers):
        progress.advance(len(chunk))
    return round(len(rows) / (time.perf_counter() - start), 1)


def _long(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows of `EXCHANGES` short questions and answers, cut from the pool's texts."""
    texts = [message.content[:120] or "-" for row in rows for message in row.messages]
    turns = [
        Message(role, text)
        for role, text in zip(cycle(("user", "assistant")), islice(cycle(texts), 2 * EXCHANGES * 100))
    ]
    for at in range(100):
        yield replace(
            rows[0], messages=tuple(turns[2 * EXCHANGES * at : 2 * EXCHANGES * (at + 1)]), prefix="", tools=""
        )
