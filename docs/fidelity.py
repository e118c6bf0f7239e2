"""Measure how far every shortcut moves the scores: python docs/fidelity.py --data DIR [--rows 400] [--minutes M]

DIR holds pool/*.jsonl and targets/{mmlu,bbh,tydiqa}.jsonl. Whole gradients of real rows are kept in CACHE (15 GB for
400 rows; see exact_gradients.py), so that each comparison is arithmetic on them. The script stops after about M
minutes; run it again to measure the rest. Results so far are written into OUT, between its markers, and comparisons
without a result are marked.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from exact_gradients import CPU, SETS, Gradients, Piece, settings
from measured import fill, table

from gradsift.config import AdamForm
from gradsift.datastore.shards import decode, encode, read_tensors, write_tensors
from gradsift.gradients.adam import Update, make_update
from gradsift.gradients.projection import make_projector
from gradsift.runtime.paths import cache_home
from gradsift.scoring.evidence import Evidence
from gradsift.scoring.influence import influence

DIM = 8192  # the default, and the paper's
DIMS = (1024, 2048, 4096, DIM, 4 * DIM)  # of the sketch, whose cost does not depend on d
FORMS: tuple[AdamForm, ...] = ("paper", "adamw", "released")
PLAIN = "sgd"  # the plain gradient in place of Γ, to show the effect of Adam's momentum
RADEMACHER = tuple(f"rademacher-{part}" for part in range(6))  # pieces of a checkpoint's dense projection
NAMES = {"mmlu": "MMLU", "bbh": "BBH", "tydiqa": "TyDiQA"}

Scores = dict[str, np.ndarray]  # target set -> (n,) Inf, best over its subtasks
Find = Callable[[list[int]], Scores]  # from checkpoints to their scores
Vectors = dict[str, torch.Tensor]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of ranks; equal scores share their mean rank."""
    return float(pd.Series(a).rank().corr(pd.Series(b).rank()))


def overlap(a: np.ndarray, b: np.ndarray, share: float) -> float:
    """The part of the best `share` of rows by `a` that is also among the best by `b`; ties go to the lower row."""
    count = max(1, int(len(a) * share))
    best = [set(np.argsort(-scores, kind="stable")[:count].tolist()) for scores in (a, b)]
    return len(best[0] & best[1]) / count


def scatter(a: np.ndarray, b: np.ndarray) -> float:
    """Standard deviation of the difference; a shift that all rows share changes no rank."""
    return float((a - b).std())


