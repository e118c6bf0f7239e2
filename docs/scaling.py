"""A build's cost by formula, and as measured: python docs/scaling.py [--features F --scoring S --bm25 B]

F, S and B are files with the output of `gradsift bench features|scoring|bm25 --json`. --store STORE --data DIR
measures, on this machine and in less than a minute, whatever else grows with the rows: STORE is the large one of
`gradsift bench app`, DIR/pool holds real rows. New results replace older ones in scaling.json, from which scaling.md is
written.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pandas as pd
from measured import fill, table

from gradsift.data.pool import read_rows
from gradsift.datastore.store import Store
from gradsift.runtime import atomic
from gradsift.scoring.bm25 import bm25_index
from gradsift.scoring.scoring import open_scoring
from gradsift.selection.ranking import rank
from gradsift.text.near_duplicates import BAND, BANDS, near_duplicates
from gradsift.text.search import search_rows

PAGE = Path(__file__).with_suffix(".md")
BENCHES = ("features", "scoring", "bm25")
LARGE = 10_000_000
HOUR = 3600.0
PEAK, MEMORY = 312e12, 2.0e12  # an A100 80 GB by its data sheet: bf16 FLOP/s, bytes/s
UTILIZATIONS = (0.3, 0.4)  # of PEAK, assumed: never measured here
PASSES = 20  # over an example's fp32 gradient: written once, squared, Γ made, squared, signed and added
PAPER = {"warmup": 6.0, "features": 48.0}  # hours on one A100 80 GB (Table 4)


@dataclass(frozen=True)
class Source:
    """A source of the paper's pool (Table 7): rows, Llama-2 tokens of a prompt and of an answer, rounds."""

    rows: int
    prompt: float
    answer: float
    rounds: float = 1.0

    @property
    def tokens(self) -> float:
        """Tokens of all rows."""
        return self.rows * self.rounds * (self.prompt + self.answer)


POOL = {
    "FLAN v2": Source(100_000, 355.7, 31.2),
    "CoT": Source(100_000, 266, 53.2),
    "Dolly": Source(15_011, 118.1, 91.3),
    "Open Assistant 1": Source(55_668, 34.8, 212.5, 1.6),
}


@dataclass(frozen=True)
class Cost:
    """A build's cost by formula, with LESS's defaults on Llama-2-7B.

    parameters: P. lora: trained parameters, rank 128 on q, k, v, o.
    """

    rows: int
    tokens: float
    parameters: float = 6.74e9
    lora: float = 32 * 4 * 2 * 4096 * 128
    hidden: int = 4096
    layers: int = 32
    checkpoints: int = 4
    dim: int = 8192
    warmup: float = 0.05

    @property
    def token_flops(self) -> float:
        """FLOPs of a token: 4 P forward and back to activations; LoRA 2 + 2 + 2; causal attention 3 x 2 T h a layer."""
        length = self.tokens / self.rows
        return 4 * self.parameters + 6 * self.lora + self.layers * 6 * length * self.hidden

    @property
    def sketch_seconds(self) -> float:
        """Seconds for Γ and the sketch of one example, bound by memory."""
        return PASSES * 4 * self.lora / MEMORY

    def hours(self, utilization: float, devices: int = 1) -> tuple[float, float]:
        """Warmup and features, in hours. Both are linear in devices: rows are independent, the warmup is small."""
        passes = self.tokens * self.token_flops / (PEAK * utilization)
        features = self.checkpoints * (passes + self.rows * self.sketch_seconds)
        return self.checkpoints * self.warmup * passes / HOUR / devices, features / HOUR / devices

    def store_bytes(self, bits: int) -> float:
        """Bytes of the features: d numbers, a scale and a norm for every row and checkpoint."""
        return self.rows * self.checkpoints * (self.dim * bits / 8 + 8)

    @property
    def representation_bytes(self) -> float:
        """Bytes of RDS: the hidden state in fp16, a scale and a norm for every row and checkpoint."""
        return self.rows * self.checkpoints * (2 * self.hidden + 8)

    def scoring_bytes(self, targets: int) -> float:
        """Bytes of one kept scoring by LESS: fp32 for every row, target example and checkpoint."""
        return 4.0 * self.rows * targets * self.checkpoints


