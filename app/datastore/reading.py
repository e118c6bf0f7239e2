"""How a pool is read, before a build: its first rows as conversations, its columns, and what is learned of it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import streamlit as st

from app.text import clip, escape, label, plural
from app.views import masks as views
from app.views.masks import Files
from app.widgets import conversation, masks
from gradsift.config import BuildConfig, make_config, parse_columns, parse_options
from gradsift.data.preview import Preview, shape_of
from gradsift.runtime.errors import GradsiftError

PARTS = {
    "user": "Question",
    "assistant": "Answer",
    "system": "System prompt",
    "context": "Context, after the question",
    "reasoning": "Reasoning, before the answer",
    "tools": "Tools",
    "messages": "Whole conversation",
    "text": "Plain text",
}
TAKES = {
    "text": "plain text, every token learned",
    "chosen": "the chosen side of preferences",
    "label": "rows labelled as good",
}
ROWS, LEARNED = "Conversations", "What is learned"
_SHOWN = 8  # reasons that are shown; the rest are counted
_ROWS = 6  # conversations that are shown
_OPTIONS = ("enable_thinking=false", "enable_thinking=true")


def values() -> dict[str, Any]:
    """What the person chose about reading, as the fields of a command."""
    state = st.session_state
    pairs = ((part, state.get(f"build_column_{part}")) for part in PARTS)
    return {
        "template_option": tuple(state.get("build_template_option") or ()),
        "columns": tuple(f"{part}={column}" for part, column in pairs if column),
        "take": tuple(state.get("build_take") or ()),
        "source_column": state.get("build_source_column") or None,
    }


def config_of(model: str, template: str | None) -> BuildConfig:
    """The parameters of the build that say how rows are read and rendered.

    Raises:
        UsageError: one of them cannot be used.
    """
    from gradsift.data.encode import read_template

    chosen = values()
    return make_config(
        model=model,
        template=read_template(template or "chat"),
        template_options=parse_options(chosen["template_option"]),
        columns=parse_columns(chosen["columns"]),
        take=chosen["take"],
        source_column=chosen["source_column"] or "",
    )


def template_options() -> None:
    """Draw the keywords that the template gets."""
    st.multiselect(
        "Template options",
        _OPTIONS,
        key="build_template_option",
        accept_new_options=True,
        placeholder="NAME=VALUE",
        persist_state="session",
        help="Keywords of the chat template, such as enable_thinking=false. Type another one and press Enter.",
    )


def draw(files: Files, model: str, template: str | None) -> None:
    """Draw how the files are read: the counts, the mapping of columns, and the first rows."""
    if not (files.paths or files.uploads):
        return
    with st.container(border=True, key="reading"):
        st.markdown("**How the pool is read**")
        if (why := views.why_unasked(files)) and st.session_state.get("build_asked") != files.key:
            st.caption(label(f"{why}."))
            if st.button("Read the first rows", key="read-first"):
                st.session_state.build_asked = files.key
                st.rerun()
            return
        known = _columns(files, model)
        seen, problem = None, ""
        try:
            config = config_of(model, template)
            seen = views.first_rows(files, config)
        except (GradsiftError, OSError) as error:
            problem = str(error)
        if seen is not None:
            _counts(seen)
        _mapping(known, wanted=seen is not None and not seen.usable)
        if problem:
            st.error(label(problem))
        elif seen is not None:
            _rows(files, config, seen)


def _columns(files: Files, model: str) -> list[str]:
    """The columns of the first rows; none if the files cannot be read at all, which is reported elsewhere."""
    try:
        return views.first_rows(files, BuildConfig(model=model)).columns
    except (GradsiftError, OSError):
        return []


def _counts(seen: Preview) -> None:
    """Draw how many rows can be read and as what, the columns, and the reasons why rows cannot be used."""
    which = "All" if seen.whole else "The first"
    shapes = ", ".join(f"{shape} ({count:,})" for shape, count in seen.shapes.most_common())
    lines = [
        f"<b>{which} {plural(seen.rows, 'row')}: {seen.usable:,} usable</b>"
        + (f", {seen.rows - seen.usable:,} cannot be used" if seen.usable < seen.rows else "")
        + (f". Read as {escape(shapes)}." if shapes else ".")
    ]
    if seen.usable and seen.used:
        lines.append(f"Columns read: {_names(seen.used)}.")
    if seen.unused:
        unused = ", ".join(f"{_name(name)} ({plural(n, 'row')})" for name, n in seen.unused.most_common(12))
        lines.append(f"<b>Held text and not used</b>: {unused}.")
    if seen.left_out:
        lines.append(f"Left out: {escape(clip('; '.join(seen.left_out), 600))}.")
    st.html("".join(f'<p class="gs-small gs-read">{line}</p>' for line in lines))
    problems = "".join(f'<div class="gs-bad gs-small">{escape(problem)}</div>' for problem in seen.problems)
    if reasons := _reasons(seen.excluded) + problems:
        st.html(reasons)


def _reasons(excluded: Counter[str]) -> str:
    """Reasons why rows cannot be used, in full, as HTML; the most frequent first."""
    shown = "".join(
        f'<div class="gs-bad gs-small"><b>{plural(count, "row")}</b>: {escape(reason)}</div>'
        for reason, count in excluded.most_common(_SHOWN)
    )
    more = len(excluded) - _SHOWN
    return shown + (f'<p class="gs-small gs-dim">and {plural(more, "more reason")}</p>' if more > 0 else "")


def _mapping(columns: Sequence[str], wanted: bool) -> None:
    """Draw the form that says which column holds which part. wanted: whether nothing can be read without it."""
    chosen = values()
    used = bool(chosen["columns"] or chosen["take"] or chosen["source_column"])
    with st.expander("Say which column holds what", expanded=wanted or used):
        st.caption("For columns that are not recognized by their names. The rows are read again with every change.")
        for parts in (list(PARTS)[:4], list(PARTS)[4:]):
            for slot, part in zip(st.columns(4), parts, strict=True):
                with slot:
                    _choice(PARTS[part], f"build_column_{part}", columns)
        left, right = st.columns([3, 1])
        with left:
            st.pills(
                "Also take",
                list(TAKES),
                selection_mode="multi",
                format_func=TAKES.__getitem__,
                key="build_take",
                persist_state="session",
            )
        with right:
            _choice("Source", "build_source_column", columns, "dataset or source")


def _choice(title: str, key: str, columns: Sequence[str], nothing: str = "no column") -> None:
    """Draw the choice of a column; one that was chosen for other files stays until it is removed."""
    chosen = st.session_state.get(key)
    options = [*columns, *([chosen] if chosen and chosen not in columns else [])]
    st.selectbox(title, options, index=None, key=key, placeholder=nothing, persist_state="session")


def _rows(files: Files, config: BuildConfig, seen: Preview) -> None:
    """Draw the first rows, as conversations or as the model sees them."""
    if not seen.usable:
        _raw(seen)
        return
    view = st.segmented_control(
        "The first rows as", [ROWS, LEARNED], default=ROWS, required=True, key="build_rows_as", persist_state="session"
    )
    if view == LEARNED:
        _learned(files, config, seen)
        return
    cards = (
        f'<article class="gs-card"><p class="gs-small gs-dim"><bdi>{escape(row.file)}</bdi>, line {row.line:,}: '
        f"{escape(shape_of(row))}</p>{conversation.draw(row.conversation)}</article>"
        for row in seen.first[:_ROWS]
    )
    st.html(f'<div class="gs-firsts">{"".join(cards)}</div>')


def _learned(files: Files, config: BuildConfig, read: Preview) -> None:
    """Draw what the chosen model would learn of the first rows, and which of those that can be read it refuses."""
    try:
        with st.spinner("Reading the tokenizer"):
            encoder = views.encoder_for(config)
            seen = views.first_rows(files, config, encoder)
            shown = [(row, views.mask_of(encoder, row.conversation)) for row in seen.first[:_ROWS]]
    except (GradsiftError, OSError) as error:
        st.warning(label(error))
        return
    drawn = "".join(masks.draw(masked, f"{row.file}, line {row.line:,}: {shape_of(row)}") for row, masked in shown)
    refused = _reasons(seen.excluded - read.excluded)
    st.html(f'{refused}{masks.legend() if shown else ""}<div class="gs-firsts">{drawn}</div>')


def _raw(seen: Preview) -> None:
    """Draw the first rows that cannot be read, as they stand."""
    rows = "".join(
        f'<div class="gs-bad gs-small"><b><bdi>{escape(row.file)}</bdi>, line {row.line:,}</b>: {escape(row.reason)}'
        f"<code>{escape(clip(row.raw.decode('utf-8', 'replace'), 300)) or '(empty)'}</code></div>"
        for row in seen.bad[:3]
    )
    st.html(rows)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(map(_name, names[:12]))
    return shown + (f" and {len(names) - 12:,} more" if len(names) > 12 else "")


def _name(name: str) -> str:
    return f"<code>{escape(clip(name, 60))}</code>"
