"""What the base model, without any adapter, sees in rows: one forward pass, made when a method first asks for it.

    rds+    position-weighted mean of the final hidden states (after the last norm) of all tokens of the rendered
            conversation, token k of T weighing k / (1 + … + T) (Ivison et al. 2025, arXiv 2503.01807)

The pool's vectors are kept as fp16 shards under `representations/base/`, a range of rows each, so that a pass that was
stopped goes on where it was, and later targets cost no pass at all. They depend on no checkpoint.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gradsift import atomic
from gradsift.encode import Encoded, Encoder
from gradsift.extraction import encode_rows
from gradsift.features import joined, run_batches
from gradsift.gradients import _pad as pad
from gradsift.models import Loaded
from gradsift.progress import Progress
from gradsift.shards import ShardError, write_shard
from gradsift.store import BASE_KINDS, Store, locked


def missing_base(store: Store, kinds: Sequence[str]) -> list[int]:
    """Indices of the shards of which some kind is missing or not whole; reads every file that is there."""
    return [i for i in range(len(store.shard_ranges)) if not all(_whole(store, kind, i) for kind in kinds)]


def ensure_base(store: Store, base: Loaded, encoder: Encoder, kinds: Sequence[str], progress: Progress) -> None:
    """Make the pool's vectors of these `BASE_KINDS` where they are missing, all kinds in one pass.

    base, encoder: the store's.

    Raises:
        StoreError: another process is making them.
    """
    max_length = min(store.manifest.config.max_length, base.window)
    with locked(store.path / "representations" / "base"):
        atomic.sweep(store.path / "representations" / "base")
        todo, ranges, total = missing_base(store, kinds), store.shard_ranges, store.manifest.usable
        done = total - sum(ranges[i][1] - ranges[i][0] for i in todo)
        progress.stage("base", f"Base model over the pool, for {' and '.join(kinds)}", total, "rows", done=done)
        extractor = BaseExtractor(base.model, kinds, store.manifest.token_budget)
        for index in todo:
            start, stop = ranges[index]
            rows = encode_rows(store, encoder, store.rows[start:stop].tolist(), max_length)
            for kind, vectors in extractor.extract(rows, progress.advance).items():
                if not _whole(store, kind, index):
                    write_shard(store.shard_path(kind, 0, index), store.params(kind, 0), start, "fp16", vectors)


class BaseExtractor:
    """Vectors of rows by the base model. kinds: some of `BASE_KINDS`."""

    def __init__(self, base: Any, kinds: Sequence[str], token_budget: int) -> None:
        if unknown := set(kinds) - set(BASE_KINDS):
            raise ValueError(f"no vectors of the base model: {sorted(unknown)}")
        self.base, self.kinds, self.token_budget = base, tuple(kinds), token_budget

    def extract(
        self, rows: Sequence[Encoded], done: Callable[[int], None] = lambda rows: None
    ) -> dict[str, torch.Tensor]:
        """Kind -> (rows, width) fp32 on the CPU, in the order of `rows`. `done(k)` is called after every k rows."""
        pieces, _ = run_batches(rows, self.token_budget, self._batch, done)
        batches = [batch for batch, _ in pieces]
        return {kind: joined(batches, [found[kind] for _, found in pieces]) for kind in self.kinds}

    def _batch(self, rows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Right padding needs no attention mask in a causal model, and padded positions weigh nothing."""
        ids, lengths = pad(rows, next(self.base.parameters()).device)
        seen: dict[str, torch.Tensor] = {}

        def keep(module: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            seen["rds+"] = weighted_mean(inputs[0], lengths)
            return (inputs[0][:, :1],)  # no logits are needed

        handle = self.base.get_output_embeddings().register_forward_pre_hook(keep)
        try:
            with torch.no_grad():
                self.base(input_ids=ids, use_cache=False)
        finally:
            handle.remove()
        return seen


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
