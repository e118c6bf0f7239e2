"""A workspace: the folder of a person's stores, target sets and exports; it remembers stores that lie elsewhere.

    WORKSPACE/stores/NAME/          datastores built here (`gradsift demo` builds `demo`)
    WORKSPACE/stores.json           paths of stores opened from elsewhere, newest first
    WORKSPACE/targets/NAME.jsonl    saved target sets; the sample's sets are listed beside them and never overwritten
    WORKSPACE/exports/NAME/         files made by the app's Export page
    WORKSPACE/uploads/NAME/         pool files that came through the browser
    WORKSPACE/jobs/NAME/            state of long runs that belong to no store
    WORKSPACE/sessions.sqlite3      saved sessions with their decisions (`gradsift.workspace.sessions`)

Everything is read from disk at each call, so two tabs, the command line and a restarted app always agree.
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
    """A datastore that the workspace knows; `name` is what the address bar and the pages call it."""

    name: str
    path: Path
    elsewhere: bool

    @property
    def changed(self) -> float:
        """When the store last changed (seconds since the epoch), 0 where nothing has been written yet."""
        files = (self.path / MANIFEST, self.path / "job" / "status.json")
        return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """A target set on disk; `shipped` ones came with gradsift and are read-only."""

    name: str
    path: Path
    shipped: bool


class Workspace:
    """The folder `root` and what lies in it; the folder need not exist yet."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root).expanduser().resolve() if root else paths.data_home()

    def stores(self) -> list[StoreEntry]:
        """Every store known here: those of the workspace by name, then those from elsewhere, newest first."""
        folder = self.root / "stores"
        own = [StoreEntry(p.name, p, False) for p in _folders(folder) if is_store(p)]
        return own + [StoreEntry(str(p), p, True) for p in self._elsewhere() if is_store(p)]

    def store_path(self, name: str) -> Path:
        """The folder of the store called `name`: a name in this workspace, or the path of one that lies elsewhere."""
        return Path(name) if Path(name).is_absolute() else self.root / "stores" / name

    def open_store(self, text: str) -> StoreEntry:
        """Take what a person typed (a name or a path), check that a store lies there, and remember it.

        Raises:
            UsageError: nothing there, or no store.
        """
        text = text.strip()
        if not text:
            raise UsageError("Type the path of a datastore: the folder that `gradsift build --out` wrote.")
        own = self.root / "stores" / text
        path = own if _NAME.fullmatch(text) and own.is_dir() else Path(os.path.expanduser(text))
        if not os.path.isdir(path):  # takes any text, other than Path.is_dir
            raise UsageError(f"There is no folder {path}: give the folder that `gradsift build --out` wrote.")
        path = path.resolve()
        if not is_store(path):
            raise UsageError(f"{path} holds no datastore (no {MANIFEST} and no build): give a store's own folder.")
        if path.parent == self.root / "stores":
            return StoreEntry(path.name, path, False)
        known = [p for p in self._elsewhere() if p != path]
        self._write_elsewhere([path, *known])
        return StoreEntry(str(path), path, True)

    def new_store_path(self, name: str) -> Path:
        """Where a new store called `name` goes.

        Raises:
            UsageError: the name cannot be a folder's, or a store of that name is there already. A build that failed
                before it wrote anything leaves its name free.
        """
        path = self.root / "stores" / _checked(name, "datastore")
        if (path / MANIFEST).exists():
            raise UsageError(f"A datastore named {name} exists already: choose another name, or open it to resume it.")
        return path

    def target_sets(self) -> list[TargetEntry]:
        """Saved target sets by name, then the sample's."""
        saved = [TargetEntry(p.stem, p, False) for p in sorted((self.root / "targets").glob("*.jsonl"))]
        return saved + [TargetEntry(p.stem, p, True) for p in sample_targets()]

    def target_set(self, name: str) -> TargetEntry | None:
        """The target set called `name`, or None."""
        return next((entry for entry in self.target_sets() if entry.name == name), None)

    def save_targets(self, name: str, rows: Sequence[Row]) -> TargetEntry:
        """Write `rows` as the target set `name`, replacing a saved one of that name.

        Raises:
            UsageError: no rows, a name that cannot be a file's, or the name of a set of the sample.
        """
        if not rows:
            raise UsageError("There is no usable example to save: mend the rows listed as unusable first.")
        name = _checked(name, "target set")
        if any(path.stem == name for path in sample_targets()):
            raise UsageError(f"{name} is the name of a set that comes with gradsift: choose another name.")
        path = self.root / "targets" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_targets(path, rows)
        return TargetEntry(name, path, False)

    def free_target_name(self, stem: str) -> str:
        """`stem`, or `stem-2`, `stem-3`, ... : the first that no target set has."""
        taken = {entry.name for entry in self.target_sets()}
        return next(n for n in _numbered(stem) if n not in taken)

    def job_folder(self, name: str) -> Path:
        """Where a long run that belongs to no store keeps its state."""
        return self.root / "jobs" / name

    @property
    def sessions_path(self) -> Path:
        """The file of the saved sessions; it appears with the first one."""
        return self.root / "sessions.sqlite3"

    def export_folder(self, name: str) -> Path:
        """Where the export `name` goes."""
        return self.root / "exports" / name

    def keep_uploads(self, name: str, files: Iterable[tuple[str, bytes]]) -> list[Path]:
        """Write files that came through the browser below `uploads/name`, and return their paths in order.

        Of several files with one name the later ones get a number in front, so that none replaces another.
        """
        folder = self.root / "uploads" / _checked(name, "datastore")
        folder.mkdir(parents=True, exist_ok=True)
        kept: list[Path] = []
        for file, data in files:
            path, number = folder / Path(file).name, 1
            while path in kept:
                number += 1
                path = folder / f"{number}-{Path(file).name}"
            atomic.write_bytes(path, data)
            kept.append(path)
        return kept

    def _elsewhere(self) -> list[Path]:
        try:
            known = json.loads((self.root / "stores.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return (
            [Path(p) for p in known if isinstance(p, str) and Path(p).is_absolute()] if isinstance(known, list) else []
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
    """Whether a datastore lies at `path`, finished or not; any path may be asked for, one that cannot be read too."""
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
