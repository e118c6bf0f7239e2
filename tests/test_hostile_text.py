"""Text that would harm a page, a spreadsheet or a reader: unchanged in the data, harmless everywhere else."""

import csv
import json
import re
from pathlib import Path

import pytest

from gradsift.builder.build import build
from gradsift.config import BuildConfig
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.export.selection import select
from gradsift.runtime.progress import Progress

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
HOSTILE = [
    "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">",
    "![](http://tracker.invalid/p.png) [link](javascript:alert(1)) <iframe src=http://tracker.invalid></iframe>",
    r"$\LaTeX$ $$\href{javascript:alert(1)}{x}$$ `code` **bold** | table | </p></main></html><!--",
    "null \0 bytes, escapes \x1b[31m and a bell \x07",
    "a line of a megabyte: " + "x" * 1_000_000,
    "\u202eright to left override\u202c \u2066isolate\u2069 \u200f mark",
    '=HYPERLINK("http://tracker.invalid";"click") +1 @SUM -2',
    "</textarea></style><style>*{display:none}</style>&lt;&amp;&#x3C;",
]


def message(number: int, text: str) -> tuple[str, str]:
    """Question and answer of a row; a question of a megabyte would leave no room for an answer."""
    return f"{text if len(text) < 1000 else 'say it'} {number}", f"about {number}: {text}"


def row(number: int, text: str) -> dict:
    question, answer = message(number, text)
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": f"{text[:60]}#{number}", "dataset": text[:80], "task": text[:80], "messages": turns}


@pytest.fixture(scope="module")
def hostile_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "=cmd|' x'!A1 <b>.jsonl"
    lines = [json.dumps(row(number, text), ensure_ascii=False) for number, text in enumerate(HOSTILE)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def hostile_store(hostile_pool: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    config = BuildConfig(
        model=str(tiny_model), max_length=256, warmup_fraction=1.0, epochs=1, batch_size=4, lr=1e-3, lora_rank=2, dim=64
    )
    return build([hostile_pool], tmp_path_factory.mktemp("store") / "hostile", config, progress=Progress(quiet=True))


@pytest.fixture(scope="module")
def hostile_targets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target for every kind of text except the megabyte, with a hostile subtask; the first is also in the pool."""
    path = tmp_path_factory.mktemp("targets") / "targets.jsonl"
    chosen = [(number, text) for number, text in enumerate(HOSTILE) if len(text) < 1000]
    lines = [json.dumps({**row(number, text), "subtask": text[:60]}, ensure_ascii=False) for number, text in chosen]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def exported(hostile_store: Store, hostile_targets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every row exported as the source's own lines, with a report and the leaks."""
    out = tmp_path_factory.mktemp("exported") / "out"
    select(hostile_store, read_targets(hostile_targets).rows, "100%", out, format="less", report=True, bundle=True)
    return out


@pytest.mark.parametrize("format", ["messages", "sharegpt", "alpaca", "prompt-completion", "parquet"])
def test_data_files_hold_the_text_unchanged(
    hostile_store: Store, hostile_targets: Path, tmp_path: Path, format: str
) -> None:
    from datasets import load_dataset

    path = select(hostile_store, read_targets(hostile_targets).rows, "100%", tmp_path, method="random", format=format)
    loader = "parquet" if format == "parquet" else "json"
    rows = load_dataset(loader, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")).to_list()
    result = {text for record in rows for text in strings(record)}
    for number, text in enumerate(HOSTILE):
        assert set(message(number, text)) <= result


def strings(value) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in strings(part)]


def test_less_copies_the_lines_byte_for_byte(exported: Path, hostile_pool: Path) -> None:
    lines = (exported / "train.jsonl").read_bytes().split(b"\n")
    assert sorted(lines) == sorted(hostile_pool.read_bytes().split(b"\n"))


def test_tables_hold_no_formula_and_no_null(exported: Path) -> None:
    for name in ("picks.csv", "sorted.csv"):
        content = (exported / name).read_text(encoding="utf-8-sig")
        assert "\0" not in content
        with open(exported / name, encoding="utf-8-sig", newline="") as file:
            cells = [cell for line in list(csv.reader(file))[1:] for cell in line]
        assert cells
        assert not [cell for cell in cells if re.match(r"\s*[=+@＝]", cell)]
        assert not [cell for cell in cells if re.match(r"\s*-", cell) and not re.fullmatch(r"\s*-[\d.e-]+", cell)]


def test_the_card_is_inert(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", card, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"<(?!!--)[a-z/]", outside)
    assert "\0" not in card
    assert "\u202e" not in card
    assert not re.search(r"(?<!\\)!(?<!\\)\[", outside)
    assert not re.search(r"(?<!\\)\]\(", outside)
    assert not re.search(r"(?<!\\)\$", outside)


def test_leaks_are_reported_with_their_text(exported: Path) -> None:
    leakage = json.loads((exported / "leakage.json").read_text())
    assert {leak["id"] for leak in leakage["leaks"]} >= {row(n, text)["id"] for n, text in enumerate(HOSTILE[:2])}
    assert max(len(json.dumps(leak)) for leak in leakage["leaks"]) < 50_000


@pytest.mark.browser
def test_the_report_shows_it_as_text(exported: Path, chromium: str) -> None:
    sync_playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").sync_playwright
    report = exported / "report.html"
    assert report.stat().st_size < 300_000
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        seen: list[str] = []
        page.on("request", lambda request: seen.append(request.url))
        page.on("console", lambda message: seen.append(message.text))
        page.on("dialog", lambda dialog: seen.append(dialog.message))
        page.goto(report.as_uri())
        assert page.title().startswith("Selection report")
        assert page.evaluate("document.images.length + document.scripts.length") == 0
        assert [url for url in seen if not url.startswith("data:")] == [report.as_uri()]
        text = page.locator("main").inner_text()
        assert "<script>document.title='taken'</script>" in text
        assert r"$\LaTeX$" in text
        assert "[U+202E]right to left override[U+202C]" in text
        assert "null [U+0000] bytes" in text
        assert "more characters]" in text
        assert page.get_by_text("This file works offline").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
