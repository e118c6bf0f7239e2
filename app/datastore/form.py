"""The form that starts a build: the pool, the model and the parameters, the rarer ones folded."""

from typing import Any

import streamlit as st

from app.datastore import build, estimate, reading, stores
from app.state.session import Session, current_session, remember
from app.text import label
from app.views.commands import Build, Plan
from app.views.masks import Files
from gradsift.runtime import jobs
from gradsift.runtime.errors import GradsiftError
from gradsift.workspace.workspace import sample_pool

FORMATS = ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "gz", "zst"]
NO_POOL = "There is no pool yet: name a file or upload one."
_PRESET = "Small machine"


def draw() -> None:
    """Draw the form; a build that starts is opened, and the page shows its progress."""
    _fill(_PRESET, only_missing=True)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="large"):
        origin = st.segmented_control(
            "Pool from",
            ["Files on this machine", "Upload", "The sample"],
            default="Files on this machine",
            required=True,
            key="build_origin",
            persist_state="session",
        )
        st.segmented_control(
            "Preset",
            list(build.PRESETS),
            default=_PRESET,
            required=True,
            key="build_preset",
            on_change=lambda: _fill(st.session_state.build_preset),
            persist_state="session",
        )
    st.caption(build.NOTES[st.session_state.build_preset])
    uploads = _pool(origin)
    _model()
    reading.draw(
        _files(origin, uploads), st.session_state.build_model or build.BUNDLED, st.session_state.build_template
    )
    with st.form("build", border=True):
        st.text_input(
            "Name of the datastore",
            key="build_name",
            max_chars=64,
            persist_state="session",
            placeholder="letters, digits, dots and dashes",
            help="It names a folder in the workspace.",
        )
        _common()
        with st.expander("More parameters"):
            _rare()
        with st.container(horizontal=True):
            estimating = st.form_submit_button("Estimate the cost", icon=":material/timer:")
            building = st.form_submit_button("Build the datastore", type="primary", icon=":material/play_arrow:")
    if estimating:
        _estimate(origin, uploads)
    if building:
        _start(origin, uploads)
    if planned := st.session_state.get("build_plan"):
        folder, values = planned
        estimate.draw(folder, values == _values(origin))


def _pool(origin: str) -> list[Any]:
    if origin == "Upload":
        return st.file_uploader("Files of the pool", type=FORMATS, accept_multiple_files=True, key="build_files")
    if origin == "The sample":
        st.caption("About 150 short examples in four sources and several languages, written for gradsift.")
        return []
    st.text_area(
        "Files, folders, globs or Hugging Face data sets, one per line",
        key="build_paths",
        height=100,
        persist_state="session",
        placeholder="/data/flan/*.jsonl\n~/pools/dolly.parquet",
        help="JSONL, JSON, CSV, Parquet (.gz, .zst): conversations, or questions with answers, in any usual schema.",
    )
    return []


def _model() -> None:
    """Draw the model and its template, which decide what is learned of a row."""
    a, b, c = st.columns(3)
    a.text_input(
        "Model",
        key="build_model",
        persist_state="session",
        help=f"`{build.BUNDLED}` (bundled, 135M parameters), a local folder, or a reachable Hugging Face id.",
    )
    b.text_input(
        "Chat template",
        key="build_template",
        persist_state="session",
        help="`chat` (the tokenizer's own), `tulu` (Open-Instruct's), or the path of a Jinja file.",
    )
    with c:
        reading.template_options()


def _files(origin: str, uploads: list[Any]) -> Files:
    """The pool's files as they are now, for a look at how they are read."""
    if origin == "Upload":
        return Files(uploads=tuple((file.name, file.getvalue()) for file in uploads or []))
    if origin == "The sample":
        return Files(tuple(map(str, sample_pool())))
    return Files(tuple(build.pool_paths(st.session_state.get("build_paths") or "")))


