"""The board of the Compare page: a column per method, the same places side by side, page by page."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from app.compare import review
from app.state import address
from app.text import plural
from app.views import filters, highlights
from app.views.comparison import OTHERS, Column, Comparison
from app.views.filters import Filter
from app.views.store import pool_of, sources_of, texts_of
from app.views.view import View
from app.widgets import cards, tables
from gradsift.data.conversation import Conversation
from gradsift.scoring.methods import METHODS
from gradsift.workspace.sessions import Decisions

PAGE = 12  # cards of a column on one page: about four screens; all are redrawn at every key of a search
WIDE = 280  # pixels; by default the pagination hides pages that would fit


@dataclass(frozen=True, slots=True)
class Board:
    """What the columns list. lists: method -> positions in its column, in order, of all pages."""

    view: View
    filter: Filter
    decisions: Decisions
    lists: Mapping[str, np.ndarray]

    @property
    def comparison(self) -> Comparison:
        """The picks that the columns show."""
        return self.view.comparison

    @property
    def longest(self) -> int:
        """Number of cards in the longest column."""
        return max((len(positions) for positions in self.lists.values()), default=0)

    @property
    def noun(self) -> str:
        """What the columns list: `rows` or `picks`."""
        return "rows" if self.filter.scope == filters.POOL or self.filter.show == OTHERS else "picks"


@dataclass(frozen=True, slots=True)
class Page:
    """What the cards of one page are made from, by pool row number.

    records: the pool's columns; texts: conversations; verdicts: only of decided rows.
    """

    first: int
    records: Mapping[int, Mapping[str, Any]]
    texts: Mapping[int, Any]
    sources: list[str]
    search: re.Pattern[str] | None
    verdicts: Mapping[int, str]


def pagination(board: Board) -> None:
    """Draw the page's position in the lists and the pagination, at the right of a row."""
    _reset_page(board)
    page, pages = _number(board), _count(board)
    if pages > 1:
        first = (page - 1) * PAGE
        with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center", gap="small"):
            position = tables.position(
                first, min(PAGE, board.longest - first), board.longest, f"{board.noun} per column"
            )
            st.caption(position, width="content")
            _pagination(page, pages, "above")


def draw(board: Board) -> None:
    """Draw the columns with the pagination below."""
    _reset_page(board)
    number, pages = _number(board), _count(board)
    page = _page(board, (number - 1) * PAGE)
    review.mount(board.view, [_column(board, page, column) for column in board.comparison.columns])
    if pages > 1:
        with st.container(horizontal=True, horizontal_alignment="right"):
            _pagination(number, pages, "below")


def _reset_page(board: Board) -> None:
    """Go to the first page if what is listed changed, unless through an address: a link, the browser's Back."""
    address.claim("page")
    sizes = tuple((column.method, len(column.picks)) for column in board.comparison.columns)
    contents = (board.filter, board.view.choices, sizes)
    if st.session_state.setdefault("board_of", contents) != contents:
        st.session_state.board_of = contents
        if "page" in st.query_params and not address.navigated():
            del st.query_params["page"]


