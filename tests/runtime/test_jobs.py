"""Builds as processes of their own: started, watched through files, cancelled, killed, resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from stores import assert_same_files

from gradsift.datastore.store import Store
from gradsift.runtime import atomic, jobs
from gradsift.runtime.progress import Status

FLAGS = ["--max-length", "96", "--warmup-fraction", "0.5", "--batch-size", "4", "--lora-rank", "4", "--dim", "256"]
FLAGS += ["--gradient", "adam", "--gradient", "sgd", "--lr", "2e-3"]


def until(folder: Path, *states: str, stage: str = "", seconds: float = 90) -> Status:
    """Wait until the job's state (or stage) is one of these."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status = jobs.status(folder)
        if status is not None and (status.state in states or (stage and status.stage.startswith(stage))):
            return status
        time.sleep(0.02)
    raise AssertionError(f"{jobs.status(folder)}\n{jobs.log_tail(folder)}")


def write_status(folder: Path, **changed: object) -> None:
    (folder / "job").mkdir(exist_ok=True)
    atomic.write_json(folder / "job" / "status.json", {**asdict(Status()), **changed})


@pytest.mark.slow
def test_started_watched_cancelled_killed_resumed(
    tiny_store: Store, tiny_pool: Path, tiny_model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    many = ["build", str(tiny_pool), "--model", str(tiny_model), "--out", str(store), *FLAGS, "--epochs", "200"]
    jobs.start(store, many)
    first = jobs.status(store)
    assert first is not None
    assert first.state == "running"
    with pytest.raises(jobs.JobError, match=r"A run is already in progress in .*; wait for it"):
        jobs.start(store, many)
    assert jobs.command(store) == many
    running = until(store, "failed", "finished", stage="warmup")
    assert running.state == "running"
    assert (running.label, running.unit, running.total) == ("Warmup", "steps", 1000)
    assert running.pid == first.pid != os.getpid()
    assert psutil.Process(running.pid).create_time() == pytest.approx(running.process_started, abs=0.01)

    jobs.cancel(store)
    cancelled = until(store, "cancelled", "failed", "interrupted", "finished")
    assert cancelled.state == "cancelled"
    assert "run the same command again" in cancelled.message
    assert 0 < cancelled.done < 1000

    jobs.start(store, jobs.command(store))
    until(store, "failed", stage="warmup")
    os.killpg(jobs.status(store).pid, signal.SIGKILL)
    dead = until(store, "interrupted")
    assert (
        dead.message
        == "The process ended without reporting an error; it may have been killed. Finished epochs, shards and "
        "evaluation runs are kept; run the same command again to do the rest."
    )
    assert dead.seconds_left is None

    finish = [*many[:-1], "2", "--restart"]
    jobs.start(store, finish)
    done = until(store, "finished", "failed", "interrupted")
    assert done.state == "finished", jobs.log_tail(store)
    with suppress(psutil.NoSuchProcess):
        psutil.Process(done.pid).wait(30)
    assert jobs.log_tail(store, 1) == str(store)
    assert_same_files(store, tiny_store.path)


@pytest.mark.slow
def test_cancelled_while_it_still_starts(tmp_path: Path) -> None:
    jobs.start(tmp_path, ["build", str(tmp_path / "pool"), "--model", "none", "--out", str(tmp_path)])
    jobs.cancel(tmp_path)
    status = jobs.status(tmp_path)
    assert status is not None
    assert status.state == "cancelled"
    jobs.cancel(tmp_path)  # nothing is left to cancel


@pytest.mark.slow
def test_a_job_that_cannot_begin_says_why(tmp_path: Path) -> None:
    jobs.start(tmp_path, ["build", "nowhere.jsonl", "--model", "/no/model", "--out", str(tmp_path), "--dim", "7"])
    wrong = until(tmp_path, "interrupted", "failed", "finished")
    assert wrong.message == "--dim 7: input should be a multiple of 8."
    jobs.start(tmp_path, ["build", "nowhere.jsonl", "--model", "/no/model", "--out", str(tmp_path)])
    failed = until(tmp_path, "interrupted", "failed", "finished")
    assert failed.state == "failed"
    assert failed.message.startswith("The model '/no/model' cannot be loaded")


@pytest.mark.slow
def test_jobs_that_ended_leave_no_zombies(tmp_path: Path) -> None:
    """In a server that starts one job after another and waits for no child."""
    folders = [tmp_path / str(number) for number in range(5)]
    for folder in folders:
        jobs.start(folder, ["no-such-command"])
    started = {json.loads((folder / "job" / "status.json").read_text())["pid"] for folder in folders}
    assert len(started) == len(folders)
    end = time.monotonic() + 90
    while (left := started & {child.pid for child in psutil.Process().children()}) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == set()
    for folder in folders:
        assert jobs.status(folder).state == "interrupted"
        assert "No such command" in jobs.log_tail(folder)
        jobs.cancel(folder)  # nothing is left to cancel


def test_nothing_ran_here(tmp_path: Path) -> None:
    assert jobs.status(tmp_path) is None
    assert jobs.command(tmp_path) == []
    assert jobs.log_tail(tmp_path) == ""
    jobs.cancel(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": "running", "unknown": 1}', '"text"'])
def test_a_damaged_status_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "status.json").write_text(content)
    assert jobs.status(tmp_path) is None


def test_a_reused_process_id_is_not_taken_for_alive(tmp_path: Path) -> None:
    alive = psutil.Process()
    write_status(tmp_path, pid=alive.pid, process_started=alive.create_time())
    assert jobs.status(tmp_path).state == "running"
    write_status(tmp_path, pid=alive.pid, process_started=alive.create_time() - 60)
    assert jobs.status(tmp_path).state == "interrupted"
    jobs.cancel(tmp_path)  # and not killed either: this test goes on


def test_a_process_that_nobody_waited_for_is_not_alive(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    created = psutil.Process(child.pid).create_time()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    write_status(tmp_path, pid=child.pid, process_started=created)
    assert jobs.status(tmp_path).state == "interrupted"
    child.wait()


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("Warmup (10 steps)\n", "The process ended without reporting an error"),
        ("Warmup (10 steps)\ngradsift: The disk is full.\n", "The disk is full."),
        ("Traceback (most recent call last):\n  File\nMemoryError: no more\n", "MemoryError: no more"),
        ("", "The process ended without reporting an error"),
    ],
)
def test_last_words_are_an_error_if_there_is_one(tmp_path: Path, log: str, message: str) -> None:
    write_status(tmp_path, pid=2**22 + 1, started=time.time())
    (tmp_path / "job" / "log.txt").write_text(log)
    assert jobs.status(tmp_path).message.startswith(message)


def test_the_log_of_an_older_run_says_nothing_of_this_one(tmp_path: Path) -> None:
    write_status(tmp_path, pid=2**22 + 1, started=time.time())
    (tmp_path / "job" / "log.txt").write_text("gradsift: The disk is full.\n")
    os.utime(tmp_path / "job" / "log.txt", (1e9, 1e9))
    assert jobs.status(tmp_path).message.startswith("The process ended without reporting an error")


def test_the_end_of_a_log_with_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "log.txt").write_bytes(b"\xff\n" + b"\n".join(b"line %d" % n for n in range(20_000)))
    assert jobs.log_tail(tmp_path, 2) == "line 19998\nline 19999"
    assert json.dumps(jobs.log_tail(tmp_path, 10**6))
