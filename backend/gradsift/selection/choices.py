"""What decides, beside a kept scoring and a budget, which rows a method picks: one object for page, file and command.

Every choice is arithmetic on the kept scoring: nothing is computed again, and each equals a scoring from scratch.
"""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gradsift.config import Aggregate, GradientKind, Similarity, TargetPooling
from gradsift.runtime.errors import UsageError

_CAP = re.compile(r"\d{1,3}(\.\d{1,6})?%|\d{1,15}")
_Number = Annotated[  # as a command line has it, a number is text
    int, Field(strict=True), BeforeValidator(lambda n: int(n) if isinstance(n, str) and n.isdecimal() else n)
]
Numbers = Annotated[tuple[_Number, ...], AfterValidator(lambda numbers: tuple(sorted(set(numbers))))]


def _cap(text: str) -> str:
    text = str(text).strip()
    if text and not (_CAP.fullmatch(text) and 0 < float(text.rstrip("%")) <= (100 if text[-1] == "%" else 10**15)):
        raise ValueError("say the most one source may have: a share of the picks like 30%, or rows like 200")
    return text


class Choices(BaseModel):
    """Ranking: the first ten fields. Picking within the budget: the others.

    Targets are named by their index in the scoring, checkpoints by name, accepted and rejected rows by pool row number.
    Rejected rows are never picked, and the next ones take their place; accepted ones always are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    aggregate: Aggregate = "max"
    similarity: Similarity = "cosine"
    target_pooling: TargetPooling = "cosine-of-mean"
    gradient: GradientKind = "adam"
    seed: int = Field(0, ge=0)
    without_targets: Numbers = ()
    without_subtasks: tuple[str, ...] = ()
    without_checkpoints: tuple[str, ...] = ()
    length_matched: bool = False

    cap: Annotated[str, BeforeValidator(_cap)] = ""
    drop_duplicates: bool = False
    diverse: bool = False
    accepted: Numbers = ()
    rejected: Numbers = ()
    only_accepted: bool = False

    @property
    def for_ranking(self) -> "Choices":
        """The same without what only matters for picking: equal ones rank alike."""
        return Choices(**{name: getattr(self, name) for name in RANKING})

    @property
    def changed(self) -> dict[str, Any]:
        """The fields that differ from the defaults, as plain JSON values."""
        return self.model_dump(mode="json", exclude_defaults=True)


RANKING = (
    *("aggregate", "similarity", "target_pooling", "gradient", "seed"),
    *("without_targets", "without_subtasks", "without_checkpoints", "length_matched"),
)


def make_choices(**fields: Any) -> Choices:
    """`Choices` from keyword arguments or a record read from a file.

    Raises:
        UsageError: no such choice, or a value that is none.
    """
    try:
        return Choices(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"The choice {what}={first['input']!r} cannot be taken: {first['msg'].lower()}.") from error


def read_choices(path: Path) -> Choices:
    """`Choices` from a JSON file, as the app writes it beside an export.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return Choices.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UsageError(f'{path} holds no choices ({reason}); give a JSON file like {{"cap": "30%"}}.') from error
