"""The first rows of a pool, read as a build would read them: what a person looks at before paying for one."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest
from pathlib import Path

from gradsift.data.inputs import Inputs, find_inputs
from gradsift.data.pool import PoolError, Row, Rows
from gradsift.data.schemas import Reading

MOST = 1000  # rows that are read
EACH = 3  # rows that are kept of each shape, and of each reason why rows cannot be used
_FEWEST = 20  # rows of each file, if there are many
_BAD = 50  # unusable rows that are kept


@dataclass
class Preview:
    """What the first rows of a pool hold.

    rows: number read; whole: whether the pool has no others. shapes: shape -> number of usable rows, as `shape_of`
    names it; kept: shape -> the first of them. excluded: reason -> number of rows; bad: the first rows of each reason.
    unused: column -> number of usable rows in which it held text and was not used. columns: all columns, as they first
    appear. left_out: what was found and is not read, as of `Rows`. problems: sentences about files that cannot be read.
    """

    rows: int = 0
    whole: bool = True
    shapes: Counter[str] = field(default_factory=Counter)
    kept: dict[str, list[Row]] = field(default_factory=dict)
    excluded: Counter[str] = field(default_factory=Counter)
    bad: list[Row] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    columns: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def usable(self) -> int:
        """Number of rows that can be read as conversations."""
        return self.shapes.total()

    @property
    def used(self) -> list[str]:
        """The columns that are read, as far as the rows' own fields show."""
        return [column for column in self.columns if column not in self.unused]

    @property
    def first(self) -> list[Row]:
        """The rows that were kept: the first of each shape, then the second of each, the most frequent shapes first."""
        rows = (self.kept[shape] for shape, _ in self.shapes.most_common())
        return [row for turn in zip_longest(*rows) for row in turn if row is not None]


def preview(
    paths: Sequence[str | Path],
    reading: Reading | None = None,
    most: int = MOST,
    each: int = EACH,
    refuse: Callable[[Row], str] | None = None,
) -> Preview:
    """Read the first rows of every file, together at most `most` (of very many files, only the first are read).

    refuse: why a row that can be read is excluded all the same, "" if it is not.

    Raises:
        PoolError: a path does not exist, or nothing can be read.
    """
    reading, result = reading or Reading(), Preview()
    inputs = find_inputs(paths)
    share = max(_FEWEST, most // len(inputs.read))
    few = inputs.read[: max(1, most // share)]
    result.whole, result.left_out = len(few) == len(inputs.read), list(inputs.left_out)
    columns: dict[str, None] = {}
    for entry in few:
        rows = Rows(Inputs([entry]), (), reading)
        try:
            for row in islice(rows, share):
                _take(result, row, row.reason or (refuse(row) if refuse else ""), each)
                columns |= dict.fromkeys(_columns(row))
            result.whole = result.whole and next(rows, None) is None
        except PoolError as error:
            result.problems.append(str(error))
        result.left_out += rows.left_out
    if not result.rows:
        raise PoolError(result.problems[0])
    result.columns = list(columns)
    return result


def shape_of(row: Row) -> str:
    """What a usable row is like: its schema and what it holds beside turns of text."""
    messages = row.messages
    holds = {
        "tools": bool(row.tools) or any(m.tool_calls or m.role == "tool" for m in messages),
        "reasoning": any(m.reasoning for m in messages),
        "turns that are not learned": any(m.role == "assistant" and not m.is_learned for m in messages),
    }
    names = [name for name, there in holds.items() if there]
    return f"{row.schema} with {' and '.join(names)}" if names else row.schema


def _take(result: Preview, row: Row, reason: str, each: int) -> None:
    result.rows += 1
    if reason:
        result.excluded[reason] += 1
        if result.excluded[reason] <= each and len(result.bad) < _BAD:
            result.bad.append(replace(row, reason=reason))
        return
    shape = shape_of(row)
    result.shapes[shape] += 1
    result.unused.update(row.unused)
    if len(kept := result.kept.setdefault(shape, [])) < each:
        kept.append(row)


def _columns(row: Row) -> Iterator[str]:
    """The names of a row's columns; none if it cannot be parsed."""
    try:
        record = json.loads(row.raw)
    except (ValueError, RecursionError):
        return
    if isinstance(record, dict):
        yield from record
