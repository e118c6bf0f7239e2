"""Why a row is picked: everything known about one row, on its page and in a drawer over any other page."""

from collections.abc import Sequence

import streamlit as st

from app.state.session import Session
from app.text import clip, escape, label, plural
from app.views import decisions as deciding
from app.views import store as data
from app.why import head as why_head
from app.why import scores as why_scores
from app.why import subject as explaining
from app.why import tokens as why_tokens
from app.why.subject import Subject
from app.widgets import conversation, score
from gradsift.analysis.row import best_target, by_target
from gradsift.datastore.store import Store
from gradsift.runtime.errors import GradsiftError
from gradsift.scoring.choices import Choices
from gradsift.scoring.methods import METHODS
from gradsift.scoring.scoring import Scoring

TWINS = 20  # near-duplicates that are listed; the rest is counted


def drawer(
    now: Session, store: Store, scoring: Scoring, row: int, methods: Sequence[str], budget: str, choices: Choices
) -> None:
    """Open the drawer on pool row `row`; call it once in a run, in the branch of the button that asks for it."""
    _drawer(now, store, scoring, row, methods, budget, choices)


@st.dialog("Why this row", position="right", width="large", on_dismiss="rerun")
def _drawer(
    now: Session, store: Store, scoring: Scoring, row: int, methods: Sequence[str], budget: str, choices: Choices
) -> None:
    draw(now, store, scoring, row, methods, budget, choices)
    why_head.link(now, row, "Open this row on a page of its own")


def draw(
    now: Session, store: Store, scoring: Scoring, row: int, methods: Sequence[str], budget: str, choices: Choices
) -> None:
    """Draw everything known about pool row `row`, one of the pool's, under the methods' rankings at this budget."""
    try:
        subject = explaining.subject(now, store, scoring, row, methods, budget, choices)
    except GradsiftError as error:
        st.error(label(error))
        return
    why_head.draw(subject)
    position = subject.position
    if position is None:
        st.info(label(f"This row is excluded, so no method scores it: {subject.reason}."), icon=":material/block:")
        st.html(_pane("This row", _said(subject)))
        return
    _decide(subject)
    lens = _lens(subject)
    if not lens:
        st.html(_pane("This row", _said(subject)))
        st.caption("Choose a method that looks at the targets to see which of them this row serves.")
    else:
        _beside(subject, position, lens)
        why_scores.draw(subject, position, lens)
    why_tokens.draw(subject)
    _twins(subject)


def _said(subject: Subject) -> str:
    """The row's conversation; of a row that could not be read as one, its line as it stands in the file."""
    if subject.turns:
        return conversation.unfolded(subject.turns, str(subject.text["prefix"] or ""))
    raw = subject.store.texts([subject.row])["raw"].iloc[0] or b""
    return conversation.unfolded([("line", raw.decode("utf-8", "replace"))])


def _lens(subject: Subject) -> str:
    """Through which method's eyes the row is shown."""
    lenses = subject.lenses
    if len(lenses) < 2:
        return lenses[0] if lenses else ""
    return str(
        st.segmented_control(
            "As seen by",
            lenses,
            default=lenses[0],
            format_func=score.method_label,
            key=f"why-lens-{'-'.join(lenses)}",
            required=True,
        )
    )


def _beside(subject: Subject, position: int, lens: str) -> None:
    """The row's conversation beside the target that it serves best."""
    column = subject.comparison.column(lens)
    if column.ranking.serves(position) < 0:
        st.html(_pane("This row", _said(subject)))
        st.caption(f"Its {METHODS[lens].label} score is zero: it serves no target more than another.")
        return
    cosines = by_target(subject.left, lens, position, subject.choices.gradient)
    best = best_target(cosines, subject.left.subtask_of, why_scores.winner(subject, position, lens))
    target = subject.left.targets[best]
    number = best if subject.left.columns is None else int(subject.left.columns[best])
    what = "cosine" if METHODS[lens].compares_vectors else METHODS[lens].label
    about = f"example {number + 1:,} of <bdi>{escape(target.subtask)}</bdi>, {what} {cosines[best, -1]:+.3f}"
    row = _pane("This row", _said(subject))
    beside = _pane("The target it serves best", conversation.unfolded(target.messages, target.prefix), about)
    st.html(f'<div class="gs-pair">{row}{beside}</div>')


def _pane(title: str, inside: str, about: str = "") -> str:
    """A box that scrolls; `inside` and `about` are HTML."""
    said = f'<span class="gs-small gs-dim">{about}</span>' if about else ""
    return (
        f'<section class="gs-pane" tabindex="0" aria-label="{escape(title)}"><h4>{escape(title)} {said}</h4>'
        f"{inside}</section>"
    )


def _decide(subject: Subject) -> None:
    """Accept, reject and note; a second press on a verdict takes it back."""
    now, store, row = subject.now, subject.store, subject.row
    made = deciding.decisions(now, store)
    verdict = "accept" if row in made.accepted else "reject" if row in made.rejected else ""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        for name, said, icon, key in (
            ("accept", "Accept", ":material/check:", "A"),
            ("reject", "Reject", ":material/close:", "X"),
        ):
            st.button(
                f"{said}ed" if verdict == name else said,
                key=f"why-{name}",
                icon=icon,
                shortcut=key,
                type="primary" if verdict == name else "secondary",
                on_click=deciding.decide,
                args=(now, store, [row], "" if verdict == name else name),
            )
        key = f"why-note-{row}-{made.version}"
        st.text_input(
            "Note",
            value=made.notes.get(row, ""),
            key=key,
            placeholder="a note on this row",
            label_visibility="collapsed",
            width=320,
            on_change=_note,
            args=(subject, key),
        )


def _note(subject: Subject, key: str) -> None:
    deciding.note(subject.now, subject.store, subject.row, st.session_state[key] or "")


def _twins(subject: Subject) -> None:
    """The pool's near-duplicates of the row, with their ranks."""
    why_head.section("Near-duplicates in the pool")
    rows = explaining.duplicates(subject.store, subject.row)
    if rows is None:
        st.caption("The texts of this pool are not indexed yet: score a target set, which does it.")
        return
    if not len(rows):
        st.caption("None: no other row of the pool has nearly this text.")
        return
    pool = data.pool_of(subject.store)
    for row in rows[:TWINS].tolist():
        at = explaining.position(subject.comparison.rows, row)
        ranks = why_head.ranks_line(subject.comparison, at) if at is not None else "excluded, not scored"
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            why_head.link(subject.now, row, clip(str(pool.at[row, "id"]), 60))
            st.html(f'<span class="gs-small gs-dim gs-num">{ranks}</span>', width="content")
    if len(rows) > TWINS:
        st.caption(f"and {plural(len(rows) - TWINS, 'more row')}")
