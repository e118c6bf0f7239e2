"""Picks -> a folder that trainers read: the data, the scores, configuration files, a manifest and a dataset card.

    train.jsonl, train.jsonl.gz, train.jsonl.zst or train.parquet    one row per pick, best first (see formats.py)
    scores.parquet     every scored row
    picks.csv          rank, id, source, task, score, tokens, best_subtask: the picks for a spreadsheet
    sorted.csv         for format `less`: file name, index, score, as the authors' code writes it
    dataset_info.json, axolotl.yaml    if LLaMA-Factory or axolotl reads the format (see trainers.py)
    README.md          the dataset card
    manifest.json      all settings; written last, so a folder with a manifest is complete
    SHA256SUMS         checksums of all other files, for `sha256sum -c`
    FOLDER.zip         all files, with `bundle`

Everything is streamed, so memory does not grow with the picks' text. Every file is complete or absent (see atomic.py).
"""

import gzip
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from gradsift.data.streams import clause
from gradsift.export.card import Tally, dataset_card
from gradsift.export.formats import LINES, check_format, record_of
from gradsift.export.holdings import Holdings, refusal, survey
from gradsift.export.trainers import configurations
from gradsift.runtime import atomic
from gradsift.runtime.errors import GradsiftError, UsageError
from gradsift.runtime.hashing import hash_file, hash_text
from gradsift.runtime.progress import Progress
from gradsift.selection.picks import Pick

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COMPRESSIONS = {"none": "", "gzip": ".gz", "zstd": ".zst"}  # of the data file -> suffix of its name
SUMS = "SHA256SUMS"
_DATA = ("train.parquet", *(f"train.jsonl{end}" for end in COMPRESSIONS.values()))
_HEADER = "\ufeffrank,id,source,task,score,tokens,best_subtask\n".encode()  # the mark makes Excel read UTF-8
_MAY_LIE_THERE = ("sorted.csv", "dataset_info.json", "axolotl.yaml", "leakage.json", "choices.json", "report.html")
_PACKED = (".gz", ".zst", ".parquet")  # compressed already: stored in the bundle as they are
_EPOCH = (1980, 1, 1, 0, 0, 0)  # time of the bundle's files: equal exports give equal bytes
_GROUP = 1000  # rows per Parquet row group
_JSON_FEATURE: dict[str, Any] = {"feature": {"_type": "Json"}, "_type": "List"}  # of `datasets`: a list of JSON values
_TEXT_FEATURE = {"dtype": "string", "_type": "Value"}
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # spreadsheets also read the wide forms


class ExportError(GradsiftError):
    """An export that cannot be written or would be empty."""


def check_compression(format: str, compress: str) -> None:
    """Raise `UsageError` if there is no such compression, or if the format has its own."""
    if compress not in COMPRESSIONS:
        raise UsageError(f"There is no compression {compress!r}: choose one of {', '.join(COMPRESSIONS)}.")
    if format == "parquet" and compress != "none":
        raise UsageError(f"Parquet has its own compression: leave out {compress}, or choose another format.")


