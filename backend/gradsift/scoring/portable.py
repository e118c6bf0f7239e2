"""Target features in one file: computed where the GPU is, used where the store has been copied to and no model is.

The file holds, for every checkpoint, the tensors that a scoring keeps of its targets; its header says for which
checkpoints, projections and targets they are, so that no other store or target set takes them.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradsift.data.pool import Row
from gradsift.data.targets import TargetError, write_targets
from gradsift.datastore.shards import ShardError, read_tensors, write_tensors
from gradsift.datastore.store import Store
from gradsift.gradients.store_model import StoreModel
from gradsift.runtime import atomic
from gradsift.runtime.errors import StoreError
from gradsift.runtime.hashing import hash_json
from gradsift.runtime.locks import locked
from gradsift.runtime.progress import Progress
from gradsift.scoring.evidence import ScoringFolder
from gradsift.scoring.scoring import Scoring, scoring_path, targets_content
from gradsift.scoring.target_features import ensure_target_features, target_file, usable_targets

KIND = "target-features"


def target_features(store: Store, targets: Sequence[Row], out: str | Path, *, progress: Progress | None = None) -> Path:
    """Compute the targets' gradients and representations at every checkpoint and write them to the file `out`.

    The store's checkpoints are all that is needed of it; its shards may be missing here. Returns `out`.

    Raises:
        TargetError: targets that are too long or have nothing to learn, by number.
        StoreError: the store has no checkpoints, or was made by another model or projector.
    """
    out = Path(out)
    if not store.epochs:
        raise StoreError(f"{store.path} has no checkpoints yet; run the same build again to go on.")
    model = StoreModel(store)
    encoded = usable_targets(model, targets)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=atomic.TEMPORARY, dir=out.parent) as folder:
        scoring = ScoringFolder(Path(folder), list(targets), store.rows[:0], store.epochs, store.weights)
        ensure_target_features(model, scoring, encoded, progress or Progress(quiet=True))
        tensors = {
            f"{name}.{part}": tensor
            for epoch, name in enumerate(store.epochs)
            for part, tensor in read_tensors(target_file(scoring, epoch))[0].items()
        }
        write_tensors(out, tensors, _about(store, targets))
    return out


def use_target_features(store: Store, targets: Sequence[Row], path: str | Path) -> None:
    """Take the features of `targets` from a file into the store's scoring of them, which then needs no model.

    Raises:
        StoreError: the file is damaged, was not written by `target_features`, or is of another store. TargetError: it
            is of other targets.
    """
    path = Path(path)
    try:
        tensors, about = read_tensors(path)
    except ShardError as error:
        raise StoreError(
            f"{path} is missing, damaged, or no file of target features; make it with "
            f"gradsift features STORE --targets TARGETS --out {path.name}."
        ) from error
    here = _about(store, targets)
    if about.get("kind") != KIND or about.get("checkpoints") != here["checkpoints"]:
        raise StoreError(
            f"{path} holds target features of another store than {store.path}: of another model, other checkpoints or "
            "projections; make it again with gradsift features."
        )
    if about.get("targets") != here["targets"]:
        raise TargetError(
            f"{path} holds features of {about.get('count')} other targets than the {len(targets)} given; make it again "
            "with gradsift features, or give the targets it was made of."
        )
    scoring = Scoring.at(scoring_path(store, targets), store, targets)
    with locked(scoring.path):
        write_targets(scoring.path / "targets.jsonl", targets)
        for epoch, name in enumerate(store.epochs):
            parts = {
                key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")
            }
            if not target_file(scoring, epoch).is_file():
                write_tensors(target_file(scoring, epoch), parts, {"kind": "targets"})


def _about(store: Store, targets: Sequence[Row]) -> dict[str, Any]:
    """What decides the numbers: model, tokenizer and template, dtype, each checkpoint and its projection; targets."""
    manifest = store.manifest
    decides: list[Any] = [manifest.model_fingerprint, manifest.encoder_fingerprint, manifest.dtype]
    for checkpoint in manifest.checkpoints:
        files = {
            name: sha for name, sha in manifest.files.items() if name.startswith(f"checkpoints/{checkpoint.name}/")
        }
        decides += [checkpoint.name, checkpoint.projector, files]
    return {
        "kind": KIND,
        "model": manifest.config.model,
        "checkpoints": hash_json(decides)[:32],
        "targets": hash_json(targets_content(targets))[:32],
        "count": len(targets),
    }
