"""Picks for tests of exports: conversations as if a selection had picked them, in this order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gradsift.data.conversation import Conversation
from gradsift.export.files import export_picks
from gradsift.selection.picks import Pick


def pick_of(conversation: Conversation, rank: int = 1, **fields: Any) -> Pick:
    """A pick of this conversation, whose id is "i" with its rank."""
    values = {"score": 1 / rank, "id": f"i{rank}", "source": "s", "task": "", "file": "pool.csv", "raw": b"{}"}
    values |= {"line": rank, "tokens": 10 * rank, "best_subtask": "sums", **fields}
    return Pick(rank=rank, conversation=conversation, **values)


def export_rows(out: Path, format: str, rows: Sequence[Conversation], manifest: dict[str, Any] | None = None) -> Path:
    """Export the conversations, best first; returns the data file."""
    picks = [pick_of(row, rank) for rank, row in enumerate(rows, 1)]
    return export_picks(out, format, picks, pd.DataFrame({"row": [0], "score": [0.5]}), manifest or {})