def export_picks(
    out: Path,
    format: str,
    picks: Iterable[Pick],
    scores: "pd.DataFrame",
    manifest: Mapping[str, Any],
    *,
    compress: str = "none",
    bundle: bool = False,
    beside: Mapping[str, str] | None = None,
    report: Callable[[dict[str, Any]], str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the folder `out` (see above); a former export there is replaced, other files are left alone.

    `picks` come in rank order and are streamed twice: what they hold is looked at before anything is written. `scores`
    is written as it is. `data` is added to the manifest: file, sha256, bytes, rows, format. beside: further files by
    name (leakage.json, choices.json). report: makes report.html from the finished manifest.

    Returns:
        The path of the data file.

    Raises:
        UsageError: an unknown format or compression, a format that has no place for what the rows hold, or the folder
            has files of these names that no export wrote.
        ExportError: there are no picks, or the folder cannot be written.
    """
    check_format(format)
    check_compression(format, compress)
    refuse_strangers(out)
    tally, progress = Tally(holdings=_surveyed(format, picks)), progress or Progress(quiet=True)
    name = "train.parquet" if format == "parquet" else f"train.jsonl{COMPRESSIONS[compress]}"
    options = manifest.get("template_options") or {}
    texts = {**(beside or {}), **configurations(format, name, tally.holdings, options)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_data(out, name, format, compress, picks, tally)
        for stale in {*_DATA, *_MAY_LIE_THERE, _bundle(out).name} - {name, *texts}:
            (out / stale).unlink(missing_ok=True)
        _write_scores(out / "scores.parquet", scores)
        if format == "less":
            texts["sorted.csv"] = _sorted_csv(tally)
        full_manifest = {**manifest, "data": _describe(out / name, format, tally.rows)}
        if report is not None:
            texts["report.html"] = report(full_manifest)
        files = [name, "scores.parquet", "picks.csv", *sorted(texts)]
        listed = [*files[1:], "manifest.json", SUMS]
        texts["README.md"] = dataset_card(format, full_manifest["data"], tally, manifest, listed)
        for file, text in texts.items():
            atomic.write_text(out / file, text)
        _finish(out, [*files, "README.md"], atomic.json_text(full_manifest), bundle, progress)
    except OSError as error:
        raise ExportError(
            f"Cannot write the export to {out}: {clause(error)}. Check the folder and the disk."
        ) from error
    return out / name


def _surveyed(format: str, picks: Iterable[Pick]) -> Holdings:
    holdings = survey((pick.id, pick.conversation) for pick in picks)
    if reason := refusal(format, holdings):
        raise UsageError(reason)
    return holdings


def refuse_strangers(out: Path) -> None:
    """Refuse a folder in which other files, such as a trainer's own data, would be replaced or removed.

    Raises:
        UsageError: it has a file with a name that exports use, but neither the table of picks nor the manifest of one.
    """
    names = (*_DATA, *_MAY_LIE_THERE, "scores.parquet", "picks.csv", "README.md", "manifest.json", SUMS)
    existing = [name for name in (*names, _bundle(out).name) if (out / name).exists()]
    if existing and not _ours(out):
        raise UsageError(
            f"{out} has a {existing[0]} that no export wrote and that would be lost: choose another --out."
        )


def _ours(out: Path) -> bool:
    with suppress(OSError), open(out / "picks.csv", "rb") as file:
        if file.read(len(_HEADER)) == _HEADER:
            return True
    with suppress(OSError, ValueError):  # a spreadsheet may have saved the table again
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        return isinstance(manifest, dict) and {"data", "store", "method"} <= manifest.keys()
    return False


def _write_data(out: Path, name: str, format: str, compress: str, picks: Iterable[Pick], tally: Tally) -> None:
    """Write the data and picks.csv in one pass; a former export loses its manifest only when both are complete."""
    with atomic.open_for_write(out / name) as file, atomic.open_for_write(out / "picks.csv") as table:
        table.write(_HEADER)
        listed = _listed(picks, table, tally)
        if format == "parquet":
            _write_parquet(file, listed, tally)
        else:
            with _packing(file, compress) as packed:
                for pick in listed:
                    packed.write(LINES[format](pick, tally) + b"\n")
        if not tally.rows:
            raise ExportError("There is nothing to export: no row was picked. Raise the budget or accept some rows.")
        (out / "manifest.json").unlink(missing_ok=True)


def _listed(picks: Iterable[Pick], table: IO[bytes], tally: Tally) -> Iterator[Pick]:
    """The picks; each is counted and written to the table as it passes."""
    for pick in picks:
        tally.rows += 1
        tally.by_source[pick.source] += 1
        tally.places.append((pick.file, pick.line, pick.score))
        cells = [str(pick.rank), *map(_cell, (pick.id, pick.source, pick.task))]
        cells += [repr(pick.score), str(pick.tokens), _cell(pick.best_subtask)]
        table.write(",".join(cells).encode() + b"\n")
        yield pick


@contextmanager
def _packing(file: IO[bytes], compress: str) -> Iterator[IO[bytes]]:
    if compress == "gzip":
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
            yield cast(IO[bytes], packed)
    elif compress == "zstd":
        import zstandard

        with zstandard.ZstdCompressor(level=10).stream_writer(file, closefd=False) as writer:
            yield cast(IO[bytes], writer)
    else:
        yield file


def _write_parquet(file: IO[bytes], picks: Iterable[Pick], tally: Tally) -> None:
    from pyarrow.parquet import ParquetWriter

    stream, schema = iter(picks), _parquet_schema(tally.holdings)
    with ParquetWriter(file, schema) as writer:
        while group := list(islice(stream, _GROUP)):
            writer.write_table(_parquet_table(group, schema, tally))


def _parquet_schema(holdings: Holdings) -> "pa.Schema":
    import pyarrow as pa

    if holdings.are_text:
        return pa.schema([("text", pa.string())])
    if holdings.are_plain:
        return pa.schema([("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))])
    columns, features = [("messages", pa.list_(pa.json_()))], {"messages": _JSON_FEATURE}
    if holdings.has("tools"):
        columns.append(("tools", pa.string()))
        features["tools"] = _TEXT_FEATURE
    described = json.dumps({"info": {"features": features}})  # as `datasets` writes it, so that it reads objects
    return pa.schema(columns, metadata={"huggingface": described})


def _parquet_table(picks: list[Pick], schema: "pa.Schema", tally: Tally) -> "pa.Table":
    import pyarrow as pa

    records = [record_of(pick, tally) for pick in picks]
    if b"huggingface" not in (schema.metadata or {}):
        return pa.Table.from_pylist(records, schema)
    texts = [[json.dumps(message, ensure_ascii=False) for message in record["messages"]] for record in records]
    columns = [pa.array(texts, pa.list_(pa.string())).cast(schema.field("messages").type)]
    if "tools" in schema.names:
        columns.append(pa.array([pick.conversation.tools or None for pick in picks], pa.string()))
    return pa.table(columns, schema=schema)


def _write_scores(path: Path, scores: "pd.DataFrame") -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic.open_for_write(path) as file:
        pq.write_table(pa.Table.from_pandas(scores), file)


def _finish(out: Path, files: list[str], manifest: str, bundle: bool, progress: Progress) -> None:
    """Write SHA256SUMS, the bundle and, last, the manifest."""
    sums = {**{name: hash_file(out / name) for name in files}, "manifest.json": hash_text(manifest)}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    atomic.write_text(out / SUMS, lines)
    if bundle:
        progress.stage("bundle", "Packing the bundle", len(files), "files")
        with atomic.open_for_write(_bundle(out)) as file, zipfile.ZipFile(file, "w") as archive:
            for name in [*files, SUMS]:
                member = _member(out, name)
                with (out / name).open("rb") as source, archive.open(member, "w", force_zip64=True) as packed:
                    shutil.copyfileobj(source, packed, 2**20)
                progress.advance()
            archive.writestr(_member(out, "manifest.json"), manifest)
    atomic.write_text(out / "manifest.json", manifest)


def _bundle(out: Path) -> Path:
    return out / f"{out.resolve().name}.zip"


def _member(out: Path, name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(f"{_bundle(out).stem}/{name}", _EPOCH)
    member.compress_type = zipfile.ZIP_STORED if name.endswith(_PACKED) else zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    return member


def _sorted_csv(tally: Tally) -> str:
    rows = [f"{_cell(file)}, {line - 1}, {round(score, 6)}\n" for file, line, score in tally.places]
    return "file name, index, score\n" + "".join(rows)


def _cell(name: str) -> str:
    """A CSV cell that a spreadsheet reads as text: quoted if needed, never a formula, without null bytes."""
    name = name.replace("\0", "\ufffd")
    if name.lstrip().startswith(_FORMULA) or name.startswith(("\t", "\r", "\n")):
        name = "'" + name
    if any(character in name for character in ',"\r\n') or name != name.strip():
        return '"' + name.replace('"', '""') + '"'
    return name


def _describe(path: Path, format: str, rows: int) -> dict[str, Any]:
    return {"file": path.name, "sha256": hash_file(path), "bytes": path.stat().st_size, "rows": rows, "format": format}
