"""The build: pool -> warmup -> features, into a store; stops anywhere, goes on from there (method, section 2)."""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gradsift import atomic, models
from gradsift.checkpoints import Checkpoint, check_folder, read_trainer_checkpoint
from gradsift.config import BuildConfig
from gradsift.device import try_order, turn
from gradsift.encode import Encoded, Encoder
from gradsift.errors import UsageError
from gradsift.features import FeatureExtractor, Features
from gradsift.gradients import PerExampleGradients, Update, make_update
from gradsift.index import ensure_index
from gradsift.ingest import ingest
from gradsift.pool import input_hashes
from gradsift.progress import Progress
from gradsift.projection import make_projector, projector_id
from gradsift.shards import ShardError, write_shard
from gradsift.store import CheckpointInfo, Manifest, Store, StoreError, hash_file, locked
from gradsift.warmup import Warmup, choose_rows, short_epoch_note

MADE = ("warmup", "checkpoints", "features", "representations", "metrics", "scorings", "index")
LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "pyarrow", "gradsift")


def build(
    pool: Sequence[str | Path],
    out: str | Path,
    config: BuildConfig,
    *,
    restart: bool = False,
    progress: Progress | None = None,
) -> Store:
    """Build the gradient datastore of `pool` in the folder `out`, or finish one that was interrupted.

    restart: throw away what is there first. progress: where to report; by default the terminal and `out/job/`.

    Raises:
        StoreError: `out` holds a store of another pool, model or parameters, is being written by another process, or
            the disk is too small.
        GradsiftError: unreadable pool, unknown model, no usable row, unfit checkpoint: see the message.
    """
    out = Path(out)
    _refuse_place(out, pool)
    with locked(out):
        progress = progress or Progress(out)
        with progress.running():
            atomic.sweep(out, keep=("scorings", "index"))
            run = _Build(list(pool), out, config, progress)
            with turn(run.device, progress):
                store = run.run(restart)
            ensure_index(store, progress)
            return store


