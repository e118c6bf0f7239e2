"""The Gradient norms page: the pool on a grid, the picks on top, an area that can be marked, and the numbers."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app.norms import norm_charts
from app.state import address
from app.text import label, plural
from app.views import figures, filters
from app.views.store import sources_of
from app.views.view import View
from app.widgets import charts, tables
from app.widgets.charts import label_of
from gradsift.analysis import norms
from gradsift.analysis.norms import Area
from gradsift.config import Similarity
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError
from gradsift.scoring.methods import METHODS

_AREA = "norms_area"  # this tab's memory of what is marked; Compare keeps its own
_PROBLEM = "norms_problem"
_BY = {"cosine": " by cosine", "dot": " by raw dot product", "": ""}


def choose(store: Store) -> tuple[str, str, list[str]]:
    """Draw the choice of checkpoint, kind of norm and sources; no source means all."""
    epochs, names = list(figures.norm_tables(store)), sources_of(store)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="norm-controls"):
        with address.bound("epoch", epochs, default=epochs[-1]):
            epoch = st.segmented_control("Checkpoint", epochs, key="epoch", required=True)
        with address.bound("norm", list(norm_charts.KINDS), default="grad_norm"):
            kind = st.segmented_control(
                "Norm, before projection",
                list(norm_charts.KINDS),
                key="norm",
                required=True,
                format_func=norm_charts.KINDS.__getitem__,
            )
        with address.bound("of", names, default=[]):
            chosen = st.multiselect("Sources", names, key="of", placeholder="all sources", width=320)
    return epoch or epochs[-1], kind or "grad_norm", chosen


def draw(view: View, epoch: str, kind: str, chosen: list[str]) -> None:
    """Draw the charts of one method's picks, what is marked on them, and the numbers beside them."""
    method = view.method
    if problem := st.session_state.pop(_PROBLEM, ""):
        st.warning(label(problem))
    frame = figures.norm_tables(view.store)[epoch]
    cells = figures.norm_cells(view.store, epoch, kind)
    shown = frame["source"].isin(chosen).to_numpy() if chosen else np.ones(len(frame), dtype=bool)
    cells = cells[cells["group"].isin(chosen)] if chosen else cells
    grid = norm_charts.grid(cells)
    area, place = _marked(epoch, kind), st.container()
    vectors = METHODS[method].compares_vectors
    picks = {name: figures.picks_with(view, method, name) for name in ("cosine", "dot")} if vectors else {}
    sets = picks or {"": view.picks[method]}
    for (name, positions), column in zip(sets.items(), st.columns(len(sets), gap="large"), strict=True):
        with column:
            similarity: Similarity = "dot" if name == "dot" else "cosine"
            visible = positions[shown[positions]]
            table = _lines(view, similarity, visible, frame[kind].to_numpy(), frame["length"])
            title = f"Picks of {label_of(method)}{_BY[name]}"
            chart = norm_charts.picks(f"norms-{name or 'picks'}", title, method, grid, table, kind, area)
            charts.draw(chart, on_area=partial(_mark, epoch, kind), note=_note(table, frame, kind, shown))
    with place:
        inside = shown & area.inside(frame["length"].to_numpy(), frame[kind].to_numpy()) if area else None
        _offer(area, inside, view.picks[method], method, chosen)
    tables.twin(
        norm_charts.cells_table(cells),
        "Show the shades as a table",
        f"{norm_charts.KINDS[kind]} and answer length of the pool's rows, on a grid",
        norm_charts.cells_columns(),
        charts.file_stem(f"norm-cells-{epoch}-{kind}"),
    )
    if not vectors:
        st.caption(f"{label_of(method)} compares no vectors, so norms play no part in its picks.")
    left, right = st.columns([3, 2], gap="large") if vectors else (st.container(), st.container())
    with left:
        if vectors:
            _beside(view, picks, epoch, kind)
    with right:
        _correlations(view.store, epoch)


def _lines(
    view: View, similarity: Similarity, positions: np.ndarray, norm: np.ndarray, length: pd.Series
) -> pd.DataFrame:
    """One line per pick: row, source, length and norm (logarithms), rank."""
    rank = figures.ranking_with(view, view.method, similarity).rank
    return pd.DataFrame(
        {
            "row": view.scoring.rows[positions],
            "source": view.row_columns.source[positions],
            "length": length.to_numpy()[positions],
            "norm": norm[positions],
            "rank": rank[positions],
        }
    )


