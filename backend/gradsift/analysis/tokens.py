"""Which words of a row pull the model toward the targets: token-level influence (method, section 6).

u is the targets' mean gradient in LoRA space, scaled to length 1. The influence of a supervised token t of a row is the
directional derivative d/dε ℓ_t(θ + εu) at ε = 0, the gradient of its loss along u; two forward passes give it for all
tokens. Its sign is that of the score: positive means that the token's gradient points in the direction of the targets',
so that a training step on it lowers their loss; negative means that the step raises it. The mean over the answer's
tokens must equal ⟨u, g⟩ (g: the row's gradient), which a separate backward pass computes: every result has that check.

⟨u, g⟩ is only the plain gradient's part of the score. LESS compares Adam's update Γ(g), which is not linear in g and
cannot be split by token; `TokenExplainer.correlate` measures how well the two agree on this store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from gradsift.config import GradientKind
from gradsift.data.encode import Encoded
from gradsift.data.pool import Row
from gradsift.data.targets import TargetError
from gradsift.datastore.shards import read_tensors, write_tensors
from gradsift.datastore.store import Store
from gradsift.gradients.adam import adam_scale
from gradsift.gradients.extract import FeatureExtractor
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.gradients.store_model import StoreModel
from gradsift.model.batches import run_batches
from gradsift.runtime.errors import StoreError, UsageError
from gradsift.runtime.locks import locked
from gradsift.runtime.progress import Progress
from gradsift.scoring.influence import influence
from gradsift.scoring.score_targets import score_targets
from gradsift.scoring.scoring import Scoring, scoring_key
from gradsift.scoring.target_features import encode_target
from gradsift.training.checkpoint import Checkpoint

STEP = 0.01  # ε of the central difference (‖u‖ = 1): smaller suffers from rounding, larger from the loss's curvature
TOLERANCE = 1e-3  # of ‖u‖‖g‖: how far the mean over tokens may be from ⟨u, g⟩

DirectionKind = Literal["gradient", "adam"]
Vector = dict[str, torch.Tensor]  # in LoRA space: parameter name -> (n,) fp32


@dataclass(frozen=True)
class TokenInfluence:
    """One row's answer, piece by piece, at N checkpoints; ‖u‖ = 1 throughout.

    pieces: T stretches of text that together spell the answers, mostly one token each; tokens that share a character
    form one piece. turns: (T,) index of each piece's message. n_tokens: (T,) tokens in each. values: (N, T) float64,
    d/dε of the piece's loss, summed over its tokens. inner: (N,) ⟨u, g⟩ from the backward pass. grad_norm: (N,) ‖g‖.
    loss: (N,) ℓ. n_cut: tokens of the row beyond the store's --max-length, which were never trained on.
    """

    row: int
    subtask: str
    direction: DirectionKind
    pieces: list[str]
    turns: np.ndarray
    n_tokens: np.ndarray
    epochs: list[str]
    weights: np.ndarray
    values: np.ndarray
    inner: np.ndarray
    grad_norm: np.ndarray
    loss: np.ndarray
    n_cut: int

    @property
    def mean(self) -> np.ndarray:
        """(N,) mean over supervised tokens; by the chain rule it is ⟨u, g⟩."""
        return self.values.sum(1) / self.n_tokens.sum()

    @property
    def bound(self) -> np.ndarray:
        """(N,) the largest allowed distance of `mean` from `inner`: 1e-3 ‖u‖‖g‖."""
        return TOLERANCE * self.grad_norm

    @property
    def holds(self) -> bool:
        """Whether the identity holds at every checkpoint."""
        return bool((np.abs(self.mean - self.inner) <= self.bound).all())

    @property
    def combined(self) -> np.ndarray:
        """(T,) Σ_i w_i values_i / (‖g_i‖ · tokens): shares that add up to `cosine`."""
        scale = self.weights * _inverse(self.grad_norm) / self.n_tokens.sum()
        return np.asarray(scale @ self.values)

    @property
    def cosine(self) -> float:
        """Σ_i w_i cos(u_i, g_i): Eq. 2 with the plain gradient, unprojected, in Γ's place."""
        return float(self.weights @ (self.mean * _inverse(self.grad_norm)))

    def record(self) -> dict[str, Any]:
        """All fields and results as JSON values."""
        arrays = ("turns", "n_tokens", "weights", "values", "mean", "inner", "bound", "grad_norm", "loss", "combined")
        plain = ("row", "subtask", "direction", "pieces", "epochs", "n_cut", "cosine", "holds")
        return {name: getattr(self, name) for name in plain} | {n: getattr(self, n).tolist() for n in arrays}


