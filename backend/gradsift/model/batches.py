"""Rows of similar length in batches within a token budget, smaller where memory runs out, and back in row order."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")


Result = TypeVar("Result")


PER_BATCH = 100  # tokens that a batch costs beside its own: a fit to times of SmolLM2 in fp32 on two CPU cores


def pack(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Positions 0..n-1 in batches of rows of similar length whose padded size stays within the budget.

    Of all ways to cut the rows, sorted by length, the one with the fewest padded tokens and `PER_BATCH` for each batch.
    Longest first, so that the largest batch comes at once; a row longer than the budget is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows = len(order)
    best = [(0, 0)] * (rows + 1)  # from here on: the least cost, and where the first batch of it ends
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
    """`run` on packed batches of `rows`; returns (positions, result) of each, how often memory ran out, and the token
    budget that was left.

    Where a batch does not fit, half of what it had is the budget from there on: what is as large would not fit either.
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
            left = [position for some in (batch, *queue) for position in some]
            queue = [[left[at] for at in some] for some in pack([lengths[position] for position in left], token_budget)]
            continue
        pieces.append((batch, result[0]))
        done(len(batch))
    return pieces, splits, token_budget


def _attempt(run: Callable[[Sequence[Item]], Result], rows: Sequence[Item]) -> tuple[Result] | None:
    """The result of a batch; None where it does not fit: the error, and the tensors it held, are gone by then."""
    try:
        return (run(rows),)
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
        return None


def joined(batches: Sequence[list[int]], parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The batches' rows on the CPU, one under another, the sorting by length undone."""
    order = torch.tensor([position for batch in batches for position in batch])
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return torch.cat([part.cpu() for part in parts])[back]
