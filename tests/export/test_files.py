"""The files beside the data: compression, bundle, checksums, the spreadsheet, files for trainers."""

import csv
import gzip
import hashlib
import io
import json
import subprocess
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import yaml
import zstandard
from conversations import records, talk

from gradsift.cli.main import cli
from gradsift.export.files import COMPRESSIONS, export_picks
from gradsift.export.formats import FORMATS, preview
from gradsift.runtime.errors import UsageError
from gradsift.selection.picks import Pick

SCORES = pd.DataFrame({"row": [0, 1], "score": [0.5, -0.25]})
HARD = "a\u0000b\r\n\u2028\u0085 é 中 😀 \\ \" '"


def pick(rank=1, text=HARD, **fields):
    conversation = talk(("user", text), ("assistant", f"{text} {rank}"))
    values = {"id": f"i{rank}", "source": "s", "task": "", "file": "pool.jsonl", "line": rank}
    line = json.dumps({"messages": records(conversation.messages)}, ensure_ascii=False).encode()
    values |= {"score": 1 / rank, "raw": line, "tokens": 10 * rank, "best_subtask": "sums", **fields}
    return Pick(rank=rank, conversation=conversation, **values)


def picks(count=3):
    return [pick(rank) for rank in range(1, count + 1)]


def export(out: Path, format="messages", chosen=None, manifest=None, **options) -> Path:
    return export_picks(out, format, chosen or picks(), SCORES, manifest or {}, **options)


def unpacked(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(path.read_bytes())).read()
    return path.read_bytes()


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("format", [format for format in FORMATS if format != "parquet"])
def test_every_format_loads_however_it_is_packed(tmp_path: Path, format: str, compress: str) -> None:
    import datasets

    path = export(tmp_path / "out", format, compress=compress)
    assert path.name == f"train.jsonl{COMPRESSIONS[compress]}"
    assert unpacked(path).decode() == preview(format, picks(), 5)
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == [json.loads(line) for line in preview(format, picks(), 5).split("\n")[:-1]]


def test_parquet_has_its_own_compression(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Parquet has its own compression: leave out gzip"):
        export(tmp_path, "parquet", compress="gzip")
    with pytest.raises(UsageError, match="There is no compression 'xz': choose one of none, gzip, zstd"):
        export(tmp_path, compress="xz")


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_equal_exports_have_equal_bytes(tmp_path: Path, compress: str) -> None:
    folders = [tmp_path / name / "out" for name in ("one", "two")]
    for folder in folders:
        export(folder, compress=compress, bundle=True)
    contents = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders]
    assert contents[0] == contents[1]
    assert "out.zip" in contents[0]


def test_checksums_cover_every_other_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(out, "less", compress="gzip", bundle=True, beside={"leakage.json": "{}\n"}, report=lambda manifest: "<p>")
    sums = dict(reversed(line.split("  ")) for line in (out / "SHA256SUMS").read_text().splitlines())
    assert set(sums) == {file.name for file in out.iterdir()} - {"SHA256SUMS", "out.zip"}
    assert {"leakage.json", "report.html", "sorted.csv", "picks.csv", "manifest.json"} < set(sums)
    for name, digest in sums.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=out, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(("format", "compress"), [("messages", "none"), ("sharegpt", "zstd"), ("parquet", "none")])
def test_the_bundle_holds_all_files(tmp_path: Path, format: str, compress: str) -> None:
    out = tmp_path / "my picks"
    path = export(out, format, compress=compress, bundle=True)
    with zipfile.ZipFile(out / "my picks.zip") as archive:
        assert archive.testzip() is None
        members = {member.filename: member for member in archive.infolist()}
        files = {file.name for file in out.iterdir()} - {"my picks.zip"}
        assert set(members) == {f"my picks/{name}" for name in files}
        for name in files:
            assert archive.read(f"my picks/{name}") == (out / name).read_bytes()
        stored = members[f"my picks/{path.name}"].compress_type == zipfile.ZIP_STORED
        assert stored == (path.suffix in (".zst", ".parquet"))
        assert members["my picks/README.md"].compress_type == zipfile.ZIP_DEFLATED


def test_what_the_last_export_left_is_removed_and_other_files_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(out, "less", compress="gzip", bundle=True, beside={"leakage.json": "{}"}, report=lambda manifest: "")
    (out / "mine.txt").write_text("mine")
    export(out, "prompt-completion")
    assert {file.name for file in out.iterdir()} == {
        *("train.jsonl", "scores.parquet", "picks.csv", "README.md", "manifest.json", "SHA256SUMS", "mine.txt")
    }


@pytest.mark.parametrize(
    "name", ["dataset_info.json", "README.md", "train.jsonl", "manifest.json", "picks.csv", "mine.zip"]
)
def test_somebody_elses_files_are_neither_replaced_nor_removed(tmp_path: Path, name: str) -> None:
    """A trainer's data folder has a dataset_info.json of its own, and perhaps the archive it came in."""
    out = tmp_path / "mine"
    out.mkdir()
    (out / name).write_text("mine")
    for format in ("messages", "less"):
        with pytest.raises(UsageError, match=f"has a {name} that no export wrote"):
            export(out, format)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "mine"


def test_an_export_whose_table_a_spreadsheet_saved_anew_is_replaced(tmp_path: Path) -> None:
    export(tmp_path / "out", manifest={"store": "0", "method": "less"})
    (tmp_path / "out" / "picks.csv").write_text("rank;id\n1;i1\n")
    export(tmp_path / "out", manifest={"store": "0", "method": "less"})
    assert (tmp_path / "out" / "picks.csv").read_text(encoding="utf-8-sig").startswith("rank,id,source")


