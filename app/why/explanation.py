"""Why a row is picked: everything about one row, on its own page or in a drawer over another page."""

import streamlit as st

from app.text import clip, escape, label, plural
from app.views.decisions import decide, write_note
from app.views.store import pool_of
from app.views.view import View
from app.why import head, scores, tokens
from app.why.subject import Subject, near_duplicates, position_of, subject_of
from app.widgets import conversation, learned
from app.widgets.controls import method_label
from gradsift.analysis.row import best_target, by_target
from gradsift.data.conversation import Conversation, Message
from gradsift.runtime.errors import GradsiftError
from gradsift.scoring.methods import METHODS

MOST_DUPLICATES = 20  # near-duplicates that are listed; the rest are counted


@st.dialog("Why this row", position="right", width="large", on_dismiss="rerun")
def drawer(view: View, row: int) -> None:
    """Open the drawer on pool row `row`; call it once a run, in the branch of the button that opens it."""
    draw(view, row)
    head.link(view.session, row, "Open this row on its own page")


def draw(view: View, row: int) -> None:
    """Draw everything about pool row `row` under the methods' rankings at this budget."""
    try:
        subject = subject_of(view, row)
    except GradsiftError as error:
        st.error(label(error))
        return
    head.draw(subject)
    position = subject.position
    if position is None:
        st.info(label(f"This row is excluded, so no method scores it: {subject.reason}."), icon=":material/block:")
        st.html(_pane("This row", _conversation(subject)))
        _learned(subject)
        return
    _decide(view, row)
    lens = _lens(view)
    if not lens:
        st.html(_pane("This row", _conversation(subject)))
        st.caption("Choose a method that looks at the targets to see which of them this row serves.")
    else:
        _beside(subject, position, lens)
        scores.draw(subject, position, lens)
    _learned(subject)
    tokens.draw(subject)
    _duplicates(view, row)


def _conversation(subject: Subject) -> str:
    """The row's conversation, or its line in the file if it could not be read as one."""
    if subject.conversation.messages:
        return conversation.unfolded(subject.conversation)
    raw = subject.view.store.texts([subject.row])["raw"].iloc[0] or b""
    return conversation.unfolded(Conversation((Message("line", raw.decode("utf-8", "replace")),)))


def _learned(subject: Subject) -> None:
    """Draw, folded, the row as the model sees it and what is learned of it."""
    if not subject.conversation.messages:
        return
    fold = st.expander("What is learned of this row", key=f"why-learned-{subject.row}", on_change="rerun")
    if fold.open:
        with fold:
            store = subject.view.store
            learned.draw(store, subject.conversation, store.manifest.config.max_length)


def _lens(view: View) -> str:
    """Draw the choice of the method whose view of the row is shown; empty if no method looks at the targets."""
    lenses = view.targeted
    if len(lenses) < 2:
        return lenses[0] if lenses else ""
    return str(
        st.segmented_control(
            "As seen by",
            lenses,
            default=lenses[0],
            format_func=method_label,
            key=f"why-lens-{'-'.join(lenses)}",
            required=True,
        )
    )


def _beside(subject: Subject, position: int, lens: str) -> None:
    """Draw the row's conversation beside the target that it serves best."""
    column = subject.view.comparison.column(lens)
    if column.ranking.serves(position) < 0:
        st.html(_pane("This row", _conversation(subject)))
        st.caption(f"Its {METHODS[lens].label} score is zero: it serves no target more than another.")
        return
    cosines = by_target(subject.left, lens, position, subject.view.choices.gradient)
    best = best_target(cosines, subject.left.subtask_of, scores.winner(subject, position, lens))
    target = subject.left.targets[best]
    number = best if subject.left.columns is None else int(subject.left.columns[best])
    what = "cosine" if METHODS[lens].compares_vectors else METHODS[lens].label
    note = f"example {number + 1:,} of <bdi>{escape(target.subtask)}</bdi>, {what} {cosines[best, -1]:+.3f}"
    row = _pane("This row", _conversation(subject))
    beside = _pane("The target it serves best", conversation.unfolded(target.conversation), note)
    st.html(f'<div class="gs-pair">{row}{beside}</div>')


def _pane(title: str, inside: str, note: str = "") -> str:
    """A box that scrolls; `inside` and `note` are HTML."""
    small = f'<span class="gs-small gs-dim">{note}</span>' if note else ""
    return (
        f'<section class="gs-pane" tabindex="0" aria-label="{escape(title)}"><h4>{escape(title)} {small}</h4>'
        f"{inside}</section>"
    )


def _decide(view: View, row: int) -> None:
    """Draw Accept, Reject and the note; a second press on a verdict clears it."""
    session, store, decisions = view.session, view.store, view.decisions
    verdict = "accept" if row in decisions.accepted else "reject" if row in decisions.rejected else ""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        for name, title, icon, key in (
            ("accept", "Accept", ":material/check:", "A"),
            ("reject", "Reject", ":material/close:", "X"),
        ):
            st.button(
                f"{title}ed" if verdict == name else title,
                key=f"why-{name}",
                icon=icon,
                shortcut=key,
                type="primary" if verdict == name else "secondary",
                on_click=decide,
                args=(session, store, [row], "" if verdict == name else name),
            )
        key = f"why-note-{row}-{decisions.version}"
        st.text_input(
            "Note",
            value=decisions.notes.get(row, ""),
            key=key,
            placeholder="a note on this row",
            label_visibility="collapsed",
            width=320,
            on_change=_note,
            args=(view, row, key),
        )


def _note(view: View, row: int, key: str) -> None:
    write_note(view.session, view.store, row, st.session_state[key] or "")


def _duplicates(view: View, row: int) -> None:
    """Draw the pool's near-duplicates of the row, with their ranks."""
    head.section("Near-duplicates in the pool")
    rows = near_duplicates(view.store, row)
    if rows is None:
        st.caption("This pool's texts are not indexed yet: score a target set to index them.")
        return
    if not len(rows):
        st.caption("No other row of the pool has nearly the same text.")
        return
    pool = pool_of(view.store)
    for other in rows[:MOST_DUPLICATES].tolist():
        position = position_of(view.comparison.rows, other)
        ranks = head.ranks_line(view.comparison, position) if position is not None else "excluded, not scored"
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            head.link(view.session, other, clip(str(pool.at[other, "id"]), 60))
            st.html(f'<span class="gs-small gs-dim gs-num">{ranks}</span>', width="content")
    if len(rows) > MOST_DUPLICATES:
        st.caption(f"and {plural(len(rows) - MOST_DUPLICATES, 'more row')}")
