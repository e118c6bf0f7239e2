"""Tables as text: unfolded for a pipe, folded to its width for a terminal."""

import io
import shutil
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE = 100_000  # columns: nothing is folded or cut there


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = (), *, left: int = 1) -> str:
    """Rows of cells as lines, each column as wide as it needs to be, without trailing blanks.

    header: names of the columns; empty for a table without a header. left: number of left-aligned columns; the others
    are numbers, aligned right. Cells are taken literally: markup and emoji codes in them mean nothing.
    """
    cells = [list(row) for row in rows]
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(header))
    for number in range(max(map(len, [header, *cells]))):
        words = number < left
        name = Text(header[number]) if header else ""
        grid.add_column(name, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    for row in cells:
        grid.add_row(*(Text(cell.expandtabs()) for cell in row))  # rich counts a tab as zero columns
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE
    page = io.StringIO()
    Console(file=page, width=width, color_system=None).print(grid)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())
