"""A store as large as the paper's pool, made in minutes: real-looking text, random features, a kept scoring.

What the app reads has its real size (rows, text, metrics, scores); features, which only a scoring pass reads, are
narrow (`DIM`). Sentences come from the embedded sample and so cover several languages and scripts.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradsift.builder.ingest import ROW_GROUP, SCHEMA
from gradsift.config import BuildConfig
from gradsift.data.conversation import Message
from gradsift.data.pool import Row, read_rows
from gradsift.data.targets import read_targets, write_targets
from gradsift.datastore.manifest import SCHEMA_VERSION, CheckpointInfo, Manifest, Part, SourceInfo
from gradsift.datastore.shards import write_shard, write_tensors
from gradsift.datastore.store import Store
from gradsift.runtime import atomic
from gradsift.runtime.hashing import hash_bytes, hash_file
from gradsift.runtime.progress import Progress
from gradsift.scoring.scoring import Scoring, open_scoring, scoring_path
from gradsift.text.index import ensure_index
from gradsift.workspace.workspace import Workspace, sample_pool

NAME, TARGETS = "synthetic", "synthetic"
ROWS, EPOCHS, DIM = 270_679, 4, 64  # rows and checkpoints as in the paper
SUBTASKS, PER_SUBTASK = 12, 4
SOURCES = {"flan_v2": 0.37, "cot": 0.37, "oasst1": 0.2, "dolly": 0.06}
_SHARD = 4096


def make_workspace(root: Path, rows: int = ROWS, seed: int = 0, progress: Progress | None = None) -> Workspace:
    """A workspace at `root` with a finished store of `rows` rows, a target set, and its scoring by every method.

    An existing one is used as it is; one that was interrupted or belongs to another version is made again.
    """
    workspace, progress = Workspace(root), progress or Progress(quiet=True)
    store = root / "stores" / NAME
    if not made_rows(root):
        atomic.remove(store)
        store.mkdir(parents=True)
        targets = _targets(seed)
        entry = workspace.save_targets(TARGETS, targets)
        opened = _make_store(store, rows, seed, progress)
        _make_scoring(opened, read_targets(entry.path).rows, seed, progress)
        ensure_index(opened, progress)
        atomic.write_json(root / "made.json", {"rows": rows, "seed": seed, "schema_version": SCHEMA_VERSION})
    return workspace


def made_rows(root: Path) -> int:
    """How many rows the workspace at `root` was made with; 0 if there is none that this version can open."""
    file = root / "made.json"
    record = json.loads(file.read_text()) if file.is_file() else {}
    return int(record["rows"]) if record.get("schema_version") == SCHEMA_VERSION else 0


# -- text -------------------------------------------------------------------------------------------------------------


def sentences() -> list[str]:
    """Every sentence of the embedded sample, once."""
    texts = (text for row in read_rows(sample_pool()) for text in (message.text for message in row.messages))
    parts = dict.fromkeys(part.strip() for text in texts for part in re.split(r"(?<=[.!?।。؟])\s|\n", text))
    return [sentence for sentence in parts if 15 < len(sentence) < 400]


def passages(rng: np.random.Generator, known: list[str], count: int, median: float) -> list[str]:
    """Texts of a log-normal number of sentences, each with a random number, so that no two are copies."""
    lengths = np.clip(rng.lognormal(np.log(median), 0.9, count).round(), 1, 120).astype(int)
    drawn = rng.integers(0, len(known), lengths.sum())
    marks = rng.integers(10, 10_000_000, count)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return [" ".join(known[s] for s in drawn[starts[i] : starts[i + 1]]) + f" (note {marks[i]})" for i in range(count)]


def _records(rows: int, seed: int) -> Iterator[dict]:
    rng, known = np.random.default_rng(seed), sentences()
    names, shares = list(SOURCES), np.array(list(SOURCES.values()))
    for start in range(0, rows, ROW_GROUP):
        count = min(ROW_GROUP, rows - start)
        questions, answers = passages(rng, known, count, 2), passages(rng, known, count, 3)
        source, task = rng.choice(len(names), count, p=shares / shares.sum()), rng.integers(0, 60, count)
        for i in range(count):
            turns = [{"role": "user", "content": questions[i]}, {"role": "assistant", "content": answers[i]}]
            raw = json.dumps({"messages": turns}, ensure_ascii=False).encode()
            yield {
                "row": start + i,
                "id": f"{names[source[i]]}_{start + i}",
                "source": names[source[i]],
                "task": f"task {task[i]}",
                "file": f"{names[source[i]]}.jsonl",
                "line": start + i + 1,
                "schema": "messages",
                "messages": [Message(turn["role"], turn["content"]).record() for turn in turns],
                "tools": None,
                "prefix": "",
                "raw": raw,
                "sha256": hash_bytes(raw),
                "n_prompt_tokens": len(questions[i]) // 4 + 8,
                "n_answer_tokens": len(answers[i]) // 4 + 2,
                "n_cut": 0,
                "status": "usable",
                "reason": "",
            }


def _targets(seed: int) -> list[Row]:
    rng = np.random.default_rng([seed, 1])
    texts = iter(passages(rng, sentences(), 2 * SUBTASKS * PER_SUBTASK, 2))
    return [
        Row(
            file="targets.jsonl",
            line=1 + j * PER_SUBTASK + k,
            raw=b"",
            source="targets",
            id=f"target-{j}-{k}",
            task="",
            subtask=f"subtask {j + 1}",
            messages=(Message("user", next(texts)), Message("assistant", next(texts))),
            prefix="",
            schema="messages",
            reason="",
        )
        for j in range(SUBTASKS)
        for k in range(PER_SUBTASK)
    ]


# -- numbers ----------------------------------------------------------------------------------------------------------


def _make_store(path: Path, rows: int, seed: int, progress: Progress) -> Store:
    counts: Counter[str] = Counter()
    progress.stage("synthetic-pool", "Writing a synthetic pool", rows, "rows")
    answers = np.empty(rows)
    with (
        atomic.open_for_write(path / "pool.parquet") as file,
        pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer,
    ):
        group: list[dict] = []
        for record in _records(rows, seed):
            counts[record["source"]] += 1
            answers[record["row"]] = record["n_answer_tokens"]
            group.append(record)
            if len(group) == ROW_GROUP or record["row"] == rows - 1:
                writer.write_table(pa.Table.from_pylist(group, SCHEMA))
                progress.advance(len(group))
                group = []
    config = BuildConfig(model="synthetic", dim=DIM)
    store = Store(path, make_manifest(rows, counts, config, EPOCHS, {"pool.parquet": hash_file(path / "pool.parquet")}))
    store.save_manifest()
    _make_shards(store, answers, seed, progress)
    return store


def make_manifest(
    rows: int, counts: Mapping[str, int], config: BuildConfig, checkpoints: int, files: dict[str, str]
) -> Manifest:
    """The manifest of a store of `rows` usable rows. counts: rows of each source. files: hashes by name."""
    sources = tuple(
        SourceInfo(source=name, rows_in_file=count, rows_in_store=count, usable=count)
        for name, count in sorted(counts.items())
    )
    falling = np.arange(checkpoints, 0, -1) / np.arange(checkpoints + 1).sum()
    epochs = [(f"epoch-{i + 1}", float(weight)) for i, weight in enumerate(falling)]
    return Manifest(
        config=config,
        model_fingerprint="synthetic",
        encoder_fingerprint="synthetic",
        device="cpu",
        threads=1,
        dtype="float32",
        token_budget=1024,
        parts=(
            Part(
                inputs=("synthetic",),
                limit_per_source=None,
                pool_fingerprint=f"synthetic-{rows}",
                rows=rows,
                usable=rows,
                shard_rows=_SHARD,
            ),
        ),
        schemas={f"{name}.jsonl": {"messages": count} for name, count in sorted(counts.items())},
        excluded={},
        sources=sources,
        checkpoints=tuple(
            CheckpointInfo(name=name, mean_lr=weight * 1e-5, weight=weight, step=100 * (i + 1), projector="synthetic")
            for i, (name, weight) in enumerate(epochs)
        ),
        versions={},
        files=files,
    )


def _make_shards(store: Store, answers: np.ndarray, seed: int, progress: Progress) -> None:
    import torch

    progress.stage("synthetic-features", "Writing synthetic features", EPOCHS * len(store.shard_ranges), "shards")
    for epoch in range(EPOCHS):
        for index, (start, stop) in enumerate(store.shard_ranges):
            rng = np.random.default_rng([seed, epoch, index])
            for kind in store.kinds:
                features = torch.from_numpy(rng.standard_normal((stop - start, DIM), dtype=np.float32))
                dtype = "fp16" if kind == "rds" else store.manifest.config.store_dtype
                write_shard(
                    store.shard_path(kind, epoch, index), store.params(kind, epoch, index), start, dtype, features
                )
            norm = np.exp(rng.normal(1, 0.4, stop - start)) / np.sqrt(answers[start:stop])
            columns = {"grad_norm": norm, "update_norm": norm**0.3 * 40, "loss": rng.gamma(4, 0.5, stop - start)}
            store.write_metrics(epoch, index, {name: x.astype(np.float32) for name, x in columns.items()}, 0)
            progress.advance()


def _make_scoring(store: Store, targets: list[Row], seed: int, progress: Progress) -> Scoring:
    """Kept scores with cosines distributed like real ones: small, with a few rows that stand out."""
    import torch

    path = scoring_path(store, targets)
    path.mkdir(parents=True)
    n, k = store.manifest.usable, len(targets)
    progress.stage("synthetic-scores", "Writing synthetic scores", 2 * EPOCHS + 1, "files")
    for number, kind in enumerate(("adam", "rds")):
        for epoch, name in enumerate(store.epochs):
            rng = np.random.default_rng([seed, 7, number, epoch])
            common = rng.standard_normal((n, SUBTASKS), dtype=np.float32).repeat(PER_SUBTASK, axis=1)
            products = 0.02 * common + 0.01 * rng.standard_normal((n, k), dtype=np.float32) + 0.9 * number
            tensors = {"products": products, "norms": np.ones(n, np.float32), "gram": np.eye(k, dtype=np.float32)}
            kept = {t: torch.from_numpy(x) for t, x in tensors.items()}
            write_tensors(path / f"{kind}-{name}.safetensors", kept, {"kind": kind})
            progress.advance()
    words = np.random.default_rng([seed, 8]).gamma(2, 4, (n, k)).astype(np.float32)
    write_tensors(path / "bm25.safetensors", {"products": torch.from_numpy(words)}, {"kind": "bm25"})
    write_targets(path / "targets.jsonl", targets)
    return open_scoring(store, path)
