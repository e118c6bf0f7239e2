"""An export: the picks for a preview, the command that writes the files, and what it wrote. No drawing here."""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app import comparing, data, targeting
from app.comparing import Column
from app.session import Session
from gradsift import atomic, jobs
from gradsift.choices import Choices
from gradsift.formats import Pick
from gradsift.influence import Scoring
from gradsift.picks import iter_picks
from gradsift.store import Store
from gradsift.workspace import TargetEntry

ABOUT = {
    "messages": "`messages` with role and content: TRL, axolotl (chat_template), most trainers.",
    "prompt-completion": "`prompt` and `completion` as messages: TRL learns the completion only.",
    "alpaca": "`instruction`, `input`, `output`, `system`, `history`: LLaMA-Factory.",
    "sharegpt": "`conversations` with from and value: LLaMA-Factory, older trainers.",
    "less": "The original lines byte for byte, and sorted.csv, as the LESS authors' code writes them.",
    "parquet": "A Parquet file with a `messages` column.",
}
SUFFIXES = {"parquet": ".parquet"}


def picks_of(store: Store, scoring: Scoring, column: Column, limit: int) -> Iterator[Pick]:
    """The column's first `limit` picks with their text."""
    about = comparing.traits_of(store, scoring)
    return iter_picks(store, column.ranking, column.picks[:limit], about, data.pool_of(store))


def folder_of(
    session: Session, store: Store, entry: TargetEntry, method: str, budget: str, format: str, choices: Choices
) -> Path:
    """Where this export goes: the same choices, the same folder."""
    content = hashlib.sha256(entry.path.read_bytes()).hexdigest()
    request = [store.fingerprint, str(store.path), content, method, budget, format, choices.changed]
    key = json.dumps(request, sort_keys=True)
    stem = f"{entry.name}-{method}-{budget.replace('%', 'pct')}-{format}"
    return session.workspace.export_folder(f"{stem}-{hashlib.sha256(key.encode()).hexdigest()[:8]}")


def start(
    session: Session,
    store: Store,
    entry: TargetEntry,
    out: Path,
    method: str,
    budget: str,
    format: str,
    choices: Choices,
) -> None:
    """Write the files as a process of its own (`gradsift select`)."""
    run = targeting.run_folder(session.workspace, store, entry) / "targets.jsonl"
    arguments = ["select", str(store.path), "--targets", str(run if run.is_file() else entry.path), "--method", method]
    arguments += ["--top", budget, "--format", format, "--out", str(out)]
    if choices.changed:
        file = out / "job" / "choices.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(file, choices.changed)
        arguments += ["--choices", str(file)]
    jobs.start(out, arguments)


def written(out: Path) -> dict[str, Any] | None:
    """The manifest of a finished export, or None."""
    try:
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("data"), dict) else None


def files_of(out: Path) -> list[Path]:
    """The files of a finished export, the data first."""
    first = {"train.jsonl": 0, "train.parquet": 0}
    files = [f for f in out.iterdir() if f.is_file() and not f.name.startswith(".") and f.suffix != ".zip"]
    return sorted(files, key=lambda f: (first.get(f.name, 1), f.name))


def zipped(out: Path, files: Sequence[Path]) -> Path:
    """All files of the export as one zip beside them, made when it is first asked for."""
    path = out / f"{out.name}.zip"
    if not path.exists() or path.stat().st_mtime_ns < (out / "manifest.json").stat().st_mtime_ns:
        with atomic.open_for_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for member in files:
                archive.write(member, f"{out.name}/{member.name}")
    return path
