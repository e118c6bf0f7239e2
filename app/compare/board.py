"""The board of the Compare page: a column per method, the same places side by side, page by page."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from app.compare import review
from app.state import address
from app.state.session import Session
from app.text import plural
from app.views import filters
from app.views import highlights as marking
from app.views import store as data
from app.views.comparison import Column, Comparison
from app.views.filters import Filter
from app.widgets import cards, tables
from gradsift.datastore.store import Store
from gradsift.scoring.methods import METHODS
from gradsift.scoring.scoring import Scoring
from gradsift.selection.choices import Choices
from gradsift.workspace.sessions import Decisions

PAGE = 12  # cards of a column on one page: some four screens; all of them are drawn anew at every key of a search
WIDE = 280  # pixels; left to itself the pagination hides pages that would fit


@dataclass(frozen=True, slots=True)
class View:
    """What is on the board. lists: the positions of every method's column, in order, all pages of it."""

    store: Store
    scoring: Scoring
    comparison: Comparison
    choices: Choices
    wanted: Filter
    decided: Decisions
    lists: Mapping[str, np.ndarray]

    @property
    def longest(self) -> int:
        """Cards of the longest column."""
        return max((len(positions) for positions in self.lists.values()), default=0)

    @property
    def noun(self) -> str:
        """What the columns list."""
        return "rows" if self.wanted.scope == filters.POOL or self.wanted.show == "others" else "picks"


@dataclass(frozen=True, slots=True)
class Page:
    """What the cards of one page are made from.

    about: the pool's columns by pool row number; texts: likewise; verdicts: of the rows that have one.
    """

    first: int
    about: Mapping[int, Mapping[str, Any]]
    texts: Mapping[int, Any]
    sources: list[str]
    search: re.Pattern[str] | None
    verdicts: Mapping[int, str]


def turner(view: View) -> None:
    """Where in the lists the page stands, and the pagination, at the right of a row."""
    _begin_again(view)
    page, pages = _number(view), _count(view)
    if pages > 1:
        first = (page - 1) * PAGE
        with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center", gap="small"):
            position = tables.position(first, min(PAGE, view.longest - first), view.longest, f"{view.noun} a column")
            st.caption(position, width="content")
            _turner(page, pages, "above")


def draw(now: Session, view: View) -> None:
    """Draw the columns, with the pages below."""
    _begin_again(view)
    number, pages = _number(view), _count(view)
    page = _page(view, (number - 1) * PAGE)
    review.mount(now, view.store, [_column(view, page, column) for column in view.comparison.columns])
    if pages > 1:
        with st.container(horizontal=True, horizontal_alignment="right"):
            _turner(number, pages, "below")


def _begin_again(view: View) -> None:
    """Go to the first page when something else is asked for, unless by an address: a link, the browser's Back."""
    address.own("page")
    sizes = tuple((column.method, len(column.picks)) for column in view.comparison.columns)
    asked = (view.wanted, view.choices, sizes)
    if st.session_state.setdefault("board_of", asked) != asked:
        st.session_state.board_of = asked
        if "page" in st.query_params and not address.navigated():
            del st.query_params["page"]


