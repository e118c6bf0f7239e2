"""Vectors of rows from the base model without an adapter: one forward pass, made when a method first needs it.

    rds+    position-weighted mean of the final hidden states (after the last norm) of all tokens of the rendered
            conversation, where token k of T has weight k / (1 + … + T) (Ivison et al. 2025, arXiv 2503.01807)
    draft   the gradient of the mean answer loss with respect to the output layer, mean over answer tokens of
            (p_t − y_t) ⊗ h_t, with p_t the predicted distribution, y_t the actual next token, h_t the hidden state: an
            approximation of LESS that needs no backward pass and no warmup. It is sketched to 2,048 numbers as the
            circular convolution of two count-sketches (TensorSketch: Pham & Pagh 2013), whose inner products are
            unbiased estimates of Σ (p_t − y_t)·(p_t' − y_t') · h_t·h_t' over pairs of tokens, off by about 1/√2048

The pool's vectors are kept as fp16 shards under `representations/base/`, one range of rows each, so that an interrupted
pass resumes where it stopped, and later targets need no further pass over the pool. They depend on no checkpoint.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from gradsift.data.encode import Encoded
from gradsift.datastore.shards import ShardError, write_shard
from gradsift.datastore.store import BASE_KINDS, Store
from gradsift.gradients.projection import make_projector
from gradsift.gradients.store_model import StoreModel
from gradsift.model.batches import joined, run_batches
from gradsift.model.loss import pad, supervised_positions
from gradsift.runtime import atomic
from gradsift.runtime.locks import locked
from gradsift.runtime.progress import Progress

DRAFT_DIM = 2048
_TOKENS = 512  # tokens whose distributions are held at once


def missing_base(store: Store, kinds: Sequence[str]) -> list[int]:
    """Indices of the shards of which some kind is missing or damaged; reads every file that exists."""
    return [i for i in range(len(store.shard_ranges)) if not all(_whole(store, kind, i) for kind in kinds)]


def ensure_base(model: StoreModel, kinds: Sequence[str], progress: Progress) -> None:
    """Compute the pool's missing vectors of these `BASE_KINDS`, all kinds in one pass.

    model: the store's model, loaded, without an adapter.

    Raises:
        StoreError: another process is computing them.
    """
    store = model.store
    with locked(store.path / "representations" / "base"):
        atomic.sweep(store.path / "representations" / "base")
        todo, ranges, total = missing_base(store, kinds), store.shard_ranges, store.manifest.usable
        done = total - sum(ranges[i][1] - ranges[i][0] for i in todo)
        progress.stage("base", f"Base model over the pool, for {' and '.join(kinds)}", total, "rows", done=done)
        extractor = BaseExtractor(model.base.module, kinds, store.manifest.token_budget, store.manifest.config.seed)
        for index in todo:
            start, stop = ranges[index]
            rows = model.encode(store.rows[start:stop].tolist())
            for kind, vectors in extractor.extract(rows, progress.advance).items():
                if not _whole(store, kind, index):
                    write_shard(store.shard_path(kind, 0, index), store.params(kind, 0, index), start, "fp16", vectors)


class BaseExtractor:
    """Computes rows' vectors with the base model. kinds: some of `BASE_KINDS`. seed: of the draft's sketch."""

    def __init__(self, base: Any, kinds: Sequence[str], token_budget: int, seed: int = 0) -> None:
        if unknown := set(kinds) - set(BASE_KINDS):
            raise ValueError(f"not kinds of base-model vectors: {sorted(unknown)}")
        self.base, self.kinds, self.token_budget = base, tuple(kinds), token_budget
        self.device = next(base.parameters()).device
        self._sketch: HeadSketch | None = None
        if "draft" in kinds:
            vocabulary, width = base.get_output_embeddings().weight.shape
            self._sketch = HeadSketch(vocabulary, width, seed, self.device)

    def extract(
        self, rows: Sequence[Encoded], done: Callable[[int], None] = lambda rows: None
    ) -> dict[str, torch.Tensor]:
        """Kind -> (rows, width) fp32 on the CPU, in the order of `rows`. `done(k)` is called after every k rows."""
        pieces, _, self.token_budget = run_batches(rows, self.token_budget, self._batch, done)
        batches = [batch for batch, _ in pieces]
        return {kind: joined(batches, [vectors[kind] for _, vectors in pieces]) for kind in self.kinds}

    def _batch(self, rows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Right padding needs no attention mask in a causal model, and padded positions have weight zero."""
        ids, lengths = pad(rows, self.device)
        at_row, at_column, due = supervised_positions(rows, self.device)
        vectors: dict[str, torch.Tensor] = {}

        def keep(module: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            vectors["rds+"] = weighted_mean(inputs[0], lengths)
            answers = inputs[0][at_row, at_column]  # (supervised tokens of the batch, H)
            vectors["answers"] = answers
            return ((answers if self._sketch else answers[:1])[None],)

        handle = self.base.get_output_embeddings().register_forward_pre_hook(keep)
        try:
            with torch.no_grad():
                logits = self.base(input_ids=ids, use_cache=False).logits[0]
        finally:
            handle.remove()
        if self._sketch:
            vectors["draft"] = self._sketch.rows(logits, due, vectors["answers"], [row.n_answer for row in rows])
        return {kind: vectors[kind] for kind in self.kinds}


class HeadSketch:
    """Sketches of output-layer gradients; a function of (seed, vocabulary, width) only."""

    def __init__(self, vocabulary: int, width: int, seed: int, device: torch.device) -> None:
        self._errors = make_projector("sparse", seed, 0, DRAFT_DIM, {"error": (vocabulary,)}, device)
        drawn = torch.from_numpy(np.random.Philox(key=seed).random_raw(width).astype(np.int64) >> 1)  # 63 bits each
        self._hidden = torch.zeros(width, DRAFT_DIM)  # one ±1 per line: a product adds in a fixed order
        self._hidden[torch.arange(width), drawn // 2 % DRAFT_DIM] = drawn % 2 * 2.0 - 1
        self._hidden = self._hidden.to(device)

    def rows(self, logits: torch.Tensor, due: torch.Tensor, hidden: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """(B, DRAFT_DIM) fp32, each row's mean over its tokens.

        logits: (tokens, vocabulary), row after row. due: (tokens,) the actual next token. hidden: (tokens, width).
        counts: (B,) number of tokens of each row.
        """
        pieces = zip(logits.split(_TOKENS), due.split(_TOKENS), hidden.split(_TOKENS), strict=True)
        tokens = torch.cat([self._tokens(*piece) for piece in pieces])
        means = torch.stack([part.mean(0) for part in tokens.split(counts)])
        return torch.fft.irfft(means, n=DRAFT_DIM)

    def _tokens(self, logits: torch.Tensor, due: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """(tokens, DRAFT_DIM / 2 + 1) spectra of the sketches, where convolution becomes a product."""
        error = logits.float().softmax(1)
        error[torch.arange(len(due), device=due.device), due] -= 1
        errors = torch.zeros(len(error), DRAFT_DIM, device=error.device)
        self._errors.add("error", error, errors)
        return torch.fft.rfft(errors) * torch.fft.rfft(hidden.float() @ self._hidden)


def weighted_mean(hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """(B, H) fp32: Σ_k k·h_k / Σ_k k over the first `lengths` (B,) positions k = 1, 2, … of hidden (B, T, H)."""
    at = torch.arange(1, hidden.shape[1] + 1, device=hidden.device)
    weight = torch.where(at <= lengths[:, None], at, 0).float()  # (B, T)
    return torch.einsum("bt,bth->bh", weight / weight.sum(1, keepdim=True), hidden.float())


def _whole(store: Store, kind: str, index: int) -> bool:
    try:
        store.shard(kind, 0, index)
    except ShardError:
        return False
    return True
