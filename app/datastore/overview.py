"""A datastore on the page: its figures, coverage, warmup, checkpoints, excluded rows and parameters."""

import json

import pandas as pd
import streamlit as st

from app import theme
from app.pages import room
from app.text import escape, plural, size
from app.views.store import coverage_of, pool_of, sizes_of
from app.widgets import charts, tables
from gradsift.datastore.store import Store

NUMBER = st.column_config.NumberColumn
REASONS = 8  # kinds of reasons that stand above the table of excluded rows, which has them all


def draw(store: Store) -> None:
    """Draw everything that a person wants to know about a store before trusting it."""
    figures(store)
    if st.button(
        "Choose target examples", type="primary", icon=":material/arrow_forward:", icon_position="right", key="next"
    ):
        st.switch_page(room("targets"))
    _notes(store)
    _coverage(store)
    left, right = st.columns([3, 2], gap="large")
    with left:
        _warmup(store)
    with right:
        _checkpoints(store)
    _unused(store)
    _excluded(store)
    _parameters(store)


def figures(store: Store) -> None:
    """Draw the store's key figures in one row."""
    manifest, sizes = store.manifest, sizes_of(store)
    truncated = sum(source.truncated for source in manifest.sources)
    pairs = [
        (f"{manifest.rows:,}", "rows in the store"),
        (f"{manifest.usable:,}", "usable"),
        (f"{manifest.rows - manifest.usable:,}", "excluded, each with a reason"),
        (f"{truncated:,}", f"cut at {manifest.config.max_length:,} tokens"),
        (f"{len(manifest.checkpoints):,}", "checkpoints"),
        (f"{manifest.config.dim:,}", f"dimensions, {manifest.config.store_dtype}"),
        (size(sizes["features"]), "of features"),
    ]
    cells = "".join(f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in pairs)
    st.html(f'<div class="gs-figures">{cells}</div>')


def _notes(store: Store) -> None:
    for note in store.manifest.notes:
        st.html(f'<p class="gs-small gs-dim" style="margin:0">Note from the build: {escape(note)}</p>')


def _coverage(store: Store) -> None:
    st.subheader("Coverage")
    st.caption("From the rows in each source's files to the rows that have features. Nothing is cut silently.")
    frame = coverage_of(store)
    columns = ["rows_in_file", "rows_in_store", "usable", "excluded", "truncated"]
    total = pd.DataFrame([{"source": "all", **frame[columns].sum().to_dict()}])
    config: tables.Columns = {
        "source": st.column_config.TextColumn("Source", width="medium"),
        "rows_in_file": NUMBER("Rows in file", format="localized"),
        "rows_in_store": NUMBER("In the store", format="localized"),
        "usable": NUMBER("Usable", format="localized"),
        "excluded": NUMBER("Excluded", format="localized"),
        "truncated": NUMBER("Cut, still usable", format="localized"),
    }
    shown = pd.concat([frame, total], ignore_index=True) if len(frame) > 1 else frame
    st.dataframe(shown, hide_index=True, column_config=config, alt="Rows of each source at every stage", key="coverage")


def _warmup(store: Store) -> None:
    st.subheader("Warmup")
    curve = store.loss_curve()
    if curve.empty:
        st.caption("The checkpoints were trained elsewhere, so there is no loss curve.")
        return
    st.caption("Training loss and learning rate at every optimizer step; dashed lines mark the ends of epochs.")
    _warmup_chart(curve)


def _warmup_chart(curve: pd.DataFrame) -> None:
    """Draw loss and learning rate by optimizer step, with the ends of epochs marked."""
    accent, second = theme.color("less", charts.dark()), theme.color("bm25", charts.dark())
    figure = charts.blank("Loss and learning rate", "Loss in nats per token, left; learning rate, right", 340)
    figure.add_scatter(x=curve["step"], y=curve["loss"], name="Loss", line={"color": accent, "width": 2})
    figure.add_scatter(
        x=curve["step"],
        y=curve["learning_rate"],
        name="Learning rate",
        yaxis="y2",
        line={"color": second, "width": 1.5, "dash": "dot"},
    )
    for step in _epoch_ends(curve):
        figure.add_vline(x=step, line_width=1, line_dash="dash", line_color=charts.LINE)
    figure.update_layout(
        hovermode="x unified",
        xaxis={"title": {"text": "Optimizer step"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "Loss (nats per token)"}},
        yaxis2={
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "tickformat": ".1e",
            "tickmode": "auto",
            "nticks": 6,
            "fixedrange": True,
        },
    )
    first, last = curve["loss"].iloc[0], curve["loss"].iloc[-1]
    alt = (
        f"Warmup loss by optimizer step: from {first:.2f} to {last:.2f} in {len(curve)} steps, with the learning rate."
    )
    columns: tables.Columns = {
        "step": "Step",
        "epoch": NUMBER("Epoch", format="%.2f"),
        "loss": NUMBER("Loss (nats per token)", format="%.4f"),
        "learning_rate": NUMBER("Learning rate", format="%.2e"),
        "grad_norm": NUMBER("Gradient norm", format="%.4f"),
    }
    charts.draw(charts.Chart("warmup", figure, alt, curve, columns))


