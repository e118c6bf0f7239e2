"""Locks between processes: one writer per folder, one run per card, one maker of what others wait for.

`locked` refuses at once; `waiting` waits and reports that it does; both are built on `hold`. The operating system keeps
the lock, so it is released however its holder ends, `kill -9` included. The lock files stay where they are: if they
were removed, two processes could each hold a lock of the same name.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gradsift.runtime.errors import GradsiftError, StoreError
from gradsift.runtime.progress import Progress

_AGAIN = 0.2  # seconds between attempts
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


class LockError(GradsiftError):
    """A file that no process can lock: a folder without permission to write, or a disk without locks."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only process writing into a folder, which is created if it is missing.

    Raises:
        StoreError: another process is writing into it. LockError: it cannot be locked.
    """

    def refuse() -> None:
        raise StoreError(f"Another process is writing into {folder}; wait for it, or stop it first.")

    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder / ".lock", refuse):
        yield


@contextmanager
def waiting(path: Path, label: str, progress: Progress) -> Iterator[None]:
    """Hold the lock file `path`; while another process holds it, wait as a stage of `progress` with this label.

    Raises:
        Cancelled: the run was asked to stop while it waited. LockError: the file cannot be locked.
    """

    def announce() -> None:
        progress.stage("wait", label, 0, "")
        progress.check()

    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path, announce, progress.check):
        yield


@contextmanager
def hold(path: Path, busy: Callable[[], None], check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock file `path`, which is created if it is missing, until the block ends.

    busy: called once if another process or thread holds it; may raise to give up. check: called before every further
    attempt; may raise likewise.

    Raises:
        LockError: the file cannot be locked.
    """

    def no_reason_to_stop() -> bool:
        check()
        return False

    # Disks without locks are refused: the files that filelock would use instead outlive a holder that was killed.
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        _acquire(lock, blocking=False)
    except Timeout:
        busy()
        _acquire(lock, poll_interval=_AGAIN, cancel_check=no_reason_to_stop)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, **options: Any) -> None:
    try:
        lock.acquire(**options)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise LockError(
            f"{lock.lock_file} cannot be locked ({error.strerror}): use a folder that you may write to, on a disk "
            "that supports file locks."
        ) from error
