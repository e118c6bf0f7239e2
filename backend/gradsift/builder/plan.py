"""What a build would cost, before it starts: counted where that is cheap, otherwise estimated from a few batches.

`plan` reads and encodes the pool with the build's own code, packs its batches (survey.py) and times a few of them
(timing.py). Counts are exact (`Plan.exact`) if no source has more than `COUNTED` rows. `Plan.estimate` is always an
estimate, for the device of this machine.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from gradsift.builder.ingest import unused_line
from gradsift.builder.survey import COUNTED, Batch, SourcePlan, Survey, padded, survey
from gradsift.builder.timing import Burst, measure
from gradsift.config import BuildConfig, StoreDtype
from gradsift.data.encode import Encoder
from gradsift.model import load
from gradsift.runtime import atomic
from gradsift.runtime.device import default_device, resolve_dtype
from gradsift.runtime.progress import Progress
from gradsift.runtime.tables import table
from gradsift.training.checkpoint import check_folder
from gradsift.training.schedule import short_epoch_note, steps_per_epoch

PLAN = "plan.json"  # in a job's folder: the plan so far
DTYPES: tuple[StoreDtype, ...] = ("int8", "fp16", "bit")


@dataclass(frozen=True)
class WarmupPlan:
    """The warmup. rows: of one epoch. padded_tokens: of all epochs."""

    rows: int
    epochs: int
    steps_per_epoch: int
    padded_tokens: int


@dataclass(frozen=True)
class Estimate:
    """Seconds by stage (`features` is for all checkpoints), with one device and with `workers`; bytes by part.

    memory_bytes: the peak, on the device or, for a CPU, in the process: as measured, scaled up if the largest batches
    were not timed.
    """

    seconds: dict[str, float]
    total_seconds: float
    workers: int
    workers_total_seconds: float
    warmup_tokens_per_s: float | None
    features_tokens_per_s: float
    burst_batches: int
    burst_seconds: float
    memory_bytes: int
    memory_of: str
    measured_memory_bytes: int
    lora_parameters: int
    bytes: dict[str, int]
    total_bytes: int


@dataclass(frozen=True)
class Plan:
    """What a build would process and, once measured, what it would cost.

    excluded: rows by reason, which with `usable` add up to `rows`. unused: rows by column that held text and was not
    used. padded_tokens: of one pass over the pool. feature_bytes: by store dtype, for all checkpoints and gradients.
    """

    model: str
    device: str
    dtype: str
    exact: bool
    tokenized_rows: int
    rows: int
    usable: int
    truncated: int
    excluded: dict[str, int]
    unused: dict[str, int]
    prompt_tokens: int
    answer_tokens: int
    padded_tokens: int
    sources: list[SourcePlan]
    checkpoints: int
    warmup: WarmupPlan | None
    store_dtype: str
    feature_bytes: dict[str, int]
    pool_bytes: int
    notes: list[str] = field(default_factory=list)
    estimate: Estimate | None = None


def plan(pool: Sequence[str | Path], config: BuildConfig, workers: int = 1, progress: Progress | None = None) -> Plan:
    """Count what a build of `pool` would process and estimate its cost on this machine; nothing is written.

    workers: number of devices that share the extraction of features. In a job, `job/plan.json` holds the plan so far.

    Raises:
        GradsiftError: anything that would stop the build at its start: an unreadable pool, an unknown model, no usable
            row.
    """
    progress = progress or Progress(quiet=True)
    for checkpoint in config.checkpoints:
        check_folder(Path(checkpoint), moments="adam" in config.gradients)
    encoder = Encoder(load.load_tokenizer(config.model), config.template, config.template_options)
    max_length = min(config.max_length, load.model_window(config.model))
    pool_survey = survey(pool, config, encoder, max_length, progress)
    device = default_device()
    batches = pool_survey.feature_batches(config.resolve_token_budget(device.type))
    training = pool_survey.warmup_batches(config.resolve_training_budget(device.type))
    counted = _counted(pool_survey, batches, training, device)
    _keep(counted, progress)
    burst = measure(pool_survey, training, batches, progress)
    result = _estimated(counted, pool_survey, burst, batches, training, workers)
    _keep(result, progress)
    return result


def record(result: Plan) -> dict[str, Any]:
    """A plan as plain JSON values."""
    return asdict(result)


def _counted(pool_survey: Survey, batches: list[Batch], training: list[Batch], device: torch.device) -> Plan:
    config, checkpoints = pool_survey.config, len(pool_survey.config.checkpoints) or pool_survey.config.epochs
    warmup = _warmup_plan(pool_survey, training) if training else None
    kinds = checkpoints * len(config.gradients)
    return Plan(
        model=config.model,
        device=device.type,
        dtype=str(resolve_dtype(config.dtype, device)).removeprefix("torch."),
        exact=pool_survey.sampled == pool_survey.rows,
        tokenized_rows=pool_survey.sampled,
        rows=pool_survey.rows,
        usable=pool_survey.usable,
        truncated=sum(source.truncated for source in pool_survey.sources),
        excluded=pool_survey.excluded,
        unused=pool_survey.unused,
        prompt_tokens=sum(source.prompt_tokens for source in pool_survey.sources),
        answer_tokens=sum(source.answer_tokens for source in pool_survey.sources),
        padded_tokens=round(pool_survey.padded_tokens(batches)),
        sources=pool_survey.sources,
        checkpoints=checkpoints,
        warmup=warmup,
        store_dtype=config.store_dtype,
        feature_bytes={dtype: pool_survey.usable * kinds * config.row_bytes(dtype) for dtype in DTYPES},
        pool_bytes=pool_survey.pool_bytes,
        notes=_notes(pool_survey, warmup),
    )


def _warmup_plan(pool_survey: Survey, training: list[Batch]) -> WarmupPlan:
    config = pool_survey.config
    rows = max(1, int(pool_survey.usable * config.warmup_fraction))
    tokens = sum(padded(pool_survey.lengths, batch) for batch in training)  # unweighted: rows are drawn evenly
    scale = rows * config.epochs / sum(map(len, training))
    return WarmupPlan(rows, config.epochs, steps_per_epoch(rows, config.batch_size), round(tokens * scale))


def _notes(pool_survey: Survey, warmup: WarmupPlan | None) -> list[str]:
    notes = []
    if pool_survey.max_length < pool_survey.config.max_length:
        notes.append(f"--max-length is lowered to {pool_survey.max_length:,}, the model's window.")
    if pool_survey.sampled < pool_survey.rows:
        notes.append(
            f"{pool_survey.sampled:,} of {pool_survey.rows:,} rows were tokenized, at most {COUNTED:,} per source: the "
            "counts of usable, excluded and cut rows, of tokens and of unused columns are scaled up."
        )
    if warmup and (short := short_epoch_note(warmup.rows, pool_survey.config.batch_size)):
        notes.append(short)
    return notes


def _estimated(
    counted: Plan, pool_survey: Survey, burst: Burst, batches: list[Batch], training: list[Batch], workers: int
) -> Plan:
    config, warmup = pool_survey.config, counted.warmup
    one_pass = burst.setup + burst.features.seconds_per_token * counted.padded_tokens
    seconds = {
        "read": pool_survey.seconds,
        "load": burst.load,
        "warmup": burst.warmup.seconds_per_token * warmup.padded_tokens if warmup else 0.0,
        "features": counted.checkpoints * one_pass,
    }
    parts = {
        "features": counted.feature_bytes[config.store_dtype],
        "representations": counted.usable * counted.checkpoints * (2 * burst.hidden + 8),
        "checkpoints": counted.checkpoints * 3 * 4 * burst.parameters,  # weights and two moments, fp32
        "pool": counted.pool_bytes,
    }
    largest = max(padded(pool_survey.lengths, batch) for batch in batches)
    memory = burst.loaded + (burst.peak - burst.loaded) * max(1.0, largest / burst.features.largest)
    if training:
        training_scale = max(padded(pool_survey.lengths, batch) for batch in training) / burst.warmup.largest
        memory = max(memory, burst.loaded + (burst.trained - burst.loaded) * max(1.0, training_scale))
    notes = list(counted.notes)
    if burst.splits:
        notes.append("A batch did not fit into memory and was halved; the build will do the same, which slows it down.")
    total = sum(seconds.values())
    estimate = Estimate(
        seconds={name: round(value, 1) for name, value in seconds.items()},
        total_seconds=round(total, 1),
        workers=workers,
        workers_total_seconds=round(total - seconds["features"] * (1 - 1 / workers), 1),
        warmup_tokens_per_s=round(1 / burst.warmup.seconds_per_token, 1) if warmup else None,
        features_tokens_per_s=round(1 / burst.features.seconds_per_token, 1),
        burst_batches=burst.warmup.batches + burst.features.batches,
        burst_seconds=round(burst.warmup.seconds + burst.features.seconds, 1),
        memory_bytes=round(memory),
        memory_of="the device" if counted.device == "cuda" else "the process",
        measured_memory_bytes=burst.peak,
        lora_parameters=burst.parameters,
        bytes=parts,
        total_bytes=sum(parts.values()),
    )
    return replace(counted, notes=notes, estimate=estimate)


def _keep(result: Plan, progress: Progress) -> None:
    """In a job, write the plan so far to where the page looks for it."""
    if progress.folder is not None:
        atomic.write_json(progress.folder / "job" / PLAN, record(result))


def describe(result: Plan) -> str:
    """A plan as lines for a terminal."""
    basis = "counted" if result.exact else f"from {result.tokenized_rows:,} tokenized rows"
    lines = [
        f"rows {result.rows:,} = {result.usable:,} usable + {result.rows - result.usable:,} excluded; "
        f"{result.truncated:,} cut ({basis})",
        f"tokens {result.prompt_tokens:,} in prompts, {result.answer_tokens:,} in answers; one pass computes "
        f"{result.padded_tokens:,} with padding",
        "",
        _sources_table(result),
    ]
    lines += ["", *(f"excluded {count:,}: {reason}" for reason, count in result.excluded.items())]
    lines += unused_line(result.unused)
    if result.warmup:
        w = result.warmup
        lines.append(f"warmup {w.rows:,} rows, {w.steps_per_epoch:,} optimizer steps per epoch, {w.epochs} epochs")
    by_dtype = ", ".join(f"{dtype} {_size(count)}" for dtype, count in result.feature_bytes.items())
    lines += [f"features {result.checkpoints} checkpoints; {by_dtype}", *_estimate_lines(result), *result.notes]
    return "\n".join(lines)


def _sources_table(result: Plan) -> str:
    counts = [
        (s.rows_in_file, s.rows, s.usable, s.excluded, s.truncated, s.prompt_tokens + s.answer_tokens)
        for s in result.sources
    ]
    rows = [(s.source, *(f"{n:,}" for n in numbers)) for s, numbers in zip(result.sources, counts, strict=True)]
    return table(rows, ("source", "in file", "taken", "usable", "excluded", "cut", "tokens"))


def _estimate_lines(result: Plan) -> list[str]:
    e = result.estimate
    if e is None:
        return []
    stages = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in e.seconds.items())
    shared = f"; {_duration(e.workers_total_seconds)} on {e.workers}" if e.workers > 1 else ""
    parts = ", ".join(f"{part} {_size(count)}" for part, count in e.bytes.items())
    scaled = e.memory_bytes > e.measured_memory_bytes
    measured = f", scaled up from {_size(e.measured_memory_bytes)} for smaller batches" if scaled else ""
    return [
        "",
        f"estimated from {e.burst_batches} batches in {e.burst_seconds:.0f} s on {result.device} ({result.dtype}), "
        f"{e.features_tokens_per_s:,.0f} tokens/s:",
        f"time {_duration(e.total_seconds)} on one device{shared} ({stages})",
        f"memory {_size(e.memory_bytes)} for {e.memory_of}{measured}",
        f"disk {_size(e.total_bytes)} as {result.store_dtype} ({parts})",
        "",
    ]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