def _note(table: pd.DataFrame, frame: pd.DataFrame, kind: str, shown: np.ndarray) -> str:
    """Which picks and rows the chart leaves out, and why."""
    parts = []
    if len(table) > figures.MOST_PICKS:
        parts.append(f"{figures.MOST_PICKS:,} of {len(table):,} picks are drawn, evenly over the ranks.")
    if absent := int((~np.isfinite(frame[kind].to_numpy()))[shown].sum()):
        parts.append(f"{plural(absent, 'row')} with a norm of 0 cannot be drawn on a logarithmic axis.")
    return " ".join(parts)


def _marked(epoch: str, kind: str) -> Area | None:
    """The area marked on this chart, from the address or this tab's memory; another chart's area is dropped."""
    address.claim("area")
    area = filters.area_of(st.query_params.get("area", "") or st.session_state.get(_AREA, ""))
    if area is not None and (area.epoch, area.kind) != (epoch, kind):
        area = None
    _remember(str(area) if area else "")
    return area


def _remember(area: str) -> None:
    st.session_state[_AREA] = area
    if area:
        st.query_params["area"] = area
    elif "area" in st.query_params:
        del st.query_params["area"]


def _mark(epoch: str, kind: str, selection: Any) -> None:
    """Keep the box or the outline that was just drawn; the axes are logarithms already."""
    try:
        if selection.get("box"):
            x, y = (sorted(selection["box"][-1][axis]) for axis in "xy")
            area = Area.of_box(epoch, kind, x[0], x[-1], y[0], y[-1])
        else:
            area = Area.of_lasso(epoch, kind, selection["lasso"][-1]["x"], selection["lasso"][-1]["y"])
    except UsageError as error:
        st.session_state[_PROBLEM] = str(error)
        return
    _remember(str(area))


def _offer(area: Area | None, inside: np.ndarray | None, picks: np.ndarray, method: str, chosen: list[str]) -> None:
    """Draw what can be done with the marked rows."""
    if area is None or inside is None:
        st.caption("Draw a box on a chart, or outline an area with the lasso above it, to see those rows in Compare.")
        return
    count = int(inside.sum())
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if st.button(
            f"Show {'this' if count == 1 else 'these'} {plural(count, 'row')} in Compare",
            type="primary",
            key="show-area",
            icon=":material/arrow_forward:",
            icon_position="right",
            disabled=not count,
        ):
            filters.open_compare(area=str(area), scope=filters.POOL, **({"source": chosen} if chosen else {}))
        st.button("Unmark", key="unmark", on_click=_remember, args=("",), icon=":material/close:")
        st.caption(f"{int(inside[picks].sum()):,} of them picked by {label_of(method)}", width="content")


def _beside(view: View, picks: dict[str, np.ndarray], epoch: str, kind: str) -> None:
    st.subheader("What raw dot product would have picked", anchor=False)

    def make() -> pd.DataFrame:
        norm = 10 ** figures.norm_tables(view.store)[epoch][kind].to_numpy()
        return norms.side_by_side(picks["cosine"], picks["dot"], view.row_columns.n_answer, norm)

    table = figures.kept(view, f"beside-{epoch}-{kind}", make)
    st.caption(norm_charts.sentence(table, view.method))
    shown, columns = norm_charts.beside(table, kind)
    tables.show(shown, "Picks by cosine, by raw dot product, and the pool", columns, charts.file_stem("cosine-or-dot"))


def _signed(r: float) -> str:
    return "undefined" if np.isnan(r) else f"{r:.2f}".replace("-", "−")


def _correlations(store: Store, epoch: str) -> None:
    st.subheader("Correlation of norm and answer length", anchor=False)
    lines = figures.norm_correlations(store)
    lines = lines[lines["epoch"] == epoch]
    overall = lines[lines["source"] == ""].set_index("kind")["r"]
    st.caption(
        f"Pearson's r of their logarithms at {epoch}: gradient {_signed(overall['grad_norm'])}, Adam update "
        f"{_signed(overall['update_norm'])} over all rows. In the paper both norms fall with length (figures 3 and 4)."
    )
    table = lines.pivot(index="source", columns="kind", values="r").reindex(lines["source"].unique()).reset_index()
    rows = lines[lines["kind"] == "grad_norm"].set_index("source")["rows"]
    table.insert(1, "rows", table["source"].map(rows))
    table["source"] = table["source"].replace("", "All rows")
    columns: tables.Columns = {
        "source": "Source",
        "rows": st.column_config.NumberColumn("Rows", format="localized"),
        "grad_norm": st.column_config.NumberColumn("r of ‖g‖", format="%.3f"),
        "update_norm": st.column_config.NumberColumn("r of ‖Γ‖", format="%.3f"),
    }
    tables.show(
        table[list(columns)],
        "Correlation of norm and answer length by source",
        columns,
        charts.file_stem(f"correlations-{epoch}"),
    )
