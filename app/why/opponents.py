"""Opponents: the rows with LESS's lowest scores, on which training would raise the targets' loss the most."""

import streamlit as st

from app.state import address
from app.text import escape, label, plural
from app.views.store import pool_of, sources_of, texts_of
from app.views.view import View
from app.why import head
from app.why.subject import opponents_of
from app.widgets import cards, conversation, tables
from gradsift.runtime.errors import GradsiftError
from gradsift.scoring.choices import Choices

PAGE = 10
ALL = "all"


def draw(view: View) -> None:
    """Draw the list, lowest first, page by page."""
    title = st.empty()
    title.subheader("Opponents", anchor=False)
    if not view.scoring.has("less", view.choices.gradient):
        st.caption("LESS scores reveal opponents, and these targets have none yet: score them with LESS as well.")
        return
    try:
        subtask = _subtask(view)
        ranking, order = opponents_of(view, subtask)
    except GradsiftError as error:
        st.error(label(error))
        return
    below = int((ranking.score < 0).sum())
    over = _over(subtask, len(ranking.subtasks), view.choices)
    if below:
        text = (
            f"{below:,} of {plural(len(order), 'row')} score below 0 {over}: their gradients point away from the "
            "targets, so training on them would raise the targets' loss."
        )
    else:
        title.subheader("Lowest-scoring rows", anchor=False)
        text = f"None of the {len(order):,} rows scores below 0 {over}: no row opposes the targets. These score lowest."
    st.html(f'<p class="gs-small gs-dim">{text}</p>')
    listed = order[: below or PAGE]
    pages = -(-len(listed) // PAGE)
    page = st.pagination(pages, key=f"opponents-{subtask}-{pages}", width=280) if pages > 1 else 1
    first = (page - 1) * PAGE
    here = listed[first : first + PAGE]
    _cards(view, ranking.rows[here].tolist(), ranking.score[here].tolist(), first)
    st.caption(tables.position(first, len(here), len(listed), "opponents" if below else "rows"))


def _over(subtask: str, subtasks: int, choices: Choices) -> str:
    """What the scores of the list refer to, as HTML."""
    if subtask:
        return f"for <bdi>{escape(subtask)}</bdi>"
    if subtasks == 1:
        return "for these targets"
    return "on average over subtasks" if choices.aggregate == "mean" else "for every subtask"


def _subtask(view: View) -> str:
    """Draw the choice of a subtask; returns its name, empty for all of them."""
    names = view.left.subtask_names
    if len(names) < 2:
        return ""
    numbers = {str(j): name for j, name in enumerate(names)}
    options = [ALL, *numbers]
    with address.bound("against", options, default=ALL):
        chosen = st.selectbox(
            "Opposed to",
            options,
            key="against",
            format_func=lambda number: "every subtask" if number == ALL else numbers[number],
            width=320,
        )
    return numbers.get(chosen, "")


def _cards(view: View, rows: list[int], scores: list[float], first: int) -> None:
    pool, texts, sources = pool_of(view.store), texts_of(view.store, rows), sources_of(view.store)
    grid = st.grid(2, min_column_width=380, gap="medium")
    for number, (row, value) in enumerate(zip(rows, scores, strict=True), start=first + 1):
        record = pool.loc[row]
        with grid.cell():
            st.html(
                '<article class="gs-card gs-opponent"><div class="gs-top">'
                f'<span class="gs-rank">{number:,}</span><span class="gs-score">{cards.number(value)}</span></div>'
                f'<div class="gs-badges">{cards.badge(str(record["source"]), sources)}</div>'
                f"{conversation.draw(texts[row]['conversation'])}"
                f'<p class="gs-foot">{escape(record["id"])}</p></article>'
            )
            head.link(view.session, row, f"Why row {row:,}")
