"""Influence: target features against the store (Eq. 2), and the passes that make a kept `Scoring` (scoring.py).

`score_targets` takes the targets' gradients at every checkpoint, streams the store's features past them, and keeps the
inner products; `influence` pools those into a score per row and subtask.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gradsift.config import GradientKind
from gradsift.data.encode import Encoded
from gradsift.data.pool import Row
from gradsift.data.targets import write_targets
from gradsift.datastore.shards import read_tensors, write_tensors
from gradsift.datastore.store import Store
from gradsift.runtime import atomic
from gradsift.runtime.device import default_device, turn
from gradsift.runtime.errors import StoreError
from gradsift.runtime.locks import locked
from gradsift.runtime.progress import Progress
from gradsift.scoring.base_model import BaseExtractor, ensure_base, missing_base
from gradsift.scoring.bm25 import bm25_scores
from gradsift.scoring.bm25_index import documents, ensure_words
from gradsift.scoring.dsir import count_ngrams
from gradsift.scoring.methods import DEFAULT_METHODS, get_method
from gradsift.scoring.products import stored_products
from gradsift.scoring.scoring import WORDS, Scoring, scoring_path
from gradsift.scoring.simple import answer_lengths, losses
from gradsift.scoring.target_features import (
    _load_base,
    _missing_target_files,
    ensure_target_features,
    target_encoder,
    target_file,
    usable_targets,
)
from gradsift.text.words import distinct_words


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


def _score_base(
    store: Store, scoring: Scoring, encoded: list[Encoded], methods: Sequence[str], progress: Progress
) -> None:
    """The base model's vectors of pool and targets where they are missing, then one pass over the pool's per method."""
    missing = _missing_base_files(scoring, methods)
    if missing or missing_base(store, methods):
        with turn(default_device(), progress):
            base = _load_base(store, default_device(), progress)
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
