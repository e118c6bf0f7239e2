"""The build form's presets, and the run that estimates what a build would cost. Draws nothing."""

import json
import os
from pathlib import Path
from typing import Any

from app.views.commands import Plan
from gradsift.config import BuildConfig
from gradsift.runtime import jobs
from gradsift.runtime.hashing import hash_json
from gradsift.workspace.workspace import Workspace

BUNDLED = "smollm2"  # `gradsift.model.load.BUNDLED`, not imported here because it loads torch
PLAN = "plan.json"  # `gradsift.builder.plan.PLAN`, likewise

PARAMETERS = (  # of the form, by their names in BuildConfig
    "model",
    "template",
    "limit_per_source",
    "max_length",
    "warmup_fraction",
    "epochs",
    "batch_size",
    "lr",
    "lora_rank",
    "dim",
    "store_dtype",
    "seed",
)
_PAPER = {name: BuildConfig.model_fields[name].default for name in PARAMETERS if name != "model"}
PRESETS: dict[str, dict[str, Any]] = {
    "Small machine": {
        **_PAPER,
        "limit_per_source": 60,
        "max_length": 512,
        "warmup_fraction": 0.2,
        "epochs": 2,
        "batch_size": 4,
        "lr": 2e-4,
        "lora_rank": 16,
        "dim": 4096,
    },
    "Paper": _PAPER,
}
NOTES = {
    "Small machine": "60 rows per source, two epochs, rank 16: minutes on a laptop with the bundled model.",
    "Paper": "The whole pool, four epochs, rank 128, 8192 dimensions, as in LESS section 5.1: meant for a GPU.",
}


def start_plan(workspace: Workspace, command: Plan) -> Path:
    """Estimate what a build would cost; returns the folder of the run, the same for equal commands.

    Raises:
        JobError: the same plan is in progress already. OSError: it cannot be written.
    """
    name = hash_json(command.argv())[:12]
    folder = workspace.job_folder(f"plan-{name}")
    status = jobs.status(folder)
    if status is None or status.state != "running":
        (folder / "job" / PLAN).unlink(missing_ok=True)
    command.start(folder)
    return folder


def read_plan(folder: Path) -> dict[str, Any] | None:
    """The plan so far: its counts are on disk before its estimate."""
    try:
        return dict(json.loads((folder / "job" / PLAN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def pool_paths(text: str) -> list[str]:
    """One path, glob or hub id per line; `~` is the home folder; blank lines are skipped."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [os.path.expanduser(line) for line in lines]
