"""A workspace full of hostile text: rows, ids, sources, files, tasks, subtasks, target sets, a store's name."""

import json
import shutil
from pathlib import Path

import pytest

from gradsift.builder.build import build
from gradsift.config import BuildConfig
from gradsift.data.targets import read_targets
from gradsift.runtime.progress import Progress
from gradsift.scoring.score_targets import score_targets
from gradsift.text.index import ensure_index
from gradsift.workspace.workspace import Workspace

TEXTS = {
    "script": "<script>fetch('http://evil.invalid/x')</script>",
    "image": "<img src=http://evil.invalid/y onerror=\"fetch('http://evil.invalid/e')\">",
    "markdown": "![](http://evil.invalid/z) [a](javascript:alert(1)) **bold** `code` # head",
    "latex": r"$\LaTeX$ and $$\href{http://evil.invalid/l}{x}$$",
    "directive": ":material/home: :red[x] :small[y] :smile: :streamlit: <- -> >= --",
    "control": "null \0, escape \x1b[31m, bell \x07, delete \x7f, next line \x85 end",
    "bidi": "\u202eoverride\u202c \u2066isolate\u2069 \u2067not closed \u202enor this",
    "arabic": "ما هي عاصمة فرنسا؟ باريس هي العاصمة منذ قرون.",
    "hebrew": "מהי בירת צרפת? פריז (Paris) היא הבירה, 2 מיליון תושבים.",
    "combining": "Z" + "\u0335\u0321\u0327\u0316\u0317\u0318" * 3 + "algo e\u0301 " + "a\u0300\u0301\u0302" * 4,
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 👍🏿 ☃︎ ﷽",
    "formula": '=1+1 =HYPERLINK("http://evil.invalid/f";"x")',
    "function": "@SUM(A1:A9)",
    "command": "+cmd|' /C calc'!A0",
    "closing": "</p></div></main></html></style></textarea><!-- --> ]]> {{ }} %s {0} ${x}",
    "word": "Donaudampfschifffahrtsgesellschaft" * 4,
    "quotes": "\"'` \\ \\\\ \" onmouseover=\"fetch('http://evil.invalid/o')\" x='",
}
LONG = {"megabyte": "x" * 1_000_000, "tokens": "the cat sat on the mat and the dog sat on the cat, " * 3_500}
NAME = "<img src=x onerror=alert(1)> $x$ :red[a] *b* \u202e=1+1"  # valid names of a folder, a file or a session
SOURCES = (NAME, "=cmd|' x'!A1 [a](javascript:alert(1))", "من فضلك", TEXTS["script"], "x" * 120)


@pytest.fixture(scope="session")
def hostile_store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A finished store of three hostile files with the toy model, indexed, and with the hostile targets scored."""
    folder = tmp_path_factory.mktemp("extremes")
    lines = [_line(number, name, text) for number, (name, text) in enumerate([*TEXTS.items(), *LONG.items()])]
    for part, name in enumerate((NAME, "=cmd|' x'!A1", "pool")):
        (folder / f"{name}.jsonl").write_text("\n".join(lines[part::3]) + "\n" + BAD[part], encoding="utf-8")
    config = BuildConfig(
        model=str(tiny_model), max_length=320, warmup_fraction=0.5, epochs=2, batch_size=4, lr=1e-3, lora_rank=2, dim=64
    )
    pool = sorted(folder.glob("*.jsonl"))
    store = build(pool, folder / "store", config, progress=Progress(quiet=True))
    ensure_index(store)
    hostile_targets(folder / "targets.jsonl")
    score_targets(store, read_targets(folder / "targets.jsonl").rows)
    return folder / "store"


BAD = (
    '{"messages": [{"role": "user", "content": "<script>alert(1)</script>"}]}\n',
    '{"not json <img src=http://evil.invalid/b>\n',
    json.dumps({"prompt": "word " * 60_000, "completion": "cut away"}) + "\n",
)


def hostile_targets(path: Path) -> None:
    """Write a target set whose subtasks and examples are hostile."""
    rows = [
        {"subtask": text[:60], "prompt": f"{text} ?", "completion": text[:90]}
        for name, text in TEXTS.items()
        if name != "word"
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")


def hostile_workspace(root: Path, store: Path) -> Workspace:
    """A workspace with hostile names and a copy of the hostile store."""
    shutil.copytree(store, root / "stores" / NAME)
    (root / "targets").mkdir()
    hostile_targets(root / "targets" / f"{NAME}.jsonl")
    return Workspace(root)


def _line(number: int, name: str, text: str) -> str:
    short = text if len(text) < 1000 else f"say {name}"
    turns = [{"role": "user", "content": f"{short} {number}"}, {"role": "assistant", "content": f"{number}: {text}"}]
    if number % 3 == 0:
        turns.insert(0, {"role": "system", "content": short})
    fields = {"id": f"{short[:200]}#{number}", "dataset": SOURCES[number % len(SOURCES)], "task": short[:100]}
    return json.dumps({**fields, "messages": turns}, ensure_ascii=False)
