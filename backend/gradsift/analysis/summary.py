"""What is in a store, for a person or a program: coverage, excluded rows, warmup health, sizes."""

import json
from typing import Any

import numpy as np

from gradsift.analysis.norms import correlation, norm_table
from gradsift.builder.ingest import unused_line
from gradsift.datastore.store import BASE_KINDS, Store
from gradsift.runtime.tables import table

_COUNTS = ("rows_in_file", "rows_in_store", "usable", "excluded", "truncated")  # of a source, in the order shown


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
        "parts": [part.model_dump(mode="json") for part in manifest.parts],
        "schemas": manifest.schemas,
        "rows": manifest.rows,
        "usable": manifest.usable,
        "shards": len(store.shard_ranges),
        "excluded": manifest.excluded,
        "unused": manifest.unused,
        "excluded_rows": excluded.reset_index()[["row", "file", "line", "id", "reason"]].to_dict("records"),
        "truncated": sum(source.truncated for source in manifest.sources),
        "sources": [source.model_dump() for source in manifest.sources],
        "checkpoints": [checkpoint.model_dump() for checkpoint in manifest.checkpoints],
        "warmup": json.loads(store.loss_curve().to_json(orient="records", double_precision=15)),  # NaN becomes null
        "notes": list(manifest.notes),
        "versions": manifest.versions,
        "bytes": store.bytes_by_part(),
        "base_shards": {kind: count for kind in BASE_KINDS if (count := _base_shards(store, kind))},
    }
    if store.complete:
        description["not_finite_rows"] = np.setdiff1d(store.rows, store.scored_rows).tolist()
        description["norm_length_correlation"] = norm_length_correlation(store)
    return description


def _base_shards(store: Store, kind: str) -> int:
    """How many shards of the base model's vectors exist; scoring by a method that needs them adds the others."""
    return sum(store.shard_path(kind, 0, index).is_file() for index in range(len(store.shard_ranges)))


def norm_length_correlation(store: Store) -> dict[str, float]:
    """Pearson correlation of log ‖g‖ with log answer length (tokens), by checkpoint."""
    by_epoch = {
        epoch: correlation(frame["length"].to_numpy(), frame["grad_norm"].to_numpy())
        for epoch, frame in norm_table(store).items()
    }
    return {epoch: r for epoch, r in by_epoch.items() if r is not None}


def describe(description: dict[str, Any]) -> str:
    """The result of `inspect` as text for a terminal."""
    d = description
    lines = [
        f"{d['store']}  ({'complete' if d['complete'] else 'NOT FINISHED: run the same build again'})",
        f"model {d['model']}, {d['dtype']} on {d['device']}, d = {d['config']['dim']}, {d['config']['store_dtype']}",
        f"rows {d['rows']:,} = {d['usable']:,} usable + {d['rows'] - d['usable']:,} excluded; {d['truncated']:,} cut",
        "",
        table(
            [(s["source"], *(f"{s[name]:,}" for name in _COUNTS)) for s in d["sources"]],
            ("source", "in file", "in store", "usable", "excluded", "cut"),
        ),
    ]
    lines += ["", *(f"{file}: {_counts(schemas)}" for file, schemas in d["schemas"].items())]
    lines += [f"appended {p['rows']:,} rows ({p['usable']:,} usable): {_names(p['inputs'])}" for p in d["parts"][1:]]
    lines += unused_line(d["unused"])
    if d["excluded_rows"]:
        lines += ["", "excluded (the first twenty; --json lists all):"]
        lines += [f"  {row['file']}, line {row['line']}: {row['reason']}" for row in d["excluded_rows"][:20]]
    lines += ["", *(_checkpoint_line(c, d.get("norm_length_correlation", {})) for c in d["checkpoints"])]
    if d["warmup"]:
        losses = [d["warmup"][at]["loss"] for at in (0, -1)]
        lines.append("warmup loss " + " -> ".join("not finite" if x is None else f"{x:.3f}" for x in losses))
    if d.get("not_finite_rows"):
        lines.append(f"{len(d['not_finite_rows'])} rows have gradients that are not finite and are never selected")
    lines += [
        f"base model's vectors for {kind}: {n:,} of {d['shards']:,} shards" for kind, n in d["base_shards"].items()
    ]
    lines += ["", *d["notes"], "", ", ".join(f"{part} {size / 1e6:,.1f} MB" for part, size in d["bytes"].items())]
    return "\n".join(lines)


def _names(inputs: list[str]) -> str:
    return ", ".join(entry.rpartition(" ")[0] for entry in inputs)


def _counts(schemas: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {schema}" for schema, count in schemas.items())


def _checkpoint_line(checkpoint: dict[str, Any], correlations: dict[str, float]) -> str:
    line = f"{checkpoint['name']}: mean lr {checkpoint['mean_lr']:.3g}, weight {checkpoint['weight']:.3f}"
    line += f", step {checkpoint['step']}"
    r = correlations.get(checkpoint["name"])
    return line if r is None else f"{line}, log norm against log answer length r = {r:.2f}"
