"""The `gradsift` commands that pages start as processes, written as arguments and read back from them.

Each field is the option of the same name: `drop_leaks` is `--drop-leaks`. None leaves the command's own default, a
tuple repeats its option, and the field named by `ARGUMENT` comes last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

from gradsift.runtime import jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What all commands have in common."""

    NAME: ClassVar[str]
    ARGUMENT: ClassVar[str]

    def argv(self) -> list[str]:
        """Its arguments without `gradsift`.

        `--` comes before the last ones, so that a file whose name begins with a dash is still a file.
        """
        words = [self.NAME]
        for field in fields(self):
            if field.name != self.ARGUMENT:
                words += _option(field.name, getattr(self, field.name))
        last = getattr(self, self.ARGUMENT)
        return [*words, "--", *map(str, last if isinstance(last, tuple) else [last])]

    @classmethod
    def read(cls, argv: Sequence[str]) -> Self | None:
        """The command that the arguments spell; None if it is another command or has an option that is not a field."""
        name, *words = argv or [""]
        texts: dict[str, list[str]] = {cls.ARGUMENT: []}
        kinds = _kinds(cls)
        while words:
            word = words.pop(0)
            field = word.removeprefix("--").replace("-", "_")
            if word == "--":
                texts[cls.ARGUMENT] += words
                break
            if not word.startswith("--"):
                texts[cls.ARGUMENT].append(word)
            elif field not in kinds or field == cls.ARGUMENT or not (words or kinds[field][0] is bool):
                return None
            else:
                texts.setdefault(field, []).append("" if kinds[field][0] is bool else words.pop(0))
        if name != cls.NAME or not texts[cls.ARGUMENT]:
            return None
        try:
            return cls(**{field: _value(*kinds[field], values) for field, values in texts.items()})
        except (TypeError, ValueError):  # an argument is missing, is not a number or comes twice
            return None

    def start(self, folder: Path) -> None:
        """Run it as a separate process with its state in `folder/job/`.

        Raises:
            JobError: a run is in progress there already. OSError: the state cannot be written.
        """
        jobs.start(folder, self.argv())


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfPool(Command):
    """What a plan and a build share: the pool and the form's parameters of a datastore."""

    ARGUMENT: ClassVar[str] = "pool"

    pool: tuple[str, ...]
    model: str | None = None
    template: str | None = None
    template_option: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    take: tuple[str, ...] = ()
    source_column: str | None = None
    limit_per_source: int | None = None
    max_length: int | None = None
    warmup_fraction: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    lora_rank: int | None = None
    dim: int | None = None
    store_dtype: str | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(_OfPool):
    """What a build would cost."""

    NAME: ClassVar[str] = "plan"

    json: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Build(_OfPool):
    """A datastore from a pool. out: its folder."""

    NAME: ClassVar[str] = "build"

    out: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(Command):
    """The scores of a store's rows for a target set. out: their Parquet file."""

    NAME: ClassVar[str] = "score"
    ARGUMENT: ClassVar[str] = "store"

    store: Path
    targets: Path
    gradient: str | None = None
    method: tuple[str, ...]
    out: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Select(Command):
    """The files of an export. out: their folder. choices: a JSON file of `Choices`."""

    NAME: ClassVar[str] = "select"
    ARGUMENT: ClassVar[str] = "store"

    store: Path
    targets: Path
    out: Path
    method: str
    top: str
    format: str
    compress: str
    bundle: bool = True
    evaluation: tuple[Path, ...] = ()
    drop_leaks: bool = False
    report: bool = False
    choices: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate(Command):
    """Training on each method's picks. test: the held-out rows. out: the report, a JSON file.

    epochs, batch_size, lr: where the recipe differs from the store's own.
    """

    NAME: ClassVar[str] = "evaluate"
    ARGUMENT: ClassVar[str] = "store"

    store: Path
    targets: Path
    test: Path
    budget: str
    seeds: int
    out: Path
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    method: tuple[str, ...]


def _option(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] * value
    values = value if isinstance(value, tuple) else () if value is None else (value,)
    return [word for one in values for word in (flag, str(one))]


def _kinds(command: type[Command]) -> dict[str, tuple[type, bool]]:
    """Field -> the type of its value, or of each of its values, and whether it may have several."""
    kinds = {}
    for name, hint in get_type_hints(command).items():
        if get_origin(hint) is not ClassVar:
            several = get_origin(hint) is tuple
            kinds[name] = get_args(hint)[0] if several or isinstance(hint, UnionType) else hint, several
    return kinds


def _value(kind: type, several: bool, texts: list[str]) -> Any:
    if several:
        return tuple(kind(text) for text in texts)
    (text,) = texts
    return True if kind is bool else kind(text)
