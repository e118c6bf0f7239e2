"""Files that are whole or absent: written under a temporary name, synced, renamed, the folder synced.

`open_for_write` streams; the `write_*` functions take the whole content. A process killed at any moment leaves the old
file or the new one, and at worst a `.tmp-*` file beside it, which `sweep` removes.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

TEMPORARY = ".tmp-"


@contextmanager
def open_for_write(path: Path) -> Iterator[IO[bytes]]:
    """Yield a binary file that becomes `path` when the block ends normally and vanishes otherwise.

    Raises:
        OSError: as the operating system reports it (a full disk is `ENOSPC`); `path` then keeps its old content.
    """
    descriptor, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with open_for_write(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8 with the newlines it has."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as `json_text`."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """`value` as indented JSON with sorted keys, so that equal values give equal bytes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, keep: Sequence[str] = ()) -> None:
    """Remove what killed writers left below `folder`. Call it only while holding the folder's lock.

    keep: names of subfolders that have locks of their own and must not be touched.
    """
    for path in list(folder.rglob(TEMPORARY + "*")):
        if not any(folder / name in path.parents for name in keep):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder and everything in it, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