def _count(board: Board) -> int:
    return max(1, -(-board.longest // PAGE))


def _number(board: Board) -> int:
    """The page in the address, or the first if there is no such page."""
    page = st.query_params.get("page", "")
    return int(page) if page.isdecimal() and len(page) < 10 and 1 <= int(page) <= _count(board) else 1


def _pagination(page: int, pages: int, place: str) -> None:
    """A pagination that writes the page into the address, the only place where it is kept."""
    key = f"page_{place}_{page}_{pages}"
    st.pagination(pages, default=page, key=key, on_change=_turn_page, args=(key, page), width=WIDE)


def _turn_page(key: str, page: int) -> None:
    chosen = st.session_state[key]
    if chosen != page:  # a newly drawn pagination, as in a search, may report the page that it was drawn with
        st.query_params["page"] = str(chosen)


def _page(board: Board, first: int) -> Page:
    shown = [positions[first : first + PAGE] for positions in board.lists.values()]
    rows = board.comparison.rows[np.unique(np.concatenate(shown))]
    verdicts = dict.fromkeys(rows[np.isin(rows, board.decisions.accepted)].tolist(), "accept")
    verdicts |= dict.fromkeys(rows[np.isin(rows, board.decisions.rejected)].tolist(), "reject")
    return Page(
        first=first,
        records=pool_of(board.view.store).loc[rows].to_dict("index"),
        texts=texts_of(board.view.store, rows.tolist()),
        sources=sources_of(board.view.store),
        search=highlights.search_pattern(board.filter.q),
        verdicts=verdicts,
    )


def _column(board: Board, page: Page, column: Column) -> dict[str, Any]:
    positions = board.lists[column.method]
    here = positions[page.first : page.first + PAGE]
    low, high = float(column.ranking.score.min()), float(column.ranking.score.max())
    return {
        "key": column.method,
        "name": METHODS[column.method].label,
        "head": _head(board, page, column),
        "cards": [_card(board, page, column, int(at), (low, high)) for at in here],
        "foot": _foot(board, page, column, len(here)),
    }


def _head(board: Board, page: Page, column: Column) -> str:
    facet = filters.facets_of(board.view)["source"]
    shares = {source: int(n) for source, n in zip(facet.values, facet.counts(column.picked), strict=True) if n}
    only = int((board.comparison.shared[column.picks] == 1).sum())
    compared = len(board.comparison.columns)
    return cards.head(column.method, len(column.picks), int(column.tokens), only, compared, shares, page.sources)


def _card(board: Board, page: Page, column: Column, at: int, limits: tuple[float, float]) -> dict[str, Any]:
    row = int(board.comparison.rows[at])
    record, conversation = page.records[row], page.texts[row]["conversation"]
    tokens = plural(int(record["n_prompt_tokens"] + record["n_answer_tokens"]), "token")
    score, (low, high) = float(column.ranking.score[at]), limits
    card = cards.Card(
        method=column.method,
        rank=int(column.ranking.rank[at]),
        score=score,
        share=(score - low) / (high - low) if high > low else 1.0,
        ranks={c.method: (int(c.ranking.rank[at]), bool(c.picked[at])) for c in board.comparison.columns},
        source=str(record["source"]),
        task=str(record["task"] or ""),
        subtask=_subtask(column, at),
        content=conversation,
        foot=(
            str(record["id"]),
            f"{record['file']}, line {int(record['line']):,}",
            tokens + (f", {record['n_cut']:,} cut" if record["n_cut"] else ""),
        ),
        marks=highlights.Marks(page.search, board.filter.role, _words(board, column, at, conversation)),
    )
    return {
        "key": f"{column.method}/{row}",
        "row": row,
        "name": f"{METHODS[column.method].label}, rank {card.rank:,}",
        "kind": cards.kind(card),
        "html": cards.draw(card, page.sources),
        "verdict": page.verdicts.get(row, ""),
        "note": board.decisions.notes.get(row, ""),
    }


def _words(board: Board, column: Column, at: int, conversation: Conversation) -> tuple[str, ...]:
    """The words that BM25 matched in a row, only in BM25's own column."""
    return tuple(highlights.matched(board.view, column, at, conversation)) if column.method == "bm25" else ()


def _subtask(column: Column, at: int) -> str:
    """The subtask that the row serves best; empty if there is only one or it serves none of them."""
    best, names = int(column.ranking.serves(at)), column.ranking.subtasks
    return names[best] if best >= 0 and len(names) > 1 else ""


def _foot(board: Board, page: Page, column: Column, count: int) -> str:
    shown, whole = len(board.lists[column.method]), len(filters.base(board.comparison, column, board.filter))
    noun = f"matching {board.noun}" if shown != whole else board.noun
    if not shown and whole:
        text = f"None of the {plural(whole, board.noun.removesuffix('s'))} matches."
    else:
        text = tables.position(page.first, count, shown, noun)
    return f'<p class="gs-small gs-dim gs-num">{text}</p>'