class Fidelity:
    """The sums over all parameters that the comparisons need, each a file under CACHE/sums/, and the scores."""

    def __init__(self, gradients: Gradients, dims: tuple[int, ...] = DIMS, dim: int = DIM) -> None:
        self.gradients, self.dims, self.dim = gradients, dims, dim
        self.epochs = range(gradients.config.epochs)

    def pieces(self) -> Iterator[Piece]:
        """Everything to be made, in order: (file, what makes it). A finished checkpoint is a result of its own."""
        yield from self.gradients.pieces()
        for epoch in self.epochs:
            yield from self.gradients.gradient_pieces("fp32", epoch)
            yield self._path("fp32", epoch), partial(self._sum, dtype="fp32", epoch=epoch)
            for part, name in enumerate(RADEMACHER):
                yield self._path(name, epoch), partial(self._rademacher, epoch=epoch, part=part)
            yield from self.gradients.gradient_pieces("bf16", epoch)
            yield self._path("bf16", epoch), partial(self._sum, dtype="bf16", epoch=epoch)

    # -- sums ---------------------------------------------------------------------------------------------------------

    def _path(self, name: str, epoch: int) -> Path:
        return self.gradients.cache / "sums" / f"{name}-epoch-{epoch + 1}.safetensors"

    def _updates(self, epoch: int) -> dict[str, Update]:
        """Every form of Γ, and the plain gradient."""
        checkpoint = self.gradients.checkpoint(epoch)
        forms = {form: make_update("adam", form, checkpoint, CPU) for form in FORMS}
        return {**forms, PLAIN: make_update("sgd", "paper", checkpoint, CPU)}

    def _sum(self, path: Path, dtype: str, epoch: int) -> None:
        """Exact inner products of targets and updates in every form; for fp32 also their sparse projections.

        squares-FORM: (n, 2) ‖Γ‖² in lora_A and in lora_B. sparse-D: targets and Γ by the checkpoint's own projection;
        shared: by the first checkpoint's; plain: of the plain gradient.
        """
        n, examples, shapes = len(self.gradients.pool), len(self.gradients.examples), self.gradients.shapes
        places = {f"sparse-{dim}": (epoch + 1, dim) for dim in self.dims}
        places |= {"shared": (1, self.dim), "plain": (epoch + 1, self.dim)}
        projectors = {
            key: make_projector("sparse", self.gradients.config.seed, number, dim, shapes, CPU)
            for key, (number, dim) in places.items()
            if dtype == "fp32"
        }
        updates = self._updates(epoch)
        sums: Vectors = {key: torch.zeros(examples, projector.dim) for key, projector in projectors.items()}
        sums["gram"] = torch.zeros(examples - n, examples - n)
        for form in updates:
            sums |= {form: torch.zeros(n, examples - n), f"squares-{form}": torch.zeros(n, 2)}
        for name, g in self.gradients.read(dtype, epoch):
            targets = g[n:]
            sums["gram"] += targets @ targets.T
            stepped = {form: update(name, g[:n]) for form, update in updates.items()}
            for form, rows in stepped.items():
                sums[form] += rows @ targets.T
                sums[f"squares-{form}"][:, int("lora_B" in name)] += rows.square().sum(1)
            both = torch.cat([stepped["paper"], targets])
            for key, projector in projectors.items():
                projector.add(name, g if key == "plain" else both, sums[key])
        path.parent.mkdir(exist_ok=True)
        write_tensors(path, sums, {"dtype": dtype, "epoch": epoch})

    def _rademacher(self, path: Path, epoch: int, part: int) -> None:
        """The dense projection of pool and targets, for a part of the parameters; each of its blocks is made once."""
        n, shapes = len(self.gradients.pool), self.gradients.shapes
        projector = make_projector("rademacher", self.gradients.config.seed, epoch + 1, self.dim, shapes, CPU)
        update = self._updates(epoch)["paper"]
        total = torch.zeros(len(self.gradients.examples), projector.dim)
        for index, (name, g) in enumerate(self.gradients.read("fp32", epoch)):
            if index % len(RADEMACHER) == part:
                projector.add(name, torch.cat([update(name, g[:n]), g[n:]]), total)
        write_tensors(path, {"vectors": total}, {"epoch": epoch, "part": part})

    # -- scores -------------------------------------------------------------------------------------------------------

    def measured(self, names: Sequence[str]) -> list[int]:
        """The checkpoints, from 0, that have all sums of these names."""
        return [epoch for epoch in self.epochs if all(self._path(name, epoch).is_file() for name in names)]

    def sums(self, name: str, epoch: int) -> Vectors:
        return read_tensors(self._path(name, epoch))[0]

    def exact(self, epochs: Iterable[int], form: str = "paper", dtype: str = "fp32") -> Scores:
        """Scores from whole gradients at some checkpoints. form: one of Adam's, or `PLAIN`."""
        evidence = []
        for epoch in epochs:
            sums = self.sums(dtype, epoch)
            lengths = sums[f"squares-{form}"].sum(1).sqrt()
            evidence.append(self._products(sums[form] / lengths[:, None], sums["gram"], epoch))
        return self._scores(evidence)

    def projected(self, epochs: Iterable[int], key: str, store_dtype: str = "") -> Scores:
        """Scores from a projection: `sparse-D`, `shared`, `plain`, `rademacher`. store_dtype: of the rows; "": fp32."""
        n, evidence = len(self.gradients.pool), []
        for epoch in epochs:
            if key == "rademacher":
                vectors = torch.stack([self.sums(name, epoch)["vectors"] for name in RADEMACHER]).sum(0)
            else:
                vectors = self.sums("fp32", epoch)[key]
            rows, targets = vectors[:n], vectors[n:]
            unit = rows / rows.norm(dim=1, keepdim=True)
            if store_dtype:
                q, scale, _ = encode(rows, store_dtype)
                unit = decode(q, store_dtype) * scale[:, None]
            evidence.append(self._products(unit @ targets.T, targets @ targets.T, epoch))
        return self._scores(evidence)

    def _products(self, products: torch.Tensor, gram: torch.Tensor, epoch: int) -> Evidence:
        return Evidence(products.numpy(), gram.numpy(), None, float(self.gradients.weights[epoch]))

    def _scores(self, evidence: list[Evidence]) -> Scores:
        """Eq. 2 and the best over subtasks for each target set; weights of the checkpoints at hand sum to 1."""
        scores: Scores = {}
        start, total = 0, sum(part.weight for part in evidence)
        for name in SETS:
            rows = self.gradients.targets[name]
            columns = slice(start, start := start + len(rows))
            own = [
                Evidence(part.products[:, columns], np.asarray(part.gram)[columns, columns], None, part.weight / total)
                for part in evidence
            ]
            subtasks = list(dict.fromkeys(row.subtask for row in rows))
            subtask_of = np.array([subtasks.index(row.subtask) for row in rows])
            scores[name] = influence(own, subtask_of, len(subtasks)).max(1)
        return scores

    # -- the page -----------------------------------------------------------------------------------------------------

    def report(self) -> str:
        """The measured part of the page: the spread first, then every comparison."""
        epochs = self.measured(["fp32"])
        if not epochs:
            return "Not measured yet: the gradients are not all there."
        lines = _spread("", self.exact(epochs), self.projected(epochs, f"sparse-{self.dim}"), self.dim)
        lines += _spread(", plain gradient", self.exact(epochs, PLAIN), self.projected(epochs, "plain"), self.dim)
        spread = table(SPREAD, lines)
        parts = [self._about(), "### The spread of the scores", spread, self._geometry()]
        parts += ["### What each shortcut moves", self._comparisons()]
        return "\n\n".join([*parts, "### Adam's second moments", self._moments(epochs)])

    def _about(self) -> str:
        lengths = [len(example.ids) for example in self.gradients.examples]
        n, losses, rank = len(self.gradients.pool), self.gradients.losses, self.gradients.config.lora_rank
        counts = ", ".join(f"{len(self.gradients.targets[name])} of {NAMES[name]}" for name in SETS)
        size = sum(int(np.prod(shape)) for shape in self.gradients.shapes.values())
        weights = " and ".join(f"{weight:.2f}" for weight in self.gradients.weights)
        before, after = np.mean(losses[:5]), np.mean(losses[-5:])
        return (
            f"{n} rows of {np.mean(lengths[:n]):.0f} tokens on average, targets: {counts} (one of every subtask). "
            f"LoRA of rank {rank}: P = {size:,}. Warmup of {len(losses)} steps; the loss went from "
            f"{before:.2f} to {after:.2f} (means of five steps); the checkpoints weigh {weights}."
        )

    def _geometry(self) -> str:
        """Single cosines at the first checkpoint: the sketch's error, and how alike the rows' updates are."""
        n, sums = len(self.gradients.pool), self.sums("fp32", 0)
        exact = sums["paper"] / sums["squares-paper"].sum(1).sqrt()[:, None] / sums["gram"].diag().sqrt()
        unit = torch.nn.functional.normalize(sums[f"sparse-{self.dim}"])
        error = float((unit[:n] @ unit[n:].T - exact).square().mean().sqrt())
        alike = float((unit[:n].sum(0).square().sum() - n) / (n * (n - 1)))
        update, zero = self._updates(0)["paper"], torch.zeros(1, 1)
        momentum = torch.stack([update(name, zero).square().sum() for name in self.gradients.shapes]).sum().sqrt()
        own = sums["squares-paper"].sum(1).sqrt().median()
        return (
            f"At checkpoint 1 the cosine of a single target and a row is off by {error:.4f} rms (1/√d = "
            f"{self.dim**-0.5:.4f}). The updates of two rows have a cosine of {alike:.2f} on average: Γ of a zero "
            f"gradient, the momentum that all rows share, is {momentum:.0f} long, the rows' Γ {own:.0f} (median)."
        )

    def _comparisons(self) -> str:
        lines = []
        for label, aim, needs, one, other in self._pairs():
            epochs = self.measured(needs)
            epochs = [] if "for all" in label and len(epochs) < 2 else epochs
            alone = f" (checkpoint {epochs[0] + 1} alone)" if 0 < len(epochs) < len(self.epochs) else ""
            cells = ["not measured"] * len(SETS)
            if epochs:
                a, b = one(epochs), other(epochs)
                cells = [cell(a[name], b[name]) for name in SETS]
            lines.append([label + alone, aim, *cells])
        return table(["", "aim", *(NAMES[name] for name in SETS)], lines)

    def _pairs(self) -> Iterator[tuple[str, str, Sequence[str], Find, Find]]:
        """(what is compared, aim, the sums it needs, either score as a function of the checkpoints)."""
        d, fp32, dense = self.dim, ["fp32"], ["fp32", *RADEMACHER]
        sketch, shared = partial(self.projected, key=f"sparse-{d}"), partial(self.projected, key="shared")
        rademacher = partial(self.projected, key="rademacher")
        for dim in self.dims:
            aim, bold = ("≥ 0.98 / 0.85 / 0.85", "**") if dim == d else ("", "")
            one = partial(self.projected, key=f"sparse-{dim}")
            yield f"{bold}sparse, d = {dim}, against exact{bold}", aim, fp32, one, self.exact
        plain = partial(self.projected, key="plain"), partial(self.exact, form=PLAIN)
        yield f"the same with the plain gradient in place of Γ, d = {d}", "", fp32, *plain
        yield f"Rademacher, d = {d}, against exact", "", dense, rademacher, self.exact
        yield f"sparse against Rademacher, d = {d}", "", dense, sketch, rademacher
        yield "one projection for all checkpoints against exact", "", fp32, shared, self.exact
        yield "one projection for all against one each", "", fp32, shared, sketch
        stored = {dtype: partial(sketch, store_dtype=dtype) for dtype in ("int8", "fp16", "bit")}
        yield "**int8 against fp16**", "– / 0.95 / 0.95", fp32, stored["int8"], stored["fp16"]
        yield "**bit against fp16**", "– / 0.85 / 0.85", fp32, stored["bit"], stored["fp16"]
        yield "bit against exact", "", fp32, stored["bit"], self.exact
        for a, b in (("adamw", "paper"), ("released", "paper"), ("released", "adamw")):
            yield f"Adam: {a} against {b}, exact", "", fp32, partial(self.exact, form=a), partial(self.exact, form=b)
        bf16 = partial(self.exact, dtype="bf16")
        yield "bf16 base weights against fp32, exact", "", ["fp32", "bf16"], bf16, self.exact

    def _moments(self, epochs: list[int]) -> str:
        """How large v̂ is compared with ε, and how each form divides Γ's length between lora_A and lora_B."""
        lines = []
        for epoch in epochs:
            checkpoint, sums = self.gradients.checkpoint(epoch), self.sums("fp32", epoch)
            correction = 1 - checkpoint.betas[1] ** checkpoint.step
            for side, kind in enumerate(("lora_A", "lora_B")):
                pairs = checkpoint.moments.items()
                v = torch.cat([v.flatten() for name, (_, v) in pairs if kind in name]).numpy() / correction
                cells = [f"{quantile:.0e}" for quantile in np.quantile(v, [0.05, 0.5, 0.95])]
                shares = [
                    f"{float((sums[f'squares-{form}'][:, side] / sums[f'squares-{form}'].sum(1)).mean()):.3f}"
                    for form in FORMS
                ]
                small = f"{(v < checkpoint.eps).mean():.1%}"
                lines.append([f"{kind}, checkpoint {epoch + 1}", *cells, small, *shares])
        head = ["", "v̂, 5th percentile", "median", "95th", f"v̂ < ε = {checkpoint.eps:.0e}"]
        return table([*head, *(f"share of ‖Γ‖², {form}" for form in FORMS)], lines)


