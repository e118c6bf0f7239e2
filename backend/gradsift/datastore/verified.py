"""Which files of a store were hashed on this machine as they are now, so that a pass need not hash them again.

    STORE/index/checked.json    {file: [bytes, modified, changed, inode]}, times in nanoseconds

Like git's index: a file whose size, times and inode are those of the last check is taken to have the same content. Any
write, copy or replacement changes one of them, and then the whole file is hashed before a number of it is used.
`gradsift verify` hashes everything and asks nothing here. The note is no part of what a build promises.
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
        """Whether the file was hashed as it is now."""
        with suppress(OSError):
            return self._known.get(self._name(path)) == traits_of(path.stat())
        return False

    def add(self, path: Path, before: os.stat_result) -> None:
        """The file, which was `before` when reading began, has just been hashed and is whole."""
        traits = traits_of(before)
        settled = time.time_ns() - max(before.st_mtime_ns, before.st_ctime_ns) > _SETTLED
        if settled and traits == traits_of(path.stat()):
            self._known[self._name(path)], self._changed = traits, True

    def save(self) -> None:
        """Write the note if something was added, less what is gone; a folder that cannot be written is hashed again."""
        if self._changed:
            with suppress(OSError):
                self._path.parent.mkdir(exist_ok=True)
                known = {name: traits for name, traits in self._known.items() if (self.root / name).is_file()}
                atomic.write_json(self._path, known)
                self._changed = False

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def traits_of(stat: os.stat_result) -> list[int]:
    """What tells a file that was written since from one that was not: size, both times, inode."""
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _read(path: Path) -> dict[str, list[int]]:
    """The note, or an empty one where it is absent or not as `save` writes it: then everything is hashed again."""
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
