"""Which rows should I train on? From targets to picks (`pick`), and to files for a trainer (`select`)."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradsift.data.pool import Row
from gradsift.datastore.store import Store
from gradsift.export.files import check_compression, export_picks, refuse_strangers
from gradsift.export.formats import check_format
from gradsift.export.report import render
from gradsift.runtime import atomic
from gradsift.runtime.errors import UsageError
from gradsift.runtime.progress import Progress
from gradsift.scoring.choices import make_choices
from gradsift.scoring.portable import use_target_features
from gradsift.scoring.score_targets import score_targets
from gradsift.selection.budget import Budget
from gradsift.selection.leakage import Leakage, check_leaks, read_evaluation
from gradsift.selection.picks import Pick, Picks, make_picks
from gradsift.selection.ranking import scores_table

_ALWAYS_RECORDED = {"aggregate", "similarity", "target_pooling", "seed"}


@dataclass(frozen=True, eq=False)
class Selection(Picks):
    """The result of `pick`: rows checked for text that they share with targets and evaluations.

    `rows` are their numbers in the pool, `table()` has one line per pick, `read()` yields their text, and `write()`
    makes the files for a trainer. leakage: the result of the check. drop_leaks: whether leaking rows were replaced.
    """

    leakage: Leakage
    drop_leaks: bool

    def write(
        self,
        out: str | Path,
        *,
        format: str = "messages",
        compress: str = "none",
        bundle: bool = False,
        report: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Write the folder that files.py describes, and return the path of the data file.

        format: one of `formats.FORMATS`. compress: how to compress the data file: `none`, `gzip` or `zstd`. bundle:
        also write everything as one zip. report: also write report.html.

        Raises:
            UsageError: no such format or compression, a format without a place for what the picks hold, or the folder
            holds other files. ExportError: nothing was picked, or the folder cannot be written. StoreError: the texts
            cannot be read.
        """
        out, progress = Path(out), progress or Progress(quiet=True)
        check_request(out, format, compress)
        beside = {"choices.json": atomic.json_text(self.changed)} if self.changed else {}
        if self.leakage.leaks:
            beside["leakage.json"] = self.leakage.to_json()
        flags = [f"--compress {compress}"] if compress != "none" else []
        flags += [f"--evaluation {shlex.quote(part['file'])}" for part in self.leakage.against.files]
        switches = ("drop-leaks", self.drop_leaks), ("report", report), ("bundle", bundle)
        flags += [f"--{name}" for name, on in switches if on]
        progress.stage("write", "Writing the files", 2 * len(self), "rows")  # they are looked at, then written
        return export_picks(
            out,
            format,
            _Counted(self, progress),
            scores_table(self.store, self.scoring, [self.ranking]),
            {**self._manifest(), "command": " ".join([self._command(format), *flags])},
            compress=compress,
            bundle=bundle,
            beside=beside,
            report=(lambda manifest: render(self, self.leakage, manifest)) if report else None,
            progress=progress,
        )

    def _manifest(self) -> dict[str, Any]:
        rows, manifest = len(self.scoring.rows), self.store.manifest
        options = dict(getattr(manifest.config, "template_options", {}))
        return {
            "store": self.store.fingerprint,
            "model": manifest.config.model,
            "pool": list(manifest.inputs),
            "method": self.method,
            "budget": str(self.budget),
            **self.choices.model_dump(mode="json", include=_ALWAYS_RECORDED),
            "gradient": self.gradient,
            "choices": self.changed,
            "targets": len(self.scoring.targets),
            "subtasks": self.scoring.subtask_names,
            "scored_rows": rows,
            "excluded_rows": manifest.rows - rows,
            "picked_rows": len(self),
            "picked_tokens": self.tokens,
            "leakage": self.leakage.summary(),
            **({"template_options": options} if options else {}),
        }

    def _command(self, format: str) -> str:
        """The command that makes the same files; choices.json holds the manifest's `choices`."""
        options = f"--top {self.budget} --out PICKS --method {self.method} --format {format}"
        choices = " --choices choices.json" if self.changed else ""
        return f"gradsift select STORE --targets TARGETS {options}{choices}"


def pick(
    store: Store,
    targets: Sequence[Row],
    top: str,
    *,
    method: str = "less",
    evaluation: Sequence[str | Path] = (),
    drop_leaks: bool = False,
    target_features: str | Path | None = None,
    progress: Progress | None = None,
    **choices: Any,
) -> Selection:
    """Pick the best rows within the budget `top` (`5%`, `200`, `50000tokens`).

    evaluation: files with which picks should share no text, besides the targets. drop_leaks: replace picks that share
    text by the next rows. target_features: as in `score`. choices: fields of `Choices`, such as `cap="30%"`
    or `drop_duplicates=True`.

    Raises:
        UsageError: the budget or a choice is not allowed. TargetError, StoreError, PoolError: see `score_targets` and
            `read_evaluation`.
    """
    budget, all_choices = Budget.parse(top), make_choices(**choices)
    progress = progress or Progress(quiet=True)
    against = read_evaluation(targets, evaluation)
    if target_features is not None:
        use_target_features(store, targets, target_features)
    scoring = score_targets(store, targets, [method], all_choices.gradient, progress)
    picks = make_picks(store, scoring, method, budget, all_choices)
    picks, leakage = check_leaks(picks, against, drop_leaks, progress)
    return Selection(**vars(picks), leakage=leakage, drop_leaks=drop_leaks)


def select(
    store: Store,
    targets: Sequence[Row],
    top: str,
    out: str | Path,
    *,
    format: str = "messages",
    compress: str = "none",
    bundle: bool = False,
    report: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """`pick(store, targets, top, **options)`, then `Selection.write`: from targets to files for a trainer in one call.

    Raises:
        The errors of both; folder, format and compression are checked before anything is computed.
    """
    check_request(Path(out), format, compress)
    selection = pick(store, targets, top, progress=progress, **options)
    return selection.write(out, format=format, compress=compress, bundle=bundle, report=report, progress=progress)


def check_request(out: Path, format: str, compress: str) -> None:
    """Raise `UsageError` if an export of this kind cannot go into the folder `out`."""
    check_format(format)
    check_compression(format, compress)
    if (out / "pool.parquet").exists():
        raise UsageError(f"{out} is a store, which an export would overwrite: choose another --out.")
    refuse_strangers(out)


@dataclass(frozen=True, eq=False)
class _Counted:
    """The picks with their text, read anew each time they are gone through; progress advances at each."""

    picks: Picks
    progress: Progress

    def __iter__(self) -> Iterator[Pick]:
        for pick in self.picks.read():
            yield pick
            self.progress.advance()
