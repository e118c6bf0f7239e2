"""Batches of rows of similar length within a token budget, halved when memory runs out; results in row order."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

PER_BATCH = 100  # overhead of a batch, in tokens: fitted to timings of SmolLM2 in fp32 on two CPU cores


def pack(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Positions 0..n-1 in batches of rows of similar length whose padded size stays within the budget.

    Among all ways to cut the rows, sorted by length, this one has the lowest cost: padded tokens plus `PER_BATCH` per
    batch. The longest rows come first, so that the largest batch does. A row above the budget is a batch by itself.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows = len(order)
    best = [(0, 0)] * (rows + 1)  # by start: the lowest cost from there on, and where the first batch ends
    for start in reversed(range(rows)):
        longest = lengths[order[start]]
        last = min(rows, start + max(1, token_budget // max(1, longest)))
        best[start] = min(
            (longest * (stop - start) + PER_BATCH + best[stop][0], stop) for stop in range(start + 1, last + 1)
        )
    batches, start = [], 0
    while start < rows:
        batches.append(order[start : best[start][1]])
        start = best[start][1]
    return batches


def run_batches(
    rows: Sequence[Item],
    token_budget: int,
    run: Callable[[Sequence[Item]], Result],
    done: Callable[[int], None] = lambda rows: None,
    length: Callable[[Any], int] = lambda row: len(row.ids),
) -> tuple[list[tuple[list[int], Result]], int, int]:
    """Call `run` on packed batches of `rows`; returns (positions, result) of each batch, how often memory ran out, and
    the final token budget.

    When a batch does not fit, the budget becomes half its size, since no other batch of that size would fit.
    `done(k)` is called after every batch of k rows. length: tokens of a row.
    """
    pieces: list[tuple[list[int], Result]] = []
    splits = 0
    lengths = [length(row) for row in rows]
    queue = pack(lengths, token_budget)
    while queue:
        batch = queue.pop(0)
        result = _attempt(run, [rows[position] for position in batch])
        if result is None:
            torch.cuda.empty_cache()
            splits += 1
            token_budget = len(batch) * max(lengths[position] for position in batch) // 2
            rest = [position for waiting in (batch, *queue) for position in waiting]
            smaller = pack([lengths[position] for position in rest], token_budget)
            queue = [[rest[at] for at in piece] for piece in smaller]
            continue
        pieces.append((batch, result[0]))
        done(len(batch))
    return pieces, splits, token_budget


def _attempt(run: Callable[[Sequence[Item]], Result], rows: Sequence[Item]) -> tuple[Result] | None:
    """The result of a batch, or None if it does not fit: then the error, and the tensors it held, are gone."""
    try:
        return (run(rows),)
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
        return None


def joined(batches: Sequence[list[int]], parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The batches' rows concatenated on the CPU, in their original order."""
    order = torch.tensor([position for batch in batches for position in batch])
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order))
    return torch.cat([part.cpu() for part in parts])[inverse]
