"""Long runs as processes of their own: started detached, watched through files, stopped by signal.

A job is the command line itself (`python -m gradsift ...`). Its state lies in `FOLDER/job/`: `status.json` (see
progress.py), `log.txt` and `command.json`. A reloaded page, a second tab and a terminal therefore all see the same.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import psutil

from gradsift.runtime import atomic
from gradsift.runtime.errors import GradsiftError
from gradsift.runtime.progress import FOLDER_VARIABLE, KEPT, Status

_AT_ONCE = 1.0  # seconds within which a process that is still starting dies; one at work stops at its next step
_TRACEBACK = 100  # lines


class JobError(GradsiftError):
    """A job that cannot be started or stopped."""


def start(folder: Path, argv: Sequence[str]) -> None:
    """Run `gradsift ARGV` detached, its state in `folder/job/`.

    Raises:
        JobError: a job is already running in this folder.
    """
    current = status(folder)
    if current is not None and current.state == "running":
        raise JobError(f"A run is already in progress in {folder}; wait for it or cancel it first.")
    job = folder / "job"
    job.mkdir(parents=True, exist_ok=True)
    atomic.write_json(job / "command.json", list(argv))
    now = time.time()
    with open(job / "log.txt", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gradsift", *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, FOLDER_VARIABLE: str(folder.resolve())},
        )
    created = psutil.Process(process.pid).create_time()
    # An ended child that nobody waits for stays in the process table as long as the app's server lives.
    threading.Thread(target=process.wait, name=f"reaper-{process.pid}", daemon=True).start()
    first = Status(pid=process.pid, process_started=created, label="Starting", started=now, updated=now)
    atomic.write_json(job / "status.json", asdict(first))


def status(folder: Path) -> Status | None:
    """The status of the last run in `folder`; `interrupted` if it says running but its process is gone."""
    try:
        fields = json.loads((folder / "job" / "status.json").read_text())
        last = Status(**fields)
    except (OSError, ValueError, TypeError):
        return None
    if last.state == "running" and _process(last) is None:
        return replace(last, state="interrupted", message=_last_words(folder, last.started), seconds_left=None)
    return last


def log_tail(folder: Path, lines: int = 20) -> str:
    """The end of a job's output."""
    try:
        text = (folder / "job" / "log.txt").read_bytes()[-64_000:].decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def command(folder: Path) -> list[str]:
    """The arguments of the last job in `folder`, to start it again; empty if no job was ever started."""
    try:
        return list(json.loads((folder / "job" / "command.json").read_text()))
    except (OSError, ValueError):
        return []


def cancel(folder: Path) -> None:
    """Ask the run in `folder` to stop; it stops at its next step and keeps the work it has finished."""
    last = status(folder)
    process = _process(last) if last is not None else None
    if last is None or process is None:
        return
    process.terminate()
    with suppress(psutil.TimeoutExpired):
        process.wait(_AT_ONCE)
        _say_cancelled(folder, last)


def _say_cancelled(folder: Path, last: Status) -> None:
    """Write the final state of a run that was stopped while it was still starting, before it could do so itself."""
    fields = json.loads((folder / "job" / "status.json").read_text())
    if fields["state"] == "running" and fields["pid"] == last.pid:
        stopped = {"state": "cancelled", "message": "Stopped before it began.", "seconds_left": None}
        atomic.write_json(folder / "job" / "status.json", {**fields, **stopped, "updated": time.time()})


def _process(last: Status) -> psutil.Process | None:
    """The living process that a status belongs to, which its start time tells from a reuse of the same id."""
    try:
        process = psutil.Process(last.pid)
        alive = abs(process.create_time() - last.process_started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        return process if alive else None
    except psutil.NoSuchProcess:
        return None


def _last_words(folder: Path, started: float) -> str:
    """Why a process that left no final status may have died: the error at the end of its output, if there is one."""
    log = folder / "job" / "log.txt"
    own = log.is_file() and log.stat().st_mtime >= started - 1  # and not left by an older run
    tail = log_tail(folder, _TRACEBACK) if own else ""
    last = tail.rpartition("\n")[2]
    if last.startswith("gradsift: ") or "Traceback (most recent call last)" in tail:
        return last.removeprefix("gradsift: ")
    return f"The process ended without reporting an error; it may have been killed. {KEPT}"
