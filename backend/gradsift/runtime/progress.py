"""How far a long run has come: on the terminal, and in a file that any other process may read.

A run calls `stage(...)` at the start of each stage, `advance(n)` as it goes and `note(...)` for warnings; the state is
in `FOLDER/job/status.json`, replaced atomically at most every half second. `advance` is also where a request to stop
(SIGTERM, SIGINT) takes effect: it raises `Cancelled`, and files that are complete by then stay.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from gradsift.runtime import atomic
from gradsift.runtime.errors import GradsiftError, explain

FOLDER_VARIABLE = "GRADSIFT_JOB_FOLDER"  # set by `jobs.start` for the run it starts
KEPT = "Finished epochs, shards and evaluation runs are kept; run the same command again to do the rest."

State = Literal["running", "finished", "failed", "cancelled", "interrupted"]


class Cancelled(GradsiftError):
    """The run was asked to stop; `KEPT` says what stays."""


@dataclass
class Status:
    """A run's own report; `interrupted` is never written, only inferred from a dead process (see `jobs`)."""

    state: State = "running"
    pid: int = 0
    process_started: float = 0.0
    stage: str = ""
    label: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    rate: float = 0.0
    seconds_left: float | None = None
    started: float = 0.0
    updated: float = 0.0
    message: str = ""
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class Progress:
    """Reports to a terminal (bars), in plain lines elsewhere, and in `FOLDER/job/status.json` if there is a folder."""

    def __init__(self, folder: Path | None = None, quiet: bool = False) -> None:
        created = psutil.Process().create_time()
        self.status = Status(pid=os.getpid(), process_started=created, started=time.time())
        job = os.environ.get(FOLDER_VARIABLE)
        self.folder = folder or (Path(job) if job else None)
        self._console = Console(stderr=True, quiet=quiet)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal or quiet,
        )
        self._task = self._bars.add_task("", total=None, visible=False, rate="")
        self._stage_started = self._last_write = self._last_line = 0.0
        self._first = 0  # units that an earlier run finished: they say nothing about the speed of this one
        self._stopping = False

    def stage(self, name: str, label: str, total: int, unit: str, done: int = 0) -> None:
        """Begin a stage of `total` units (0: unknown), `done` of which an earlier run finished."""
        self._close_stage()
        status = self.status
        status.stage, status.label, status.total, status.unit, status.done = name, label, total, unit, done
        status.rate, status.seconds_left = 0.0, None
        self._stage_started, self._first = time.monotonic(), done
        self._bars.remove_task(self._task)  # rich cannot take a task's total away again
        self._task = self._bars.add_task(label, total=total or None, completed=done, rate="")
        if not self._console.is_terminal:
            self._console.print(
                f"{label} ({total:,} {unit})" if total else label, highlight=False, markup=False, soft_wrap=True
            )
        self._last_line = time.monotonic()
        self._write(force=True)

    def advance(self, units: int = 1) -> None:
        """Count `units` as done; raises `Cancelled` when the run was asked to stop."""
        status = self.status
        status.done += units
        elapsed = time.monotonic() - self._stage_started
        fresh = status.done - self._first
        if elapsed > 0 and fresh > 0:
            status.rate = fresh / elapsed
            status.seconds_left = max(0, status.total - status.done) / status.rate if status.total else None
        speed = f"{status.rate:,.1f} {status.unit}/s"
        self._bars.update(self._task, completed=status.done, rate=speed)
        if not self._console.is_terminal and time.monotonic() - self._last_line > 10:
            left = "" if status.seconds_left is None else f", {status.seconds_left:,.0f} s left"
            of = f"/{status.total:,}" if status.total else ""
            line = f"  {status.label}: {status.done:,}{of} {status.unit}, {speed}{left}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
            self._last_line = time.monotonic()
        self._write()
        self.check()

    def check(self) -> None:
        """Raise `Cancelled` when the run was asked to stop."""
        if self._stopping:
            raise Cancelled(f"Stopped as asked. {KEPT}")

    def note(self, text: str) -> None:
        """Report a warning or a fact once, on the terminal and in the status."""
        if text not in self.status.notes:
            self.status.notes.append(text)
            self._bars.console.print(text, highlight=False, markup=False, style="yellow", soft_wrap=True)
            self._write(force=True)

    def say(self, text: str) -> None:
        """Print a line that matters only to somebody watching."""
        self._bars.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def running(self) -> Iterator["Progress"]:
        """Enclose the run: show bars, listen for stop signals, and write the final state however the run ends."""
        previous = self._listen()
        self._write(force=True)
        try:
            with self._bars:
                yield self
            self._end("finished", "")
        except Cancelled as stop:
            self._end("cancelled", str(stop))
            raise
        except BaseException as error:
            self._end("failed", explain(error) or str(error) or type(error).__name__)
            raise
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _listen(self) -> dict:
        try:
            return {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not in the main thread: the program that runs us there stops us in its own way
            return {}

    def _stop(self, number: int, frame: object) -> None:
        if self._stopping and number == signal.SIGINT:  # a second Ctrl-C stops at once
            raise KeyboardInterrupt
        self._stopping = True

    def _close_stage(self) -> None:
        status = self.status
        if status.stage:
            elapsed = time.monotonic() - self._stage_started
            status.seconds[status.stage] = round(status.seconds.get(status.stage, 0.0) + elapsed, 2)

    def _end(self, state: State, message: str) -> None:
        self._close_stage()
        self.status.state, self.status.message, self.status.seconds_left = state, message, None
        with suppress(OSError):  # a full disk must not hide the error being reported
            self._write(force=True)

    def _write(self, force: bool = False) -> None:
        now = time.monotonic()
        if self.folder is None or (not force and now - self._last_write < 0.5):
            return
        self._last_write = now
        self.status.updated = time.time()
        job = self.folder / "job"
        job.mkdir(parents=True, exist_ok=True)
        atomic.write_json(job / "status.json", asdict(self.status))
