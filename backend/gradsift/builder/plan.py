"""What a build would cost, told before anything is spent: counted where that is cheap, else estimated from a burst.

`plan` reads and encodes the pool with the build's own code, packs its batches (survey.py), and times a few of them
(burst.py). What is counted is exact as long as no source has more than `COUNTED` rows; `exact` says so. `estimate` is
an estimate always, for this machine's device.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

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

PLAN = "plan.json"  # in a job's folder: the plan as far as it is known
DTYPES: tuple[StoreDtype, ...] = ("int8", "fp16", "bit")


@dataclass(frozen=True)
class WarmupPlan:
    """rows: trained on in every epoch. padded_tokens: of all epochs."""

    rows: int
    epochs: int
    steps_per_epoch: int
    padded_tokens: int


@dataclass(frozen=True)
class Estimate:
    """Seconds by stage (`features` is for all checkpoints), with one device and with `workers`; bytes by part.

    memory_bytes: the most at once, on the device or, on a CPU, of the process: what the burst needed, scaled up where
    it did not come to the largest batches.
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
    """What a build would meet and, once it was measured, what it would cost.

    padded_tokens: what one pass over the pool computes. feature_bytes: by store dtype, for all checkpoints and kinds.
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
    """Count what a build of `pool` would meet and estimate what it would cost on this machine; nothing is written.

    workers: devices that share the features. While it runs as a job, `job/plan.json` holds what is known so far.

    Raises:
        GradsiftError: what the build itself would stumble over at its start: an unreadable pool, an unknown model, no
            usable row.
    """
    progress = progress or Progress(quiet=True)
    for given in config.checkpoints:
        check_folder(Path(given), moments="adam" in config.gradients)
    encoder = Encoder(load.load_tokenizer(config.model), config.template)
    max_length = min(config.max_length, load.model_window(config.model))
    found = survey(pool, config, encoder, max_length, progress)
    device = default_device()
    batches = found.feature_batches(config.resolve_token_budget(device.type))
    training = found.warmup_batches(config.resolve_training_budget(device.type))
    counted = _counted(found, batches, training, device)
    _keep(counted, progress)
    burst = measure(found, training, batches, progress)
    result = _estimated(counted, found, burst, batches, training, workers)
    _keep(result, progress)
    return result


def record(found: Plan) -> dict[str, Any]:
    """A plan as plain JSON values."""
    return asdict(found)


def _counted(found: Survey, batches: list[Batch], training: list[Batch], device: torch.device) -> Plan:
    config, checkpoints = found.config, len(found.config.checkpoints) or found.config.epochs
    warmup = _warmup_plan(found, training) if training else None
    kinds = checkpoints * len(config.gradients)
    return Plan(
        model=config.model,
        device=device.type,
        dtype=str(resolve_dtype(config.dtype, device)).removeprefix("torch."),
        exact=found.sampled == found.rows,
        tokenized_rows=found.sampled,
        rows=found.rows,
        usable=found.usable,
        truncated=sum(source.truncated for source in found.sources),
        excluded=found.excluded,
        prompt_tokens=sum(source.prompt_tokens for source in found.sources),
        answer_tokens=sum(source.answer_tokens for source in found.sources),
        padded_tokens=round(found.padded_tokens(batches)),
        sources=found.sources,
        checkpoints=checkpoints,
        warmup=warmup,
        store_dtype=config.store_dtype,
        feature_bytes={dtype: found.usable * kinds * config.row_bytes(dtype) for dtype in DTYPES},
        pool_bytes=found.pool_bytes,
        notes=_notes(found, warmup),
    )


def _warmup_plan(found: Survey, training: list[Batch]) -> WarmupPlan:
    config = found.config
    rows = max(1, int(found.usable * config.warmup_fraction))
    tokens = sum(padded(found.lengths, batch) for batch in training)  # of rows chosen evenly: a row stands for itself
    scale = rows * config.epochs / sum(map(len, training))
    return WarmupPlan(rows, config.epochs, steps_per_epoch(rows, config.batch_size), round(tokens * scale))


def _notes(found: Survey, warmup: WarmupPlan | None) -> list[str]:
    notes = []
    if found.max_length < found.config.max_length:
        notes.append(f"--max-length is lowered to {found.max_length:,}, the model's window.")
    if found.sampled < found.rows:
        notes.append(
            f"{found.sampled:,} of {found.rows:,} rows were tokenized, at most {COUNTED:,} of a source: "
            "usable, excluded and cut rows and the tokens are scaled up from them."
        )
    if warmup and (short := short_epoch_note(warmup.rows, found.config.batch_size)):
        notes.append(short)
    return notes


def _estimated(
    counted: Plan, found: Survey, burst: Burst, batches: list[Batch], training: list[Batch], workers: int
) -> Plan:
    config, warmup = found.config, counted.warmup
    one_pass = burst.setup + burst.features.seconds_per_token * counted.padded_tokens
    seconds = {
        "read": found.seconds,
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
    largest = max(padded(found.lengths, batch) for batch in batches)
    memory = burst.loaded + (burst.peak - burst.loaded) * max(1.0, largest / burst.features.largest)
    if training:
        trained = max(padded(found.lengths, batch) for batch in training) / burst.warmup.largest
        memory = max(memory, burst.loaded + (burst.trained - burst.loaded) * max(1.0, trained))
    notes = list(counted.notes)
    if burst.splits:
        notes.append("A batch did not fit into memory and was halved: the build does the same, and is slower for it.")
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


def _keep(found: Plan, progress: Progress) -> None:
    """Leave what is known where a page looks for it, if this is a job."""
    if progress.folder is not None:
        atomic.write_json(progress.folder / "job" / PLAN, record(found))


def describe(found: Plan) -> str:
    """The same for a terminal."""
    about = "counted" if found.exact else f"from {found.tokenized_rows:,} tokenized rows"
    lines = [
        f"rows {found.rows:,} = {found.usable:,} usable + {found.rows - found.usable:,} excluded; {found.truncated:,} "
        f"cut ({about})",
        f"tokens {found.prompt_tokens:,} of prompts, {found.answer_tokens:,} of answers; a pass computes "
        f"{found.padded_tokens:,} with padding",
        "",
        _sources_table(found),
    ]
    lines += ["", *(f"excluded {count:,}: {reason}" for reason, count in found.excluded.items())]
    if found.warmup:
        w = found.warmup
        lines.append(f"warmup {w.rows:,} rows, {w.steps_per_epoch:,} optimizer steps an epoch, {w.epochs} epochs")
    by_dtype = ", ".join(f"{dtype} {_size(count)}" for dtype, count in found.feature_bytes.items())
    lines += [f"features {found.checkpoints} checkpoints; {by_dtype}", *_estimate_lines(found), *found.notes]
    return "\n".join(lines)


def _sources_table(found: Plan) -> str:
    counts = [
        (s.rows_in_file, s.rows, s.usable, s.excluded, s.truncated, s.prompt_tokens + s.answer_tokens)
        for s in found.sources
    ]
    rows = [(s.source, *(f"{n:,}" for n in numbers)) for s, numbers in zip(found.sources, counts, strict=True)]
    return table(rows, ("source", "in file", "taken", "usable", "excluded", "cut", "tokens"))


def _estimate_lines(found: Plan) -> list[str]:
    e = found.estimate
    if e is None:
        return []
    stages = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in e.seconds.items())
    several = f"; {_duration(e.workers_total_seconds)} on {e.workers}" if e.workers > 1 else ""
    parts = ", ".join(f"{part} {_size(count)}" for part, count in e.bytes.items())
    scaled = e.memory_bytes > e.measured_memory_bytes
    measured = f", scaled from {_size(e.measured_memory_bytes)} for smaller batches" if scaled else ""
    return [
        "",
        f"estimated from {e.burst_batches} batches in {e.burst_seconds:.0f} s on {found.device} ({found.dtype}), "
        f"{e.features_tokens_per_s:,.0f} tokens/s:",
        f"time {_duration(e.total_seconds)} on one device{several} ({stages})",
        f"memory {_size(e.memory_bytes)} of {e.memory_of}{measured}",
        f"disk {_size(e.total_bytes)} as {found.store_dtype} ({parts})",
        "",
    ]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
