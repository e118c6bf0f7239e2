"""The sections of the Distributions page; only the open one runs."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import streamlit as st

from app.distributions import pick_charts, target_charts
from app.state import address
from app.text import label, plural
from app.views import figures, filters
from app.views.choices import parts_of
from app.views.view import View
from app.widgets import charts, empty
from app.widgets.controls import method_label
from gradsift.analysis import distributions
from gradsift.analysis.stability import SplitHalf
from gradsift.runtime.errors import UsageError
from gradsift.scoring.methods import METHODS

_POINTS = 240  # of a curve
_SCROLLS = 24  # with more subtasks, the chart scrolls inside a box
_HIGHLIGHTS = 5


def sources(view: View) -> None:
    """Draw where the picks come from."""
    table = figures.kept(view, "sources", lambda: distributions.shares(view.picks, view.row_columns.source))
    left_out = table["source"].nunique() - pick_charts.MOST_SOURCES
    note = "×2: twice its share of the pool. Click a bar to see its rows in Compare."
    if left_out > 0:
        note += f" {plural(left_out, 'smaller source is', 'smaller sources are')} only in the table."
    clicked = charts.draw(pick_charts.sources(table), clickable=True, note=note)
    if clicked:
        _compare(source=clicked[0], method=clicked[1])


def lengths(view: View) -> None:
    """Draw how long the picks' answers are."""
    columns = view.row_columns
    table = figures.kept(view, "lengths", lambda: distributions.lengths(view.picks, columns.n_prompt, columns.n_answer))
    fewest = min(len(picks) for picks in view.picks.values())
    count = int(np.clip(2 * fewest**0.5, 8, 40))  # few picks in many bins would show only chance
    bins = figures.kept(
        view, "length-bins", lambda: distributions.length_histogram(view.picks, columns.n_answer, count)
    )
    left, right = st.columns(2, gap="large")
    with left:
        charts.draw(pick_charts.lengths(table))
    with right:
        charts.draw(pick_charts.length_histogram(bins))


def overlap(view: View) -> None:
    """Draw what two methods both pick, at this and any other budget."""
    if len(view.picks) < 2:
        empty.say("Overlap needs two methods", "Choose another one above.")
        return
    n = len(view.scoring.rows)
    cuts = {column.method: len(column.picks) for column in view.comparison.columns}
    rankings = [column.ranking for column in view.comparison.columns]
    ks = distributions.sampled_ranks(n, _POINTS, *(max(cut, 1) for cut in cuts.values()))
    table = figures.kept(view, "overlap-at-k", lambda: distributions.overlap_at_k(rankings, ks))
    reference = _one("beside", list(view.picks), "Compared with")
    left, right = st.columns([2, 3], gap="large")
    with left:
        charts.draw(pick_charts.overlap(distributions.overlap(view.picks)))
    with right:
        charts.draw(pick_charts.overlap_at_k(table, reference, cuts, n))


def scores(view: View) -> None:
    """Draw how scores fall with rank."""
    cuts = {column.method: column.last for column in view.comparison.columns}
    parts = [
        distributions.score_by_rank(column.ranking, cuts[column.method], _POINTS) for column in view.comparison.columns
    ]
    charts.draw(pick_charts.scores(pd.concat(parts, ignore_index=True), cuts))
    if view.choices.aggregate == "round-robin" or view.choices.length_matched:
        st.caption("Scores do not fall steadily here: rows are not ordered by score alone (see What if).")


def subtasks(view: View) -> None:
    """Draw which subtask picked what."""
    method = _targeted(view)
    if method is None:
        return
    table = figures.kept(view, f"subtasks-{method}", lambda: figures.picked_by(view, method))
    unserved = len(view.picks[method]) - int(table["rows"].sum())
    if unserved == len(view.picks[method]):
        empty.say("No pick serves a subtask", "All scores are zero here, or nothing is picked: raise the budget.")
        return
    in_pool = pd.Series(view.row_columns.source).value_counts(sort=False)
    chart = target_charts.subtasks(table, method, in_pool)
    busy = table.loc[table["rows"] > 0, "subtask"].nunique()
    note = "Click a cell to see its rows in Compare."
    if idle := table["subtask"].nunique() - busy:
        note += f" {plural(idle, 'subtask')} picked nothing."
    if unserved:
        note += f" {plural(unserved, 'pick has', 'picks have')} a score of zero, which serves no subtask."
    with st.container(height=760 if busy > _SCROLLS else "content", border=False):
        clicked = charts.draw(chart, clickable=True, note=note)
    if clicked:
        source, _, subtask, *_ = clicked
        several = table["subtask"].nunique() > 1  # Compare has no filter for a single subtask
        folded = target_charts.folded(table, in_pool, subtask)
        of_source = {"source": folded if source == target_charts.OTHER else [source]}
        filters.open_compare(**of_source, **({"subtask": [subtask]} if several else {}))


