"""An evaluation's report: its runs as JSON, and the tables that the app's page and the documentation show.

{"recipe": {...}, "sets": {...}, "stores": [...], "picks": {RUN: ...}, "planned": N, "runs": [
    {"target_set", "method", "seed", "rows", "loss_by_epoch", "best_loss", "score", ...}, ...]}
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from gradsift.config import BuildConfig, ColumnPart, Take
from gradsift.runtime import atomic
from gradsift.runtime.errors import GradsiftError, UsageError

ZERO_SHOT, RANDOM, VALIDATION, FULL = "zero-shot", "random", "validation", "full"
ALWAYS = (ZERO_SHOT, RANDOM, VALIDATION)


class EvaluationError(GradsiftError):
    """An evaluation is impossible as requested, or its report is unreadable or belongs to another one."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Recipe(_Record):
    """How every selection is trained: the same for all runs of a report, whatever picked the rows.

    columns, take, source_column: how the pool's files are read, as in the store's build.
    """

    model: str
    template: str
    template_options: dict[str, JsonValue] = Field(default_factory=dict)
    columns: tuple[tuple[ColumnPart, str], ...] = ()
    take: tuple[Take, ...] = ()
    source_column: str = ""
    max_length: int = Field(ge=8)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    lr: float = Field(gt=0)
    lora_rank: int = Field(ge=1)
    lora_alpha: int = Field(ge=1)
    lora_targets: tuple[str, ...] = Field(min_length=1)
    lora_dropout: float = Field(ge=0, lt=1)
    dtype: str

    @classmethod
    def of(cls, config: BuildConfig, **changes: Any) -> "Recipe":
        """The recipe of a store's warmup, with some values changed.

        Raises:
            UsageError: a value is out of range.
        """
        try:
            return cls(**{**{name: getattr(config, name) for name in cls.model_fields}, **changes})
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(f"{first['loc'][0]} {first['input']!r}: {first['msg'].lower()}.") from error

    def config(self, seed: int) -> BuildConfig:
        """The recipe for the trainer; the seed determines LoRA's initialization, the order of rows and dropout."""
        return BuildConfig.model_validate({**self.model_dump(), "seed": seed})


class SetAbout(_Record):
    """One target set: numbers of examples, meaning of `score` (None: losses only), and a hash of both files' rows."""

    targets: int
    heldout: int
    metric: str | None
    content: str


class StoreAbout(_Record):
    """A store that rows were picked from: usable rows by source, and the correlation of log gradient norm with log
    answer length by checkpoint and source (the paper's figure 3).
    """

    fingerprint: str
    model: str
    seed: int
    sources: dict[str, int]
    correlation: dict[str, dict[str, float | None]]


class Picks(_Record):
    """The rows of one run: pool ids, best first, and the fingerprint of the store they were picked from.

    content: hash of the rows' text, which detects other rows with the same ids; empty in older reports.
    """

    store: str
    ids: list[str]
    content: str = ""


class Run(_Record):
    """One fine-tuning run. Losses are in nats per token, one per epoch (zero-shot: one, of the base model).

    best_epoch: the one with the lowest loss on the targets; best_loss and score are those of the held-out rows then.
    rows, answer_tokens (their mean) and sources describe the training rows; store: fingerprint of the store they are
    from.
    """

    target_set: str
    method: str
    seed: int
    store: str
    rows: int
    answer_tokens: float
    sources: dict[str, int]
    target_loss_by_epoch: list[float]
    loss_by_epoch: list[float]
    score_by_epoch: list[float | None]
    best_epoch: int
    best_loss: float
    score: float | None
    seconds: float

    @property
    def key(self) -> str:
        """Its name within the report."""
        return run_key(self.target_set, self.method, self.seed)


class Report(_Record):
    """All results so far. planned: the final number of runs."""

    schema_version: int = 1
    recipe: Recipe
    model_fingerprint: str
    budget: str
    sets: dict[str, SetAbout]
    stores: list[StoreAbout]
    picks: dict[str, Picks]
    planned: int
    runs: list[Run]

    def save(self, path: Path) -> None:
        """Write the report atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(path, self.model_dump(mode="json"))


def run_key(target_set: str, method: str, seed: int) -> str:
    """The name of a run: runs with the same name are the same."""
    return f"{target_set}/{method}/{seed}"


def read_report(path: Path) -> Report:
    """Read a report.

    Raises:
        EvaluationError: the file does not exist, or is not a report.
    """
    try:
        return Report.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise EvaluationError(f"{path} does not exist: create it with gradsift evaluate.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EvaluationError(
            f"{path} is not a report of gradsift evaluate ({where}: {first['msg'].lower()}): choose another --out."
        ) from error
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read ({error}): choose another --out.") from error


def runs_table(report: Report) -> pd.DataFrame:
    """One line per run and epoch: target_set, method, seed, rows, epoch, target_loss, loss, score.

    Zero-shot has epoch 0; the others have 1, 2, ...
    """
    lines = [
        (run.target_set, run.method, run.seed, run.rows, epoch, target, loss, score)
        for run in report.runs
        for epoch, (target, loss, score) in enumerate(
            zip(run.target_loss_by_epoch, run.loss_by_epoch, run.score_by_epoch, strict=True),
            start=0 if run.method == ZERO_SHOT else 1,
        )
    ]
    columns = ["target_set", "method", "seed", "rows", "epoch", "target_loss", "loss", "score"]
    return pd.DataFrame(lines, columns=columns).astype({"score": float})


def summary(report: Report) -> pd.DataFrame:
    """One line per target set and method, best loss first.

    seeds: number of seeds. loss, score: means over seeds at the best epoch; loss_sd, score_sd: their standard
    deviations (n − 1; NaN for one seed). against_random: mean of its loss minus random's over the seeds that both have
    (below 0 is better); against_random_sd. better: number of these `paired` seeds on which its loss is lower.
    """
    lines = []
    for name in report.sets:
        runs = [run for run in report.runs if run.target_set == name]
        random = {run.seed: run.best_loss for run in runs if run.method == RANDOM}
        for method in dict.fromkeys(run.method for run in runs):
            own = [run for run in runs if run.method == method]
            zero = method == ZERO_SHOT  # the base model has no seed: compare it with every random run
            pairs = [(own[0], seed) for seed in random] if zero else [(run, run.seed) for run in own]
            gaps = np.array([run.best_loss - random[seed] for run, seed in pairs if seed in random])
            losses = np.array([run.best_loss for run in own])
            scores = np.array([np.nan if run.score is None else run.score for run in own])
            lines.append(
                {
                    "target_set": name,
                    "method": method,
                    "seeds": len(own),
                    "rows": own[0].rows,
                    "loss": losses.mean(),
                    "loss_sd": _spread(losses),
                    "score": scores.mean(),
                    "score_sd": _spread(scores),
                    "against_random": gaps.mean() if len(gaps) and method != RANDOM else np.nan,
                    "against_random_sd": _spread(gaps) if method != RANDOM else np.nan,
                    "better": int((gaps < 0).sum()),
                    "paired": len(gaps) if method != RANDOM else 0,
                }
            )
    columns = ["target_set", "method", "seeds", "rows", "loss", "loss_sd", "score", "score_sd"]
    columns += ["against_random", "against_random_sd", "better", "paired"]
    table = pd.DataFrame(lines, columns=columns)
    return table.sort_values(["target_set", "loss"], kind="stable", ignore_index=True)


def _spread(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