SPREAD = ["exact scores", "min", "median", "95th", "max", "std", "the sketch's shift", "its scatter"]
SPREAD += ["correlation these allow", "rows within the scatter of the top-5 % cut", "d for 0.98"]


def _spread(label: str, exact: Scores, sparse: Scores, dim: int) -> list[list[str]]:
    """A line of `SPREAD` per target set: the exact scores, the sketch's error, and what that does to ranks."""
    lines = []
    for name in SETS:
        scores, error = exact[name], scatter(exact[name], sparse[name])
        quantiles = [f"{value:.4f}" for value in (scores.min(), *np.quantile(scores, [0.5, 0.95]), scores.max())]
        cut = np.sort(scores)[::-1][max(1, int(len(scores) * 0.05)) - 1]
        near = int((np.abs(scores - cut) <= error).sum())
        allowed = scores.std() / np.hypot(scores.std(), error)
        needed = dim * (error / scores.std()) ** 2 / (0.98**-2 - 1)  # the error falls with the root of d
        shown = [f"{scores.std():.4f}", f"{(sparse[name] - scores).mean():+.4f}", f"{error:.4f}", f"{allowed:.2f}"]
        lines.append([NAMES[name] + label, *quantiles, *shown, f"{near}", f"{needed:,.0f}"])
    return lines


