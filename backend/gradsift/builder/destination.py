"""Where a store may be written: where nothing is lost, and where the build does not read its own files as data."""

import glob
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from gradsift.runtime.errors import StoreError, UsageError

MADE = ("warmup", "checkpoints", "features", "representations", "metrics", "scorings", "index")


def refuse_place(out: Path, pool: Sequence[str | Path], checkpoints: Sequence[str]) -> None:
    """Refuse a folder where something would be lost, or where the build would read its own files.

    Raises:
        UsageError: the store would lie inside the pool, or contain one of the checkpoints that the build reads.
        StoreError: the folder contains something else.
    """
    place = out.resolve()
    for path in map(str, pool):
        inside = Path(path).is_dir() and place.is_relative_to(Path(path).resolve())
        if inside or (not Path(path).exists() and _covers(path, place)):
            raise UsageError(
                f"The store {out} would lie inside the pool {path} and be read as data: choose another --out."
            )
    for checkpoint in checkpoints:
        if any(Path(checkpoint).resolve().is_relative_to(place / name) for name in MADE):
            raise UsageError(
                f"The checkpoint {checkpoint} lies inside {out}, where the new store's files go: choose another --out, "
                "or copy it elsewhere first."
            )
    present = [name for name in MADE if (out / name).exists()]
    if present and not (out / "manifest.json").exists():
        raise StoreError(
            f"{out} contains {present[0]} but no manifest.json, so it is not a store: choose another --out."
        )


def _covers(pattern: str, place: Path) -> bool:
    """Whether a glob pattern matches `place` or a folder above it, whose files would all be read."""
    parts = Path(os.path.normpath(Path(pattern).expanduser().absolute())).parts
    magic = next((at for at, part in enumerate(parts) if glob.has_magic(part)), None)
    if magic is None:
        return False
    absolute = (*Path(*parts[:magic]).resolve().parts, *parts[magic:])
    return any(_matches(absolute, folder.parts) for folder in (place, *place.parents))


def _matches(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    """Match part by part, as glob does: `*` stays within a part and skips hidden ones, `**` is any number of parts."""
    if not pattern or not parts:
        return not parts and all(part == "**" for part in pattern)
    first = pattern[0]
    hidden = parts[0].startswith(".") and not first.startswith(".")
    if first == "**":
        return _matches(pattern[1:], parts) or (not hidden and _matches(pattern, parts[1:]))
    return not hidden and fnmatch(parts[0], first) and _matches(pattern[1:], parts[1:])