def paper_cost() -> Cost:
    """The cost of the paper's pool."""
    return Cost(sum(source.rows for source in POOL.values()), sum(source.tokens for source in POOL.values()))


# -- measuring here ---------------------------------------------------------------------------------------------------


def house(store: Store, data: Path) -> dict[str, Any]:
    """Seconds and bytes of everything that grows with the rows; the texts are real, the store's rows synthetic."""
    scoring = open_scoring(store, next((store.path / "scorings").iterdir()))
    texts = [row.conversation.text for row in read_rows(sorted((data / "pool").glob("*.jsonl")))]
    index = bm25_index(texts)
    search_rows(store, "warm")
    rank(scoring, "less")
    with TemporaryFile() as scratch:
        near = _measure(lambda: near_duplicates(texts, scratch), len(texts))
        near |= {"bytes": 2 * BANDS * BAND * 4, "disk": scratch.tell() / len(texts)}  # twice while parts are joined
    return {
        "pool frame": _measure(store.pool, store.manifest.rows),
        "scored mask": _measure(lambda: Store(store.path, store.manifest).scored, store.manifest.usable),
        "metrics frame": _measure(store.metrics, store.manifest.usable),
        "one ranking": _measure(lambda: rank(scoring, "less"), len(scoring.rows)),
        "search": _measure(lambda: search_rows(store, "refrigerator"), store.manifest.rows),
        "near-duplicates": near,
        "BM25 index": {"rows": len(texts), "bytes": (index.rows.nbytes + index.gains.nbytes) / len(texts)},
    }


def _measure(make: Callable[[], Any], rows: int) -> dict[str, float]:
    """Seconds and bytes of the result's arrays, both per row."""
    gc.collect()
    started = time.perf_counter()
    result = make()
    seconds = time.perf_counter() - started
    if isinstance(result, pd.DataFrame):
        size = int(result.memory_usage(deep=True).sum())
    else:
        parts = [result] if isinstance(result, np.ndarray) else vars(result).values()
        size = sum(part.nbytes for part in parts if isinstance(part, np.ndarray))
    return {"rows": rows, "seconds": seconds / rows, "bytes": size / rows}


# -- the page ---------------------------------------------------------------------------------------------------------


def report(results: dict[str, Any]) -> str:
    """The measured part of the page: the tables by formula, then the measurements."""
    cost = paper_cost()
    return "\n\n".join(
        [
            "### The paper's pool on a 7-billion model, by the model",
            _pool_table(cost),
            _hours_table(cost),
            "### Measured constants",
            _measured_tables(results),
            "### Ten million rows",
            _large_table(cost, results.get("house")),
        ]
    )


def _pool_table(cost: Cost) -> str:
    counts = {name: (source.rows, source.tokens) for name, source in POOL.items()} | {"all": (cost.rows, cost.tokens)}
    lines = [
        [name, f"{rows:,}", f"{tokens / rows:.0f}", f"{tokens / 1e6:.1f} M"] for name, (rows, tokens) in counts.items()
    ]
    return table(["source (Table 7)", "rows", "tokens a row", "tokens"], lines)


