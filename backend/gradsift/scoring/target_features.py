"""Target features: Π∇ℓ(z'; θ_i) and the representation of every target at every checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from gradsift.data.encode import Encoded, Encoder, RenderError
from gradsift.data.pool import Row
from gradsift.data.targets import TargetError
from gradsift.datastore.shards import write_tensors
from gradsift.gradients.adam import make_update
from gradsift.gradients.extract import FeatureExtractor
from gradsift.gradients.store_model import StoreModel
from gradsift.runtime.progress import Progress
from gradsift.scoring.evidence import ScoringFolder


def encode_target(encoder: Encoder, window: int, target: Row) -> tuple[Encoded | None, str]:
    """A target as tokens, and why it cannot be used, or "" (the command line refuses it, the app leaves it out)."""
    try:
        encoded = encoder.encode(target.conversation)
    except RenderError as error:
        return None, str(error)
    if len(encoded.ids) > window:
        return encoded, f"{len(encoded.ids):,} tokens, more than the model's window of {window:,}"
    return encoded, "" if encoded.n_answer else "its answer has no token to learn"


def usable_targets(model: StoreModel, targets: Sequence[Row]) -> list[Encoded]:
    """The targets as tokens. model: the store's model; its weights are not needed.

    Raises:
        TargetError: there are no targets, or some cannot be used (listed by number). StoreError: the tokenizer is not
            the store's.
    """
    if not targets:
        raise TargetError("There are no target examples: give at least one row with messages.")
    pairs = [encode_target(model.encoder, model.window, target) for target in targets]
    bad = [f"{number} ({reason})" for number, (_, reason) in enumerate(pairs, start=1) if reason]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise TargetError(f"Target {', '.join(bad[:5])}{more} cannot be used; fix or remove them and run again.")
    return [encoded for encoded, _ in pairs if encoded is not None]


def ensure_target_features(
    model: StoreModel, scoring: ScoringFolder, encoded: Sequence[Encoded], progress: Progress
) -> None:
    """Compute the targets' features at the checkpoints for which the folder has none yet. encoded: the targets.

    Raises:
        StoreError: the model or a projector is not the store's. TargetError: a gradient is not finite.
    """
    if missing := missing_targets(scoring):
        with model.session(progress):
            for epoch in missing:
                _target_features(model, scoring, epoch, encoded, progress)


def missing_targets(scoring: ScoringFolder) -> list[int]:
    """The checkpoints (from 0) at which the targets' features are missing."""
    return [epoch for epoch in range(len(scoring.epochs)) if not target_file(scoring, epoch).is_file()]


def target_file(scoring: ScoringFolder, epoch: int) -> Path:
    """Path of the file with the targets' features at a checkpoint: gradient, representation, loss."""
    return scoring.path / f"targets-{scoring.epochs[epoch]}.safetensors"


def _target_features(
    model: StoreModel, scoring: ScoringFolder, epoch: int, encoded: Sequence[Encoded], progress: Progress
) -> None:
    """Π∇ℓ(z'; θ_i) and the representation of every target at one checkpoint (plain gradients: paper, section 4.1)."""
    manifest, epochs = model.store.manifest, model.store.epochs
    gradients, checkpoint = model.at(epoch)
    projector = model.projector(epoch)
    label = f"Target gradients, checkpoint {epoch + 1} of {len(epochs)}"
    progress.stage(f"targets-{epoch + 1}", label, len(encoded), "targets")
    update = make_update("sgd", manifest.config.adam, checkpoint, model.device)
    extractor = FeatureExtractor(gradients, projector, {"sgd": update}, manifest.token_budget)
    features = extractor.extract(encoded, progress.advance)
    bad = (~features.projected["sgd"].isfinite().all(1)).nonzero().flatten().tolist()
    if bad:
        raise TargetError(f"Target {bad[0] + 1} has a gradient that is not finite at {epochs[epoch]}; remove it.")
    tensors = {"gradient": features.projected["sgd"], "representation": features.representation, "loss": features.loss}
    write_tensors(target_file(scoring, epoch), tensors, {"kind": "targets"})
