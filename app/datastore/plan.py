"""What a build would cost, as the form asks for it: the command, its folder, and what it has found so far. No drawing.

`gradsift plan` runs as a process of its own; the counts are on disk before the estimate is.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.datastore import build
from gradsift.runtime import jobs
from gradsift.workspace.workspace import Workspace

PLAN = "plan.json"  # `gradsift.builder.plan.PLAN`, which cannot be imported here: torch comes with it


def start(workspace: Workspace, pool: Sequence[str | Path], values: Mapping[str, Any]) -> Path:
    """Plan a build of `pool` with the form's values; returns the folder of the run, the same for equal questions.

    Raises:
        JobError: this very question is being answered already. OSError: it cannot be written.
    """
    command = build.plan_argv(pool, values)
    name = hashlib.sha256(json.dumps(command).encode()).hexdigest()[:12]
    folder = workspace.job_folder(f"plan-{name}")
    status = jobs.status(folder)
    if status is None or status.state != "running":
        (folder / "job" / PLAN).unlink(missing_ok=True)
    jobs.start(folder, command)
    return folder


def found(folder: Path) -> dict[str, Any] | None:
    """The plan as far as it is known."""
    try:
        return dict(json.loads((folder / "job" / PLAN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