def _hours_table(cost: Cost) -> str:
    lines = []
    for devices in (1, 8):
        for utilization in UTILIZATIONS:
            warmup, features = cost.hours(utilization, devices)
            label = f"{devices} x A100, {utilization:.0%} of {PEAK / 1e12:.0f} TFLOP/s assumed"
            lines.append([label, f"{warmup:.1f} h", f"{features:.1f} h"])
    published = [f"{hours:.0f} h" for hours in PAPER.values()]
    lines.append(["**published** (Table 4): one A100 80 GB, the authors' code", *published])
    flops = cost.tokens * cost.token_flops * cost.checkpoints
    reached = [flops * cost.warmup / PAPER["warmup"] / HOUR / PEAK, flops / PAPER["features"] / HOUR / PEAK]
    lines.append(["by the same count of operations that is, of the peak", *(f"{share:.0%}" for share in reached)])
    return table(["", "warmup, 5 % x 4 epochs", "features, 4 checkpoints"], lines)


def _measured_tables(results: dict[str, Any]) -> str:
    parts = []
    for name in BENCHES:
        lines = [[key, value] for key, value in flatten(results.get(name, {}))]
        parts.append(table([f"`gradsift bench {name}`", ""], lines or [["not measured yet", ""]]))
    return "\n\n".join(parts)


def flatten(value: Any, before: str = "") -> list[tuple[str, str]]:
    """Nested figures as (name, value) pairs; names joined by dots."""
    if isinstance(value, dict):
        return [pair for key, part in value.items() for pair in flatten(part, f"{before}.{key}" if before else key)]
    if isinstance(value, float):
        return [(before, f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}")]
    if isinstance(value, int) and not isinstance(value, bool):
        return [(before, f"{value:,}")]
    return [(before, json.dumps(value) if isinstance(value, list) else str(value))]


def _large_table(cost: Cost, here: dict[str, Any] | None) -> str:
    """Rows by formula, then rows (*) from the measured cost per row; both are linear in the number of rows."""
    large = Cost(LARGE, cost.tokens / cost.rows * LARGE)
    pairs: list[tuple[str, Callable[[Cost], str]]] = [
        ("features, one A100 at 40 %", lambda c: f"{c.hours(0.4)[1]:,.0f} h"),
        ("features in int8", lambda c: _size(c.store_bytes(8))),
        ("features in fp16", lambda c: _size(c.store_bytes(16))),
        ("features in one bit", lambda c: _size(c.store_bytes(1))),
        ("RDS representations, fp16", lambda c: _size(c.representation_bytes)),
        ("a kept scoring, MMLU's 285 targets", lambda c: _size(c.scoring_bytes(285))),
        ("a kept scoring, BBH's 81", lambda c: _size(c.scoring_bytes(81))),
        ("a kept scoring, TyDiQA's 9", lambda c: _size(c.scoring_bytes(9))),
    ]
    lines = [[label, find(cost), find(large)] for label, find in pairs]
    for name, one in (here or {}).items():
        if "rows" in one:
            for unit, show in (("seconds", _time), ("bytes", _size), ("disk", _size)):
                if one.get(unit, 0) * cost.rows > 1e-2:
                    kind = {"seconds": "time", "bytes": "memory", "disk": "scratch file"}[unit]
                    lines.append([f"{name}: {kind} *", show(one[unit] * cost.rows), show(one[unit] * LARGE)])
    return table(["", f"{cost.rows:,} rows", f"{LARGE:,} rows"], lines)


def _size(value: float) -> str:
    return f"{value / 1e9:,.1f} GB" if value >= 1e8 else f"{value / 1e6:,.1f} MB"


def _time(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds < 300 else f"{seconds / 60:,.0f} min"


def main() -> None:
    """Put new results into scaling.json, and write the page from everything in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in BENCHES:
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    file = PAGE.with_suffix(".json")
    results = json.loads(file.read_text()) if file.is_file() else {}
    for name in BENCHES:
        if path := getattr(arguments, name):
            output = json.loads(path.read_text())
            results[name] = output.get(name, output)
    if arguments.store and arguments.data:
        results["house"] = house(Store.open(arguments.store), arguments.data)
    atomic.write_json(file, results)
    fill(PAGE, report(results))


if __name__ == "__main__":
    main()
