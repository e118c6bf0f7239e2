"""The report's sections that show numbers, as HTML: each a chart or bars with the table behind it."""

import numpy as np
import pandas as pd

from gradsift.analysis import distributions
from gradsift.analysis.norms import KINDS, binned, correlations, norm_table
from gradsift.export.svg import bar, cells, chart, cut, dots, line, steps, table, text_of, x_axis, y_axis
from gradsift.runtime.errors import UsageError
from gradsift.scoring.methods import METHODS
from gradsift.selection.picks import Picks, picked, ranked

MOST_DOTS = 1500  # picks drawn on the chart of norms
_MOST_LINES = 40  # sources or subtasks in a table; the rest is counted


def sources(picks: Picks) -> str:
    """Share per source against the pool's, with lift."""
    names = picks.store.pool().loc[picks.traits.rows, "source"].to_numpy(str)
    shares = distributions.shares({"picks": picks.positions}, names)
    shares = shares.sort_values(["rows", "pool_rows"], ascending=False, kind="stable")
    most = max(shares["share"].max(), shares["pool_share"].max(), 1e-9)
    lines = []
    for row in shares.head(_MOST_LINES).itertuples():
        both = bar(row.share / most, "m", row.pool_share / most)
        numbers = [f"{row.rows:,}", f"{row.share:.1%}", f"{row.pool_share:.1%}", f"×{row.lift:.2f}"]
        lines.append([text_of(row.source, 100), both, *numbers])
    head = ["source", "", "rows", "share", "pool", "lift"]
    return (
        "<h2>Where the picks come from</h2><p>Lift is a source's share of the picks over its share of the scored pool: "
        f"1 is what chance would give.</p>{_legend(m='share of the picks', mark='share of the pool')}"
        f"{table(head, lines, len(shares))}"
    )


def lengths(picks: Picks) -> str:
    """Answer lengths of the picks and the pool."""
    pool = picks.store.pool().loc[picks.traits.rows]
    prompt, answer = pool["n_prompt_tokens"].to_numpy(), pool["n_answer_tokens"].to_numpy()
    one = {"picks": picks.positions}
    fine = int(np.clip(2 * np.sqrt(len(picks)), 8, 40))  # a few picks in narrow bins would be spikes
    numbers, bins = distributions.lengths(one, prompt, answer), distributions.length_histogram(one, answer, fine)
    x = x_axis("Answer length (tokens)", bins["low"].min(), bins["high"].max(), log=True)
    y = y_axis("Share of rows per factor of ten", 0, bins["density"].max() * 1.05)
    marks = []
    for name, kind in ((distributions.POOL, "pool"), ("picks", "m")):
        own = bins[bins["method"] == name]
        edges = np.append(own["low"].to_numpy(), own["high"].iloc[-1])
        marks.append(steps(x, y, edges, own["density"].to_numpy(), kind))
    medians = numbers.set_index("method")["answer_50"]
    alt = f"Answer lengths: the picks' median is {medians['picks']:.0f} tokens, the pool's {medians['pool']:.0f}."
    head = ["tokens", "rows", "mean answer", "5%", "25%", "median", "75%", "95%", "mean prompt"]
    columns = ["mean_answer", "answer_5", "answer_25", "answer_50", "answer_75", "answer_95", "mean_prompt"]
    lines = [
        [row["method"], f"{row['rows']:,}", *(f"{row[column]:,.0f}" for column in columns)]
        for row in numbers.to_dict("records")
    ]
    legend = _legend(m="picks", pool="scored pool")
    return f"<h2>How long the answers are</h2>{legend}{chart(x, y, marks, alt)}{table(head, lines)}"


def scores(picks: Picks) -> str:
    """Score by rank, with the last pick marked."""
    ranking = picks.ranking
    last = int(ranking.rank[picks.positions].max())
    curve = distributions.score_by_rank(ranking, last)
    ranks, values = curve["rank"].to_numpy(), curve["score"].to_numpy()
    x, y = x_axis("Rank", 1, len(ranking.rank), log=True), y_axis("Score", float(values.min()), float(values.max()))
    at = float(ranking.score[ranking.order[last - 1]])
    marks = [line(x, y, ranks, values, "m"), cut(x, y, last, f"last pick: rank {last:,}, score {at:.4g}")]
    alt = (
        f"Score by rank, from {ranking.score.max():.4g} to {ranking.score.min():.4g}; the last pick has rank {last:,}."
    )
    passed = last - len(picks)
    reasons = "caps, duplicates, near-copies of other picks, decisions or leaks"
    why = f"{passed:,} {'row' if passed == 1 else 'rows'} above the last pick were skipped because of {reasons}."
    note = f'<p class="note">{why}</p>' if passed else ""
    return f"<h2>Where the cut lies</h2>{chart(x, y, marks, alt)}{note}"


