"""What the form's build would cost: counts first, then time, memory and disk, while `gradsift plan` runs."""

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app.datastore import build
from app.text import duration, escape, label, plural, size
from app.widgets import running
from gradsift.runtime import jobs

_STAGES = ("read", "load", "warmup", "features")  # in the order of the work


def draw(folder: Path, current: bool) -> None:
    """Draw the plan in `folder`, updated while it is made. current: whether the form still has the same values."""
    status = jobs.status(folder)
    if status is not None and status.state == "running":
        st.fragment(run_every=running.INTERVAL)(_follow)(folder)
        return
    with st.container(border=True, key="estimate"):
        st.markdown("**What this build would cost**")
        if not current:
            st.caption("The form has changed since: estimate again.")
        plan = build.read_plan(folder)
        if plan is not None:
            _figures(plan)
        if status is not None and status.state != "finished":
            words = {"cancelled": "The estimate was stopped.", "interrupted": "The estimate was interrupted."}
            st.warning(label(words.get(status.state, status.message or "The estimate failed.")))
        if plan is not None:
            _details(plan)


def _follow(folder: Path) -> None:
    status = jobs.status(folder)
    if status is None or status.state != "running":
        st.rerun()
    plan = build.read_plan(folder)
    with st.container(border=True, key="estimate"):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown("**What this build would cost**", width="content")
            st.button("Stop estimating", key="stop-estimate", on_click=jobs.cancel, args=(folder,))
        share = min(1.0, status.done / status.total) if status.total else 0.0
        st.progress(share, text=label(status.label or "Starting"))
        if plan is not None:
            _figures(plan)


def _figures(plan: dict[str, Any]) -> None:
    pairs = [*_counts(plan), *_costs(plan)]
    cells = "".join(f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in pairs)
    st.html(f'<div class="gs-figures">{cells}</div>')


def _details(plan: dict[str, Any]) -> None:
    st.html("".join(f'<p class="gs-small gs-dim" style="margin:0">{escape(s)}</p>' for s in _sentences(plan)))
    number = st.column_config.NumberColumn
    columns = {"rows_in_file": "Rows in file", "rows": "Taken", "usable": "Usable", "excluded": "Excluded"}
    columns |= {"truncated": "Cut", "prompt_tokens": "Prompt tokens", "answer_tokens": "Answer tokens"}
    with st.expander("By source"):
        st.dataframe(
            pd.DataFrame(plan["sources"]),
            hide_index=True,
            column_config={"source": "Source"}
            | {name: number(title, format="localized") for name, title in columns.items()},
            alt="Rows and tokens of each source",
            key="estimate-sources",
        )


def _counts(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """The counts, as (figure, caption)."""
    prefix = "" if plan["exact"] else "about "
    warmup = plan["warmup"]
    return [
        (f"{prefix}{plan['usable']:,}", f"usable of {plural(plan['rows'], 'row')}"),
        (f"{prefix}{plan['truncated']:,}", "cut to the longest row"),
        (f"{prefix}{plan['prompt_tokens'] + plan['answer_tokens']:,}", "tokens per pass"),
        (f"{warmup['steps_per_epoch']:,} × {warmup['epochs']}" if warmup else "0", "optimizer steps in the warmup"),
    ]


def _costs(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """The estimates, as (figure, caption); empty before they are known."""
    estimate = plan["estimate"]
    if not estimate:
        return []
    return [
        (f"about {duration(estimate['total_seconds'])}", f"on one {'GPU' if plan['device'] == 'cuda' else 'machine'}"),
        (f"about {size(estimate['memory_bytes'])}", f"of memory for {estimate['memory_of']}"),
        (size(estimate["total_bytes"]), f"on disk, features as {plan['store_dtype']}"),
    ]


def _sentences(plan: dict[str, Any]) -> list[str]:
    """The rest, one sentence each: what is excluded, where time and disk space go, notes."""
    excluded = sorted(plan["excluded"].items(), key=lambda pair: -pair[1])
    sentences = [f"Excluded: {plural(count, 'row')}, {reason}." for reason, count in excluded]
    unused = sorted(plan.get("unused", {}).items(), key=lambda pair: -pair[1])
    if unused:
        columns = ", ".join(f"{column} ({plural(count, 'row')})" for column, count in unused)
        sentences.append(f"Columns that held text and are not used: {columns}.")
    if estimate := plan["estimate"]:
        stages = ", ".join(f"{stage} {duration(estimate['seconds'][stage])}" for stage in _STAGES)
        sentences.append(
            f"Time: {stages}; from {estimate['burst_batches']} batches that took {estimate['burst_seconds']:.0f} s "
            f"({estimate['features_tokens_per_s']:,.0f} tokens a second)."
        )
        parts = ", ".join(f"{part} {size(count)}" for part, count in estimate["bytes"].items())
        sentences.append(f"Disk: {parts}.")
    dtypes = ", ".join(f"{dtype} {size(count)}" for dtype, count in plan["feature_bytes"].items())
    return [*sentences, f"Features by storage type: {dtypes}.", *plan["notes"]]
