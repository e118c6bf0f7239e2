"""Which files of a store were already hashed on this machine in their present state and need not be hashed again.

    STORE/index/checked.json    {file: [bytes, modified, changed, inode]}, times in nanoseconds

It works like git's index: a file whose size, times and inode are those of the last check is assumed to have the same
content. Any write, copy or replacement changes one of them, and then the whole file is hashed before any number in it
is used. `gradsift verify` hashes everything and ignores this note, which is not part of what a build promises.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from gradsift.runtime import atomic

_SETTLED = 2 * 10**9  # ns; a younger file may change again without its times changing: some disks count seconds


class Checked:
    """The note of the store at `root`; it is read now, and written by `save`."""

    def __init__(self, root: Path) -> None:
        self.root, self._path = root, root / "index" / "checked.json"
        self._known, self._changed = _read(self._path), False

    def __contains__(self, path: Path) -> bool:
        """Whether the file was hashed in its present state."""
        with suppress(OSError):
            return self._known.get(self._name(path)) == traits_of(path.stat())
        return False

    def add(self, path: Path, before: os.stat_result) -> None:
        """Record that the file has just been hashed and is intact. before: its `stat` when reading began."""
        traits = traits_of(before)
        settled = time.time_ns() - max(before.st_mtime_ns, before.st_ctime_ns) > _SETTLED
        if settled and traits == traits_of(path.stat()):
            self._known[self._name(path)], self._changed = traits, True

    def save(self) -> None:
        """Write the note if something was added, without files that are gone; if it cannot be written, all are hashed
        again next time.
        """
        if self._changed:
            with suppress(OSError):
                self._path.parent.mkdir(exist_ok=True)
                known = {name: traits for name, traits in self._known.items() if (self.root / name).is_file()}
                atomic.write_json(self._path, known)
                self._changed = False

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def traits_of(stat: os.stat_result) -> list[int]:
    """What changes when a file is written: size, both times, inode."""
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _read(path: Path) -> dict[str, list[int]]:
    """The note, or an empty one if it is missing or not as `save` writes it: then everything is hashed again."""
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