def _count(view: View) -> int:
    return max(1, -(-view.longest // PAGE))


def _number(view: View) -> int:
    """The page that the address asks for, the first where there is no such page."""
    asked = st.query_params.get("page", "")
    return int(asked) if asked.isdecimal() and len(asked) < 10 and 1 <= int(asked) <= _count(view) else 1


def _turner(page: int, pages: int, place: str) -> None:
    """A pagination that writes the page into the address, which is the only place that keeps it."""
    key = f"page_{place}_{page}_{pages}"
    st.pagination(pages, default=page, key=key, on_change=_turn, args=(key, page), width=WIDE)


def _turn(key: str, page: int) -> None:
    turned = st.session_state[key]
    if turned != page:  # a pagination that is new on the page, as a search's, may tell of the page that it was given
        st.query_params["page"] = str(turned)


def _page(view: View, first: int) -> Page:
    shown = [positions[first : first + PAGE] for positions in view.lists.values()]
    rows = view.comparison.rows[np.unique(np.concatenate(shown))]
    verdicts = dict.fromkeys(rows[np.isin(rows, view.decided.accepted)].tolist(), "accept")
    verdicts |= dict.fromkeys(rows[np.isin(rows, view.decided.rejected)].tolist(), "reject")
    return Page(
        first=first,
        about=data.pool_of(view.store).loc[rows].to_dict("index"),
        texts=data.texts(view.store, rows.tolist()),
        sources=data.sources_of(view.store),
        search=marking.search_pattern(view.wanted.q),
        verdicts=verdicts,
    )


def _column(view: View, page: Page, column: Column) -> dict[str, Any]:
    positions = view.lists[column.method]
    here = positions[page.first : page.first + PAGE]
    low, high = float(column.ranking.score.min()), float(column.ranking.score.max())
    return {
        "key": column.method,
        "name": METHODS[column.method].label,
        "head": _head(view, page, column),
        "cards": [_card(view, page, column, int(at), (low, high)) for at in here],
        "foot": _foot(view, page, column, len(here)),
    }


def _head(view: View, page: Page, column: Column) -> str:
    facet = filters.facets_of(view.store, view.scoring)["source"]
    shares = {source: int(n) for source, n in zip(facet.values, facet.counts(column.picked), strict=True) if n}
    only = int((view.comparison.shared[column.picks] == 1).sum())
    compared = len(view.comparison.columns)
    return cards.head(column.method, len(column.picks), int(column.tokens), only, compared, shares, page.sources)


def _card(view: View, page: Page, column: Column, at: int, limits: tuple[float, float]) -> dict[str, Any]:
    row = int(view.comparison.rows[at])
    about, text = page.about[row], page.texts[row]
    tokens = plural(int(about["n_prompt_tokens"] + about["n_answer_tokens"]), "token")
    score, (low, high) = float(column.ranking.score[at]), limits
    turns = [(turn["role"], turn["content"]) for turn in text["messages"]]
    card = cards.Card(
        method=column.method,
        rank=int(column.ranking.rank[at]),
        score=score,
        share=(score - low) / (high - low) if high > low else 1.0,
        ranks={c.method: (int(c.ranking.rank[at]), bool(c.picked[at])) for c in view.comparison.columns},
        source=str(about["source"]),
        task=str(about["task"] or ""),
        subtask=_subtask(column, at),
        turns=turns,
        prefix=str(text["prefix"] or ""),
        foot=(
            str(about["id"]),
            f"{about['file']}, line {int(about['line']):,}",
            tokens + (f", {about['n_cut']:,} cut" if about["n_cut"] else ""),
        ),
        marks=marking.Marks(page.search, view.wanted.role, _words(view, column, at, turns)),
    )
    return {
        "key": f"{column.method}/{row}",
        "row": row,
        "name": f"{METHODS[column.method].label}, rank {card.rank:,}",
        "kind": cards.kind(card),
        "html": cards.draw(card, page.sources),
        "verdict": page.verdicts.get(row, ""),
        "note": view.decided.notes.get(row, ""),
    }


def _words(view: View, column: Column, at: int, turns: list[tuple[str, str]]) -> tuple[str, ...]:
    """The words by which BM25 ranks a row, in its own column alone."""
    return tuple(marking.matched(view.scoring, view.choices, column, at, turns)) if column.method == "bm25" else ()


def _subtask(column: Column, at: int) -> str:
    """The subtask that the row serves best, where there is more than one and it serves any."""
    best, names = int(column.ranking.serves(at)), column.ranking.subtasks
    return names[best] if best >= 0 and len(names) > 1 else ""


def _foot(view: View, page: Page, column: Column, count: int) -> str:
    shown, whole = len(view.lists[column.method]), len(filters.base(view.comparison, column, view.wanted))
    noun = f"matching {view.noun}" if shown != whole else view.noun
    if not shown and whole:
        text = f"None of the {plural(whole, view.noun.removesuffix('s'))} matches."
    else:
        text = tables.position(page.first, count, shown, noun)
    return f'<p class="gs-small gs-dim gs-num">{text}</p>'
