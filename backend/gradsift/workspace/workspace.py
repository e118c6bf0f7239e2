"""A workspace: a folder with a user's stores, target sets and exports; it also remembers stores elsewhere.

    WORKSPACE/stores/NAME/          datastores built here (`gradsift demo` builds `demo`)
    WORKSPACE/stores.json           paths of stores opened from elsewhere, newest first
    WORKSPACE/targets/NAME.jsonl    saved target sets; the sample's sets are listed with them but never overwritten
    WORKSPACE/exports/NAME/         files written by the app's Export page
    WORKSPACE/uploads/NAME/         pool files uploaded in the browser
    WORKSPACE/jobs/NAME/            state of long runs without a store
    WORKSPACE/sessions.sqlite3      saved sessions with their decisions (see `sessions`)

Every call reads from disk, so tabs, the command line and a restarted app always agree.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradsift.data.pool import Row
from gradsift.data.targets import write_targets
from gradsift.runtime import atomic, paths
from gradsift.runtime.errors import UsageError

MANIFEST = "manifest.json"
SAMPLE_STORE = "demo"
_NAME = re.compile(r"[^\W_][\w.-]{0,63}")


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """A datastore that the workspace knows; `name` is its name on the pages and in the address bar."""

    name: str
    path: Path
    elsewhere: bool

    @property
    def changed(self) -> float:
        """When the store last changed, in seconds since the epoch; 0 if nothing has been written."""
        files = (self.path / MANIFEST, self.path / "job" / "status.json")
        return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """A target set on disk; `shipped` ones come with gradsift and are read-only."""

    name: str
    path: Path
    shipped: bool


class Workspace:
    """The folder `root` and its contents; the folder need not exist yet."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root).expanduser().resolve() if root else paths.data_home()

    def stores(self) -> list[StoreEntry]:
        """All known stores: those in the workspace by name, then those elsewhere, newest first."""
        folder = self.root / "stores"
        own = [StoreEntry(p.name, p, False) for p in _folders(folder) if is_store(p)]
        return own + [StoreEntry(str(p), p, True) for p in self._elsewhere() if is_store(p)]

    def store_path(self, name: str) -> Path:
        """The folder of the store `name`, which is a name in this workspace or the path of a store elsewhere."""
        return Path(name) if Path(name).is_absolute() else self.root / "stores" / name

    def open_store(self, text: str) -> StoreEntry:
        """Find the store that a user typed (a name or a path) and remember it.

        Raises:
            UsageError: there is no folder, or it is not a store.
        """
        text = text.strip()
        if not text:
            raise UsageError("Type the path of a datastore: the folder that `gradsift build --out` wrote.")
        own = self.root / "stores" / text
        path = own if _NAME.fullmatch(text) and own.is_dir() else Path(os.path.expanduser(text))
        if not os.path.isdir(path):  # accepts any text, unlike Path.is_dir
            raise UsageError(f"There is no folder {path}: give the folder that `gradsift build --out` wrote.")
        path = path.resolve()
        if not is_store(path):
            raise UsageError(
                f"{path} is not a datastore (it has no {MANIFEST} and no build): give the folder of a store."
            )
        if path.parent == self.root / "stores":
            return StoreEntry(path.name, path, False)
        others = [p for p in self._elsewhere() if p != path]
        self._write_elsewhere([path, *others])
        return StoreEntry(str(path), path, True)

    def new_store_path(self, name: str) -> Path:
        """The folder of a new store called `name`.

        Raises:
            UsageError: the name cannot name a folder, or is in use. A build that failed before it wrote anything leaves
                its name free.
        """
        path = self.root / "stores" / _checked(name, "datastore")
        if (path / MANIFEST).exists():
            raise UsageError(
                f"A datastore named {name} already exists: choose another name, or open it to resume its build."
            )
        return path

    def target_sets(self) -> list[TargetEntry]:
        """Saved target sets by name, then the sample's."""
        saved = [TargetEntry(p.stem, p, False) for p in sorted((self.root / "targets").glob("*.jsonl"))]
        return saved + [TargetEntry(p.stem, p, True) for p in sample_targets()]

    def target_set(self, name: str) -> TargetEntry | None:
        """The target set called `name`, or None."""
        return next((entry for entry in self.target_sets() if entry.name == name), None)

    def save_targets(self, name: str, rows: Sequence[Row]) -> TargetEntry:
        """Write `rows` as the target set `name`, replacing a saved set of that name.

        Raises:
            UsageError: there are no rows, the name cannot name a file, or a set of the sample has it.
        """
        if not rows:
            raise UsageError("There is no usable example to save: fix the rows listed as unusable first.")
        name = _checked(name, "target set")
        if any(path.stem == name for path in sample_targets()):
            raise UsageError(f"A target set that comes with gradsift is named {name}: choose another name.")
        path = self.root / "targets" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_targets(path, rows)
        return TargetEntry(name, path, False)

    def free_target_name(self, stem: str) -> str:
        """The first of `stem`, `stem-2`, `stem-3`, ... that is not the name of a target set."""
        names = {entry.name for entry in self.target_sets()}
        return next(n for n in _numbered(stem) if n not in names)

    def job_folder(self, name: str) -> Path:
        """The folder for the state of a long run without a store."""
        return self.root / "jobs" / name

    @property
    def sessions_path(self) -> Path:
        """The file of the saved sessions; it appears with the first session."""
        return self.root / "sessions.sqlite3"

    def export_folder(self, name: str) -> Path:
        """The folder of the export `name`."""
        return self.root / "exports" / name

    def keep_uploads(self, name: str, files: Iterable[tuple[str, bytes]]) -> list[Path]:
        """Write uploaded files into `uploads/name` and return their paths in order.

        If several files have the same name, later ones get a number in front.
        """
        folder = self.root / "uploads" / _checked(name, "datastore")
        folder.mkdir(parents=True, exist_ok=True)
        written: list[Path] = []
        for file, data in files:
            path, number = folder / Path(file).name, 1
            while path in written:
                number += 1
                path = folder / f"{number}-{Path(file).name}"
            atomic.write_bytes(path, data)
            written.append(path)
        return written

    def _elsewhere(self) -> list[Path]:
        try:
            paths = json.loads((self.root / "stores.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return (
            [Path(p) for p in paths if isinstance(p, str) and Path(p).is_absolute()] if isinstance(paths, list) else []
        )

    def _write_elsewhere(self, stores: Sequence[Path]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        atomic.write_json(self.root / "stores.json", [str(path) for path in stores])


def sample_pool() -> list[Path]:
    """The sample's pool files."""
    return sorted((paths.studio() / "assets" / "sample" / "pool").glob("*.jsonl"))


def sample_targets() -> list[Path]:
    """The sample's target sets."""
    return sorted((paths.studio() / "assets" / "sample" / "targets").glob("*.jsonl"))


def is_store(path: Path) -> bool:
    """Whether `path` is a datastore, finished or not; any path is allowed, even an unreadable one."""
    return any(os.path.isfile(path / name) for name in (MANIFEST, "job/status.json", "pool.parquet"))


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def _checked(name: str, what: str) -> str:
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name or 'An empty text'} cannot name a {what}: use up to 64 letters, digits, dots, dashes, underscores, "
            "beginning with a letter or a digit."
        )
    return name


def _numbered(stem: str) -> Iterable[str]:
    yield stem
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1
