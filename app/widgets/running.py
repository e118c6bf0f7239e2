"""A long run on the page: its stage, speed, time left and log, and a way to stop it.

The run is a separate process with its state on disk, so a reload, a second tab or a restarted app shows the same. While
it runs, a fragment reads the disk every second; when it ends, or what it writes changes, the whole page is redrawn.
"""

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from app.text import clip, duration, escape, label, plural
from gradsift.runtime import jobs
from gradsift.runtime.errors import GradsiftError, explain
from gradsift.runtime.progress import Status

LINES = 40  # lines of the log that are shown
INTERVAL = 1.0  # seconds between two reads of the disk
SLOW = 0.1  # units per second below which the time per unit is shown
_KEPT = {"build": "Finished epochs are kept; this epoch starts again."}


def watch(folder: Path, title: str, result: Path | None = None) -> None:
    """Draw the run in `folder` and keep it current until it ends, then redraw the page.

    result: a file that the run updates and the page shows; the page is redrawn whenever it changes.
    """
    st.fragment(run_every=INTERVAL)(_follow)(folder, title, result, _written(result))


def ended(folder: Path, status: Status, again: Callable[[], None], what: str = "run") -> None:
    """Draw how an unfinished run ended, with its log and a button that starts it again.

    what: the run in a word, such as `build` or `scoring`.
    """
    words = {"failed": "stopped with an error", "cancelled": "was cancelled", "interrupted": "was interrupted"}
    text = f"The {what} {words.get(status.state, status.state)}"
    if status.total:
        text += f" during “{status.label}” ({status.done:,} of {status.total:,})"
    if status.state == "failed":
        st.error(label(f"{text}: {status.message}" if status.message else f"{text}."))
    else:
        st.warning(label(f"{text}. {_KEPT.get(what, 'Finished work is kept; only the rest runs again.')}"))
    action = f"Try the {what} again" if status.state == "failed" else f"Resume the {what}"
    st.button(action, type="primary", on_click=attempt, args=(again,), key=f"again-{folder.name}")
    notes(status)
    log(folder)


def attempt(action: Callable[..., object], *args: object) -> None:
    """Do what a button requests; failures become a toast, since an exception would replace the page."""
    try:
        action(*args)
    except (GradsiftError, OSError) as error:
        st.toast(label(explain(error)), icon=":material/error:")


def notes(status: Status) -> None:
    """Draw the run's notes."""
    for note in status.notes:
        st.html(f'<p class="gs-small gs-dim" style="margin:0">{escape(note)}</p>')


def log(folder: Path, expanded: bool = False) -> None:
    """Draw the last lines of a run's log, folded."""
    text = "\n".join(clip(row, 400) for row in jobs.log_tail(folder, LINES).splitlines()).strip()
    if text:
        with st.expander("Log", expanded=expanded):
            st.code(text, language=None, height=220)


def line(status: Status) -> str:
    """One line about a running stage: 12 of 40 rows · 3.1 rows/s · 9 s left."""
    parts = [f"{status.done:,} of {plural(status.total, status.unit, status.unit)}" if status.total else ""]
    if status.rate and status.rate < SLOW:
        parts.append(f"{duration(1 / status.rate)} a {status.unit.removesuffix('s')}")
    elif status.rate:
        parts.append(
            f"{status.rate:,.1f} {status.unit}/s" if status.rate < 100 else f"{status.rate:,.0f} {status.unit}/s"
        )
    if status.seconds_left is not None and status.total:
        parts.append(f"{duration(status.seconds_left)} left in this stage")
    return " · ".join(part for part in parts if part)


def _follow(folder: Path, title: str, result: Path | None, drawn: int) -> None:
    status = jobs.status(folder)
    if status is None or status.state != "running" or _written(result) != drawn:
        st.rerun()
    with st.container(border=True, key=f"run-{folder.name}"):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown(f"**{label(title)}**", width="content")
            stopping = st.session_state.get(f"stopping-{folder}") == status.started
            if st.button("Stopping" if stopping else "Cancel", key=f"cancel-{folder.name}", disabled=stopping):
                jobs.cancel(folder)
                st.session_state[f"stopping-{folder}"] = status.started
                st.rerun(scope="fragment")
        _stages(status)
        share = min(1.0, status.done / status.total) if status.total else 0.0
        st.progress(share, text=label(line(status) or "Loading libraries and the model"))
        notes(status)
        log(folder)


def _written(result: Path | None) -> int:
    """When the file was last written, in nanoseconds; 0 before it exists."""
    return result.stat().st_mtime_ns if result is not None and result.is_file() else 0


def _stages(status: Status) -> None:
    done = [(name, seconds) for name, seconds in status.seconds.items() if name != status.stage]
    items = [
        f'<span class="gs-done">{escape(_title(n))} <span class="gs-dim">{duration(s)}</span></span>' for n, s in done
    ]
    items.append(f'<span aria-current="step">{escape(status.label or "Starting")}</span>')
    st.html(f'<div class="gs-stages">{"".join(items)}</div>')


def _title(stage: str) -> str:
    return stage.replace("-", " ").replace("_", " ").capitalize()
