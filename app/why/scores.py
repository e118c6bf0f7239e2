"""A row's scores in detail: every subtask and every target example at every checkpoint, as heat maps and tables."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st

from app import theme
from app.text import clip
from app.why import head
from app.why.subject import Subject
from app.widgets import charts, tables
from gradsift.analysis.row import by_subtask, by_target
from gradsift.config import Aggregate
from gradsift.data.pool import Row
from gradsift.scoring.methods import METHODS
from gradsift.text.words import tokenize

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST = 40  # lines of a heat map that are still readable
_LINE = 26  # pixels
_SCALE = {  # below the map, so that it takes no width
    **{"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yref": "container", "yanchor": "bottom"},
    **{"thickness": 8, "len": 0.7, "outlinewidth": 0, "nticks": 5},
}
SUM = "weighted sum"
_STAR: dict[Aggregate, str] = {
    "max": "the subtask that wins; its score ranks the row",
    "mean": "the highest subtask; the mean over all of them ranks the row",
    "round-robin": "the subtask in whose turn the row was taken",
}


def draw(subject: Subject, position: int, lens: str) -> None:
    """Draw how the method `lens` scores the row, which is at `position` among its scored rows."""
    if METHODS[lens].compares_words:
        _words(subject, position, lens)
        return
    grid = st.grid(2, min_column_width=460, gap="large")
    with grid.cell():
        _subtasks(subject, position, lens)
    with grid.cell():
        _targets(subject, position, lens)


def winner(subject: Subject, position: int, lens: str) -> int:
    """Index of the subtask that won the row, among those not left out."""
    column = subject.view.comparison.column(lens)
    return int(column.ranking.best_subtask[position])


def _subtasks(subject: Subject, position: int, lens: str) -> None:
    choices, names = subject.view.choices, subject.left.subtask_names
    values = by_subtask(subject.left, lens, position, choices.gradient, choices.similarity, choices.target_pooling)
    best = winner(subject, position, lens)
    unit = "dot product" if choices.similarity == "dot" else "cosine"
    table = _table(values, _checkpoints(subject, lens), pd.DataFrame({"subtask": names}))
    shown = _best(values)
    labels = [("★ " if j == best else "") + charts.tick(names[j], 17) for j in shown]
    few = f" The {MOST} highest of {len(names):,} are drawn; the table has all." if len(names) > MOST else ""
    _show(
        "score-by-subtask",
        _heat(
            values[shown],
            labels,
            [charts.tick(names[j], 80) for j in shown],
            _checkpoints(subject, lens),
            "Score by subtask",
            unit,
        ),
        f"Heat map of the row's score for {len(shown)} subtasks at every checkpoint. A star marks {names[best]} with "
        f"{values[best, -1]:+.3f}.",
        f"★ {_STAR[choices.aggregate]}. Each score compares the row with all targets of a subtask at once.{few}",
        table,
    )


def _targets(subject: Subject, position: int, lens: str) -> None:
    values = by_target(subject.left, lens, position, subject.view.choices.gradient)
    targets, examples = subject.left.targets, _numbers(subject)
    lines = {
        "example": examples,
        "subtask": [target.subtask for target in targets],
        "question": [_asks(target, 160) for target in targets],
    }
    shown = _best(values)
    labels = [f"{examples[k]} · {charts.tick(targets[k].subtask, 13)}" for k in shown]
    hover = [f"example {examples[k]}: {charts.tick(_asks(targets[k], 80), 80)}" for k in shown]
    best = shown[0]
    few = f" The {MOST} highest of {len(targets):,} are drawn; the table has all." if len(targets) > MOST else ""
    _show(
        "score-by-target",
        _heat(values[shown], labels, hover, _checkpoints(subject, lens), "Score by target example", "cosine"),
        f"Heat map of the row's cosine with {len(shown)} target examples at every checkpoint. The highest is example "
        f"{examples[best]} of {targets[best].subtask} with {values[best, -1]:+.3f}.",
        f"Highest first; blue agrees, amber opposes.{few}",
        _table(values, _checkpoints(subject, lens), pd.DataFrame(lines)),
    )


def _words(subject: Subject, position: int, lens: str) -> None:
    """Draw what a method that compares words matched, target by target."""
    values = by_target(subject.left, lens, position)[:, -1]
    row_words = set(tokenize(subject.conversation.text))
    targets = subject.left.targets
    words = [
        [word for word in dict.fromkeys(tokenize(target.conversation.text)) if word in row_words] for target in targets
    ]
    frame = pd.DataFrame(
        {
            "example": _numbers(subject),
            "subtask": [target.subtask for target in targets],
            "question": [_asks(target, 160) for target in targets],
            "score": values,
            "matched words": [", ".join(shared) for shared in words],
            "words": [len(shared) for shared in words],
        }
    )
    head.section(f"{METHODS[lens].label} score by target example")
    st.dataframe(
        frame.iloc[np.argsort(-values, kind="stable")],
        hide_index=True,
        column_config={
            "score": st.column_config.NumberColumn(format="%.3f"),
            "matched words": st.column_config.TextColumn(width="large"),
        },
        alt=f"{METHODS[lens].label} score of the row for every target example, with the words that both have",
        key="why-words",
    )
    st.caption(f"Words that row and target share; rarer words add more to the {METHODS[lens].label} score.")


def numbers(table: pd.DataFrame, name: str, alt: str, columns: tables.Columns | None = None) -> None:
    """Draw a folded table, unpaged so that it can be sorted, with its CSV file."""
    stem = charts.file_stem(name)
    with st.expander("Show as a table", key=f"numbers-{name}"):
        st.dataframe(table, hide_index=True, column_config=columns, alt=alt, key=f"table-{name}")
        tables.csv_button(table, stem, f"{stem}.csv", f"csv-{name}")


def _show(name: str, figure: "go.Figure", alt: str, note: str, table: pd.DataFrame) -> None:
    st.plotly_chart(figure, config=charts.config(charts.file_stem(name)), key=f"why-{name}", alt=alt)
    st.caption(note)
    numbers(table, name, alt, {"question": st.column_config.TextColumn("question", width="large")})


def _heat(
    values: np.ndarray,
    names: list[str],
    hover: list[str],
    checkpoints: list[tuple[str, float]],
    title: str,
    unit: str,
) -> "go.Figure":
    """Lines of values around zero by checkpoint. values: (R, N + 1); names, hover: R, as `charts.tick` has them."""
    import plotly.graph_objects as go

    columns = [f"{epoch}<br>× {weight:.2f}" for epoch, weight in checkpoints] + ["weighted<br>sum"]
    peak = float(np.abs(values).max()) or 1.0
    figure = charts.blank(title, f"{unit}, by checkpoint and its weight", _LINE * len(values) + 162)
    figure.add_trace(
        go.Heatmap(
            z=values,
            x=columns,
            y=list(range(len(values))),
            customdata=np.repeat(np.array(hover, dtype=object)[:, None], len(columns), 1),
            colorscale=theme.diverging(charts.dark()),
            zmin=-peak,
            zmax=peak,
            xgap=2,
            ygap=2,
            textfont={"color": theme.INK[charts.dark()]},
            texttemplate="%{z:+.3f}" if peak < 100 else "%{z:+.3g}",
            hovertemplate="%{customdata}<br>%{x}<br>%{z:+.5f}<extra></extra>",
            colorbar={**_SCALE, "tickfont": {"color": charts.dim()}},
        )
    )
    figure.update_layout(margin={"t": 112, "b": 48})
    figure.update_xaxes(side="top", showgrid=False, ticks="", tickangle=0, tickfont_size=10)
    figure.update_yaxes(
        autorange="reversed", tickvals=list(range(len(names))), ticktext=names, showgrid=False, ticks=""
    )
    return figure


def _table(values: np.ndarray, checkpoints: list[tuple[str, float]], names: pd.DataFrame) -> pd.DataFrame:
    """All lines, highest first, with the values of every checkpoint and their weighted sum."""
    columns = {epoch: values[:, at] for at, (epoch, _) in enumerate(checkpoints)}
    return names.assign(**columns, **{SUM: values[:, -1]}).iloc[np.argsort(-values[:, -1], kind="stable")]


def _best(values: np.ndarray) -> list[int]:
    """The lines that a heat map shows, highest first."""
    return np.argsort(-values[:, -1], kind="stable")[:MOST].tolist()


def _checkpoints(subject: Subject, lens: str) -> list[tuple[str, float]]:
    """Name and weight of the checkpoints behind the method's values; some methods use only the base model."""
    if METHODS[lens].needs == "base model":
        return [("base model", 1.0)]
    return list(zip(subject.left.epochs, subject.left.weights.tolist(), strict=True))


def _numbers(subject: Subject) -> list[int]:
    """Every target's number in the whole set, from 1."""
    left = subject.left
    return [1 + k for k in (range(len(left.targets)) if left.columns is None else left.columns.tolist())]


def _asks(target: Row, length: int) -> str:
    return clip(next((turn.text for turn in target.messages if turn.role == "user"), target.messages[0].text), length)
