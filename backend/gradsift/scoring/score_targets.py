"""Influence: target features against the store (Eq. 2), and the passes that make a kept `Scoring` (scoring.py).

`score_targets` takes the targets' gradients at every checkpoint, streams the store's features past them, and keeps the
inner products; `influence` pools those into a score per row and subtask.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gradsift.builder.extraction import attach_checkpoint, check_model
from gradsift.config import GradientKind, Similarity, TargetPooling
from gradsift.data.encode import Encoded, Encoder, RenderError
from gradsift.data.pool import Row
from gradsift.data.targets import TargetError, write_targets
from gradsift.datastore.shards import read_tensors, write_tensors
from gradsift.datastore.store import Store, StoreError, locked
from gradsift.gradients.extract import FeatureExtractor
from gradsift.gradients.per_example import make_update
from gradsift.model import load
from gradsift.runtime import atomic
from gradsift.runtime.device import try_order, turn
from gradsift.runtime.progress import Progress
from gradsift.scoring.base_model import BaseExtractor, ensure_base, missing_base
from gradsift.scoring.bm25 import bm25_scores, distinct_words
from gradsift.scoring.bm25_index import documents, ensure_words
from gradsift.scoring.dsir import count_ngrams
from gradsift.scoring.methods import DEFAULT_METHODS, get_method
from gradsift.scoring.products import stored_products
from gradsift.scoring.scoring import WORDS, Products, Scoring, scoring_path
from gradsift.scoring.simple import answer_lengths, losses


def influence(
    evidence: Sequence[Products],
    subtask_of: np.ndarray,
    n_subtasks: int,
    similarity: Similarity = "cosine",
    pooling: TargetPooling = "cosine-of-mean",
) -> np.ndarray:
    """Inf(z, j) of every row and subtask, (n, J) float32: Eq. 2 and its variants.

    cosine-of-mean (the paper): Σ_i w_i cos(mean of j's targets, row); mean-of-cosines (the released code): the mean of
    the targets' cosines; dot: Σ_i w_i ⟨mean of j's targets, row⟩. Evidence without a Gram matrix is averaged in j.
    """
    total = np.zeros((len(evidence[0].products), n_subtasks), dtype=np.float32)
    for part in evidence:
        scores = part.products @ pooling_matrix(part.gram, subtask_of, n_subtasks, similarity, pooling)
        if similarity == "dot" and part.norms is not None:
            scores *= part.norms[:, None]
        total += np.float32(part.weight) * scores
    return total


def pooling_matrix(
    gram: np.ndarray | None,
    subtask_of: np.ndarray,
    n_subtasks: int,
    similarity: Similarity,
    pooling: TargetPooling,
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """(K, J) matrix that turns products with single targets into subtask scores.

    counts: (K,) how often each target counts, once unless given; a subtask whose targets all count 0 gets zeros.
    """
    member = (subtask_of[:, None] == np.arange(n_subtasks)).astype(np.float64)  # (K, J)
    if counts is not None:
        member *= counts[:, None]
    mean = member / member.sum(0).clip(1)
    if gram is None or similarity == "dot":
        return mean.astype(np.float32)
    gram = gram.astype(np.float64)
    if pooling == "mean-of-cosines":
        return (mean * _inverse(np.diag(gram))[:, None]).astype(np.float32)
    return (mean * _inverse(np.einsum("kj,kl,lj->j", mean, gram, mean, optimize=True))).astype(np.float32)


def _inverse(squared: np.ndarray) -> np.ndarray:
    """1 / length from squared lengths; 0 for a vector of zeros (an answer the model is sure of), which helps nobody."""
    length = np.sqrt(squared.clip(0))
    return np.divide(1, length, out=np.zeros_like(length), where=length > 0)


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


def score_targets(
    store: Store,
    targets: Sequence[Row],
    methods: Sequence[str] = DEFAULT_METHODS,
    gradient: GradientKind = "adam",
    progress: Progress | None = None,
) -> Scoring:
    """Compute, or open where kept, the evidence of `methods` for `targets`.

    Raises:
        TargetError: targets that are too long or have nothing to learn, by number.
        StoreError: the store is unfinished, lacks the gradient kind, or was made by another model or projector. One
            that has its pool and no checkpoint yet is enough for methods that need none.
    """
    if store.epochs or any(get_method(method).by_checkpoint for method in methods):
        store.require_complete()
    if "less" in methods and gradient not in store.manifest.config.gradients:
        kept = ", ".join(store.manifest.config.gradients)
        raise StoreError(
            f"{store.path} holds {kept} gradients, not {gradient}: choose one "
            "that it holds (--gradient, or --method less:gradient=... of evaluate), or build a store with --gradient "
            f"{gradient}."
        )
    scoring = Scoring.at(scoring_path(store, targets), store, targets)
    if not len(scoring.rows):
        raise StoreError(
            f"No row of {store.path} has a finite gradient: the warmup diverged; build with a smaller --lr."
        )
    progress = progress or Progress(quiet=True)
    todo = [method for method in methods if not scoring.has(method, gradient)]
    known = (scoring.path / "targets.jsonl").is_file()  # what is kept was checked when it was made
    encoded = usable_targets(store, targets) if not known or _needs_model(scoring, todo) else []
    if todo:
        store.check_pool()
        with locked(scoring.path):
            atomic.sweep(scoring.path)
            write_targets(scoring.path / "targets.jsonl", targets)
            kinds = {get_method(method).evidence for method in todo}
            if kinds & {"features", "representations"}:
                _score_vectors(store, scoring, encoded, todo, gradient, progress)
            if "base" in kinds:
                base = [method for method in todo if get_method(method).evidence == "base"]
                _score_base(store, scoring, encoded, base, progress)
            if "bm25" in todo:
                _score_words(store, scoring, progress)
            if "dsir" in todo:
                _score_ngrams(store, scoring, progress)
            if "length" in todo:
                _keep_scores(scoring, "length", answer_lengths(store))
            if "loss" in todo:
                for epoch, values in losses(store).items():
                    _keep_scores(scoring, f"loss-{epoch}", values)
    return scoring


def _needs_model(scoring: Scoring, methods: Sequence[str]) -> bool:
    """Whether features of the targets are still to be computed for these methods."""
    evidence = {method: get_method(method).evidence for method in methods}
    vectors = set(evidence.values()) & {"features", "representations"}
    base = [method for method, kind in evidence.items() if kind == "base"]
    return bool(vectors and _missing_target_files(scoring)) or bool(_missing_base_files(scoring, base))


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


def _score_vectors(
    store: Store,
    scoring: Scoring,
    encoded: list[Encoded],
    methods: list[str],
    gradient: GradientKind,
    progress: Progress,
) -> None:
    """Target features where they are missing, then one pass over the store per checkpoint and kind."""
    ensure_target_features(store, scoring, encoded, progress)
    for epoch, name in enumerate(store.epochs):
        vectors, _ = read_tensors(target_file(scoring, epoch))
        for kind, side in ((gradient, "gradient"), ("rds", "representation")):
            path = scoring.path / f"{kind}-{name}.safetensors"
            if ("less" if side == "gradient" else "rds") in methods and not path.is_file():
                label = f"Scoring the store by {kind}, checkpoint {epoch + 1} of {len(store.epochs)}"
                progress.stage(f"score-{kind}-{epoch + 1}", label, store.manifest.usable, "rows")
                write_tensors(path, stored_products(store, kind, epoch, vectors[side], progress), {"kind": kind})


def _load_base(store: Store, device: torch.device, progress: Progress) -> load.Loaded:
    """The store's base model, ready in a `turn`."""
    config = store.manifest.config
    progress.say(f"Loading {config.model}")
    base = load.load_model(config.model, getattr(torch, store.manifest.dtype), device)
    check_model(store, base.fingerprint)
    try_order(base.model, progress)
    return base


def _score_base(
    store: Store, scoring: Scoring, encoded: list[Encoded], methods: Sequence[str], progress: Progress
) -> None:
    """The base model's vectors of pool and targets where they are missing, then one pass over the pool's per method."""
    missing = _missing_base_files(scoring, methods)
    if missing or missing_base(store, methods):
        with turn(load.default_device(), progress):
            base = _load_base(store, load.default_device(), progress)
            if missing:
                _target_vectors(store, scoring, base.model, missing, encoded)
            ensure_base(store, base, target_encoder(store)[0], methods, progress)
            del base  # the products below take minutes, in which another run may have the card
    for method in methods:
        vectors, _ = read_tensors(_base_file(scoring, method))
        label = f"Scoring the store by {get_method(method).label}"
        progress.stage(f"score-{method}", label, store.manifest.usable, "rows")
        products = stored_products(store, method, 0, vectors[method], progress)
        write_tensors(scoring.path / f"{method}.safetensors", products, {"kind": method})


def _target_vectors(
    store: Store, scoring: Scoring, base: torch.nn.Module, methods: list[str], encoded: list[Encoded]
) -> None:
    extractor = BaseExtractor(base, methods, store.manifest.token_budget, store.manifest.config.seed)
    for method, found in extractor.extract(encoded).items():
        write_tensors(_base_file(scoring, method), {method: found}, {"kind": "targets"})


def _missing_base_files(scoring: Scoring, methods: Sequence[str]) -> list[str]:
    return [method for method in methods if not _base_file(scoring, method).is_file()]


def _base_file(scoring: Scoring, method: str) -> Path:
    return scoring.path / f"targets-base-{method}.safetensors"


def ensure_target_features(store: Store, scoring: Scoring, encoded: Sequence[Encoded], progress: Progress) -> None:
    """Compute the targets' features at the checkpoints where the scoring's folder has none."""
    missing = _missing_target_files(scoring)
    if not missing:
        return
    device = load.default_device()
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


def _score_words(store: Store, scoring: Scoring, progress: Progress) -> None:
    queries = _queries(scoring)
    index = ensure_words(store, progress)
    progress.stage("score-bm25", "Scoring words by BM25", index.documents, "rows")
    products = torch.from_numpy(bm25_scores(index, queries, progress.advance))
    atomic.write_json(scoring.path / WORDS, index.weights(distinct_words(queries)))
    write_tensors(scoring.path / "bm25.safetensors", {"products": products}, {"kind": "bm25"})


def _score_ngrams(store: Store, scoring: Scoring, progress: Progress) -> None:
    progress.stage("score-dsir", "Counting words and pairs of words for DSIR", len(scoring.rows), "rows")
    ngrams = count_ngrams(documents(store), _queries(scoring), progress.advance)
    tensors = {name: torch.from_numpy(array) for name, array in vars(ngrams).items()}
    write_tensors(scoring.path / "dsir.safetensors", tensors, {"kind": "dsir"})


def _keep_scores(scoring: Scoring, name: str, scores: np.ndarray) -> None:
    write_tensors(scoring.path / f"{name}.safetensors", {"scores": torch.from_numpy(scores)}, {"kind": name})


def _queries(scoring: Scoring) -> list[str]:
    """The same of every target."""
    return ["\n".join(content for _, content in target.messages) for target in scoring.targets]
