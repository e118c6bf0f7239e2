"""Scoring: target features against the store (Eq. 2), kept so that every later question is arithmetic.

A `Scoring` holds, for one store and one set of targets, the inner products ⟨target k, unit row⟩ of every usable row and
checkpoint and the targets' Gram matrices. Both poolings, every aggregation, dot products and leaving something out all
follow from these without touching model or store again. It lies under `STORE/scorings/KEY/`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch

from gradsift import atomic, models
from gradsift.baselines.bm25 import bm25_index, bm25_scores, distinct_words
from gradsift.baselines.random import random_scores
from gradsift.config import GradientKind, Similarity, TargetPooling
from gradsift.device import try_order, turn
from gradsift.encode import Encoded, Encoder, RenderError
from gradsift.errors import GradsiftError, UsageError
from gradsift.features import FeatureExtractor
from gradsift.gradients import PerExampleGradients, make_update
from gradsift.methods import get_method
from gradsift.pool import Row
from gradsift.progress import Progress
from gradsift.projection import make_projector
from gradsift.shards import read_tensors, write_tensors
from gradsift.store import Store, StoreError, locked
from gradsift.targets import read_targets, write_targets

_TEXTS = 4096  # rows whose whole text is held at once
_WORDS = "bm25-words.json"  # BM25's weight (idf) of every word of the targets that the pool has


class TargetError(GradsiftError):
    """Target examples that cannot be used, named by number."""


@dataclass(frozen=True)
class Products:
    """One checkpoint's evidence (for BM25 and random: the only one).

    products: (n, K) ⟨target k, unit row⟩. gram: (K, K) ⟨target k, target l⟩, or None where products are scores already.
    norms: (n,) length of each projected row, or None likewise. weight: w_i.
    """

    products: np.ndarray
    gram: np.ndarray | None
    norms: np.ndarray | None
    weight: float


@dataclass(frozen=True)
class Scoring:
    """Kept evidence for one store and one set of targets. rows: (n,) pool row numbers that are scored.

    columns: which of the kept targets these are, (K,), or None for all of them.
    """

    path: Path
    targets: list[Row]
    rows: np.ndarray
    epochs: list[str]
    weights: np.ndarray
    columns: np.ndarray | None = None

    @property
    def subtask_names(self) -> list[str]:
        """Distinct subtasks in order of first appearance."""
        return list(dict.fromkeys(target.subtask for target in self.targets))

    @property
    def subtask_of(self) -> np.ndarray:
        """(K,) index into `subtask_names` of every target."""
        names = {name: index for index, name in enumerate(self.subtask_names)}
        return np.array([names[target.subtask] for target in self.targets])

    def without(
        self, targets: Sequence[int] = (), subtasks: Sequence[str] = (), checkpoints: Sequence[str] = ()
    ) -> "Scoring":
        """The same evidence less some targets (by index), subtasks and checkpoints (by name).

        The remaining checkpoints' weights are scaled to sum to 1, so that scores equal a scoring from scratch.

        Raises:
            UsageError: one of them is not here, or nothing would be left.
        """
        asked = (targets, range(len(self.targets))), (subtasks, self.subtask_names), (checkpoints, self.epochs)
        if unknown := [name for names, known in asked for name in names if name not in known]:
            raise UsageError(f"There is no {unknown[0]!r} among the scored targets, subtasks and checkpoints.")
        kept = [k for k, row in enumerate(self.targets) if k not in targets and row.subtask not in subtasks]
        left = [i for i, name in enumerate(self.epochs) if name not in checkpoints]
        if not kept or not left:
            raise UsageError("Nothing is left to score by: keep at least one target example and one checkpoint.")
        if len(kept) == len(self.targets) and len(left) == len(self.epochs):
            return self
        columns = np.arange(len(self.targets)) if self.columns is None else self.columns
        return replace(
            self,
            targets=[self.targets[k] for k in kept],
            epochs=[self.epochs[i] for i in left],
            weights=self.weights[left] / self.weights[left].sum(),
            columns=columns[kept],
        )

    def has(self, method: str, gradient: GradientKind = "adam") -> bool:
        """Whether a method's evidence is kept here."""
        return all(path.is_file() for path in self._files(method, gradient))

    def evidence(self, method: str, gradient: GradientKind = "adam", seed: int = 0) -> list[Products]:
        """A method's evidence, one entry per checkpoint; arrays are memory-mapped.

        Raises:
            StoreError: it was not computed; `score_targets` does.
        """
        if get_method(method).evidence == "none":
            drawn = random_scores(len(self.rows), seed)
            return [Products(np.broadcast_to(drawn[:, None], (len(drawn), len(self.targets))), None, None, 1.0)]
        files = self._files(method, gradient)
        if missing := [path for path in files if not path.is_file()]:
            raise StoreError(
                f"{missing[0]} is missing: the targets are not scored by {method} yet; run gradsift score."
            )
        stats = [(path, path.stat()) for path in files]
        arrays = [_mapped(path, (stat.st_mtime_ns, stat.st_ino)) for path, stat in stats]
        keep = slice(None) if self.columns is None else self.columns
        if get_method(method).evidence == "text":
            return [Products(arrays[0]["products"][:, keep], None, None, 1.0)]
        return [
            Products(a["products"][:, keep], a["gram"][keep][:, keep], a["norms"], float(w))
            for a, w in zip(arrays, self.weights, strict=True)
        ]

    @cached_property
    def word_weights(self) -> dict[str, float]:
        """BM25's weight (idf) of every word of the scored targets that the pool has; empty where it was not kept."""
        try:
            return {str(word): float(idf) for word, idf in json.loads((self.path / _WORDS).read_bytes()).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def _files(self, method: str, gradient: GradientKind) -> list[Path]:
        evidence = get_method(method).evidence
        if evidence == "none":
            return []
        if evidence == "text":
            return [self.path / f"{method}.safetensors"]
        kind = gradient if evidence == "features" else method
        return [self.path / f"{kind}-{epoch}.safetensors" for epoch in self.epochs]


@lru_cache(maxsize=64)
def _mapped(path: Path, changed: tuple[int, int]) -> dict[str, np.ndarray]:
    """A kept file's arrays, memory-mapped; its hash is checked once a process, since what-ifs ask again and again.

    changed: its time and inode. While the old file is mapped, a new one at its path cannot have the same inode.
    """
    return {name: tensor.numpy() for name, tensor in read_tensors(path)[0].items()}


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
    encoder = Encoder(models.load_tokenizer(config.model), config.template)
    if encoder.fingerprint != store.manifest.encoder_fingerprint:
        raise StoreError(
            f"{store.path} was built with another tokenizer or template of {config.model} than is here now: put it "
            "back, or build again."
        )
    return encoder, models.model_window(config.model)


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
    methods: Sequence[str] = ("less", "rds", "bm25", "random"),
    gradient: GradientKind = "adam",
    progress: Progress | None = None,
) -> Scoring:
    """Compute, or open where kept, the evidence of `methods` for `targets`.

    Raises:
        TargetError: targets that are too long or have nothing to learn, by number.
        StoreError: the store is unfinished, lacks the gradient kind, or was made by another model or projector.
    """
    store.require_complete()
    if "less" in methods and gradient not in store.manifest.config.gradients:
        kept = ", ".join(store.manifest.config.gradients)
        raise StoreError(
            f"{store.path} holds {kept} gradients, not {gradient}: score with --gradient "
            f"{store.manifest.config.gradients[0]}, or build a store with --gradient {gradient}."
        )
    scoring = _scoring_at(scoring_path(store, targets), store, list(targets))
    if not len(scoring.rows):
        raise StoreError(
            f"No row of {store.path} has a finite gradient: the warmup diverged; build with a smaller --lr."
        )
    progress = progress or Progress(quiet=True)
    todo = [method for method in methods if not scoring.has(method, gradient)]
    if todo or not (scoring.path / "targets.jsonl").is_file():  # what is kept was checked when it was made
        encoded = _usable(store, targets)
    if todo:
        store.check_file("pool.parquet")
        with locked(scoring.path):
            atomic.sweep(scoring.path)
            write_targets(scoring.path / "targets.jsonl", targets)
            if any(get_method(method).evidence in ("features", "representations") for method in todo):
                _score_vectors(store, scoring, encoded, todo, gradient, progress)
            if "bm25" in todo:
                _score_words(store, scoring, progress)
    return scoring