def cell(a: np.ndarray, b: np.ndarray) -> str:
    return f"{spearman(a, b):.3f} / {overlap(a, b, 0.05):.2f} / {overlap(a, b, 0.10):.2f} ({scatter(a, b):.4f})"


def work(pieces: Iterable[Piece], seconds: float) -> int:
    """Make missing pieces until the time is up; returns how many were made."""
    started, count = time.monotonic(), 0
    for path, make in pieces:
        if not path.is_file():
            if time.monotonic() - started >= seconds:
                print(f"Stopped before {path.name}; run the same command again to make the rest.")
                break
            make(path)
            count += 1
            print(f"{time.monotonic() - started:6.0f} s  {path.parent.name}/{path.name}", flush=True)
    return count


def main() -> None:
    """Make what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--cache", type=Path, help="where gradients are kept [default: the cache]")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    arguments = parser.parse_args()
    cache = arguments.cache or cache_home() / "fidelity" / str(arguments.rows)
    cache.mkdir(parents=True, exist_ok=True)
    fidelity = Fidelity(Gradients(arguments.data, cache, settings("smollm2", rank=16), arguments.rows))
    work(fidelity.pieces(), arguments.minutes * 60)
    fill(arguments.out, fidelity.report())


if __name__ == "__main__":
    main()
