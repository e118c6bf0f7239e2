"""One holder at a time, among processes and among threads; a holder that ends releases its lock."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradsift.runtime.errors import StoreError, explain
from gradsift.runtime.locks import LockError, hold, locked, waiting
from gradsift.runtime.progress import Cancelled, Progress

HOLDER = """
import sys, time
from pathlib import Path
from gradsift.runtime.locks import locked
with locked(Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(600)
"""
WAITER = """
import sys
from pathlib import Path
from gradsift.runtime.locks import waiting
from gradsift.runtime.progress import Progress
progress = Progress(Path(sys.argv[1]))
with progress.running(), waiting(Path(sys.argv[1]) / ".lock", "Waiting for the other", progress):
    print("holds", flush=True)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds the folder's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def waiter(folder: Path) -> subprocess.Popen:
    """A process that reports on standard error that it is waiting, and on standard output that it has the lock."""
    command = [sys.executable, "-c", WAITER, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path):
        for _ in range(2):
            with pytest.raises(StoreError, match="Another process is writing"), locked(tmp_path):
                pass
    with locked(tmp_path):
        pass


def test_a_writer_in_another_process_is_not_waited_for(tmp_path: Path, holder: subprocess.Popen) -> None:
    with pytest.raises(StoreError, match=r"Another process is writing into .*; wait for it, or stop it"):  # noqa: SIM117
        with locked(tmp_path):
            pass


def test_a_process_waits_with_a_message_until_the_holder_is_killed(tmp_path: Path, holder: subprocess.Popen) -> None:
    with waiter(tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "Waiting for the other\n"
        time.sleep(0.5)
        assert process.poll() is None
        killed = time.monotonic()
        os.kill(holder.pid, signal.SIGKILL)
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "holds\n")
        assert time.monotonic() - killed < 10
    assert (tmp_path / ".lock").is_file()


def test_a_waiting_process_can_be_stopped(tmp_path: Path, holder: subprocess.Popen) -> None:
    with waiter(tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "Waiting for the other\n"
        process.terminate()
        out, err = process.communicate(timeout=30)
        assert process.returncode == 1
        assert out == ""
        assert "Cancelled: Stopped as asked" in err
    assert holder.poll() is None
    with pytest.raises(StoreError), locked(tmp_path):
        pass


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    order: list[str] = []
    second = Progress(quiet=True)

    def run() -> None:
        with waiting(tmp_path / "lock", "Waiting", second):
            order.append("second")

    with waiting(tmp_path / "lock", "Waiting", Progress(quiet=True)):
        thread = threading.Thread(target=run)
        thread.start()
        while second.status.stage != "wait":
            time.sleep(0.01)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_free_lock_is_no_stage(tmp_path: Path) -> None:
    progress = Progress(quiet=True)
    with waiting(tmp_path / "new" / "lock", "Waiting", progress):
        assert progress.status.stage == ""


def test_a_stop_request_ends_the_wait(tmp_path: Path) -> None:
    stopped = Progress(quiet=True)
    stopped._stopping = True
    with hold(tmp_path / "lock", lambda: None), pytest.raises(Cancelled):  # noqa: SIM117
        with waiting(tmp_path / "lock", "Waiting", stopped):
            pass


def test_what_was_in_the_lock_file_stays(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("of an older version")
    with locked(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "of an older version"


def test_the_lock_of_an_older_version_counts(tmp_path: Path) -> None:
    """Older versions took the same lock of the operating system on the same file without filelock."""
    with open(tmp_path / ".lock", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StoreError), locked(tmp_path):
            pass
    with locked(tmp_path), open(tmp_path / ".lock", "a+") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_disk_without_locks_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LockError, match=r"\.lock cannot be locked .*: use a folder that you may write to"):  # noqa: SIM117
        with locked(tmp_path):
            pass


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens = os.open

    def refuse(path: object, *arguments: int, **more: int) -> int:
        if str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opens(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LockError, match=r"\.lock cannot be locked \(Permission denied\)"), locked(tmp_path):
        pass


def test_a_full_disk_is_still_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *arguments: int, **more: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="No space left") as caught, locked(tmp_path):
        pass
    monkeypatch.undo()
    assert explain(caught.value).startswith("The disk is full at ")
