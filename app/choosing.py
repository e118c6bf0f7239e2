"""The what-ifs of the open view: from the address bar's short names to the fields of `Choices`. No drawing here.

`without` in the address lists what is left out: `t3` the fourth target, `s1` the second subtask, `c2` the third
checkpoint, all counted from 0.
"""

from collections.abc import Sequence
from typing import Any

from gradsift.influence import Scoring

UNIQUE, MATCHED = "unique", "matched"
ALSO = (UNIQUE, MATCHED)


def parts(scoring: Scoring) -> dict[str, str]:
    """What can be left out: its short name in the address -> what it is called, checkpoints and subtasks first."""
    epochs, subtasks = scoring.epochs, scoring.subtask_names
    checkpoints = {f"c{i}": name for i, name in enumerate(epochs)} if len(epochs) > 1 else {}
    names = {f"s{j}": f"subtask {name}" for j, name in enumerate(subtasks)} if len(subtasks) > 1 else {}
    targets = {f"t{k}": f"example {k + 1} ({row.subtask})" for k, row in enumerate(scoring.targets)}
    return {**checkpoints, **names, **targets}


def fields(scoring: Scoring, without: Sequence[str], also: Sequence[str], cap: str) -> dict[str, Any]:
    """The fields of `Choices` that say what is left out, dropped, matched and capped."""
    subtasks, epochs = scoring.subtask_names, scoring.epochs
    return {
        "without_targets": tuple(int(name[1:]) for name in without if name[0] == "t"),
        "without_subtasks": tuple(subtasks[int(name[1:])] for name in without if name[0] == "s"),
        "without_checkpoints": tuple(epochs[int(name[1:])] for name in without if name[0] == "c"),
        "length_matched": MATCHED in also,
        "drop_duplicates": UNIQUE in also,
        "cap": cap,
    }
