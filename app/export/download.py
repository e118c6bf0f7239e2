"""What an export will contain, and a finished one: its figures, its files and the download buttons."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app.export import exports, leaks
from app.export.exports import Request
from app.state import address
from app.state.session import Session
from app.text import clip, escape, label, plural, size
from app.views.store import pool_of
from app.views.view import View
from app.widgets import tables, uploads
from gradsift.scoring.scoring import Scoring
from gradsift.workspace.sessions import Decisions

MIMES = {
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
    ".gz": "application/gzip",
    ".zst": "application/zstd",
}
LONGEST = 700  # characters of one previewed line
DROP = "Rows that share text with the targets or an evaluation are replaced by the next rows in rank."
REPORT = "One HTML file for a colleague: what was selected, from what and how, with charts. It works offline."


def take(decisions: Decisions) -> str:
    """Draw the choice of rows: the picks with or without the session's decisions, or only accepted rows."""
    with address.bound("take", list(exports.TAKES), default=exports.DECIDED):
        chosen = st.segmented_control(
            "Rows",
            list(exports.TAKES),
            key="take",
            required=True,
            format_func=lambda name: exports.TAKES[name],
            help="Accepted rows are always included, rejected ones never; the next rows take their place.",
        )
    accepted, rejected = len(decisions.accepted), len(decisions.rejected)
    counts = f"{accepted:,} accepted and {rejected:,} rejected in this session."
    st.caption(counts if accepted or rejected else "Nothing is accepted or rejected yet.")
    return chosen or exports.DECIDED


def summary(view: View, ranked: np.ndarray, format: str, compress: str, fits: bool) -> None:
    """Draw the number of rows, tokens and bytes, what the decisions changed, and the sources.

    ranked: the positions that would be picked without the session's decisions. fits: whether the format has a place for
    what the picks hold; without one there is no file whose bytes could be told.
    """
    column = view.comparison.columns[0]
    rows, tokens = len(column.picks), column.tokens
    packed = compress != "none" or format == "parquet"
    figures = {"row" if rows == 1 else "rows": f"{rows:,}", "tokens": f"{tokens:,}"}
    if fits:
        figures["before compression" if packed else "as a file"] = f"~ {size(exports.size_of(view, format))}"
    cells = "".join(f"<div><b>{value}</b><span>{escape(name)}</span></div>" for name, value in figures.items())
    st.html(f'<div class="gs-figures">{cells}</div>')
    added, removed = len(np.setdiff1d(column.picks, ranked)), len(np.setdiff1d(ranked, column.picks))
    if removed:
        st.caption(f"Your decisions removed {plural(removed, 'row')} and added {f'{added:,}' if added else 'none'}.")
    elif added:
        st.caption(f"Your decisions added {plural(added, 'row')} and removed none.")
    picked = pool_of(view.store).loc[column.ranking.rows[column.picks]]
    counts = picked["source"].value_counts().rename_axis("source").reset_index(name="rows")
    used = (picked["n_prompt_tokens"] + picked["n_answer_tokens"]).groupby(picked["source"]).sum()
    counts["tokens"] = counts["source"].map(used)
    config: tables.Columns = {
        "source": st.column_config.TextColumn("Source", width="medium"),
        "rows": st.column_config.NumberColumn("Rows", format="localized"),
        "tokens": st.column_config.NumberColumn("Tokens", format="localized"),
    }
    st.dataframe(counts, hide_index=True, column_config=config, alt="Rows and tokens by source", key="by-source")


def shortened(lines: str) -> str:
    """The preview with very long lines cut, each with the number of characters left out."""
    rows = lines.removesuffix("\n").split("\n")
    return "\n".join(
        r if len(r) <= LONGEST else f"{r[:LONGEST]} … [{len(r) - LONGEST:,} more characters]" for r in rows
    )


def evaluation(session: Session, scoring: Scoring) -> tuple[Path, ...]:
    """Draw the fields for evaluation files, uploaded or by path; returns the files."""
    with st.expander("Check for leaks into evaluation files", icon=":material/fact_check:"):
        st.caption(
            f"Every pick is compared with the {plural(len(scoring.targets), 'target')}, and with the files named here. "
            "A row is flagged if 13 words in a row, a whole turn or a whole short question match."
        )
        uploads.into("evaluation_paths", session, "Upload files", several=True)
        text = st.text_area(
            "Files to compare with, one per line",
            key="evaluation_paths",
            height=68,
            persist_state="session",
            placeholder="/data/gsm8k/test.jsonl",
        )
        files, missing = uploads.named_files(text or "")
        for path in missing:
            st.error(label(f"There is no file {path}: check the path."))
    if files:
        st.caption(label(f"Compared with {', '.join(clip(path.name, 60) for path in files)} as well."))
    return tuple(files)


def earlier(request: Request, rejecting: bool) -> None:
    """Draw the export shown last if only decisions changed since, so that its other leaks can be rejected as well."""
    last = st.session_state.get("exported")
    if last is None or not request.differs_by_decisions(last):
        return
    manifest = exports.manifest_of(last.out)
    if manifest is not None:
        st.caption("The files below hold different rows from those above: write them again.")
        draw(request, last.out, manifest, rejecting)


def draw(request: Request, out: Path, manifest: dict[str, Any], rejecting: bool) -> None:
    """Draw a finished export in `out`.

    request: the export that the page describes. rejecting: whether rejecting rows in the session changes it.
    """
    data = manifest["data"]
    with st.container(border=True, key="export-done"):
        st.markdown(f"**Ready: {plural(data['rows'], 'row')}, {size(data['bytes'])}**")
        _buttons(out, out / data["file"])
        st.html(
            f'<p class="gs-small gs-dim" style="margin:0;overflow-wrap:anywhere">sha256 of {escape(data["file"])}: '
            f"<code>{escape(data['sha256'])}</code></p>"
        )
        leaks.draw(request, out, manifest, rejecting)
        files = exports.files_of(out)
        frame = pd.DataFrame({"file": [f.name for f in files], "size": [size(f.stat().st_size) for f in files]})
        with st.expander(f"All {len(files)} files and their folder"):
            st.code(str(out), language=None, wrap_lines=True)
            st.dataframe(
                frame,
                hide_index=True,
                alt="Files of the export",
                column_config={"file": "File", "size": "Size"},
                width="content",
                key="export-files",
            )
        card = out / "README.md"
        if card.is_file():
            with st.expander("Dataset card, with snippets for trainers"):
                st.code(card.read_text(encoding="utf-8"), language="markdown", wrap_lines=True, height=400)


def _buttons(out: Path, file: Path) -> None:
    bundle, report = out / f"{out.name}.zip", out / "report.html"
    with st.container(horizontal=True):
        _button(f"Download {file.name}", file, file.name, MIMES.get(file.suffix), "download", "data")
        if bundle.is_file():
            title = f"All files as zip, {size(bundle.stat().st_size)}"
            _button(title, bundle, bundle.name, "application/zip", "folder_zip", "zip")
        if report.is_file():
            _button("Selection report", report, f"{out.name}.html", "text/html", "summarize", "report")


def _button(title: str, file: Path, name: str, mime: str | None, icon: str, key: str) -> None:
    """Draw a button that downloads a file as `name`; the file is read when the button is pressed."""
    st.download_button(
        title,
        file.read_bytes,
        file_name=name,
        mime=mime,
        icon=f":material/{icon}:",
        type="primary" if key == "data" else "secondary",
        on_click="ignore",
        key=f"download-{key}",
    )
