"""The opponents: rows on which training would raise the targets' loss the most, LESS's lowest scores."""

import streamlit as st

from app.state import address
from app.state.session import Session
from app.text import escape, label, plural
from app.views import store as data
from app.why import head as why_head
from app.why import subject as explaining
from app.widgets import cards, conversation, tables
from gradsift.datastore.store import Store
from gradsift.runtime.errors import GradsiftError
from gradsift.scoring.choices import Choices
from gradsift.scoring.scoring import Scoring

PAGE = 10
ALL = "all"


def draw(now: Session, store: Store, scoring: Scoring, choices: Choices) -> None:
    """Draw the list, lowest first, page by page."""
    if not scoring.has("less", choices.gradient):
        st.caption("The targets are not scored by LESS, whose scores tell opponents: score them by it too.")
        return
    try:
        subtask = _subtask(scoring, choices)
        ranking, order = explaining.against(store, scoring, choices, subtask)
    except GradsiftError as error:
        st.error(label(error))
        return
    below = int((ranking.score < 0).sum())
    over = _over(subtask, len(ranking.subtasks), choices)
    if below:
        said = (
            f"{below:,} of {plural(len(order), 'row')} score below 0 {over}: their gradient points away from the "
            "targets, so that training on them would raise the targets' loss."
        )
    else:
        said = f"No row of {len(order):,} scores below 0 {over}, so none opposes the targets; these score lowest."
    st.html(f'<p class="gs-small gs-dim">{said}</p>')
    listed = order[: below or PAGE]
    pages = -(-len(listed) // PAGE)
    page = st.pagination(pages, key=f"opponents-{subtask}-{pages}", width=280) if pages > 1 else 1
    first = (page - 1) * PAGE
    here = listed[first : first + PAGE]
    _cards(now, store, ranking.rows[here].tolist(), ranking.score[here].tolist(), first)
    st.caption(tables.position(first, len(here), len(listed), "opponents" if below else "rows"))


def _over(subtask: str, subtasks: int, choices: Choices) -> str:
    """For what the scores of the list are, as HTML."""
    if subtask:
        return f"for <bdi>{escape(subtask)}</bdi>"
    if subtasks == 1:
        return "for these targets"
    return "in the mean over subtasks" if choices.aggregate == "mean" else "for every subtask"


def _subtask(scoring: Scoring, choices: Choices) -> str:
    """The subtask that is looked at; empty for all of them."""
    left = scoring.under(choices)
    names = left.subtask_names
    if len(names) < 2:
        return ""
    numbers = {str(j): name for j, name in enumerate(names)}
    options = [ALL, *numbers]
    with address.held("against", options, default=ALL):
        chosen = st.selectbox(
            "Opposed to",
            options,
            key="against",
            format_func=lambda number: "every subtask" if number == ALL else numbers[number],
            width=320,
        )
    return numbers.get(chosen, "")


def _cards(now: Session, store: Store, rows: list[int], scores: list[float], first: int) -> None:
    pool, texts, sources = data.pool_of(store), data.texts(store, rows), data.sources_of(store)
    grid = st.grid(2, min_column_width=380, gap="medium")
    for number, (row, value) in enumerate(zip(rows, scores, strict=True), start=first + 1):
        about, text = pool.loc[row], texts[row]
        turns = [(turn["role"], turn["content"]) for turn in text["messages"]]
        with grid.cell():
            st.html(
                '<article class="gs-card gs-opponent"><div class="gs-top">'
                f'<span class="gs-rank">{number:,}</span><span class="gs-score">{cards.number(value)}</span></div>'
                f'<div class="gs-badges">{cards.badge(str(about["source"]), sources)}</div>'
                f"{conversation.draw(turns, str(text['prefix'] or ''))}"
                f'<p class="gs-foot">{escape(about["id"])}</p></article>'
            )
            why_head.link(now, row, f"Why row {row:,}")
