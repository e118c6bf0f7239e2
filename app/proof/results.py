"""The workspace's evaluations: the choice of one, its state and its report."""

import streamlit as st

from app.proof import evaluations, loss_charts
from app.proof.evaluations import Entry
from app.state import address
from app.state.session import Session
from app.text import label, plural
from app.widgets import charts, empty, running, tables
from gradsift.evaluation.report import Report, runs_table, summary
from gradsift.evaluation.script import training_script
from gradsift.runtime import jobs
from gradsift.runtime.errors import GradsiftError

_NUMBER = st.column_config.NumberColumn
_TABLE: tables.Columns = {
    "method": st.column_config.TextColumn("Method", width="medium"), "seeds": _NUMBER("Seeds"),
    "rows": _NUMBER("Rows", format="localized"),
    "loss": _NUMBER("Held-out loss", format="%.3f", help="Mean, at the epoch with the lowest loss on the targets"),
    "loss_sd": _NUMBER("± seeds", format="%.3f"),
    "against_random": _NUMBER("Against random", format="%+.3f", help="Paired by seed; below zero is better"),
    "better": _NUMBER("Seeds below random"), "score": _NUMBER("Answers", format="percent"),
    "score_sd": _NUMBER("± seeds ", format="percent"),
}  # fmt: skip


def choose(session: Session) -> Entry | None:
    """Draw the choice of an evaluation; returns it, or None before there is one."""
    entries = evaluations.entries(session.workspace)
    if not entries:
        return None
    entries.sort(key=lambda entry: entry.store != session.store_path)  # the open store's first
    names = {entry.name: f"{entry.name} · {entry.store.name}" if entry.store else entry.name for entry in entries}
    if (fresh := st.session_state.pop("proof_next", "")) in names:
        st.query_params["evaluation"] = fresh
    with address.bound("evaluation", list(names), default=entries[0].name):
        name = st.selectbox(
            "Evaluation",
            list(names),
            key="evaluation",
            width=420,
            format_func=lambda name: names.get(name, name),
        )
    return next((entry for entry in entries if entry.name == name), entries[0])


def show(entry: Entry) -> None:
    """Draw the state of an evaluation and everything in its report."""
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
        st.caption("No run has finished yet: the first one is the base model's own loss.")
        return
    st.caption(f"{len(report.runs)} of {plural(report.planned, 'run')} are finished. {_recipe(report)}")
    for sentence in evaluations.verdict(report):
        st.markdown(f"**{label(sentence)}**")
    runs, results = runs_table(report), summary(report)
    for name, heldout in report.sets.items():
        set_runs = runs[runs["target_set"] == name]
        if set_runs.empty:
            continue
        if len(report.sets) > 1:
            st.subheader(label(name), anchor=False)
        judged = set_runs.dropna(subset="score")
        left, right = st.columns(2, gap="large") if heldout.metric and len(judged) else (st.container(), None)
        with left:
            charts.draw(loss_charts.by_epoch(set_runs, name))
        if right is not None:
            with right:
                charts.draw(loss_charts.against_answers(judged, name, str(heldout.metric)))
        lines = results[results["target_set"] == name].drop(columns=["target_set", "against_random_sd", "paired"])
        lines["method"] = lines["method"].map(evaluations.label_of)
        columns = {
            key: column for key, column in _TABLE.items() if lines[key].notna().any()
        }  # one seed has no deviation
        tables.show(
            lines[list(columns)], f"Held-out results on {name} by method", columns, charts.file_stem(f"proof-{name}")
        )
    with st.container(horizontal=True):
        _take(report, entry)


def _take(report: Report, entry: Entry) -> None:
    for title, data, file, mime in (
        ("Report (JSON)", report.model_dump_json(indent=1), f"{entry.name}.json", "application/json"),
        ("Training script", training_script(report.recipe), "train.py", "text/x-python"),
    ):
        st.download_button(
            title, data, file, mime, on_click="ignore", icon=":material/download:", type="tertiary", key=f"proof-{file}"
        )


def _recipe(report: Report) -> str:
    recipe = report.recipe
    return (
        f"Every run: {label(recipe.model)}, LoRA rank {recipe.lora_rank}, peak rate {recipe.lr:g}, batches of "
        f"{recipe.batch_size}, {plural(recipe.epochs, 'epoch')}; the epoch is chosen by the loss on the targets."
    )


def nothing() -> None:
    """Draw what to do before there is an evaluation."""
    empty.say(
        "No evaluation yet",
        "Give held-out rows of the skill: a model is trained on every method's picks, and the results are compared.",
    )