def _epoch_ends(curve: pd.DataFrame) -> list[float]:
    epochs = curve["epoch"].apply(lambda e: -(-float(e) // 1))
    return [float(step) + 0.5 for step in curve.groupby(epochs)["step"].max().iloc[:-1]]


def _checkpoints(store: Store) -> None:
    st.subheader("Checkpoints")
    st.caption("Checkpoints are weighted by their mean learning rate; a score is the weighted sum over all of them.")
    rows = [
        {"name": c.name, "weight": c.weight, "mean_lr": c.mean_lr, "step": c.step} for c in store.manifest.checkpoints
    ]
    config: tables.Columns = {
        "name": "Checkpoint",
        "weight": st.column_config.ProgressColumn("Weight", format="%.3f", min_value=0, max_value=1),
        "mean_lr": NUMBER("Mean learning rate", format="%.3e"),
        "step": NUMBER("Adam steps"),
    }
    st.dataframe(
        pd.DataFrame(rows), hide_index=True, column_config=config, alt="Checkpoints and weights", key="weights"
    )


def _unused(store: Store) -> None:
    """Draw the columns of the pool's files that held text and were not used, if there are any."""
    unused = store.manifest.unused
    if not unused:
        return
    st.subheader("Columns that were not used")
    st.caption("They held text, but no part of a conversation was read from them.")
    ordered = sorted(unused.items(), key=lambda pair: -pair[1])
    config: tables.Columns = {
        "column": st.column_config.TextColumn("Column", width="medium"),
        "rows": NUMBER("Rows with text in it", format="localized"),
    }
    st.dataframe(
        pd.DataFrame(ordered, columns=["column", "rows"]),
        hide_index=True,
        column_config=config,
        alt="Columns that held text and were not used",
        key="unused",
    )


def _excluded(store: Store) -> None:
    excluded = store.manifest.rows - store.manifest.usable
    st.subheader("Excluded rows")
    if not excluded:
        st.caption("Every row is usable.")
        return
    st.caption(f"{plural(excluded, 'row')} have no features: they are never picked, but always listed here.")
    reasons = sorted(store.manifest.excluded.items(), key=lambda pair: -pair[1])
    st.html(
        "".join(
            f'<div class="gs-bad gs-small"><b>{plural(count, "row")}</b>: {escape(reason)}</div>'
            for reason, count in reasons[:REASONS]
        )
    )
    pool = pool_of(store)
    frame = pool.loc[pool["status"] != "usable", ["file", "line", "reason", "source", "id"]]
    config: tables.Columns = {
        "file": st.column_config.TextColumn("File", width="medium"),
        "line": NUMBER("Line", format="localized", width="small"),
        "reason": st.column_config.TextColumn("Reason", width="large"),
        "source": st.column_config.TextColumn("Source", width="medium"),
        "id": st.column_config.TextColumn("Id", width="medium"),
    }
    tables.paged(frame, "excluded", "excluded rows", "Excluded rows with their reasons", config, "Search excluded rows")


def _parameters(store: Store) -> None:
    with st.expander("Parameters and provenance"):
        manifest = store.manifest
        facts = {
            "Folder": str(store.path),
            "Fingerprint": store.fingerprint,
            "Model": f"{manifest.config.model} (weights {manifest.model_fingerprint})",
            "Computed on": f"{manifest.device}, {manifest.dtype}, {plural(manifest.threads, 'thread')}",
            "Projections": ", ".join(f"{c.name} {c.projector}" for c in manifest.checkpoints),
            **({"Read from": _parts(store)} if len(manifest.parts) > 1 else {}),
            "Schemas": ", ".join(f"{name}: {_schemas(counts)}" for name, counts in manifest.schemas.items()),
            "On disk": ", ".join(f"{part} {size(count)}" for part, count in sizes_of(store).items() if count),
            "Libraries": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        }
        cells = "".join(f"<tr><td class='gs-dim'>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in facts.items())
        st.html(f'<table class="gs-facts">{cells}</table>')
        st.code(json.dumps(manifest.config.model_dump(mode="json"), indent=1, ensure_ascii=False), language="json")


def _parts(store: Store) -> str:
    """What the build and then each append read: 140 rows (a.jsonl, b.jsonl), then 12 rows (c.jsonl)."""
    names = [", ".join(entry.rpartition(" ")[0] for entry in part.inputs) for part in store.manifest.parts]
    rows = [plural(part.rows, "row") for part in store.manifest.parts]
    return ", then ".join(f"{count} ({files})" for count, files in zip(rows, names, strict=True))


def _schemas(counts: dict[str, int]) -> str:
    return " + ".join(f"{name or 'unreadable'} {count:,}" for name, count in counts.items())
