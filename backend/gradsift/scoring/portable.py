"""Target features in one file: computed on the machine with a GPU, used with a copy of the store and no model.

The file holds, for every checkpoint, the tensors that a scoring keeps of its targets; its header identifies their
checkpoints, projections and targets, so that no other store or target set accepts them.
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

    Only the checkpoints of the store are needed; its shards may be missing here. Returns `out`.

    Raises:
        TargetError: targets that are too long or have nothing to learn, by number.
        StoreError: the store has no checkpoints, or was made with another model or projector.
    """
    out = Path(out)
    if not store.epochs:
        raise StoreError(f"{store.path} has no checkpoints yet; run the same build again to continue.")
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
        write_tensors(out, tensors, _metadata(store, targets))
    return out


def use_target_features(store: Store, targets: Sequence[Row], path: str | Path) -> None:
    """Copy the features of `targets` from a file into the store's scoring of them, which then needs no model.

    Raises:
        StoreError: the file is damaged, was not written by `target_features`, or belongs to another store. TargetError:
            it belongs to other targets.
    """
    path = Path(path)
    try:
        tensors, metadata = read_tensors(path)
    except ShardError as error:
        raise StoreError(
            f"{path} is missing, damaged, or not a file of target features; make it with "
            f"gradsift features STORE --targets TARGETS --out {path.name}."
        ) from error
    expected = _metadata(store, targets)
    if metadata.get("kind") != KIND or metadata.get("checkpoints") != expected["checkpoints"]:
        raise StoreError(
            f"{path} holds target features of another store than {store.path}: the model, checkpoints or projections "
            "differ; make it again with gradsift features."
        )
    if metadata.get("targets") != expected["targets"]:
        raise TargetError(
            f"{path} holds features of {metadata.get('count')} targets, which are not the {len(targets)} given; make "
            "it again with gradsift features, or give the targets it was made from."
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


def _metadata(store: Store, targets: Sequence[Row]) -> dict[str, Any]:
    """Hashes of all that determines the numbers: model, encoder, dtype, checkpoints and projections; and targets."""
    manifest = store.manifest
    determinants: list[Any] = [manifest.model_fingerprint, manifest.encoder_fingerprint, manifest.dtype]
    for checkpoint in manifest.checkpoints:
        files = {
            name: sha for name, sha in manifest.files.items() if name.startswith(f"checkpoints/{checkpoint.name}/")
        }
        determinants += [checkpoint.name, checkpoint.projector, files]
    return {
        "kind": KIND,
        "model": manifest.config.model,
        "checkpoints": hash_json(determinants)[:32],
        "targets": hash_json(targets_content(targets))[:32],
        "count": len(targets),
    }
