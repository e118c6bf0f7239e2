"""What is in a store, for a person or a program: coverage, excluded rows, warmup health, sizes."""

from typing import Any

import numpy as np

from gradsift.store import Store


def inspect(store: Store) -> dict[str, Any]:
    """A store's description as plain JSON values.

    `norm_length_correlation` is Pearson's between log gradient norm and log answer length at each checkpoint (the
    paper's figure 3 shows it falling).
    """
    manifest = store.manifest
    pool = store.pool()
    excluded = pool[pool["status"] == "excluded"]
    description: dict[str, Any] = {
        "store": str(store.path.resolve()),
        "fingerprint": store.fingerprint,
        "complete": store.complete,
        "model": manifest.config.model,
        "config": manifest.config.model_dump(mode="json"),
        "device": manifest.device,
        "dtype": manifest.dtype,
        "threads": manifest.threads,
        "inputs": list(manifest.inputs),
        "schemas": manifest.schemas,
        "rows": manifest.rows,
        "usable": manifest.usable,
        "excluded": manifest.excluded,
        "excluded_rows": excluded.reset_index()[["row", "file", "line", "id", "reason"]].to_dict("records"),
        "truncated": sum(source.truncated for source in manifest.sources),
        "sources": [source.model_dump() for source in manifest.sources],
        "checkpoints": [checkpoint.model_dump() for checkpoint in manifest.checkpoints],
        "warmup": store.loss_curve().to_dict("records"),
        "notes": list(manifest.notes),
        "versions": manifest.versions,
        "bytes": store.bytes_by_part(),
    }
    if store.complete:
        description["not_finite_rows"] = np.setdiff1d(store.rows, store.scored_rows).tolist()
        description["norm_length_correlation"] = norm_length_correlation(store)
    return description


def norm_length_correlation(store: Store) -> dict[str, float]:
    """Pearson correlation of log ‖g‖ with log answer length (tokens), by checkpoint."""
    lengths = store.pool()["n_answer_tokens"]
    correlations = {}
    for epoch, frame in store.metrics().groupby("epoch", sort=False):
        frame = frame[np.isfinite(frame["grad_norm"]) & (frame["grad_norm"] > 0)]
        answer = np.log(lengths.loc[frame["row"]].to_numpy(dtype=float))
        if len(frame) > 1 and answer.std() > 0:
            correlations[str(epoch)] = float(np.corrcoef(np.log(frame["grad_norm"]), answer)[0, 1])
    return correlations
