"""The what-if options: together with a kept scoring and a budget, they decide which rows a method picks.

The app, `choices.json` and the command line share one object in two parts: `RankingChoices` say how rows are ranked,
`PickingChoices` which of the ranked rows are picked within the budget. In a file, both form one flat record.

Every choice is arithmetic on the kept scoring: nothing is recomputed, and the result equals that of a scoring from
scratch. The classes live here, below selection/, because `Scoring.under` takes them.
"""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gradsift.config import Aggregate, GradientKind, Similarity, TargetPooling
from gradsift.runtime.errors import UsageError

_CAP = re.compile(r"\d{1,3}(\.\d{1,6})?%|\d{1,15}")
_Number = Annotated[  # on a command line, a number is text
    int, Field(strict=True), BeforeValidator(lambda n: int(n) if isinstance(n, str) and n.isdecimal() else n)
]
Numbers = Annotated[tuple[_Number, ...], AfterValidator(lambda numbers: tuple(sorted(set(numbers))))]


def _cap(text: str) -> str:
    text = str(text).strip()
    if text and not (_CAP.fullmatch(text) and 0 < float(text.rstrip("%")) <= (100 if text[-1] == "%" else 10**15)):
        raise ValueError("give the most that one source may have: a share of the picks like 30%, or rows like 200")
    return text


class RankingChoices(BaseModel):
    """How rows are ranked. Targets are named by their index in the scoring, subtasks and checkpoints by name.

    gradient: the stored update that LESS compares; None means the store's first kind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    aggregate: Aggregate = "max"
    similarity: Similarity = "cosine"
    target_pooling: TargetPooling = "cosine-of-mean"
    gradient: GradientKind | None = None
    seed: int = Field(0, ge=0)
    without_targets: Numbers = ()
    without_subtasks: tuple[str, ...] = ()
    without_checkpoints: tuple[str, ...] = ()
    length_matched: bool = False

    @property
    def for_ranking(self) -> "RankingChoices":
        """This part alone: rows rank alike whenever it is equal."""
        return RankingChoices(**{name: getattr(self, name) for name in RankingChoices.model_fields})


class PickingChoices(BaseModel):
    """Which of the ranked rows are picked within the budget. Accepted and rejected rows are pool row numbers.

    Rejected rows are never picked, and the next ones take their place; accepted rows always are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cap: Annotated[str, BeforeValidator(_cap)] = ""
    drop_duplicates: bool = False
    diverse: bool = False
    accepted: Numbers = ()
    rejected: Numbers = ()
    only_accepted: bool = False


class Choices(PickingChoices, RankingChoices):
    """All choices: `RankingChoices` and `PickingChoices`."""

    @property
    def changed(self) -> dict[str, Any]:
        """The fields that differ from the defaults, as plain JSON values."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def record(self, first: GradientKind) -> dict[str, Any]:
        """The content of choices.json: `changed`, plus the gradient used in a store whose first kind is `first`.

        The gradient is left out where it is Adam's and that is the first kind, as in files written before other kinds
        could be the default.
        """
        gradient = self.gradient or first
        return self.model_copy(update={"gradient": None if gradient == first == "adam" else gradient}).changed


def make_choices(**fields: Any) -> Choices:
    """`Choices` from keyword arguments or a record read from a file.

    Raises:
        UsageError: there is no such choice, or its value is not allowed.
    """
    try:
        return Choices(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"The choice {name}={first['input']!r} is not allowed: {first['msg'].lower()}.") from error


def read_choices(path: Path) -> Choices:
    """`Choices` from a JSON file such as the app writes beside an export.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        return Choices.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UsageError(
            f'{path} is not a file of choices ({reason}); give a JSON file like {{"cap": "30%"}}.'
        ) from error
