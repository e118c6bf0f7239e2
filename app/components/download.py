"""A finished export on the page: what is in it, its files, and the buttons that take it home."""

from pathlib import Path

import pandas as pd
import streamlit as st

from app import data, exporting
from app.comparing import Column, Comparison
from app.components import tables
from app.components.text import escape, plural, size
from gradsift.store import Store

MIMES = {".jsonl": "application/jsonl", ".parquet": "application/vnd.apache.parquet"}
LONGEST = 1_500  # characters of one previewed line


def summary(store: Store, comparison: Comparison, column: Column) -> None:
    """How many rows and tokens, and from which sources."""
    picked = data.pool_of(store).loc[comparison.rows[column.picks]]
    counts = picked["source"].value_counts().rename_axis("source").reset_index(name="rows")
    tokens = (picked["n_prompt_tokens"] + picked["n_answer_tokens"]).groupby(picked["source"]).sum()
    counts["tokens"] = counts["source"].map(tokens)
    st.markdown(f"**{plural(len(picked), 'row')}, {plural(column.tokens, 'token')}**")
    config: tables.Columns = {
        "source": "Source",
        "rows": st.column_config.NumberColumn("Rows", format="localized"),
        "tokens": st.column_config.NumberColumn("Tokens", format="localized"),
    }
    st.dataframe(counts, hide_index=True, column_config=config, alt="Rows and tokens by source", key="by-source")


def shortened(lines: str) -> str:
    """The preview with very long lines cut, which is said."""
    rows = lines.splitlines()
    return "\n".join(
        r if len(r) <= LONGEST else f"{r[:LONGEST]} … [{len(r) - LONGEST:,} more characters]" for r in rows
    )


def draw(out: Path) -> None:
    """The files of the finished export in `out`."""
    manifest = exporting.written(out)
    if manifest is None:
        return
    about = manifest["data"]
    file = out / about["file"]
    files = exporting.files_of(out)
    with st.container(border=True, key="export-done"):
        st.markdown(f"**Ready: {plural(about['rows'], 'row')}, {size(about['bytes'])}**")
        with st.container(horizontal=True):
            st.download_button(
                f"Download {about['file']}",
                file.read_bytes,
                file_name=about["file"],
                mime=MIMES.get(file.suffix),
                type="primary",
                icon=":material/download:",
                on_click="ignore",
                key="download-data",
            )
            st.download_button(
                "Download all files as zip",
                lambda: exporting.zipped(out, files).read_bytes(),
                file_name=f"{out.name}.zip",
                mime="application/zip",
                on_click="ignore",
                key="download-zip",
            )
        st.html(
            f'<p class="gs-small gs-dim" style="margin:0;overflow-wrap:anywhere">sha256 of {escape(about["file"])}: '
            f"<code>{escape(about['sha256'])}</code></p>"
        )
        frame = pd.DataFrame({"file": [f.name for f in files], "size": [size(f.stat().st_size) for f in files]})
        st.dataframe(
            frame,
            hide_index=True,
            alt="Files of the export",
            column_config={"file": "File", "size": "Size"},
            width="content",
            key="export-files",
        )
        st.caption("They lie in")
        st.code(str(out), language=None)
        card = out / "README.md"
        if card.is_file():
            with st.expander("Dataset card, with snippets for trainers"):
                st.code(card.read_text(encoding="utf-8"), language="markdown", wrap_lines=True, height=400)