def open_scoring(store: Store, path: Path) -> Scoring:
    """Open a scoring kept under the store.

    Raises:
        StoreError: there is none at `path`, or its targets are not those that were scored.
    """
    if not (path / "targets.jsonl").is_file():
        raise StoreError(f"{path} holds no scoring; run gradsift score with the targets again.")
    targets = read_targets(path / "targets.jsonl").rows
    if scoring_key(store, targets) != path.name:
        raise StoreError(
            f"{path}/targets.jsonl is damaged: it holds other targets than were scored; delete the folder {path} and "
            "score them again."
        )
    return _scoring_at(path, store, targets)


def scoring_key(store: Store, targets: Sequence[Row]) -> str:
    """Name of the scoring of these targets in this store; equal content, equal name."""
    content = [[t.subtask, t.prefix, list(map(list, t.messages))] for t in targets]
    return hashlib.sha256(json.dumps([store.fingerprint, content]).encode()).hexdigest()[:16]


def scoring_path(store: Store, targets: Sequence[Row]) -> Path:
    """Where the scoring of these targets lies in this store, if it is kept."""
    return store.path / "scorings" / scoring_key(store, targets)


def _scoring_at(path: Path, store: Store, targets: list[Row]) -> Scoring:
    return Scoring(path, targets, store.scored_rows, store.epochs, store.weights)