@dataclass(frozen=True)
class Agreement:
    """How much of LESS's score the plain gradient explains, on a sample of rows.

    rows: (n,) pool row numbers. cosine: (n,) Σ_i w_i cos(u_i, g_i). influence: (n,) Inf(z, j) of the scoring.
    pearson, spearman: their correlations; NaN if one of the two does not vary.
    """

    rows: np.ndarray
    cosine: np.ndarray
    influence: np.ndarray
    pearson: float
    spearman: float


class TokenExplainer:
    """Explains rows of one store for any targets scored on it, one row at a time; threads may share it.

    All passes are in fp32: bf16 rounds away the effect of a step of 0.01 (on SmolLM2, values per token are then wrong
    by one to six times their size; in fp32 by less than a thousandth).
    """

    def __init__(self, store: Store) -> None:
        store.require_complete()
        self.store = store
        self._model = StoreModel(store, exact=True)
        _ = self._model.encoder  # refuses another tokenizer here and not at the first question

    def explain(
        self,
        scoring: Scoring,
        row: int,
        subtask: int,
        direction: DirectionKind = "gradient",
        progress: Progress | None = None,
    ) -> TokenInfluence:
        """Token-level influence of pool row `row` on subtask number `subtask` of the scoring, at every checkpoint.

        direction: `gradient`, u is the targets' mean gradient; `adam`, that gradient divided by Adam's √v', which is
        the linear part of Γ.

        Raises:
            UsageError: there is no such row or subtask, or the row is excluded. StoreError: the model or a file does
                not belong to the store. TargetError: a target cannot be used.
        """
        _check_row(self.store, scoring, row)
        (encoded,), (pieces,) = self._model.encode([row]), self._model.pieces([row])
        progress = progress or Progress(quiet=True)
        counts = np.array([piece.n_tokens for piece in pieces])
        starts = np.concatenate([[0], counts.cumsum()[:-1]])
        values, inner, norms, losses = [], [], [], []
        with self._model.session(progress):
            for epoch in scoring.epochs:
                gradients, u = self._at(scoring, subtask, direction, epoch, progress)
                own = self._extractor(gradients, u).extract([encoded])
                inner.append(float(own.projected["sgd"][0, 0]))
                norms.append(float(own.grad_norm[0]))
                losses.append(float(own.loss[0]))
                values.append(np.add.reduceat(_derivative(gradients, encoded, u), starts))
        return TokenInfluence(
            row=row,
            subtask=scoring.subtask_names[subtask],
            direction=direction,
            pieces=[piece.text for piece in pieces],
            turns=np.array([piece.turn for piece in pieces]),
            n_tokens=counts,
            epochs=scoring.epochs,
            weights=scoring.weights,
            values=np.array(values),
            inner=np.array(inner),
            grad_norm=np.array(norms),
            loss=np.array(losses),
            n_cut=encoded.n_cut,
        )

    def correlate(
        self,
        scoring: Scoring,
        subtask: int,
        direction: DirectionKind = "gradient",
        gradient: GradientKind | None = None,
        sample: int = 40,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Agreement:
        """Compare the plain gradient's cosines with LESS's scores on a seeded sample of scored rows.

        Takes one backward pass per row and checkpoint. gradient: the stored update that LESS compares; None for the
        store's first kind.

        Raises:
            StoreError: the targets have no LESS scores with that gradient. Otherwise as `explain`.
        """
        scores = influence(scoring.evidence("less", gradient), scoring.subtask_of, len(scoring.subtask_names))
        size = min(sample, len(scoring.rows))
        positions = np.sort(np.random.default_rng(seed).choice(len(scoring.rows), size, replace=False))
        rows = self._model.encode(scoring.rows[positions].tolist())
        progress = progress or Progress(quiet=True)
        cosine = np.zeros(size)
        with self._model.session(progress):
            for epoch, weight in zip(scoring.epochs, scoring.weights, strict=True):
                gradients, u = self._at(scoring, subtask, direction, epoch, progress)
                progress.stage(f"sample-{epoch}", f"Gradients of a sample at {epoch}", size, "rows")
                own = self._extractor(gradients, u).extract(rows, progress.advance)
                inner = own.projected["sgd"][:, 0].double().numpy()
                cosine += weight * inner * _inverse(own.grad_norm.double().numpy())
        less = scores[positions, subtask].astype(np.float64)
        return Agreement(
            scoring.rows[positions], cosine, less, _pearson(cosine, less), _pearson(_ranks(cosine), _ranks(less))
        )

    def _at(
        self, scoring: Scoring, subtask: int, kind: DirectionKind, epoch: str, progress: Progress
    ) -> tuple[PerExampleGradients, Vector]:
        """The model at θ_i and the direction there, which is computed once and then read from its file."""
        gradients, checkpoint = self._model.at(self.store.epochs.index(epoch))
        if not 0 <= subtask < len(scoring.subtask_names):
            raise UsageError(f"There is no subtask number {subtask}: the targets have {len(scoring.subtask_names)}.")
        members = [t for t, j in zip(scoring.targets, scoring.subtask_of, strict=True) if j == subtask]
        path = scoring.path / "directions" / f"{scoring_key(self.store, members)}-{kind}-{epoch}.safetensors"
        metadata = {"kind": "direction", "of": path.stem}
        if not path.is_file():
            progress.stage(f"direction-{epoch}", f"Gradients of the targets at {epoch}", len(members), "targets")
            mean = self._mean_gradient(gradients, members, progress)
            if kind == "adam":
                mean = self._by_adam(mean, checkpoint)
            with locked(scoring.path):
                path.parent.mkdir(exist_ok=True)
                write_tensors(path, _unit(mean), metadata)
        u, file_metadata = read_tensors(path)
        sizes = {name: weight.numel() for name, weight in gradients.weights.items()}
        if file_metadata != metadata or {name: len(tensor) for name, tensor in u.items()} != sizes:
            raise StoreError(f"{path} belongs to other targets or another model; delete it and try again.")
        return gradients, {name: tensor.to(self._model.device) for name, tensor in u.items()}

    def _by_adam(self, mean: Vector, checkpoint: Checkpoint) -> Vector:
        if not checkpoint.moments:
            raise StoreError(f"{self.store.path} holds no Adam moments: explain with the plain gradient.")
        scale = adam_scale(self.store.manifest.config.adam, checkpoint, self._model.device)
        return {name: g * scale[name] for name, g in mean.items()}

    def _extractor(self, gradients: PerExampleGradients, u: Vector) -> FeatureExtractor:
        """An extractor that yields ⟨u, g⟩ as a one-dimensional feature of the plain gradient."""
        return FeatureExtractor(gradients, _Along(u), {"sgd": lambda name, g: g}, self._model.token_budget)

    def _mean_gradient(self, gradients: PerExampleGradients, targets: Sequence[Row], progress: Progress) -> Vector:
        """The unprojected mean of ∇ℓ(z'; θ_i) over target examples, by parameter name."""
        rows: list[Encoded] = []
        for number, target in enumerate(targets, start=1):
            encoded, reason = encode_target(self._model.encoder, self._model.window, target)
            if encoded is None or reason:
                raise TargetError(f"Target {number} of {target.subtask} cannot be used: {reason}; fix or remove it.")
            rows.append(encoded)
        total: Vector = {}

        def add(batch: Sequence[Encoded]) -> None:
            sums: Vector = {}  # of this batch only: a batch that does not fit has added nothing when it is split
            gradients.run(batch, lambda name, g: sums.update({name: g.sum(0)}))
            for name, g in sums.items():
                total[name] = total[name].add_(g) if name in total else g

        run_batches(rows, self._model.token_budget, add, progress.advance)
        if not all(g.isfinite().all() for g in total.values()):
            raise TargetError(f"The targets of {targets[0].subtask} have a gradient that is not finite; remove them.")
        return {name: g / len(rows) for name, g in total.items()}


def explain(
    store: Store, targets: Sequence[Row], row: int, subtask: str | None = None, progress: Progress | None = None
) -> TokenInfluence:
    """Token-level influence of one pool row on one subtask of the targets; computes their LESS scores if needed.

    subtask: by default the one on which the row scores highest.

    Raises:
        UsageError: there is no such row or subtask, or the row is excluded. Otherwise as `score_targets` and
            `TokenExplainer.explain`.
    """
    store.require_complete()
    scoring = score_targets(store, targets, ["less"], progress=progress)
    names = scoring.subtask_names
    if subtask is not None and subtask not in names:
        raise UsageError(f"The targets have no subtask {subtask!r}: choose among {', '.join(names)}.")
    _check_row(store, scoring, row)
    scores = influence(scoring.evidence("less"), scoring.subtask_of, len(names))
    best = int(scores[np.searchsorted(scoring.rows, row)].argmax())
    number = best if subtask is None else names.index(subtask)
    return TokenExplainer(store).explain(scoring, row, number, progress=progress)


def describe(result: TokenInfluence) -> str:
    """A `TokenInfluence` as lines for a terminal; pieces are quoted, so that data cannot send control codes to it."""
    lines = [f"Row {result.row} for {result.subtask!r}: cosine {result.cosine:+.4f} with the plain gradient."]
    for name, mean, inner, norm in zip(result.epochs, result.mean, result.inner, result.grad_norm, strict=True):
        off = abs(mean - inner) * float(_inverse(np.array(norm)))
        lines.append(f"{name}: mean over tokens {mean:+.5f}, <u, g> {inner:+.5f}, differing by {off:.1e} of |g|")
    lines.append("Share of the cosine by piece (positive: learning it lowers the targets' loss):")
    lines += [f"{share:+.5f}  {piece!r}" for share, piece in zip(result.combined, result.pieces, strict=True)]
    if result.n_cut:
        lines.append(f"{result.n_cut:,} more tokens were cut by --max-length.")
    return "\n".join(lines)


def _check_row(store: Store, scoring: Scoring, row: int) -> None:
    if row in scoring.rows:
        return
    pool = store.pool()
    if row not in pool.index:
        raise UsageError(f"{store.path} has no row {row}: its rows are 0 to {len(pool) - 1:,}.")
    entry = pool.loc[row]
    reason = entry["reason"] if entry["status"] != "usable" else "its gradient is not finite"
    raise UsageError(f"Row {row} of {store.path} is excluded ({reason}), so it has no influence; choose another row.")


class _Along:
    """Inner products with one direction, used in place of a projector."""

    dim = 1

    def __init__(self, u: Vector) -> None:
        self.u = u

    def add(self, name: str, gradients: torch.Tensor, out: torch.Tensor) -> None:
        out[:, 0] += gradients @ self.u[name]


def _derivative(gradients: PerExampleGradients, row: Encoded, u: Vector) -> np.ndarray:
    """d/dε ℓ_t(θ + εu) at ε = 0 of every supervised token t, (tokens,) float64, by a central difference.

    Afterwards the LoRA parameters are restored bit for bit.
    """
    weights = gradients.weights
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    losses = []
    with torch.no_grad():
        try:
            for step in (STEP, -STEP):
                for name, weight in weights.items():
                    torch.add(before[name], u[name].view_as(weight), alpha=step, out=weight)
                losses.append(gradients.token_losses([row]).double())
        finally:
            for name, weight in weights.items():
                weight.copy_(before[name])
    return ((losses[0] - losses[1]) / (2 * STEP)).cpu().numpy()


def _unit(vector: Vector) -> Vector:
    """The vector scaled to length 1; a zero vector (the model is certain of the targets) stays zero."""
    length = sum(float(part.double().square().sum()) for part in vector.values()) ** 0.5
    return {name: (part.double() / (length or 1.0)).float() for name, part in vector.items()}


def _inverse(length: np.ndarray) -> np.ndarray:
    return np.divide(1.0, length, out=np.zeros_like(length, dtype=np.float64), where=length > 0)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    if not (np.ptp(x) and np.ptp(y)):  # rounding can leave equal values slightly off their mean
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y) / float(np.sqrt((x @ x) * (y @ y)))


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share their mean rank."""
    _, index, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts + 1) / 2)[index]
