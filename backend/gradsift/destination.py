"""Where a store may be written: nothing may be lost there, and a build must not read its own files."""

import glob
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from gradsift.errors import StoreError, UsageError

MADE = ("warmup", "checkpoints", "features", "representations", "metrics", "scorings", "index")


def refuse_place(out: Path, pool: Sequence[str | Path], checkpoints: Sequence[str]) -> None:
    """Refuse to write where something would be lost, or where the build would read its own files.

    Raises:
        UsageError: the store would lie inside the pool, or one of the given checkpoints inside the store. StoreError:
        the folder holds somebody else's work.
    """
    place = out.resolve()
    for path in map(str, pool):
        above = (place, *place.parents) if glob.has_magic(path) else ()  # a folder that a pattern matches is read whole
        inside = Path(path).is_dir() and place.is_relative_to(Path(path).resolve())
        if inside or any(fnmatch(str(folder), str(Path(path).expanduser().absolute())) for folder in above):
            raise UsageError(
                f"The store {out} would lie inside the pool {path} and be read as data: choose another --out."
            )
    for given in checkpoints:
        if Path(given).resolve().is_relative_to(place):
            raise UsageError(
                f"The checkpoint {given} lies inside {out}, where the new store's own will be: choose another --out, "
                "or copy it elsewhere first."
            )
    strange = [name for name in MADE if (out / name).exists()]
    if strange and not (out / "manifest.json").exists():
        raise StoreError(f"{out} holds {strange[0]} but no manifest.json, so it is no store: choose another --out.")
