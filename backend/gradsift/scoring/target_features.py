"""Target features: Π∇ℓ(z'; θ_i) and the representation of every target at every checkpoint."""

from collections.abc import Sequence
from pathlib import Path

import torch

from gradsift.builder.extraction import attach_checkpoint, check_model
from gradsift.data.encode import Encoded, Encoder, RenderError
from gradsift.data.pool import Row
from gradsift.data.targets import TargetError
from gradsift.datastore.shards import write_tensors
from gradsift.datastore.store import Store
from gradsift.gradients.adam import make_update
from gradsift.gradients.extract import FeatureExtractor
from gradsift.model import load
from gradsift.runtime.device import default_device, try_order, turn
from gradsift.runtime.errors import StoreError
from gradsift.runtime.progress import Progress
from gradsift.scoring.scoring import Scoring


def target_encoder(store: Store) -> tuple[Encoder, int]:
    """The encoder the store was built with, and the model's window: the most tokens a target may have.

    Raises:
        StoreError: the model's tokenizer here is another one. ModelError: it cannot be loaded.
    """
    config = store.manifest.config
    encoder = Encoder(load.load_tokenizer(config.model), config.template)
    if encoder.fingerprint != store.manifest.encoder_fingerprint:
        raise StoreError(
            f"{store.path} was built with another tokenizer or template of {config.model} than is here now: put it "
            "back, or build again."
        )
    return encoder, load.model_window(config.model)


def encode_target(encoder: Encoder, window: int, target: Row) -> tuple[Encoded | None, str]:
    """A target as tokens, and why it cannot be used, or "" (the command line refuses, the app leaves it out)."""
    try:
        encoded = encoder.encode(target.messages, target.prefix)
    except RenderError as error:
        return None, str(error)
    if len(encoded.ids) > window:
        return encoded, f"{len(encoded.ids):,} tokens, more than the model's window of {window:,}"
    return encoded, "" if encoded.n_answer else "its answer has no token to learn"


def usable_targets(store: Store, targets: Sequence[Row]) -> list[Encoded]:
    """The targets as tokens.

    Raises:
        TargetError: there are none, or some cannot be used, named by number.
    """
    if not targets:
        raise TargetError("There are no target examples: give at least one row with messages.")
    encoder, window = target_encoder(store)
    pairs = [encode_target(encoder, window, target) for target in targets]
    bad = [f"{number} ({reason})" for number, (_, reason) in enumerate(pairs, start=1) if reason]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise TargetError(f"Target {', '.join(bad[:5])}{more} cannot be used; mend or remove them and run again.")
    return [encoded for encoded, _ in pairs if encoded is not None]


def ensure_target_features(store: Store, scoring: Scoring, encoded: Sequence[Encoded], progress: Progress) -> None:
    """Compute the targets' features at the checkpoints where the scoring's folder has none."""
    missing = _missing_target_files(scoring)
    if not missing:
        return
    device = default_device()
    with turn(device, progress):
        base = _load_base(store, device, progress)
        for epoch in missing:
            _target_features(store, scoring, epoch, base.model, encoded, progress)
        del base  # before the turn ends, which frees the card's memory


def _missing_target_files(scoring: Scoring) -> list[int]:
    return [epoch for epoch in range(len(scoring.epochs)) if not target_file(scoring, epoch).is_file()]


def target_file(scoring: Scoring, epoch: int) -> Path:
    """Where the features of a scoring's targets at a checkpoint lie: gradient, representation, loss."""
    return scoring.path / f"targets-{scoring.epochs[epoch]}.safetensors"


def _target_features(
    store: Store, scoring: Scoring, epoch: int, base: torch.nn.Module, encoded: Sequence[Encoded], progress: Progress
) -> None:
    """Π∇ℓ(z'; θ_i) and the representation of every target at one checkpoint (plain gradients: paper, section 4.1)."""
    gradients, checkpoint, projector = attach_checkpoint(store, epoch, base)
    progress.stage(
        f"targets-{epoch + 1}",
        f"Target gradients, checkpoint {epoch + 1} of {len(store.epochs)}",
        len(encoded),
        "targets",
    )
    update = make_update("sgd", store.manifest.config.adam, checkpoint, next(base.parameters()).device)
    features = FeatureExtractor(gradients, projector, {"sgd": update}, store.manifest.token_budget).extract(
        encoded, progress.advance
    )
    gradients.model.unload()
    bad = (~features.projected["sgd"].isfinite().all(1)).nonzero().flatten().tolist()
    if bad:
        raise TargetError(f"Target {bad[0] + 1} has a gradient that is not finite at {store.epochs[epoch]}; remove it.")
    tensors = {"gradient": features.projected["sgd"], "representation": features.representation, "loss": features.loss}
    write_tensors(target_file(scoring, epoch), tensors, {"kind": "targets"})


def _load_base(store: Store, device: torch.device, progress: Progress) -> load.Loaded:
    """The store's base model, ready in a `turn`."""
    config = store.manifest.config
    progress.say(f"Loading {config.model}")
    base = load.load_model(config.model, getattr(torch, store.manifest.dtype), device)
    check_model(store, base.fingerprint)
    try_order(base.model, progress)
    return base
