"""How a run reports itself: in a file any process may read, on a terminal, and in plain lines elsewhere."""

import json
import os
import signal
import threading
import time
from dataclasses import fields
from pathlib import Path

import psutil
import pytest

from gradsift.runtime.errors import StoreError
from gradsift.runtime.progress import FOLDER_VARIABLE, Cancelled, Progress, Status


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    return Progress(tmp_path, quiet=True)


def written(folder: Path) -> Status:
    return Status(**json.loads((folder / "job" / "status.json").read_text()))


def test_the_file_tells_all_there_is_to_know(progress: Progress, tmp_path: Path) -> None:
    with progress.running():
        progress.stage("read", "Reading", 40, "rows", done=10)
        progress.note("Mind the gap.")
        progress.note("Mind the gap.")
        progress.advance(10)
        progress._write(force=True)
        status = written(tmp_path)
        assert (status.state, status.stage, status.label, status.unit) == ("running", "read", "Reading", "rows")
        assert (status.done, status.total) == (20, 40)
        assert status.rate > 0
        assert status.seconds_left == pytest.approx(20 / status.rate)
        assert status.notes == ["Mind the gap."]
        assert status.pid == os.getpid()
        assert status.process_started == psutil.Process().create_time()
        assert status.started <= status.updated <= time.time()
        progress.stage("next", "Next", 0, "rows")
    status = written(tmp_path)
    assert (status.state, status.message, status.seconds_left) == ("finished", "", None)
    assert set(status.seconds) == {"read", "next"}


def test_rate_counts_only_what_this_run_did(progress: Progress) -> None:
    progress.stage("read", "Reading", 1000, "rows", done=900)
    time.sleep(0.02)
    progress.advance(1)
    assert progress.status.rate < 100


def test_rare_writes_in_between(progress: Progress, tmp_path: Path) -> None:
    progress.stage("read", "Reading", 1000, "rows")
    for _ in range(1000):
        progress.advance()
    assert written(tmp_path).done < 1000 == progress.status.done


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (StoreError("The store is not whole."), "failed", "The store is not whole."),
        (ValueError("a defect"), "failed", "a defect"),
        (KeyError(), "failed", "KeyError"),
        (OSError(28, "No space left on device", "/store/x"), "failed", "The disk is full at /store/x: make room"),
        (Cancelled("Stopped."), "cancelled", "Stopped."),
    ],
)
def test_the_end_is_written_however_it_comes(
    progress: Progress, tmp_path: Path, error: Exception, state: str, message: str
) -> None:
    with pytest.raises(type(error)), progress.running():
        raise error
    status = written(tmp_path)
    assert status.state == state
    assert status.message.startswith(message)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_takes_effect_at_the_next_step(progress: Progress, tmp_path: Path, number: signal.Signals) -> None:
    handler = signal.getsignal(number)

    def run() -> None:
        with progress.running():
            progress.stage("read", "Reading", 10, "rows")
            os.kill(os.getpid(), number)
            progress.status.notes.append("still at work")
            progress.advance()

    with pytest.raises(Cancelled, match="Finished epochs, shards and evaluation runs are kept"):
        run()
    assert written(tmp_path).state == "cancelled"
    assert written(tmp_path).notes == ["still at work"]
    assert signal.getsignal(number) is handler


def test_a_second_interrupt_means_now(progress: Progress) -> None:
    def run() -> None:
        with progress.running():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        run()


def test_it_runs_outside_the_main_thread(progress: Progress, tmp_path: Path) -> None:
    def run() -> None:
        with progress.running():
            progress.advance()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert written(tmp_path).state == "finished"


def test_a_job_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "job-here"))
    with Progress(quiet=True).running():
        pass
    assert written(tmp_path / "job-here").state == "finished"
    assert Progress(tmp_path / "own", quiet=True).folder == tmp_path / "own"


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    with progress.running():
        progress.stage("read", "Reading [bold]the[/bold] pool", 1200, "rows")
        progress.note("A note.")
        progress._last_line -= 60
        progress.advance(300)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[:2] == ["Reading [bold]the[/bold] pool (1,200 rows)", "A note."]
    assert lines[2].startswith("  Reading [bold]the[/bold] pool: 300/1,200 rows, ")
    assert lines[2].endswith(" s left")


def test_every_field_of_a_status_can_be_written_as_json() -> None:
    assert json.loads(json.dumps({f.name: getattr(Status(), f.name) for f in fields(Status)}))["state"] == "running"


def test_no_end_is_guessed_where_the_total_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.stage("read", "Reading", 0, "rows")
    progress._last_line -= 60
    progress.advance(300)
    assert progress.status.seconds_left is None
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("  Reading: 300 rows, ")
    assert line.endswith("rows/s")
