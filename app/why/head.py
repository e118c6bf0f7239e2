"""What a row is and where every method ranks it: the head of its page and of its drawer."""

import streamlit as st

from app import theme
from app.pages import room
from app.state.session import Session
from app.text import escape, label, plural
from app.views.comparison import Column, Comparison
from app.views.store import sources_of
from app.why.subject import Subject, row_address
from app.widgets import cards
from gradsift.scoring.methods import METHODS


def draw(subject: Subject) -> None:
    """Draw the head."""
    record, sources = subject.record, sources_of(subject.view.store)
    badges = [cards.badge(str(record["source"]), sources)]
    task = str(record["task"] or "")
    if task and task != record["source"]:
        badges.append(f'<span class="gs-badge gs-plain">{escape(task)}</span>')
    prompt, answer, cut = (int(record[name]) for name in ("n_prompt_tokens", "n_answer_tokens", "n_cut"))
    tokens = f"{plural(prompt + answer, 'token')}, {answer:,} of them learned" if prompt + answer else "no tokens"
    if cut:
        longest = subject.view.store.manifest.config.max_length
        tokens += f"; {plural(cut, 'more token')} cut off at {longest:,}"
    where = f"<bdi>{escape(record['file'])}</bdi>, line {int(record['line']):,} · row {subject.row:,} · {tokens}"
    ranks = "" if subject.position is None else _table(subject.view.comparison, subject.position)
    st.html(
        f'<div class="gs-why"><p class="gs-why-id" dir="auto">{escape(record["id"])}</p>'
        f'<div class="gs-badges">{"".join(badges)}</div><p class="gs-small gs-dim">{where}</p>{ranks}</div>'
    )


def section(title: str) -> None:
    """Draw a heading of the same size on the page and in the drawer, where Streamlit's own are smaller."""
    st.html(f'<h3 class="gs-section">{escape(title)}</h3>')


def link(session: Session, row: int, text: str) -> None:
    """Draw a link to a row's page."""
    with st.container(key=f"why-to-{row}", width="content"):
        st.page_link(
            room("why"),
            label=label(text),
            icon=":material/arrow_forward:",
            icon_position="right",
            query_params=row_address(session, row),
        )


def ranks_line(comparison: Comparison, at: int) -> str:
    """The ranks of the row at position `at` in one line of HTML."""
    parts = []
    for column in comparison.columns:
        name, rank = METHODS[column.method].label, int(column.ranking.rank[at])
        inside = ' class="gs-in"' if column.picked[at] else ""
        title = escape(f"{name}: rank {rank:,}" + (", picked" if column.picked[at] else ""))
        parts.append(f'<span{inside} title="{title}">{_mark(column.method)} {rank:,}</span>')
    return f'<span class="gs-ranks"><span>ranks</span>{"".join(parts)}</span>'


def _table(comparison: Comparison, at: int) -> str:
    head = "<tr><th>Method</th><th>Rank</th><th>Score</th><th>Picked</th><th>Serves best</th></tr>"
    rows = "".join(_line(column, at, len(comparison.rows)) for column in comparison.columns)
    return f'<table class="gs-why-ranks"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def _line(column: Column, at: int, n: int) -> str:
    method, inside = METHODS[column.method], bool(column.picked[at])
    serves = int(column.ranking.serves(at))
    best = column.ranking.subtasks[serves] if serves >= 0 else ""
    picked = '<b class="gs-in">✓ yes</b>' if inside else '<span class="gs-dim">no</span>'
    return (
        f"<tr><td>{_mark(column.method)} {escape(method.label)}</td>"
        f'<td><b>{int(column.ranking.rank[at]):,}</b> <span class="gs-dim">of {n:,}</span></td>'
        f"<td>{cards.number(float(column.ranking.score[at]))}</td><td>{picked}</td>"
        f'<td class="gs-why-best" title="{escape(best)}">{escape(best) or "–"}</td></tr>'
    )


def _mark(method: str) -> str:
    css = theme.css_name(method)
    return f'<span class="gs-mark gs-m-{css}" aria-hidden="true">{theme.look(method).mark}</span>'
