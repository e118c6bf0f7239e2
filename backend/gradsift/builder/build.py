"""The build of a store: pool -> warmup -> features (method, section 2).

It may be stopped anywhere; the same build then keeps the finished epochs and shards and makes the rest.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from gradsift.builder.append import PENDING, begin_append, settle
from gradsift.builder.destination import MADE, refuse_place
from gradsift.builder.engine_local import extract_here, library_versions, note_differences
from gradsift.builder.engine_ray import check_cluster, extract_on_ray
from gradsift.builder.extraction import Extraction, unfinished
from gradsift.builder.ingest import Intake, ingest
from gradsift.config import BuildConfig, Engine
from gradsift.data.pool import input_hashes
from gradsift.datastore.manifest import CheckpointInfo, Manifest
from gradsift.datastore.store import BASE_KINDS, MANIFEST, Store
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.gradients.projection import projector_id
from gradsift.gradients.store_model import StoreModel
from gradsift.model.base import BaseModel
from gradsift.model.lora import attach_adapter, attach_lora
from gradsift.runtime import atomic
from gradsift.runtime.device import default_device, exclusive, resolve_dtype
from gradsift.runtime.errors import StoreError
from gradsift.runtime.hashing import hash_file
from gradsift.runtime.locks import locked
from gradsift.runtime.progress import FOLDER_VARIABLE, Progress
from gradsift.text.index import ensure_index
from gradsift.training import processes
from gradsift.training.checkpoint import Checkpoint, check_folder, read_trainer_checkpoint
from gradsift.training.schedule import choose_rows, short_epoch_note
from gradsift.training.warmup import Warmup

BASE = "representations/base"  # vectors of the base model, which depend on no checkpoint
LOCKED = ("scorings", "index", BASE)  # folders with locks of their own: other processes may be writing there


def build(
    pool: Sequence[str | Path],
    out: str | Path,
    config: BuildConfig,
    *,
    engine: Engine | None = None,
    restart: bool = False,
    append: bool = False,
    progress: Progress | None = None,
) -> Store:
    """Build the gradient datastore of `pool` in the folder `out`, or finish one that was interrupted.

    engine: where features are extracted, by default in this process. restart: replace the store that `out` holds.
    append: add the rows of `pool` to the finished store at `out`, whose parameters `config` has to repeat (except its
    limit per source, which applies to the new rows). progress: where to report; by default the terminal and `out/job/`.

    Raises:
        StoreError: `out` holds a store of another pool, model or parameters, is being written by another process, or
            the disk is too small.
        GradsiftError: the pool is unreadable or has no usable row, the model is unknown, or a checkpoint does not fit;
            the message says which.
    """
    out, engine = Path(out), engine or Engine()
    if processes.rank() > 0:
        return _assist(out)
    refuse_place(out, pool, config.checkpoints)
    processes.check(config.batch_size)
    check_cluster(engine)
    processes.gather()
    with locked(out):
        progress = progress or Progress(out)
        with progress.running():
            atomic.sweep(out, keep=LOCKED)
            run = _Build(list(pool), out, config, progress)
            run.read(restart, append)
            with exclusive(run.device, progress):
                store = run.prepare(restart)
                todo = unfinished(store)
                run.check_disk(store, todo)
                if todo and engine.name == "local":
                    run.extract(store, todo)
                run.base.release()  # whoever has the device next needs its memory
            if todo and engine.name == "ray":
                extract_on_ray(store, todo, engine, progress)
                atomic.sweep(out, keep=LOCKED)  # what dead workers left
            store = settle(store)
            ensure_index(store, progress)
            return store


def begin(
    pool: Sequence[str | Path], out: str | Path, config: BuildConfig, *, progress: Progress | None = None
) -> Store:
    """Read the pool into a store and stop there; `build` with the same arguments finishes it.

    That is enough for methods that need no checkpoint, such as the draft.

    Raises:
        StoreError, GradsiftError: as in `build`.
    """
    out = Path(out)
    refuse_place(out, pool, config.checkpoints)
    with locked(out):
        progress = progress or Progress(out)
        with progress.running():
            run = _Build(list(pool), out, config, progress)
            run.read()
            with exclusive(run.device, progress):
                store = run.begin()
                run.base.release()
            return store


class _Build:
    """The stages of one run and the state that they share."""

    def __init__(self, pool: list[str | Path], out: Path, config: BuildConfig, progress: Progress) -> None:
        self.pool, self.out, self.config, self.progress = pool, out, config, progress
        self.device = default_device()
        dtype = resolve_dtype(config.dtype, self.device)
        self.base = BaseModel(config.model, config.template, config.template_options, dtype, self.device)
        self.encoder, self.window = self.base.encoder, self.base.window
        self._store: Store | None = None
        self._intake = Intake()
        self._fresh = out / f"{atomic.TEMPORARY}pool.parquet"

    def read(self, restart: bool = False, append: bool = False) -> None:
        """Find the store at `out`, with what is appended, or else read the pool: all that needs no device."""
        if append:
            self._store = self._appended()
        elif not restart:
            self._store = self._resumed()
        if self._store is None:
            self._read_pool()

    def begin(self, restart: bool = False) -> Store:
        """The store with its pool: the one that `read` has found, or else a new one of the pool that it has read."""
        return self._store or self._begin(restart)

    def prepare(self, restart: bool) -> Store:
        """The store with its pool and its checkpoints."""
        store = self.begin(restart)
        processes.agree(self.trains(store))
        if not store.manifest.checkpoints:
            store = self._warm_up(store)
        processes.part()
        return store

    def model(self, store: Store) -> StoreModel:
        """The base model as the model of `store`, which must have the same tokenizer and weights."""
        return StoreModel(store, self.base)

    def trains(self, store: Store) -> bool:
        """Whether this build still has to train."""
        return not store.manifest.checkpoints and not self.config.checkpoints

    @property
    def max_length(self) -> int:
        return min(self.config.max_length, self.window)

    # -- pool -------------------------------------------------------------------------------------------------------

    def _resumed(self) -> Store | None:
        """The store already at `out`, if it is the one this build would make."""
        if not (self.out / MANIFEST).is_file():
            return None
        store = Store.open(self.out)
        manifest = store.manifest
        differences = manifest.config.differences(self.config)
        if manifest.parts[0].inputs != input_hashes(self.pool):
            differences.append("another pool")
        if manifest.encoder_fingerprint != self.encoder.fingerprint:
            differences.append("another tokenizer or template")
        if differences and not any((self.out / "checkpoints").glob("epoch-*")):
            return None  # nothing has been computed yet that would be lost
        if differences:
            raise StoreError(
                f"{self.out} holds a store built with {'; '.join(differences)}: choose another folder, "
                "or replace it with gradsift build --restart."
            )
        store.check_pool()
        self._continue(manifest)
        return store

    def _appended(self) -> Store:
        """The store at `out` as it will be with the rows of the pool added."""
        store = Store.open(self.out)
        self._continue(store.manifest)
        if not store.manifest.checkpoints:
            store.require_complete()
        return begin_append(store, self.pool, self.config, self.encoder, self.max_length, self.progress)

    def _continue(self, manifest: Manifest) -> None:
        self.base.dtype = getattr(torch, manifest.dtype)  # `auto` may mean another dtype on this device
        self._warn_about_environment(manifest)

    def _warn_about_environment(self, manifest: Manifest) -> None:
        for note in manifest.notes:
            self.progress.note(note)
        here = {"threads": str(torch.get_num_threads()), "device": self.device.type, **library_versions()}
        note_differences(manifest, here, "this run", self.progress)

    def _read_pool(self) -> None:
        """Read the pool into `_fresh`, beside whatever store is at `out`."""
        for folder in self.config.checkpoints:
            check_folder(Path(folder), moments="adam" in self.config.gradients)
        self._inputs = input_hashes(self.pool)
        self._intake = ingest(self.pool, self._fresh, self.encoder, self.config, self.max_length, self.progress)
        for line in self._intake.report():
            self.progress.say(line)

    def _begin(self, restart: bool) -> Store:
        """Begin a store; what an earlier one left is removed only now, with the new pool and the model at hand."""
        try:
            base, intake = self.base.load(self.progress), self._intake
            if restart:  # otherwise nothing can be lost, and a draft needs no layers that LoRA fits
                self._check_lora(base)
        except BaseException:
            atomic.remove(self._fresh)
            raise
        manifest = Manifest(
            config=self.config,
            model_fingerprint=self.base.fingerprint,
            encoder_fingerprint=self.encoder.fingerprint,
            device=self.device.type,
            threads=torch.get_num_threads(),
            dtype=str(self.base.dtype).removeprefix("torch."),
            token_budget=self.config.resolve_token_budget(self.device.type),
            parts=(intake.part(self._inputs, self.config),),
            schemas={file: dict(counts) for file, counts in intake.schemas.items()},
            excluded=dict(intake.excluded),
            unused=dict(intake.unused),
            sources=intake.sources(),
            notes=self._notes(intake),
            versions=library_versions(),
            files={"pool.parquet": hash_file(self._fresh)},
        )
        for note in manifest.notes:
            self.progress.note(note)
        store = Store(self.out, manifest)
        self._clear(store, restart)
        os.replace(self._fresh, self.out / "pool.parquet")
        store.save_manifest()
        return store

    def _check_lora(self, base: torch.nn.Module) -> None:
        """Check that the LoRA to be trained, or the one given, fits the model, before anything is removed."""
        for folder in map(Path, self.config.checkpoints):
            if not (folder / "moments.safetensors").is_file():
                attach_adapter(base, folder).unload()
        if not self.config.checkpoints:
            attach_lora(base, self.config).unload()
        base.requires_grad_(False)

    def _clear(self, store: Store, restart: bool) -> None:
        """Remove what an earlier store left, except the base model's vectors if `store` would have the same."""
        # Before a warmup there are no other representations.
        kept = {"representations"} if not restart and _same_base(store) else set()
        appended = [path.name for path in self.out.glob("pool-*.parquet")]
        # The manifest goes last: without it the other files would belong to no store. If vectors are kept, it stays
        # until the new manifest replaces it.
        for name in (*MADE, *appended, PENDING, *(() if kept else (MANIFEST,))):
            if name not in kept:
                atomic.remove(self.out / name)

    def _notes(self, intake: Intake) -> tuple[str, ...]:
        notes: list[str | None] = []
        if self.max_length < self.config.max_length:
            notes.append(f"--max-length is lowered to {self.window:,}, the model's window.")
        if excluded := intake.rows - intake.usable:
            notes.append(
                f"{excluded:,} of {intake.rows:,} rows are excluded; gradsift inspect lists each with its reason."
            )
        if intake.truncated:
            notes.append(f"{intake.truncated:,} rows are cut at {self.max_length:,} tokens.")
        if not self.config.checkpoints:
            count = len(choose_rows(intake.usable, self.config.warmup_fraction, self.config.seed))
            notes.append(short_epoch_note(count, self.config.batch_size))
        return tuple(note for note in notes if note)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def _warm_up(self, store: Store) -> Store:
        folder = self.out / "checkpoints"
        folder.mkdir(exist_ok=True)
        if self.config.checkpoints:
            self._import_checkpoints(store, folder)
            count = len(self.config.checkpoints)
        else:
            self.train(store)
            count = self.config.epochs
        infos = self._checkpoint_infos([folder / f"epoch-{i + 1}" for i in range(count)])
        small = [*folder.rglob("*.*"), *(self.out / "warmup").glob("*.json")]
        files = {str(p.relative_to(self.out)): hash_file(p) for p in small if p.is_file()}
        updated = store.manifest.model_copy(
            update={"checkpoints": infos, "files": dict(sorted({**store.manifest.files, **files}.items()))}
        )
        store = Store(self.out, updated)
        store.save_manifest()
        return store

    def train(self, store: Store) -> None:
        """The warmup, in which all processes take part."""
        folder = self.out / "warmup"
        folder.mkdir(exist_ok=True)
        chosen = choose_rows(store.manifest.usable, self.config.warmup_fraction, self.config.seed)
        rows = store.rows[chosen].tolist()
        if processes.rank() == 0:
            atomic.write_json(folder / "rows.json", rows)
        model = self.model(store)
        peft = attach_lora(model.load(self.progress), self.config)
        examples = model.encode(rows)
        try:
            Warmup(self.config, folder, self.out / "checkpoints", self.progress).run(peft, examples)
        except RuntimeError:
            if processes.size() > 1:  # on a request to stop, the others may leave before this process has seen it
                self.progress.check()
            raise
        peft.unload()

    def _import_checkpoints(self, store: Store, folder: Path) -> None:
        step = 0
        for index, source in enumerate(map(Path, self.config.checkpoints)):
            if (source / "moments.safetensors").is_file():
                checkpoint = Checkpoint.load(source)
            else:
                peft = attach_adapter(self.model(store).load(self.progress), source)
                names = list(PerExampleGradients(peft).shapes)
                checkpoint = read_trainer_checkpoint(source, step, names)
                peft.unload()
            step = checkpoint.step
            checkpoint.save(folder / f"epoch-{index + 1}")

    def _checkpoint_infos(self, folders: list[Path]) -> tuple[CheckpointInfo, ...]:
        loaded = [Checkpoint.load(folder) for folder in folders]
        total = sum(checkpoint.mean_lr for checkpoint in loaded)
        infos = []
        for number, (folder, checkpoint) in enumerate(zip(folders, loaded, strict=True), start=1):
            shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.adapter.items()}
            infos.append(
                CheckpointInfo(
                    name=folder.name,
                    mean_lr=checkpoint.mean_lr,
                    weight=checkpoint.mean_lr / total,
                    step=checkpoint.step,
                    projector=projector_id(self.config.projection, self.config.seed, number, self.config.dim, shapes),
                )
            )
        return tuple(infos)

    # -- features ---------------------------------------------------------------------------------------------------

    def extract(self, store: Store, todo: dict[int, list[int]]) -> None:
        """Make the missing shards in this process."""
        model = self.model(store)
        model.load(self.progress)
        extract_here(Extraction(model), todo, self.progress)

    def check_disk(self, store: Store, todo: dict[int, list[int]]) -> None:
        """Refuse to begin if the missing shards would not fit on the disk."""
        per_row = self.config.row_bytes(self.config.store_dtype) * len(self.config.gradients) + 2 * 4096
        rows = sum(
            stop - start for indices in todo.values() for start, stop in (store.shard_ranges[i] for i in indices)
        )
        free = shutil.disk_usage(self.out).free
        if rows * per_row > free:
            raise StoreError(
                f"The disk of {self.out} has {free / 1e9:.2f} GB free, but the remaining features need about "
                f"{rows * per_row / 1e9:.2f} GB: make room, or choose --store-dtype bit or a smaller --dim."
            )


def _same_base(store: Store) -> bool:
    """Whether the folder of `store`, which is not yet written, holds an earlier store with the same base vectors."""
    try:
        earlier = Store.open(store.path)
    except StoreError:
        return False
    return (store.path / BASE).is_dir() and all(earlier.params(k, 0, 0) == store.params(k, 0, 0) for k in BASE_KINDS)


def _assist(out: Path) -> Store:
    """The part of every process but the first: wait until the pool is read, take part in the warmup, leave."""
    os.environ.pop(FOLDER_VARIABLE, None)  # the first process reports for all
    processes.gather()
    try:
        trains = processes.agree()
    except RuntimeError:  # the first process has ended with a message
        raise SystemExit(1) from None
    store = Store.open(out)
    if trains:
        run = _Build([], out, store.manifest.config, Progress(quiet=True))
        run.base.dtype = getattr(torch, store.manifest.dtype)
        with exclusive(run.device, run.progress):
            run.train(store)
    processes.part()
    return store
