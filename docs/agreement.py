"""How far other scores agree with LESS on a store: python docs/agreement.py STORE TARGETS... [--top 10%] [--out FILE]

Prints JSON, or writes FILE; docs/results.md has a section of docs/results/agreement.json:

* for each file of targets and each of the draft, RDS+ and BM25: the share of LESS's picks that the method also picks,
  the share that a random draw would have, and Spearman's correlation of the two ranks over all scored rows;
* the token-level influence of LESS's best rows: how far the sum over an answer's tokens lies from the backward pass's
  inner product, as a part of the bound, at every checkpoint; and how the plain gradient's cosines correlate with LESS's
  scores over a sample of rows.

Missing scores are computed first and kept in the store.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from gradsift.analysis.tokens import TokenExplainer
from gradsift.data.targets import require_targets
from gradsift.datastore.store import Store
from gradsift.runtime import atomic
from gradsift.runtime.progress import Progress
from gradsift.scoring.influence import influence
from gradsift.scoring.score_targets import score_targets
from gradsift.selection.budget import Budget
from gradsift.selection.score import score

METHODS = ("draft", "rds+", "bm25")
EXPLAINED, SAMPLE = 5, 40  # LESS's best rows, explained token by token; rows over which the two scores are correlated


def overlap(store: Store, path: Path, top: str, progress: Progress) -> list[dict[str, Any]]:
    """The share of LESS's picks that each method also picks, for one file of targets."""
    table = score(store, require_targets(path), ["less", *METHODS], progress=progress)
    ranks = table.pivot(index="row", columns="method", values="rank")
    k = Budget.parse(top).rows(len(ranks))
    best = {name: set(ranks.index[ranks[name] <= k]) for name in ranks}
    return [
        {
            "targets": path.stem,
            "method": name,
            "picks": k,
            "shared": len(best["less"] & best[name]) / k,
            "chance": k / len(ranks),
            "spearman": float(ranks["less"].corr(ranks[name])),
        }
        for name in METHODS
    ]


def tokens(store: Store, path: Path, progress: Progress) -> dict[str, Any]:
    """The identity on LESS's best rows, and the plain gradient compared with LESS."""
    scoring = score_targets(store, require_targets(path), ["less"], progress=progress)
    scores = influence(scoring.evidence("less", "adam"), scoring.subtask_of, len(scoring.subtask_names))
    best = np.argsort(-scores.max(1), kind="stable")[:EXPLAINED]
    subtasks = scores[best].argmax(1).tolist()
    explainer = TokenExplainer(store)
    rows = [
        explainer.explain(scoring, row, subtask, progress=progress)
        for row, subtask in zip(scoring.rows[best].tolist(), subtasks, strict=True)
    ]
    off = np.array([np.abs(row.mean - row.inner) / row.bound for row in rows])  # (rows, checkpoints)
    agreement = explainer.correlate(scoring, subtasks[0], sample=SAMPLE, progress=progress)
    return {
        "targets": path.stem,
        "tokens": int(sum(row.n_tokens.sum() for row in rows)),
        "worst_of_bound": dict(zip(scoring.epochs, off.max(0).tolist(), strict=True)),
        "hold": sum(row.holds for row in rows),
        "rows": len(rows),
        "subtask": scoring.subtask_names[subtasks[0]],
        "sample": len(agreement.rows),
        "pearson": agreement.pearson,
        "spearman": agreement.spearman,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("targets", type=Path, nargs="+")
    parser.add_argument("--top", default="10%", help="a share or a number of rows")
    parser.add_argument("--out", type=Path, help="write this file after each file of targets")
    arguments = parser.parse_args()
    store, progress = Store.open(arguments.store), Progress()
    result: dict[str, Any] = {"top": arguments.top, "overlap": [], "tokens": []}
    with progress.running():
        for path in arguments.targets:
            result["overlap"] += overlap(store, path, arguments.top, progress)
            result["tokens"].append(tokens(store, path, progress))
            if arguments.out is not None:
                atomic.write_json(arguments.out, result)
    if arguments.out is None:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
