"""How far methods pick what LESS picks: python docs/overlap.py STORE TARGETS... [--method draft ...] [--top 5%]

Prints for each file of targets and each method the share of LESS's picks that it picks, too, what a random draw would
share, and Spearman's correlation of the two scores over all scored rows. Missing scores are computed first, and
kept in the store.
"""

import argparse
from pathlib import Path

from gradsift.picks import score
from gradsift.progress import Progress
from gradsift.selection import Budget
from gradsift.store import Store
from gradsift.targets import require_targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("targets", type=Path, nargs="+")
    parser.add_argument("--method", action="append", help="default: draft, rds+ and bm25")
    parser.add_argument("--top", default="5%", help="a share or a number of rows")
    asked = parser.parse_args()
    store, methods = Store.open(asked.store), asked.method or ["draft", "rds+", "bm25"]
    print("targets,method,picks,shared,chance,spearman")
    for path in asked.targets:
        progress = Progress()
        with progress.running():
            table = score(store, require_targets(path), ["less", *methods], progress=progress)
        ranks = table.pivot(index="row", columns="method", values="rank")
        k = Budget.parse(asked.top).rows(len(ranks))
        best = {name: set(ranks.index[ranks[name] <= k]) for name in ranks}
        for name in methods:
            shared = len(best["less"] & best[name]) / k
            print(f"{path.stem},{name},{k},{shared:.3f},{k / len(ranks):.3f},{ranks['less'].corr(ranks[name]):.3f}")


if __name__ == "__main__":
    main()
