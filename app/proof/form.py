"""The page Proof: what an evaluation found so far, and the form that starts one."""

import streamlit as st

from app.export import exports
from app.proof import evaluations, loss_charts
from app.proof.evaluations import Entry
from app.state import address
from app.state.session import Session
from app.targets.score import method_label
from app.text import label, plural
from app.widgets import charts, empty, running, tables, uploads
from gradsift.datastore.store import Store
from gradsift.evaluation.report import RANDOM, Report, runs_table, summary
from gradsift.evaluation.script import training_script
from gradsift.runtime import jobs
from gradsift.runtime.errors import GradsiftError
from gradsift.scoring.methods import METHODS
from gradsift.workspace.workspace import TargetEntry

_NUMBER = st.column_config.NumberColumn
_TABLE: tables.Columns = {
    "method": st.column_config.TextColumn("Method", width="medium"), "seeds": _NUMBER("Seeds"),
    "rows": _NUMBER("Rows", format="localized"),
    "loss": _NUMBER("Held-out loss", format="%.3f", help="Of the epoch with the lowest loss on the targets, mean"),
    "loss_sd": _NUMBER("± seeds", format="%.3f"),
    "against_random": _NUMBER("Against random", format="%+.3f", help="Paired by seed; below zero is better"),
    "better": _NUMBER("Seeds below random"), "score": _NUMBER("Answers", format="percent"),
    "score_sd": _NUMBER("± seeds ", format="percent"),
}  # fmt: skip


def choose(session: Session) -> Entry | None:
    """Which evaluation is looked at; None where there is none."""
    found = evaluations.entries(session.workspace)
    if not found:
        return None
    found.sort(key=lambda entry: entry.store != session.store_path)  # the open store's first
    names = {entry.name: f"{entry.name} · {entry.store.name}" if entry.store else entry.name for entry in found}
    if (fresh := st.session_state.pop("proof_next", "")) in names:
        st.query_params["evaluation"] = fresh
    with address.held("evaluation", list(names), default=found[0].name):
        chosen = st.selectbox(
            "Evaluation",
            list(names),
            key="evaluation",
            width=420,
            format_func=lambda name: names.get(name, name),
        )
    return next((entry for entry in found if entry.name == chosen), found[0])


def show(entry: Entry) -> None:
    """The state of an evaluation and everything its report says."""
    status = jobs.status(entry.folder)
    if status is not None and status.state == "running":
        running.watch(entry.folder, f"Evaluating {entry.name}", entry.report)
    elif status is not None and status.state != "finished":
        running.ended(entry.folder, status, lambda: evaluations.again(entry), "evaluation")
    try:
        report = evaluations.report_of(entry)
    except GradsiftError as error:
        st.error(label(error))
        return
    if report is None or not report.runs:
        st.caption("No run has ended yet: the first one is the base model's own loss.")
        return
    st.caption(f"{len(report.runs)} of {plural(report.planned, 'run')} have ended. {_recipe(report)}")
    for sentence in evaluations.verdict(report):
        st.markdown(f"**{label(sentence)}**")
    runs, found = runs_table(report), summary(report)
    for name, about in report.sets.items():
        own = runs[runs["target_set"] == name]
        if own.empty:
            continue
        if len(report.sets) > 1:
            st.subheader(label(name), anchor=False)
        judged = own.dropna(subset="score")
        left, right = st.columns(2, gap="large") if about.metric and len(judged) else (st.container(), None)
        with left:
            charts.draw(loss_charts.by_epoch(own, name))
        if right is not None:
            with right:
                charts.draw(loss_charts.against_answers(judged, name, str(about.metric)))
        lines = found[found["target_set"] == name].drop(columns=["target_set", "against_random_sd", "paired"])
        lines["method"] = lines["method"].map(evaluations.label_of)
        columns = {key: column for key, column in _TABLE.items() if lines[key].notna().any()}  # one seed has no spread
        tables.show(
            lines[list(columns)], f"Held-out results on {name} by method", columns, charts.file_stem(f"proof-{name}")
        )
    with st.container(horizontal=True):
        _take(report, entry)


def form(session: Session, store: Store, entry: TargetEntry, folded: bool) -> None:
    """The form that starts an evaluation of the open store and targets."""
    with st.expander("Evaluate these targets", expanded=not folded, icon=":material/science:"):
        st.caption(
            f"Fine-tunes the base model on the {label(session.budget)} that each method picks for {label(entry.name)}, "
            "with one recipe, and measures held-out rows after every epoch. Zero-shot, random and training on the "
            "targets alone are always beside them. The paper's choices are evaluated, whatever What if says. It takes "
            "time: a small fine-tuning for every method and seed."
        )
        uploads.into("proof_path", session, "Held-out rows of the same skill", several=False, help=_HELP)
        st.text_input(
            "Their file on this machine",
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
            if _untold(store):
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
                    help="The store was built from checkpoints, whose training is not known here.",
                )
            st.button(
                "Evaluate",
                type="primary",
                icon=":material/play_arrow:",
                key="proof-start",
                on_click=_start,
                args=(session, store, entry),
            )
        if problem := st.session_state.pop("proof_problem", ""):
            st.error(label(problem))


def _untold(store: Store) -> tuple[str, ...]:
    """What of the recipe the store does not tell: it was built from checkpoints that were trained elsewhere."""
    return ("batch_size", "lr") if store.manifest.config.checkpoints else ()


_HELP = (
    "Rows like the targets, that no selection sees. `answers`, `answer` or else the last turn are judged where short."
)


def _start(session: Session, store: Store, entry: TargetEntry) -> None:
    state = st.session_state
    files, missing = exports.evaluation_files(state.get("proof_path") or "")
    if not state.proof_methods:
        state.proof_problem = "Choose at least one method."
        return
    if missing or not files:
        state.proof_problem = (
            f"Nothing lies at {missing[0]}."
            if missing
            else "There are no held-out rows yet: upload a file, or name one."
        )
        return
    try:
        recipe = {name: state[f"proof_{name}"] for name in ("epochs", *_untold(store))}
        started = evaluations.start(session, store, entry, files[-1], state.proof_methods, state.proof_seeds, recipe)
        state.proof_next = started.name
    except (GradsiftError, OSError) as error:
        state.proof_problem = str(error)


def _take(report: Report, entry: Entry) -> None:
    for said, data, file, mime in (
        ("Report (JSON)", report.model_dump_json(indent=1), f"{entry.name}.json", "application/json"),
        ("Training script", training_script(report.recipe), "train.py", "text/x-python"),
    ):
        st.download_button(
            said, data, file, mime, on_click="ignore", icon=":material/download:", type="tertiary", key=f"proof-{file}"
        )


def _recipe(report: Report) -> str:
    recipe = report.recipe
    return (
        f"Every run: {label(recipe.model)}, LoRA rank {recipe.lora_rank}, peak rate {recipe.lr:g}, batches of "
        f"{recipe.batch_size}, {plural(recipe.epochs, 'epoch')}; the epoch is chosen by the loss on the targets."
    )


def nothing() -> None:
    """What stands where no evaluation was made yet."""
    empty.say(
        "Nothing is proven yet",
        "Give held-out rows of the skill, and every method's picks are trained on and compared: does it help here?",
    )