class _Build:
    """State shared by the stages of one run."""

    def __init__(self, pool: list[str | Path], out: Path, config: BuildConfig, progress: Progress) -> None:
        self.pool, self.out, self.config, self.progress = pool, out, config, progress
        self.device = models.default_device()
        self.dtype = models.resolve_dtype(config.dtype, self.device)
        self.tokenizer = models.load_tokenizer(config.model)
        self.encoder = Encoder(self.tokenizer, config.template)
        self.window = models.model_window(config.model)
        self.base: torch.nn.Module | None = None

    def run(self, restart: bool) -> Store:
        store = (None if restart else self._resumed()) or self._read_pool()
        if not store.manifest.checkpoints:
            store = self._warm_up(store)
        todo = self._unfinished(store)
        if todo:
            self._extract(store, todo)
        return store

    @property
    def max_length(self) -> int:
        return min(self.config.max_length, self.window)

    # -- pool -------------------------------------------------------------------------------------------------------

    def _resumed(self) -> Store | None:
        """The store already at `out`, if it is the one this build would make."""
        if not (self.out / "manifest.json").is_file():
            return None
        store = Store.open(self.out)
        manifest = store.manifest
        differences = [
            f"{name} {getattr(manifest.config, name)!r} there, {getattr(self.config, name)!r} here"
            for name in BuildConfig.model_fields
            if getattr(manifest.config, name) != getattr(self.config, name)
        ]
        if manifest.inputs != input_hashes(self.pool):
            differences.append("another pool")
        if manifest.encoder_fingerprint != self.encoder.fingerprint:
            differences.append("another tokenizer or template")
        if differences and not any((self.out / "checkpoints").glob("epoch-*")):
            return None  # nothing was computed yet that would be lost
        if differences:
            raise StoreError(
                f"{self.out} holds a store built with {'; '.join(differences)}: choose another --out, "
                "or throw it away with --restart."
            )
        store.check_file("pool.parquet")
        self.dtype = getattr(torch, manifest.dtype)  # `auto` may mean another one on this device
        self._warn_about_environment(manifest)
        return store

    def _warn_about_environment(self, manifest: Manifest) -> None:
        for note in manifest.notes:
            self.progress.note(note)
        here = {"device": self.device.type, "threads": torch.get_num_threads(), **_versions()}
        there = {"device": manifest.device, "threads": manifest.threads, **manifest.versions}
        for name, value in there.items():
            if here[name] != value:
                self.progress.note(
                    f"The store was begun with {name} {value}, this run has {here[name]}: "
                    "what is added may differ in the last digits."
                )

    def _read_pool(self) -> Store:
        """Begin a store; what an earlier one left goes only once the new pool and the model have been read."""
        for given in self.config.checkpoints:
            check_folder(Path(given), moments="adam" in self.config.gradients)
        inputs = input_hashes(self.pool)
        fresh = self.out / f"{atomic.TEMPORARY}pool.parquet"
        intake = ingest(
            self.pool,
            fresh,
            self.encoder,
            self.max_length,
            self.config.limit_per_source,
            self.config.seed,
            self.progress,
        )
        base = self._load_base()
        for name in (*MADE, "manifest.json"):  # the manifest last: without it the rest would be nobody's
            atomic.remove(self.out / name)
        os.replace(fresh, self.out / "pool.parquet")
        manifest = Manifest(
            config=self.config,
            model_fingerprint=base.fingerprint,
            encoder_fingerprint=self.encoder.fingerprint,
            device=self.device.type,
            threads=torch.get_num_threads(),
            dtype=str(self.dtype).removeprefix("torch."),
            token_budget=self.config.resolve_token_budget(self.device.type),
            shard_rows=self.config.resolve_shard_rows(intake.usable),
            inputs=inputs,
            schemas={file: dict(counts) for file, counts in intake.schemas.items()},
            pool_fingerprint=intake.fingerprint,
            rows=intake.rows,
            usable=intake.usable,
            excluded=dict(intake.excluded),
            sources=intake.sources(),
            notes=self._notes(intake.rows, intake.usable, intake.truncated),
            versions=_versions(),
            files={"pool.parquet": hash_file(self.out / "pool.parquet")},
        )
        for line in intake.report():
            self.progress.say(line)
        for note in manifest.notes:
            self.progress.note(note)
        store = Store(self.out, manifest)
        store.save_manifest()
        return store

    def _notes(self, rows: int, usable: int, truncated: int) -> tuple[str, ...]:
        notes: list[str | None] = []
        if self.max_length < self.config.max_length:
            notes.append(f"--max-length is lowered to {self.window:,}, the model's window.")
        if usable < rows:
            notes.append(
                f"{rows - usable:,} of {rows:,} rows are excluded; gradsift inspect lists each with its reason."
            )
        if truncated:
            notes.append(f"{truncated:,} rows are cut at {self.max_length:,} tokens.")
        if not self.config.checkpoints:
            count = len(choose_rows(usable, self.config.warmup_fraction, self.config.seed))
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
            self._train(store, folder)
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

    def _train(self, store: Store, folder: Path) -> None:
        warmup_folder = self.out / "warmup"
        warmup_folder.mkdir(exist_ok=True)
        chosen = choose_rows(store.manifest.usable, self.config.warmup_fraction, self.config.seed)
        rows = store.rows[chosen].tolist()
        atomic.write_json(warmup_folder / "rows.json", rows)
        peft = models.attach_lora(self._base_of(store), self.config)
        Warmup(self.config, warmup_folder, folder, self.progress).run(peft, self._encode(store, rows))
        self.base = peft.unload()

    def _import_checkpoints(self, store: Store, folder: Path) -> None:
        step = 0
        for index, given in enumerate(self.config.checkpoints):
            source = Path(given)
            if (source / "moments.safetensors").is_file():
                checkpoint = Checkpoint.load(source)
            else:
                peft = models.attach_adapter(self._base_of(store), source)
                names = list(PerExampleGradients(peft).shapes)
                checkpoint = read_trainer_checkpoint(source, step, names)
                self.base = peft.unload()
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

    def _unfinished(self, store: Store) -> dict[int, list[int]]:
        """Epoch -> indices of the shards of which some file is missing or not whole."""
        todo: dict[int, list[int]] = {}
        for epoch in range(len(store.epochs)):
            for index in range(len(store.shard_ranges)):
                if any(not self._whole(store, kind, epoch, index) for kind in (*store.kinds, "metrics")):
                    todo.setdefault(epoch, []).append(index)
        return todo

    def _whole(self, store: Store, kind: str, epoch: int, index: int) -> bool:
        try:
            store.read_metrics(epoch, index) if kind == "metrics" else store.shard(kind, epoch, index)
        except ShardError:
            return False
        return True

    def _extract(self, store: Store, todo: dict[int, list[int]]) -> None:
        self._check_disk(store, todo)
        base = self._base_of(store)
        with ThreadPoolExecutor(1) as writer:
            for epoch in sorted(todo):
                self._extract_epoch(store, epoch, todo[epoch], base, writer)

    def _extract_epoch(
        self, store: Store, epoch: int, indices: list[int], base: torch.nn.Module, writer: ThreadPoolExecutor
    ) -> None:
        extractor = self._extractor(store, epoch, base)
        ranges = store.shard_ranges
        total = store.manifest.usable
        done = total - sum(ranges[i][1] - ranges[i][0] for i in indices)
        label = f"Gradient features, checkpoint {epoch + 1} of {len(store.epochs)}"
        self.progress.stage(f"features-{epoch + 1}", label, total, "rows", done=done)
        writing: Future | None = None
        for index in indices:
            start, stop = ranges[index]
            features = extractor.extract(self._encode(store, store.rows[start:stop].tolist()), self.progress.advance)
            if features.splits:
                self.progress.note(f"Memory ran out in shard {index} of {store.epochs[epoch]}: batches were halved.")
            if writing is not None:
                writing.result()
            writing = writer.submit(self._write, store, epoch, index, features)
        if writing is not None:
            writing.result()
        extractor.gradients.model.unload()

    def _extractor(self, store: Store, epoch: int, base: torch.nn.Module) -> FeatureExtractor:
        checkpoint = store.checkpoint(epoch)
        peft = models.attach_adapter(base, self.out / "checkpoints" / store.epochs[epoch])
        models.set_adapter(peft, checkpoint.adapter)
        gradients = PerExampleGradients(peft)
        config = self.config
        projector = make_projector(config.projection, config.seed, epoch + 1, config.dim, gradients.shapes, self.device)
        if projector.id != store.manifest.checkpoints[epoch].projector:
            raise StoreError(
                f"{self.out} was built with another projector than this version makes; build with --restart."
            )
        updates: dict[str, Update] = {
            kind: make_update(kind, config.adam, checkpoint, self.device) for kind in config.gradients
        }
        return FeatureExtractor(gradients, projector, updates, store.manifest.token_budget)

    def _write(self, store: Store, epoch: int, index: int, features: Features) -> None:
        """Write the files of a shard that are not there yet, leaving whole ones untouched."""
        start, _ = store.shard_ranges[index]
        for kind in store.kinds:
            if not self._whole(store, kind, epoch, index):
                x = features.representation if kind == "rds" else features.projected[kind]
                dtype = "fp16" if kind == "rds" else self.config.store_dtype
                write_shard(store.shard_path(kind, epoch, index), store.params(kind, epoch), start, dtype, x)
        if not self._whole(store, "metrics", epoch, index):
            columns: dict[str, Any] = {
                "grad_norm": features.grad_norm.numpy(),
                "update_norm": features.update_norm.numpy(),
                "loss": features.loss.numpy(),
            }
            store.write_metrics(epoch, index, columns, features.splits)

    def _check_disk(self, store: Store, todo: dict[int, list[int]]) -> None:
        width = {"int8": self.config.dim, "fp16": 2 * self.config.dim, "bit": self.config.dim // 8}
        per_row = (width[self.config.store_dtype] + 8) * len(self.config.gradients) + 2 * 4096
        rows = sum(
            stop - start for indices in todo.values() for start, stop in (store.shard_ranges[i] for i in indices)
        )
        free = shutil.disk_usage(self.out).free
        if rows * per_row > free:
            raise StoreError(
                f"The disk of {self.out} has {free / 1e9:.2f} GB free and the features still to come need about "
                f"{rows * per_row / 1e9:.2f} GB: make room, or choose --store-dtype bit or a smaller --dim."
            )

    def _encode(self, store: Store, rows: list[int]) -> list[Encoded]:
        texts = store.texts(rows)
        messages = [[(turn["role"], turn["content"]) for turn in turns] for turns in texts["messages"]]
        return [
            self.encoder.encode(turns, prefix, self.max_length)
            for turns, prefix in zip(messages, texts["prefix"], strict=True)
        ]

    def _load_base(self) -> models.Loaded:
        if self.base is None:
            self.progress.say(f"Loading {self.config.model} on {self.device}")
            self._loaded = models.load_model(self.config.model, self.dtype, self.device)
            self.base = self._loaded.model
            try_order(self.base, self.progress)
        return models.Loaded(self.base, self._loaded.fingerprint, self._loaded.window)

    def _base_of(self, store: Store) -> torch.nn.Module:
        """The base model, if it still is the one the store was begun with."""
        base = self._load_base()
        if base.fingerprint != store.manifest.model_fingerprint:
            raise StoreError(f"{self.out} was built with another {self.config.model}: its weights have changed since.")
        return base.model


def _refuse_place(out: Path, pool: Sequence[str | Path]) -> None:
    """Refuse to write where something would be lost, or where the build would read its own files."""
    for path in pool:
        if Path(path).is_dir() and out.resolve().is_relative_to(Path(path).resolve()):
            raise UsageError(
                f"The store {out} would lie inside the pool {path} and be read as data: choose another --out."
            )
    strange = [name for name in MADE if (out / name).exists()]
    if strange and not (out / "manifest.json").exists():
        raise StoreError(f"{out} holds {strange[0]} but no manifest.json, so it is no store: choose another --out.")


def _versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}
