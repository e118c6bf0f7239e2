"""Token-level influence over a row's answer (method, section 6): the text as a heat map, its numbers and its check."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st

from app.text import escape, label
from app.why import head as why_head
from app.why import scores as why_scores
from app.why import subject as explaining
from app.why.subject import Subject
from gradsift.analysis.row import by_subtask
from gradsift.runtime import errors

if TYPE_CHECKING:
    from gradsift.analysis.tokens import Agreement, TokenInfluence

PIECES = 4000  # pieces of an answer that are drawn and listed; the rest is counted
SUM = "weighted sum"
_CAVEAT = (
    "The colors explain the plain gradient's share. LESS compares Adam's update, which is not linear in the gradient "
    "and belongs to no single token, so they do not add up to the score."
)


@st.fragment
def draw(subject: Subject) -> None:
    """Draw the section for a row that is scored; nothing is computed before it is asked for."""
    why_head.section("Token-level influence")
    names = subject.left.subtask_names
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        subtask = _subtask(subject, names)
        asked = st.session_state.get("why-tokens-row") == subject.row
        view = _view(subject) if asked else SUM
        if not asked:
            st.button(
                "Show token influence",
                icon=":material/text_fields:",
                key="why-tokens",
                on_click=_ask,
                args=(subject.row,),
            )
    if not asked:
        st.caption(
            "Which words of the answer pull the model toward the targets. It loads the model: the first answer takes "
            "some seconds, for a large model longer; the next rows are quicker."
        )
        return
    try:
        with st.spinner("Two forward passes and a backward pass at every checkpoint"):
            found = explaining.tokens(subject, subtask)
    except Exception as error:
        _say(error)
        return
    _text(found, view)
    _checks(found)
    st.caption(_CAVEAT)
    _agreement(subject, subtask)


def _ask(row: int) -> None:
    st.session_state["why-tokens-row"] = row


def _say(error: Exception) -> None:
    """One sentence for what a person can mend; what is a defect is raised."""
    sentence = errors.explain(error)
    if sentence is None:
        raise error
    st.error(label(sentence))


def _subtask(subject: Subject, names: list[str]) -> int:
    """Number of the subtask that is asked about; by default the one that LESS says the row serves best."""
    if len(names) == 1:
        return 0
    best, gradient = 0, subject.choices.gradient
    if subject.position is not None and subject.left.has("less", gradient):
        best = int(by_subtask(subject.left, "less", subject.position, gradient)[:, -1].argmax())
    return int(
        st.selectbox(
            "For the subtask",
            range(len(names)),
            index=best,
            format_func=lambda number: names[number] + (" (serves best)" if number == best else ""),
            key=f"why-tokens-subtask-{subject.row}-{len(names)}",
            width=260,
        )
    )


def _view(subject: Subject) -> str:
    """The checkpoint that is shown, the one of the highest weight by default, or the weighted sum of all."""
    epochs = subject.left.epochs
    if len(epochs) == 1:
        return epochs[0]
    heaviest = epochs[int(np.argmax(subject.left.weights))]
    options = [*epochs, SUM]
    return str(
        st.segmented_control(
            "At the checkpoint", options, default=heaviest, key=f"why-tokens-at-{len(epochs)}", required=True
        )
    )


def _text(found: "TokenInfluence", view: str) -> None:
    """The answer with every piece colored by its value, the legend, and the same numbers as a table."""
    values = found.combined if view == SUM else found.values[found.epochs.index(view)]
    sizes = np.abs(values)
    # one strong token would leave all others pale: the strongest fiftieth share the full color
    peak = float(np.quantile(sizes, 0.98)) if len(sizes) >= 50 else float(sizes.max(initial=0.0))
    unit = "share of the cosine" if view == SUM else "change of the token's loss along the targets' gradient, nats"
    spans = _spans(found, values, peak or 1.0)
    beyond = ", or beyond" if sizes.max(initial=0.0) > peak else ""
    st.html(
        f'<div class="gs-tokens">{_legend(peak, unit, beyond)}{spans}</div>' + _left_out(len(found.pieces), found.n_cut)
    )
    table = pd.DataFrame(
        {
            "piece": found.pieces[:PIECES],
            "tokens": found.n_tokens[:PIECES],
            **{epoch: found.values[at, :PIECES] for at, epoch in enumerate(found.epochs)},
            SUM: found.combined[:PIECES],
        }
    )
    why_scores.numbers(table, "token-influence", "Table: token-level influence, piece by piece")


def _spans(found: "TokenInfluence", values: np.ndarray, peak: float) -> str:
    """One paragraph per assistant turn, a span per piece; its strength in percent is read by the style sheet."""
    turns: dict[int, list[str]] = {}
    for turn, piece, value in zip(found.turns[:PIECES].tolist(), found.pieces, values.tolist(), strict=False):
        side = "gs-up" if value >= 0 else "gs-down"
        strength = round(100 * min(1.0, abs(value) / peak))
        shown = escape(piece).replace("\n", '<i aria-hidden="true">↵</i>\n')
        turns.setdefault(turn, []).append(
            f'<span class="{side}" style="--s:{strength}%" title="{value:+.4g}">{shown}</span>'
        )
    return "".join(f'<p class="gs-said" dir="auto">{"".join(spans)}</p>' for spans in turns.values())


def _legend(peak: float, unit: str, beyond: str) -> str:
    return (
        f'<div class="gs-scale"><span class="gs-num">opposes −{peak:.2g}</span><i aria-hidden="true"></i>'
        f'<span class="gs-num">+{peak:.2g} serves the targets</span></div>'
        f'<p class="gs-small gs-dim">{escape(unit)}{beyond}; point at a word for its value</p>'
    )


def _left_out(pieces: int, n_cut: int) -> str:
    notes = [f"{pieces - PIECES:,} more pieces are not drawn"] if pieces > PIECES else []
    notes += [f"{n_cut:,} more tokens of the row were cut off and never learned"] if n_cut else []
    return f'<p class="gs-small gs-dim">{"; ".join(notes)}</p>' if notes else ""


def _checks(found: "TokenInfluence") -> None:
    """The chain rule's demand at every checkpoint: the mean over tokens is ⟨u, g⟩."""
    lines = []
    for name, mean, inner, bound in zip(found.epochs, found.mean, found.inner, found.bound, strict=True):
        held = abs(mean - inner) <= bound
        lines.append(
            f'<li class="{"" if held else "gs-bad"}">{escape(name)}: mean over tokens <b>{mean:+.5f}</b> = ⟨u, g⟩ '
            f"<b>{inner:+.5f}</b>, within 10⁻³‖u‖‖g‖ = {bound:.5f}: <b>{'yes' if held else 'no'}</b></li>"
        )
    st.html(
        "<p class=\"gs-small\"><b>Identity check.</b> By the chain rule the mean over the answer's tokens is the row's "
        "gradient g along the targets' direction u, which a backward pass finds by itself.</p>"
        f'<ul class="gs-checks gs-small gs-num">{"".join(lines)}</ul>'
    )


def _agreement(subject: Subject, subtask: int) -> None:
    """How far the plain gradient agrees with LESS's score on this store, on demand."""
    if not subject.left.has("less", subject.choices.gradient):
        return
    key = f"why-agreement-{subtask}"
    if st.button("How far do the two agree here?", key=key, icon=":material/scatter_plot:"):
        st.session_state["why-agreement"] = subtask
    if st.session_state.get("why-agreement") != subtask:
        return
    try:
        with st.spinner("Gradients of a sample of rows"):
            found = explaining.agreement(subject, subtask)
    except Exception as error:
        _say(error)
        return
    _correlation(found)


def _correlation(found: "Agreement") -> None:
    st.markdown(
        f"On {len(found.rows)} rows drawn at random, the plain gradient's cosine and the LESS score correlate by "
        f"**{found.pearson:+.2f}** (Pearson) and **{found.spearman:+.2f}** (ranks)."
    )
    table = pd.DataFrame({"row": found.rows, "plain gradient": found.cosine, "LESS": found.influence})
    why_scores.numbers(table, "token-agreement", "Plain gradient's cosine and LESS score of a sample of rows")
