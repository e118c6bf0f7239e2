"""Two sides and what their picks have in common: counts, shares per source, the rows that only one picks."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import theme
from app.sessions import sides
from app.sessions.sides import Opened, Side, Source
from app.state import address
from app.state.session import Session
from app.text import clip, escape, label, plural
from app.views.choices import methods_in
from app.views.comparison import budget_problem
from app.views.store import pool_of, sources_of, texts_of
from app.widgets import cards, conversation, empty, saved, tables
from gradsift.analysis.difference import Difference
from gradsift.runtime.errors import GradsiftError, UsageError
from gradsift.scoring.methods import METHODS

PAGE = 10  # rows of each list on one page


def draw(session: Session, sources: list[Source]) -> None:
    """Draw the choice of two sides and the difference between them."""
    if not sources:
        empty.say(
            "Nothing to compare yet",
            "Once a target set is scored, you can compare the picks of two sessions or of two stores.",
            "targets",
            "Choose targets",
        )
        return
    left, right = st.columns(2, gap="large")
    with left:
        a = _side(session, "a", sources, sources[0], 0)
    with right:
        b = _side(session, "b", sources, *_other(session, sources))
    if a is None or b is None:
        return
    difference = sides.differ(a, b)
    _figures(a, b, difference)
    _by_source(a, b, difference)
    _lists(a, b, difference)


def _other(session: Session, sources: list[Source]) -> tuple[Source, int]:
    """What side B shows at first, source and method index: another source if there is one, else another method."""
    others = [source for source in sources[1:] if source.record or source.store != sources[0].store]
    return (others[0], 0) if others else (sources[0], 1)


def _side(session: Session, name: str, sources: list[Source], default: Source, at: int) -> Side | None:
    """Draw the fields of one side; returns its picks, or None with a sentence on the page if something is missing."""
    known = {source.key: source for source in sources}
    titles = _titles(session, sources)
    with address.bound(name, list(known), default=default.key):
        key = st.selectbox(
            f"Side {name.upper()}",
            list(known),
            key=name,
            format_func=titles.__getitem__,
            on_change=_reset,
            args=(name,),
        )
    source = known[key or default.key]
    try:
        of = sides.opened(session, source)
        method, budget = _fields(name, of, at if source == default else 0)
        side = sides.side(of, method, budget)
    except UsageError as error:
        st.info(label(error))
        return None
    except (GradsiftError, OSError) as error:
        st.error(label(error))
        return None
    st.html(f'<p class="gs-small gs-dim" style="margin:0">{escape(_about(side))}</p>')
    return side


def _fields(name: str, of: Opened, at: int) -> tuple[str, str]:
    methods = list(of.methods)
    first = methods_in(of.source.address, methods)
    default = first[at % len(first)] if len(first) > at else methods[at % len(methods)]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        with address.bound(f"{name}-method", methods, default=default):
            method = st.selectbox(
                "Method", methods, key=f"{name}-method", format_func=lambda m: METHODS[m].label, width=150
            )
        with address.bound(f"{name}-budget", None, default=of.source.budget):
            budget = st.text_input(
                "Budget", key=f"{name}-budget", max_chars=24, width=150, help="5%, 200 (rows) or 50000tokens"
            )
    text = (budget or "").strip() or of.source.budget
    if problem := budget_problem(text):
        raise UsageError(problem)
    return method or default, text


def _reset(name: str) -> None:
    """Forget a side's method and budget: a new source brings its own."""
    for key in (f"{name}-method", f"{name}-budget"):
        address.forget(key)


def _titles(session: Session, sources: list[Source]) -> dict[str, str]:
    """Source key -> title. Titles are unique, since a browser sends back the title, not the key."""
    plain = {source.key: _title(session, source) for source in sources}
    counts = Counter(plain.values())
    return {
        source.key: plain[source.key]
        if counts[plain[source.key]] == 1 and (source.record is None or source.record.name.strip())
        else f"{plain[source.key]} · {source.key.rpartition(':')[2]}"
        for source in sources
    }


def _title(session: Session, source: Source) -> str:
    names = f"{clip(Path(source.store).name, 32)}, {clip(source.targets, 32)}"
    if source.record is None:
        return f"Store {names}"
    mark = " (this one)" if source.record.id == session.session_id else ""
    return f"{saved.title(source.record)}{mark}: {names}"


def _about(side: Side) -> str:
    """How many rows the side picks, and under which what-ifs and decisions."""
    of = side.opened
    changed = {name: value for name, value in of.choices.changed.items() if name not in ("accepted", "rejected")}
    if changed.get("gradient") == of.store.manifest.config.gradients[0]:
        del changed["gradient"]
    parts = [f"{plural(len(side.rows), 'pick')}, {plural(side.column.tokens, 'token')}"]
    parts += [f"{name.replace('_', ' ')}: {_value(value)}" for name, value in changed.items()]
    if len(of.decisions.accepted) or len(of.decisions.rejected):
        parts.append(f"with {len(of.decisions.accepted):,} accepted and {len(of.decisions.rejected):,} rejected rows")
    return " · ".join(parts)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return clip(", ".join(str(v) for v in value), 60)
    return "yes" if value is True else str(value)