def single_targets(view: View) -> None:
    """Draw how similar all rows are to each single target example."""
    method = _targeted(view)
    if method is None:
        return
    table = figures.target_curves(view, method)
    left = table.drop_duplicates("target").set_index("target")["subtask"]
    names = parts_of(view.scoring)
    names = {key: name for key, name in names.items() if _targets_of(view, key, left)}
    groups = [key for key in names if key[0] == "s"]
    first = groups if len(groups) <= _HIGHLIGHTS else []
    with address.bound("highlight", list(names), default=first):
        if len(st.session_state.highlight) > _HIGHLIGHTS:  # an address may name more
            st.session_state.highlight = st.session_state.highlight[:_HIGHLIGHTS]
        chosen = st.multiselect(
            "Highlight",
            list(names),
            key="highlight",
            max_selections=_HIGHLIGHTS,
            format_func=names.__getitem__,
            placeholder="subtasks and target examples",
        )
    highlighted = {names[key]: _targets_of(view, key, left) for key in chosen}
    column = view.comparison.column(method)
    charts.draw(target_charts.curves(table, method, highlighted, column.last))


def enough(view: View) -> None:
    """Draw whether the targets are enough, on demand."""
    method = _targeted(view)
    if method is None:
        return
    targets = view.left.targets
    st.caption(
        f"Resamples your {plural(len(targets), 'target example')}, 20 times in two halves and 50 times with "
        "replacement, and ranks the whole pool each time, from the stored scores."
    )
    key = f"{view.key} {method}"
    if st.session_state.get("resampled") != key:
        st.button(
            "Resample the targets",
            type="primary",
            key="resample",
            icon=":material/casino:",
            on_click=lambda: st.session_state.update(resampled=key),
        )
        return
    try:
        half, table = figures.resampled(view, method)
    except UsageError as error:
        st.info(label(error))
        return
    title, text = verdict(half, table, [target.subtask for target in targets])
    st.html(f'<div class="gs-verdict"><h3>{title}</h3><p>{text}</p></div>')
    left, right = st.columns([2, 3], gap="large")
    with left:
        charts.draw(target_charts.halves(half, method))
    with right:
        more = len(table) - target_charts.MOST_INTERVALS
        note = f"The {target_charts.MOST_INTERVALS} least certain picks; the table has all." if more > 0 else ""
        charts.draw(target_charts.intervals(table, method), note=note)


SECTIONS: Mapping[str, tuple[str, Callable[[View], None]]] = {
    "sources": ("Sources", sources),
    "lengths": ("Lengths", lengths),
    "overlap": ("Overlap", overlap),
    "scores": ("Scores", scores),
    "subtasks": ("Subtasks", subtasks),
    "targets": ("Single targets", single_targets),
    "enough": ("Are my targets enough?", enough),
}


def verdict(half: SplitHalf, table: pd.DataFrame, subtasks: list[str]) -> tuple[str, str]:
    """What resampling shows, as a headline and a text. table: one line per pick, with `stays`."""
    above = (half.mean - half.chance) / max(1 - half.chance, 1e-9)  # 0: as if by chance, 1: the same rows
    if above >= 0.75:
        title = "These picks are steady"
        means = "other examples of the same kind would pick nearly the same rows"
    elif above >= 0.5:
        title = "The best of these picks are steady, the rest are not"
        means = "more examples would change a part of the picks, mostly near the cut"
    else:
        title = "These picks depend heavily on your particular examples"
        means = "few targets make unstable ranks: more examples of each subtask would steady them"
    sure = int((table["stays"] >= 0.9).sum())
    text = (
        f"Two halves of the targets share {half.mean:.0%} of their best {half.k:,} rows (90% of the splits: "
        f"{half.low:.0%} to {half.high:.0%}; by chance {half.chance:.0%}): {means}. {sure:,} of {len(table):,} picks "
        "stay among the picks in nine draws of ten."
    )
    single = int((pd.Series(subtasks).value_counts() == 1).sum())
    if single:
        text += (
            f" {plural(single, 'subtask has', 'subtasks have')} one example only, which cannot be drawn again: "
            "for these the rank intervals are too narrow."
        )
    return title, text


def _targets_of(view: View, key: str, left: pd.Series) -> list[int]:
    """The targets that a short name of `parts_of` stands for, among those not left out."""
    if key[0] == "t":
        return [int(key[1:])] if int(key[1:]) in left.index else []
    if key[0] == "s":
        return left.index[left == view.scoring.subtask_names[int(key[1:])]].tolist()
    return []


def _targeted(view: View) -> str | None:
    """Draw the choice of a method that looks at the targets; None with a sentence on the page if no method does."""
    if not view.targeted:
        empty.say("No chosen method looks at the targets", "Choose another method above.")
        return None
    return _one("of_method", view.targeted, "Method")  # `method` belongs to Export and Norms


def _one(key: str, methods: list[str], name: str) -> str:
    with address.bound(key, methods, default=methods[0]):
        chosen = st.segmented_control(name, methods, key=key, required=True, format_func=method_label)
    return chosen if chosen in METHODS else methods[0]


def _compare(source: str, method: str) -> None:
    """Show in Compare what a bar stands for: the source's rows, among the picks or, for the pool's bar, in the pool."""
    if method:
        filters.open_compare(source=[source])
    else:
        filters.open_compare(source=[source], scope=filters.POOL)