def subtasks(picks: Picks) -> str:
    """How many picks serve each subtask best; empty if there is only one subtask."""
    won = distributions.winners(picks.ranking, picks.positions, picks.ranking.subtasks)
    if len(won) < 2 or not won["rows"].any():  # the method does not look at the targets
        return ""
    most = max(float(won["share"].max()), 1e-9)
    lines = [
        [text_of(row.subtask, 100), bar(row.share / most, "m"), f"{row.rows:,}", f"{row.share:.1%}"]
        for row in won.sort_values("rows", ascending=False, kind="stable").head(_MOST_LINES).itertuples()
    ]
    return f"<h2>Which subtasks the picks serve</h2>{table(['subtask', '', 'rows', 'share'], lines, len(won))}"


def overlap(picks: Picks) -> str:
    """What every other scored method picks with the same budget and choices, without the decisions."""
    own, choices = picks.method, picks.choices
    by_method = {own: picks.positions}
    undecided = choices.model_copy(update={"accepted": (), "rejected": (), "only_accepted": False})
    for name in METHODS:
        if name == own or not picks.scoring.has(name, choices.gradient):
            continue
        ranking = ranked(picks.scoring, name, choices, picks.traits)
        try:
            by_method[name] = picked(ranking, picks.budget, undecided, picks.traits)
        except UsageError:  # its best row alone has more tokens than the budget
            continue
    if len(by_method) < 2:
        return ""
    pairs = distributions.overlap(by_method)
    lines = []
    for row in pairs[(pairs["method"] == own) & (pairs["other"] != own)].itertuples():
        share = row.rows / len(picks)
        lines.append([METHODS[row.other].label, bar(share, "pool"), f"{row.rows:,}", f"{share:.1%}"])
        lines[-1].append(f"{row.jaccard:.3f}")
    head = ["method", "", "rows in common", "of these picks", "Jaccard"]
    return f"<h2>What other methods also pick</h2><p>With the same budget and choices.</p>{table(head, lines)}"


def norms(picks: Picks) -> str:
    """Gradient norm against answer length at the last checkpoint, and the correlation at each; empty for a draft."""
    if not picks.store.epochs:
        return ""
    frames = norm_table(picks.store)
    epoch, frame = list(frames.items())[-1]
    x_all, y_all = frame["length"].to_numpy(), frame["grad_norm"].to_numpy()
    if not (np.isfinite(x_all) & np.isfinite(y_all)).any():
        return ""
    bins = binned(x_all, y_all, np.zeros(len(x_all), dtype=int))
    edges = {name: 10 ** bins[name].to_numpy(np.float64) for name in ("x0", "x1", "y0", "y1")}
    x = x_axis("Answer length (tokens)", edges["x0"].min(), edges["x1"].max(), log=True)
    y = y_axis("Gradient norm", edges["y0"].min(), edges["y1"].max(), log=True)
    shown = picks.positions[np.isfinite(x_all[picks.positions]) & np.isfinite(y_all[picks.positions])]
    if len(shown) > MOST_DOTS:
        shown = np.sort(np.random.default_rng(0).choice(shown, MOST_DOTS, replace=False))
    marks = [
        cells(x, y, edges["x0"], edges["x1"], edges["y0"], edges["y1"], bins["rows"].to_numpy(), "pool"),
        dots(x, y, 10 ** x_all[shown], 10 ** y_all[shown], "m"),
    ]
    alt = f"Gradient norm against answer length at {epoch}: all scored rows as cells, the picks as dots."
    table_of_r = correlations(frames)
    r = table_of_r[table_of_r["source"] == ""].set_index(["epoch", "kind"])["r"]
    lines = [[name, *(_signed(r[name, kind]) for kind in KINDS)] for name in frames]
    sampled = f" {MOST_DOTS:,} of the picks are drawn." if len(shown) < len(picks) else ""
    head = ["checkpoint", "r, gradient norm", "r, Adam update norm"]
    return (
        f"<h2>Gradient norm and answer length</h2><p>At {epoch}, before projection. r is Pearson's correlation of the "
        f"logarithms over all scored rows.{sampled}</p>{_legend(dot='picks', pool='all scored rows')}"
        f"{chart(x, y, marks, alt)}{table(head, lines)}"
    )


def _signed(r: float) -> str:
    return "n/a" if pd.isna(r) else f"{r:+.2f}".replace("-", "−")


def _legend(**kinds: str) -> str:
    entries = "".join(f'<span><i class="{kind}"></i>{name}</span>' for kind, name in kinds.items())
    return f'<p class="legend">{entries}</p>'