def _usable(store: Store, targets: Sequence[Row]) -> list[Encoded]:
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
    manifest = store.manifest
    missing = [e for e in range(len(store.epochs)) if not _target_file(scoring, e).is_file()]
    if missing:
        device = models.default_device()
        with turn(device, progress):
            progress.say(f"Loading {manifest.config.model}")
            base = models.load_model(manifest.config.model, getattr(torch, manifest.dtype), device)
            if base.fingerprint != manifest.model_fingerprint:
                raise StoreError(
                    f"{store.path} was built with another {manifest.config.model}: its weights have changed since."
                )
            try_order(base.model, progress)
            for epoch in missing:
                _target_features(store, scoring, epoch, base.model, encoded, progress)
    for epoch, name in enumerate(store.epochs):
        vectors, _ = read_tensors(_target_file(scoring, epoch))
        for kind, side in ((gradient, "gradient"), ("rds", "representation")):
            path = scoring.path / f"{kind}-{name}.safetensors"
            if ("less" if side == "gradient" else "rds") in methods and not path.is_file():
                label = f"Scoring the store by {kind}, checkpoint {epoch + 1} of {len(store.epochs)}"
                progress.stage(f"score-{kind}-{epoch + 1}", label, manifest.usable, "rows")
                write_tensors(path, _products(store, kind, epoch, vectors[side], progress), {"kind": kind})


def _target_file(scoring: Scoring, epoch: int) -> Path:
    return scoring.path / f"targets-{scoring.epochs[epoch]}.safetensors"


def _target_features(
    store: Store, scoring: Scoring, epoch: int, base: torch.nn.Module, encoded: list[Encoded], progress: Progress
) -> None:
    """Π∇ℓ(z'; θ_i) and the representation of every target at one checkpoint (plain gradients: paper, section 4.1)."""
    manifest, device = store.manifest, next(base.parameters()).device
    checkpoint = store.checkpoint(epoch)
    peft = models.attach_adapter(base, store.path / "checkpoints" / store.epochs[epoch])
    models.set_adapter(peft, checkpoint.adapter)
    gradients = PerExampleGradients(peft)
    config = manifest.config
    projector = make_projector(config.projection, config.seed, epoch + 1, config.dim, gradients.shapes, device)
    if projector.id != manifest.checkpoints[epoch].projector:
        raise StoreError(
            f"{store.path} was built with projector {manifest.checkpoints[epoch].projector}, this version makes "
            f"{projector.id}: their vectors cannot be compared; build the store again."
        )
    progress.stage(
        f"targets-{epoch + 1}",
        f"Target gradients, checkpoint {epoch + 1} of {len(store.epochs)}",
        len(encoded),
        "targets",
    )
    update = make_update("sgd", config.adam, checkpoint, device)
    features = FeatureExtractor(gradients, projector, {"sgd": update}, manifest.token_budget).extract(
        encoded, progress.advance
    )
    peft.unload()
    bad = (~features.projected["sgd"].isfinite().all(1)).nonzero().flatten().tolist()
    if bad:
        raise TargetError(f"Target {bad[0] + 1} has a gradient that is not finite at {store.epochs[epoch]}; remove it.")
    tensors = {"gradient": features.projected["sgd"], "representation": features.representation, "loss": features.loss}
    write_tensors(_target_file(scoring, epoch), tensors, {"kind": "targets"})


def _products(
    store: Store, kind: str, epoch: int, vectors: torch.Tensor, progress: Progress
) -> dict[str, torch.Tensor]:
    """⟨vector k, unit row⟩ for every scored row, streamed through the mapped shards block by block."""
    products = torch.empty(store.manifest.usable, len(vectors))
    norms = torch.empty(store.manifest.usable)
    for shard in store.shards(kind, epoch):
        for offset, rows in shard.blocks():
            start = shard.start + offset
            torch.mm(rows, vectors.T, out=products[start : start + len(rows)])
        norms[shard.start : shard.stop] = shard.norm
        progress.advance(shard.stop - shard.start)
    kept = torch.from_numpy(store.scored)
    return {"products": products[kept], "norms": norms[kept], "gram": vectors @ vectors.T}


def _score_words(store: Store, scoring: Scoring, progress: Progress) -> None:
    documents: list[str] = []
    for start in range(0, len(scoring.rows), _TEXTS):
        for turns in store.texts(scoring.rows[start : start + _TEXTS])["messages"]:
            documents.append("\n".join(turn["content"] for turn in turns))
    queries = ["\n".join(content for _, content in target.messages) for target in scoring.targets]
    words = distinct_words(queries)
    progress.stage("score-bm25", "Scoring words by BM25", len(words), "words")
    index = bm25_index(documents)
    products = torch.from_numpy(bm25_scores(index, queries, progress.advance))
    atomic.write_json(scoring.path / _WORDS, {word: index.idf[word] for word in words if word in index.idf})
    write_tensors(scoring.path / "bm25.safetensors", {"products": products}, {"kind": "bm25"})