def _common() -> None:
    a, b, c, d = st.columns(4)
    a.number_input(
        "Rows per source",
        min_value=1,
        step=10,
        key="build_limit_per_source",
        persist_state="session",
        placeholder="all",
        help="A seeded sample of each source. Leave empty to take every row.",
    )
    b.number_input(
        "Longest row (tokens)",
        min_value=8,
        step=64,
        key="build_max_length",
        persist_state="session",
        help="Longer rows are cut at the right and counted.",
    )
    c.number_input(
        "Warmup epochs",
        min_value=1,
        step=1,
        key="build_epochs",
        persist_state="session",
        help="One checkpoint per epoch.",
    )
    d.number_input(
        "Warmup share of the pool",
        min_value=0.0001,
        max_value=1.0,
        step=0.05,
        format="%.4g",
        key="build_warmup_fraction",
        persist_state="session",
    )


def _rare() -> None:
    a, b, c = st.columns(3)
    a.number_input("Batch size of the warmup", min_value=1, step=1, key="build_batch_size", persist_state="session")
    b.number_input(
        "Peak learning rate",
        min_value=1e-9,
        max_value=1.0,
        format="%.2e",
        step=1e-5,
        key="build_lr",
        persist_state="session",
    )
    c.number_input("LoRA rank", min_value=1, step=1, key="build_lora_rank", persist_state="session")
    a.number_input(
        "Dimensions of a feature",
        min_value=8,
        step=8,
        key="build_dim",
        persist_state="session",
        help="A multiple of 8. The paper's d is 8192.",
    )
    b.selectbox("Features stored as", ["int8", "fp16", "bit"], key="build_store_dtype", persist_state="session")
    c.number_input("Seed", min_value=0, max_value=2**32 - 1, step=1, key="build_seed", persist_state="session")


def _parameters() -> dict[str, Any]:
    """The parameters by name; None leaves the command's own default."""
    values = {name: st.session_state.get(f"build_{name}") for name in build.PARAMETERS}
    return {name: None if value == "" else value for name, value in values.items()} | reading.values()


def _values(origin: str) -> tuple[Any, ...]:
    """The form's values that an estimate depends on."""
    return origin, st.session_state.get("build_paths"), *_parameters().values()


def _estimate(origin: str, uploads: list[Any]) -> None:
    session = current_session()
    try:
        pool = _chosen_pool(session, origin, uploads, st.session_state.build_name or "")
        if not pool:
            st.error(NO_POOL)
            return
        folder = build.start_plan(session.workspace, Plan(pool=pool, **_parameters()))
        st.session_state.build_plan = folder, _values(origin)
    except (GradsiftError, OSError) as error:
        st.error(label(error))


def _start(origin: str, uploads: list[Any]) -> None:
    session = current_session()
    try:
        name = st.session_state.build_name or ""
        out = session.workspace.new_store_path(name)
        pool = _chosen_pool(session, origin, uploads, name)
        if not pool:
            st.error(NO_POOL)
            return
        if planned := st.session_state.pop("build_plan", None):
            jobs.cancel(planned[0])  # the build makes a better estimate itself, and the two would slow each other down
        Build(pool=pool, out=out, **_parameters()).start(out)
    except (GradsiftError, OSError) as error:
        st.error(label(error))
        return
    remember(store=out.name)
    st.session_state.datastore_next = stores.OPEN
    st.rerun()


def _chosen_pool(session: Session, origin: str, uploads: list[Any], name: str) -> tuple[str, ...]:
    if origin == "The sample":
        return tuple(map(str, sample_pool()))
    if origin == "Upload":
        files = session.workspace.keep_uploads(name, ((file.name, file.getvalue()) for file in uploads or []))
        return tuple(map(str, files))
    return tuple(build.pool_paths(st.session_state.get("build_paths") or ""))


def _fill(preset: str, only_missing: bool = False) -> None:
    """Put a preset's values into the form; only_missing: keep what the person typed."""
    values = {**build.PRESETS[preset], "model": st.session_state.get("build_model") or build.BUNDLED}
    for name, value in values.items():
        if not only_missing or f"build_{name}" not in st.session_state:
            st.session_state[f"build_{name}"] = value
