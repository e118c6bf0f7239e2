"""`build --append`: add rows to a finished store with its own checkpoints and projections; nothing is rebuilt.

    STORE/pool-2.parquet    the appended rows (pool-3.parquet: the next ones); their numbers continue the pool's
    STORE/append.json       the future manifest, renamed to manifest.json once all shards are complete

Until then the old store stays complete and usable; repeating the command resumes an append that was killed.
"""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gradsift.builder.ingest import Intake, ingest
from gradsift.builder.reasons import Reasons
from gradsift.config import BuildConfig
from gradsift.data.encode import Encoder
from gradsift.data.pool import input_hashes
from gradsift.datastore.manifest import Manifest, SourceInfo
from gradsift.datastore.pool_files import pool_file
from gradsift.datastore.store import MANIFEST, Store
from gradsift.runtime import atomic
from gradsift.runtime.errors import StoreError, UsageError
from gradsift.runtime.hashing import hash_file
from gradsift.runtime.progress import Progress

PENDING = "append.json"


def begin_append(
    store: Store,
    pool: Sequence[str | Path],
    config: BuildConfig,
    encoder: Encoder,
    max_length: int,
    progress: Progress,
) -> Store:
    """The future store with the rows of `pool`; `store` itself if it has them already.

    Raises:
        StoreError: the store is unfinished, or was built with parameters other than `config` (except the limit per
            source, which applies to the new rows) or with another tokenizer.
        UsageError: the store has some of the files, but not all.
        GradsiftError: the pool is unreadable or has no usable row.
    """
    _check(store, config, encoder)
    inputs, parts = input_hashes(pool), store.manifest.parts
    if any(part.inputs == inputs for part in parts):
        progress.note(f"There is nothing to add: {store.path} already has the rows of {_names(inputs)}.")
        return store
    contents = {_content(entry) for part in parts for entry in part.inputs}
    if repeated := [entry for entry in inputs if _content(entry) in contents]:
        raise UsageError(f"{store.path} already has the rows of {_names(repeated)}: append only the other files.")
    store.require_complete()
    store.check_pool()
    pending = _pending(store, inputs, config)
    if pending is None:
        pending = _take_in(store, inputs, pool, config, encoder, max_length, progress)
    return pending


def settle(store: Store) -> Store:
    """Replace the old store with an appended one whose shards are complete; any other store is returned unchanged."""
    if store.name != PENDING:
        return store
    os.replace(store.path / PENDING, store.path / MANIFEST)
    atomic.sync_folder(store.path)
    shutil.rmtree(store.path / "scorings", ignore_errors=True)  # they cover the old rows only; one may be in progress
    current = set(store.shard_paths())
    for path in (path for folder in {path.parent for path in current} for path in folder.iterdir()):
        if path not in current:  # left by an abandoned append of more rows
            path.unlink()
    return Store.open(store.path)


def _check(store: Store, config: BuildConfig, encoder: Encoder) -> None:
    differences = store.manifest.config.differences(config, but=("limit_per_source",))
    if store.manifest.encoder_fingerprint != encoder.fingerprint:
        differences.append("another tokenizer or template")
    if differences:
        raise StoreError(
            f"{store.path} was built with {'; '.join(differences)}: rows are appended with the store's own parameters, "
            "so leave those flags out."
        )


def _pending(store: Store, inputs: tuple[str, ...], config: BuildConfig) -> Store | None:
    """An unfinished append of the same rows to this store, if its pool is intact; else None."""
    try:
        pending = Store.open(store.path, PENDING)
        pending.check_pool()
    except StoreError:
        return None
    *before, last = pending.manifest.parts
    same = tuple(before) == store.manifest.parts and pending.manifest.files.items() >= store.manifest.files.items()
    return pending if same and (last.inputs, last.limit_per_source) == (inputs, config.limit_per_source) else None


def _take_in(
    store: Store,
    inputs: tuple[str, ...],
    pool: Sequence[str | Path],
    config: BuildConfig,
    encoder: Encoder,
    max_length: int,
    progress: Progress,
) -> Store:
    manifest = store.manifest
    name = pool_file(len(manifest.parts))
    intake = ingest(
        pool,
        store.path / name,  # not part of the store until a manifest names it
        encoder,
        config,
        max_length,
        progress,
        first=manifest.rows,
        taken=store.ids,
    )
    for line in intake.report():
        progress.say(line)
    notes = _notes(intake, _names(inputs), max_length)
    for note in notes:
        progress.note(note)
    schemas = {file: dict(counts) for file, counts in manifest.schemas.items()}
    for file, counts in intake.schemas.items():
        schemas[file] = dict(Counter(schemas.get(file, {})) + counts)
    reasons = Reasons(manifest.excluded)
    for reason, count in intake.excluded.items():
        reasons.add(reason, count)
    changed: dict[str, object] = {
        "parts": (*manifest.parts, intake.part(inputs, config)),
        "begun": manifest.begun or store.fingerprint,
        "schemas": schemas,
        "excluded": dict(reasons.counts),
        "unused": dict(Counter(manifest.unused) + intake.unused),
        "sources": _merged(manifest.sources, intake.sources()),
        "notes": (*manifest.notes, *notes),
        "files": dict(sorted({**manifest.files, name: hash_file(store.path / name)}.items())),
    }
    grown = Store(store.path, Manifest.model_validate({**dict(manifest), **changed}), PENDING)
    grown.save_manifest()
    return grown


def _notes(intake: Intake, names: str, max_length: int) -> list[str]:
    notes = []
    if excluded := intake.rows - intake.usable:
        notes.append(
            f"{excluded:,} of {intake.rows:,} rows appended from {names} are excluded; gradsift inspect lists each "
            "with its reason."
        )
    if intake.truncated:
        notes.append(f"{intake.truncated:,} rows appended from {names} are cut at {max_length:,} tokens.")
    return notes


def _merged(before: Sequence[SourceInfo], after: Sequence[SourceInfo]) -> tuple[SourceInfo, ...]:
    """The coverage of both, added up by source."""
    counts_by_source: dict[str, Counter] = {}
    for source in (*before, *after):
        counts_by_source.setdefault(source.source, Counter()).update(source.model_dump(exclude={"source"}))
    return tuple(SourceInfo(source=name, **counts) for name, counts in counts_by_source.items())


def _content(entry: str) -> str:
    """What identifies an input wherever it lies: its hash or, for a data set on the hub, its id."""
    name, _, digest = entry.rpartition(" ")
    return name if digest == "hub" else digest


def _names(inputs: Sequence[str]) -> str:
    names = [entry.rpartition(" ")[0] for entry in inputs]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
