"""Token-level influence in a row's answer (method, section 6): the text as a heat map, its numbers and a check."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st

from app.text import escape, label
from app.why import head, scores
from app.why.subject import Subject, agreement_of, token_influence
from gradsift.analysis.row import by_subtask
from gradsift.runtime import errors

if TYPE_CHECKING:
    from gradsift.analysis.tokens import Agreement, TokenInfluence

PIECES = 4000  # pieces of an answer that are drawn and listed; the rest are counted
SUM = "weighted sum"
_CAVEAT = (
    "The colors explain the plain gradient's share. LESS compares Adam's update, which is not linear in the gradient "
    "and belongs to no single token, so they do not add up to the score."
)


@st.fragment
def draw(subject: Subject) -> None:
    """Draw the section for a scored row; nothing is computed before the button is pressed."""
    head.section("Token-level influence")
    names = subject.left.subtask_names
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        subtask = _subtask(subject, names)
        shown = st.session_state.get("why-tokens-row") == subject.row
        checkpoint = _checkpoint(subject) if shown else SUM
        if not shown:
            st.button(
                "Show token influence",
                icon=":material/text_fields:",
                key="why-tokens",
                on_click=_ask,
                args=(subject.row,),
            )
    if not shown:
        st.caption(
            "Which words of the answer pull the model toward the targets. The first row takes a few seconds while "
            "the model loads, longer for a large model; later rows are quicker."
        )
        return
    try:
        with st.spinner("Two forward passes and a backward pass at every checkpoint"):
            influence = token_influence(subject, subtask)
    except Exception as error:
        _say(error)
        return
    _text(influence, checkpoint)
    _checks(influence)
    st.caption(_CAVEAT)
    _agreement(subject, subtask)


def _ask(row: int) -> None:
    st.session_state["why-tokens-row"] = row


def _say(error: Exception) -> None:
    """Show one sentence about what a person can fix; raise anything else."""
    sentence = errors.explain(error)
    if sentence is None:
        raise error
    st.error(label(sentence))


def _subtask(subject: Subject, names: list[str]) -> int:
    """Draw the choice of a subtask; returns its index, by default the one that the row serves best under LESS."""
    if len(names) == 1:
        return 0
    best, gradient = 0, subject.view.choices.gradient
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


def _checkpoint(subject: Subject) -> str:
    """Draw the choice of a checkpoint, by default the one with the highest weight, or of the weighted sum of all."""
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


def _text(influence: "TokenInfluence", checkpoint: str) -> None:
    """Draw the answer with every piece colored by its value, the legend, and the numbers as a table."""
    values = influence.combined if checkpoint == SUM else influence.values[influence.epochs.index(checkpoint)]
    sizes = np.abs(values)
    # so that one strong token does not make all others pale, the strongest 2% share the full color
    peak = float(np.quantile(sizes, 0.98)) if len(sizes) >= 50 else float(sizes.max(initial=0.0))
    unit = (
        "share of the cosine" if checkpoint == SUM else "change of the token's loss along the targets' gradient, nats"
    )
    spans = _spans(influence, values, peak or 1.0)
    beyond = ", or beyond" if sizes.max(initial=0.0) > peak else ""
    st.html(
        f'<div class="gs-tokens">{_legend(peak, unit, beyond)}{spans}</div>'
        + _left_out(len(influence.pieces), influence.n_cut)
    )
    table = pd.DataFrame(
        {
            "piece": influence.pieces[:PIECES],
            "tokens": influence.n_tokens[:PIECES],
            **{epoch: influence.values[at, :PIECES] for at, epoch in enumerate(influence.epochs)},
            SUM: influence.combined[:PIECES],
        }
    )
    scores.numbers(table, "token-influence", "Table: token-level influence, piece by piece")


def _spans(influence: "TokenInfluence", values: np.ndarray, peak: float) -> str:
    """One paragraph per assistant turn, one span per piece; the style sheet reads its strength in percent."""
    turns: dict[int, list[str]] = {}
    for turn, piece, value in zip(influence.turns[:PIECES].tolist(), influence.pieces, values.tolist(), strict=False):
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
        f'<p class="gs-small gs-dim">{escape(unit)}{beyond}; hover over a word for its value</p>'
    )


def _left_out(pieces: int, n_cut: int) -> str:
    notes = [f"{pieces - PIECES:,} more pieces are not drawn"] if pieces > PIECES else []
    notes += [f"{n_cut:,} more tokens of the row were cut off and never learned"] if n_cut else []
    return f'<p class="gs-small gs-dim">{"; ".join(notes)}</p>' if notes else ""


def _checks(influence: "TokenInfluence") -> None:
    """Draw the chain-rule check at every checkpoint: the mean over tokens is ⟨u, g⟩."""
    lines = []
    for name, mean, inner, bound in zip(
        influence.epochs, influence.mean, influence.inner, influence.bound, strict=True
    ):
        holds = abs(mean - inner) <= bound
        lines.append(
            f'<li class="{"" if holds else "gs-bad"}">{escape(name)}: mean over tokens <b>{mean:+.5f}</b> = ⟨u, g⟩ '
            f"<b>{inner:+.5f}</b>, within 10⁻³‖u‖‖g‖ = {bound:.5f}: <b>{'yes' if holds else 'no'}</b></li>"
        )
    st.html(
        "<p class=\"gs-small\"><b>Identity check.</b> By the chain rule the mean over the answer's tokens is the row's "
        "gradient g along the targets' direction u, which a backward pass computes on its own.</p>"
        f'<ul class="gs-checks gs-small gs-num">{"".join(lines)}</ul>'
    )


def _agreement(subject: Subject, subtask: int) -> None:
    """Draw, on demand, how well the plain gradient agrees with LESS's score on this store."""
    if not subject.left.has("less", subject.view.choices.gradient):
        return
    key = f"why-agreement-{subtask}"
    if st.button("How well do the two agree here?", key=key, icon=":material/scatter_plot:"):
        st.session_state["why-agreement"] = subtask
    if st.session_state.get("why-agreement") != subtask:
        return
    try:
        with st.spinner("Gradients of a sample of rows"):
            agreement = agreement_of(subject, subtask)
    except Exception as error:
        _say(error)
        return
    _correlation(agreement)


def _correlation(agreement: "Agreement") -> None:
    st.markdown(
        f"On {len(agreement.rows)} rows drawn at random, the plain gradient's cosine and the LESS score correlate by "
        f"**{agreement.pearson:+.2f}** (Pearson) and **{agreement.spearman:+.2f}** (ranks)."
    )
    table = pd.DataFrame({"row": agreement.rows, "plain gradient": agreement.cosine, "LESS": agreement.influence})
    scores.numbers(table, "token-agreement", "Plain gradient's cosine and LESS score of a sample of rows")
