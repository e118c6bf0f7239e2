"""The what-ifs of a view: from the address bar's short names to the fields of `Choices`. Draws nothing.

`without` in the address lists what is left out, counted from 0: `t3` is the fourth target, `s1` the second subtask,
`c2` the third checkpoint.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from gradsift.config import Aggregate, GradientKind, Similarity, TargetPooling
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError
from gradsift.scoring.choices import Choices, make_choices
from gradsift.scoring.scoring import Scoring
from gradsift.workspace.sessions import Decisions

UNIQUE, DIVERSE, MATCHED = "unique", "diverse", "matched"


def extras(indexed: bool) -> tuple[str, ...]:
    """The further options; dropping near-duplicates is one only if the pool's texts are `indexed`."""
    return (UNIQUE, DIVERSE, MATCHED) if indexed else (DIVERSE, MATCHED)


def gradients_of(store: Store, scoring: Scoring) -> tuple[GradientKind, ...]:
    """The gradients to choose from: the store's first, which the app scores with, and any others with scores."""
    first, *others = store.manifest.config.gradients
    return (first, *(kind for kind in others if scoring.has("less", kind)))


def parts_of(scoring: Scoring) -> dict[str, str]:
    """What can be left out, short name in the address -> title; checkpoints and subtasks first."""
    epochs, subtasks = scoring.epochs, scoring.subtask_names
    checkpoints = {f"c{i}": name for i, name in enumerate(epochs)} if len(epochs) > 1 else {}
    names = {f"s{j}": f"subtask {name}" for j, name in enumerate(subtasks)} if len(subtasks) > 1 else {}
    targets = {f"t{k}": f"example {k + 1} ({row.subtask})" for k, row in enumerate(scoring.targets)}
    return {**checkpoints, **names, **targets}


def choice_fields(scoring: Scoring, without: Sequence[str], also: Sequence[str], cap: str) -> dict[str, Any]:
    """The fields of `Choices` that say what is left out, dropped, matched and capped."""
    subtasks, epochs = scoring.subtask_names, scoring.epochs
    return {
        "without_targets": tuple(int(name[1:]) for name in without if name[0] == "t"),
        "without_subtasks": tuple(subtasks[int(name[1:])] for name in without if name[0] == "s"),
        "without_checkpoints": tuple(epochs[int(name[1:])] for name in without if name[0] == "c"),
        "length_matched": MATCHED in also,
        "drop_duplicates": UNIQUE in also,
        "diverse": DIVERSE in also,
        "cap": cap,
    }


def methods_in(address: Mapping[str, str], known: Sequence[str]) -> list[str]:
    """The methods that a saved address compares, in the order of `known`; all of them if it does not say."""
    names = address.get("methods", "").split(",")
    return [method for method in known if method in names] or list(known)


def restored_choices(
    scoring: Scoring, gradients: Sequence[GradientKind], indexed: bool, address: Mapping[str, str], decisions: Decisions
) -> Choices:
    """The choices of a saved address and a session's decisions, as its pages made them.

    Values that the scoring does not have are left at their default. gradients: from `gradients_of`. indexed: whether
    near-duplicates are known.
    """

    def one(key: str, options: Sequence[str]) -> str:
        value = address.get(key, "")
        return value if value in options else options[0]

    def several(key: str, options: Sequence[str]) -> list[str]:
        return [value for value in address.get(key, "").split(",") if value in options]

    chosen: dict[str, Any] = {
        "aggregate": one("aggregate", get_args(Aggregate)),
        "similarity": one("similarity", get_args(Similarity)),
        "target_pooling": one("pooling", get_args(TargetPooling)),
        "gradient": one("gradient", gradients),
        "accepted": decisions.accepted.tolist(),
        "rejected": decisions.rejected.tolist(),
    }
    also = several("also", extras(indexed))
    more = choice_fields(scoring, several("without", list(parts_of(scoring))), also, address.get("cap", "").strip())
    try:
        return make_choices(**chosen, **more)
    except UsageError:  # the cap is the only free text
        return make_choices(**chosen, **{**more, "cap": ""})