def _figures(a: Side, b: Side, difference: Difference) -> None:
    figures = {
        "in both": f"{len(difference.both):,}",
        "only in A": f"{len(difference.only_a):,}",
        "only in B": f"{len(difference.only_b):,}",
        "of all picks in both": f"{difference.overlap:.0%}",
    }
    cells = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in figures.items())
    st.space("small")
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.html(f'<div class="gs-figures">{cells}</div>')
        st.download_button(
            "Download the difference as CSV",
            lambda: tables.csv(difference.table()),
            file_name="difference.csv",
            mime="text/csv",
            icon=":material/download:",
            on_click="ignore",
            key="difference-csv",
            width="content",
        )
    if a.store.fingerprint != b.store.fingerprint:
        st.caption("Two stores: a row is the same where its line in the pool file is the same, byte for byte.")


def _by_source(a: Side, b: Side, difference: Difference) -> None:
    table = difference.by_source()
    for name in ("a", "b"):
        table[f"share_{name}"] = 100 * table[f"picks_{name}"] / max(1, table[f"picks_{name}"].sum())
    number, share = st.column_config.NumberColumn, st.column_config.ProgressColumn
    config: tables.Columns = {
        "source": st.column_config.TextColumn("Source", width="medium"),
        "share_a": share("Share of A", format="%.0f%%", min_value=0, max_value=100),
        "share_b": share("Share of B", format="%.0f%%", min_value=0, max_value=100),
        "both": number("In both", format="localized"),
        "only_a": number("Only in A", format="localized"),
        "only_b": number("Only in B", format="localized"),
    }
    st.dataframe(
        table[list(config)],
        hide_index=True,
        column_config=config,
        alt="Picks of both sides by source",
        key="difference-by-source",
        height="content" if len(table) <= 12 else 400,
    )


def _lists(a: Side, b: Side, difference: Difference) -> None:
    longest = max(len(difference.only_a), len(difference.only_b))
    if not longest:
        empty.say("No difference", "Both sides pick the same rows.")
        return
    pages = -(-longest // PAGE)
    page = st.pagination(pages, key=f"difference-page-{pages}", width=280) if pages > 1 else 1
    left, right = st.columns(2, gap="large")
    left.html(_list("AB", a, b, difference.only_a, (page - 1) * PAGE))
    right.html(_list("BA", b, a, difference.only_b, (page - 1) * PAGE))


def _list(names: str, of: Side, other: Side, only: np.ndarray, first: int) -> str:
    """A page of the rows that only one side picks, as HTML. names: the letters of this side and the other."""
    shown = only[first : first + PAGE]
    rows = of.rows[shown].tolist()
    texts, there = texts_of(of.store, rows), sides.places(other, of, rows)
    pool = pool_of(of.store).loc[rows]
    method = of.column.method
    title = f"Only in {names[0]}"
    where = tables.position(first, len(shown), len(only), "rows")
    head = (
        f'<div class="gs-head gs-m-{theme.css_name(method)}"><h3>{escape(title)}</h3>'
        f"<p>{escape(METHODS[method].label)} · {escape(where)}</p></div>"
    )
    return head + "".join(
        _card(of, other, int(at), pool.loc[row], texts[row], _elsewhere(names[1], there.get(row)))
        for at, row in zip(shown, rows, strict=True)
    )


def _elsewhere(name: str, rank: int | None) -> str:
    return f"rank {rank:,} in {name}" if rank else f"not among the rows scored in {name}"


def _card(of: Side, other: Side, at: int, record: pd.Series, text: Mapping[str, Any], elsewhere: str) -> str:
    """One row that only `of` picks, as HTML. elsewhere: a note on where the other side ranks it."""
    ranking, position = of.column.ranking, int(of.column.picks[at])
    sources = sources_of(of.store)
    badges = cards.badge(str(record["source"]), sources)
    if record["task"] and record["task"] != record["source"]:
        badges += f'<span class="gs-badge gs-plain">{escape(record["task"])}</span>'
    badges += "".join(
        f'<span class="gs-badge gs-plain">{verdict}</span>' for verdict in _decided(of, other, int(of.rows[at]))
    )
    foot = f"{record['id']} · {record['file']}, line {int(record['line']):,}"
    return (
        f'<article class="gs-card gs-m-{theme.css_name(of.column.method)}">'
        f'<div class="gs-top"><span class="gs-rank">{int(ranking.rank[position]):,}</span>'
        f'<span class="gs-score">{cards.number(float(ranking.score[position]))}</span></div>'
        f'<div class="gs-ranks"><span>{escape(elsewhere)}</span></div><div class="gs-badges">{badges}</div>'
        f'{conversation.draw(text["conversation"])}<p class="gs-foot">{escape(foot)}</p></article>'
    )


def _decided(of: Side, other: Side, row: int) -> list[str]:
    """Badges that say which decision made only one side pick the row, if any."""
    verdicts = ["accepted here"] if row in of.opened.decisions.accepted else []
    same = of.store.fingerprint == other.store.fingerprint
    return verdicts + (["rejected there"] if same and row in other.opened.decisions.rejected else [])
