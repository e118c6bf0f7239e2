"""The form that starts an evaluation: held-out rows, methods, seeds and the recipe."""

import streamlit as st

from app.proof import evaluations
from app.state.session import Session
from app.text import label
from app.views.view import View
from app.widgets import budget, uploads
from app.widgets.controls import method_label
from gradsift.datastore.store import Store
from gradsift.evaluation.report import RANDOM
from gradsift.runtime.errors import GradsiftError
from gradsift.scoring.choices import Choices
from gradsift.scoring.methods import METHODS
from gradsift.scoring.scoring import Scoring
from gradsift.workspace.workspace import TargetEntry

_HELP = "Rows like the targets that no selection sees. Judged if short: `answers`, `answer`, or else the last turn."


def draw(session: Session, store: Store, scoring: Scoring, entry: TargetEntry, folded: bool) -> None:
    """Draw the form, for the open store and targets."""
    with st.expander("Evaluate these targets", expanded=not folded, icon=":material/science:"):
        st.caption(
            f"Fine-tunes the base model on the {label(budget.shown(session.budget))} that each method picks for "
            f"{label(entry.name)}, with one recipe, and measures held-out rows after every epoch. Zero-shot, random "
            "and training on the targets alone are always included. The paper's choices are evaluated, whatever "
            "What if says. It takes time: one small fine-tuning run for every method and seed."
        )
        uploads.into("proof_path", session, "Held-out rows of the same skill", several=False, help=_HELP)
        st.text_input(
            "Or a file on this machine",
            key="proof_path",
            placeholder="/data/tydiqa-test.jsonl",
            persist_state="session",
        )
        names = [name for name in METHODS if name != RANDOM]
        st.pills(
            "Methods",
            names,
            selection_mode="multi",
            default=names[:3],
            key="proof_methods",
            format_func=method_label,
            persist_state="session",
        )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.number_input("Seeds", 1, 20, 3, key="proof_seeds", width=140, persist_state="session")
            st.number_input("Epochs", 1, 20, 3, key="proof_epochs", width=140, persist_state="session")
            if _unknown(store):
                st.number_input("Batch size", 1, None, 128, key="proof_batch_size", width=140, persist_state="session")
                st.number_input(
                    "Peak rate",
                    1e-9,
                    1.0,
                    2e-5,
                    format="%.2e",
                    key="proof_lr",
                    width=140,
                    persist_state="session",
                    help="The store was built from given checkpoints, so their training is not known here.",
                )
            st.button(
                "Evaluate",
                type="primary",
                icon=":material/play_arrow:",
                key="proof-start",
                on_click=_start,
                args=(session, store, scoring, entry),
            )
        if problem := st.session_state.pop("proof_problem", ""):
            st.error(label(problem))


def _unknown(store: Store) -> tuple[str, ...]:
    """The parts of the recipe that a store built from checkpoints trained elsewhere does not know."""
    return ("batch_size", "lr") if store.manifest.config.checkpoints else ()


def _start(session: Session, store: Store, scoring: Scoring, entry: TargetEntry) -> None:
    state = st.session_state
    files, missing = uploads.named_files(state.get("proof_path") or "")
    if not state.proof_methods:
        state.proof_problem = "Choose at least one method."
        return
    if missing or not files:
        state.proof_problem = (
            f"There is no file {missing[0]}: check the path."
            if missing
            else "There are no held-out rows yet: upload a file or give its path."
        )
        return
    try:
        recipe = {name: state[f"proof_{name}"] for name in ("epochs", *_unknown(store))}
        view = View(session, store, scoring, tuple(state.proof_methods), session.budget, Choices())
        state.proof_next = evaluations.start(view, entry, files[-1], state.proof_seeds, recipe).name
    except (GradsiftError, OSError) as error:
        state.proof_problem = str(error)