def test_the_report_is_made_from_the_finished_manifest(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(out, manifest={"command": "x"}, report=lambda manifest: json.dumps(manifest))
    assert json.loads((out / "report.html").read_text()) == json.loads((out / "manifest.json").read_text())


# -- the spreadsheet ---------------------------------------------------------------------------------------------------

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1+1", '=HYPERLINK("http://a","b")', "=1\n,2"]


def test_picks_csv(tmp_path: Path) -> None:
    chosen = [pick(1, id="a,b", task='say "hi"', score=0.1 + 0.2), pick(2, best_subtask="two\nlines", id=" x ")]
    export(tmp_path / "out", chosen=chosen)
    content = (tmp_path / "out" / "picks.csv").read_bytes()
    assert content.startswith("\ufeff".encode())
    table = pd.read_csv(tmp_path / "out" / "picks.csv")
    assert list(table.columns) == ["rank", "id", "source", "task", "score", "tokens", "best_subtask"]
    assert table["id"].tolist() == ["a,b", " x "]
    assert table["task"].tolist()[0] == 'say "hi"'
    assert table["score"].tolist() == [0.1 + 0.2, 0.5]
    assert table["tokens"].tolist() == [10, 20]
    assert table["best_subtask"].tolist() == ["sums", "two\nlines"]


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    chosen = [pick(rank, id=text, source=text, task=text, best_subtask=text) for rank, text in enumerate(FORMULAS, 1)]
    export(tmp_path / "out", chosen=chosen)
    with open(tmp_path / "out" / "picks.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[1] for row in rows] == ["'" + text for text in FORMULAS]
    for row in rows:
        assert not any(cell.lstrip().startswith(("=", "+", "-", "@", "＝")) for cell in row)
    export(tmp_path / "null", chosen=[pick(id="a\0b")])
    assert "\0" not in (tmp_path / "null" / "picks.csv").read_text()


# -- trainers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["messages", "alpaca", "sharegpt", "parquet"])
def test_llama_factory_reads_what_dataset_info_names(tmp_path: Path, format: str) -> None:
    out = tmp_path / "out"
    path = export(out, format)
    entry = json.loads((out / "dataset_info.json").read_text())["gradsift"]
    assert entry["file_name"] == path.name
    row = pd.read_parquet(path).iloc[0] if format == "parquet" else json.loads(path.read_bytes().split(b"\n")[0])
    assert set(entry["columns"].values()) <= set(row.keys())
    if "tags" in entry:
        turn, tags = row[entry["columns"]["messages"]][0], entry["tags"]
        assert turn[tags["role_tag"]] == tags["user_tag"]
        assert turn[tags["content_tag"]] == HARD
    card = (out / "README.md").read_text()
    assert json.dumps(json.loads((out / "dataset_info.json").read_text()), indent=2) in card


@pytest.mark.parametrize(("format", "compress"), [("messages", "none"), ("sharegpt", "gzip"), ("parquet", "none")])
def test_axolotl_reads_what_its_file_names(tmp_path: Path, format: str, compress: str) -> None:
    out = tmp_path / "out"
    path = export(out, format, compress=compress)
    (named,) = yaml.safe_load((out / "axolotl.yaml").read_text())["datasets"]
    assert (named["path"], named["type"]) == (path.name, "chat_template")
    assert named["ds_type"] == ("parquet" if format == "parquet" else "json")
    assert named["field_messages"] == ("conversations" if format == "sharegpt" else "messages")
    assert (out / "axolotl.yaml").read_text() in (out / "README.md").read_text()


def test_llama_factory_is_told_to_unpack_first(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(out, compress="zstd")
    assert not (
        out / "dataset_info.json"
    ).exists()  # LLaMA-Factory goes by the suffix of the file's name, and does not know .zst
    card = (out / "README.md").read_text()
    assert "unpack `train.jsonl.zst` first" in card
    assert '"file_name": "train.jsonl"' in card
    assert 'data_files="train.jsonl.zst"' in card


def test_the_card_lists_every_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    beside = {"leakage.json": "{}", "choices.json": "{}"}
    for format in FORMATS:
        export(out, format, beside=beside, report=lambda manifest: "")
        card = (out / "README.md").read_text()
        for file in out.iterdir():
            assert file.name == "README.md" or f"| `{file.name}` |" in card


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_writes_all_of_it(tiny_store, tiny_targets: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    out = tmp_path / "picks"
    held = tmp_path / "held out.txt"
    held.write_text("the cat sat the cat sat the cat sat the cat sat the cat\n")
    flags = ["--compress", "gzip", "--bundle", "--report", "--evaluation", str(held), "--drop-leaks"]
    ask = ["select", str(tiny_store.path), "--targets", str(tiny_targets), "--top", "4", "--out", str(out), *flags]
    done = CliRunner().invoke(cli, ask)
    assert done.exit_code == 0, done.output
    assert {"train.jsonl.gz", "picks.zip", "report.html", "SHA256SUMS"} <= {file.name for file in out.iterdir()}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["command"].endswith("--compress gzip --evaluation 'held out.txt' --drop-leaks --report --bundle")
    assert "Leakage" in (out / "report.html").read_text()
    assert "held out.txt" in (out / "report.html").read_text()
