"""README and documentation: short enough, every link followed, every name looked up, every block run or checked.

The blocks of `RUN` pages are run in the order of the page, in a folder with a small pool, targets and a finished store.
A comment above a block says how: `<!-- run: A => B; C => D -->` replaces words first, `<!-- not run: WHY -->` leaves it
at looking up its commands, flags and names.
"""

import ast
import glob
import json
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import commands
import pytest
import reference_pages
import test_imports

import gradsift
from gradsift.scoring.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WRITTEN = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
RUN = [ROOT / "README.md", DOCS / "tutorial.md", DOCS / "contributing.md", *sorted((DOCS / "guides").glob("*.md"))]
SERVES = {"app", "demo"}  # commands that end only when they are stopped

FENCE = re.compile(r"^(```+)(\w*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One code block. mark: the comment above it, "" where there is none."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def reason(self) -> str:
        """Why it is not run; "" where it is."""
        return self.mark.removeprefix("not run:").strip() if self.mark.startswith("not run") else ""

    def replaced(self, model: Path) -> str:
        """The text with the replacements of its comment, each of which has to be needed."""
        text = self.text
        for pair in filter(None, self.mark.removeprefix("run").removeprefix(":").split(";")):
            before, after = (part.strip() for part in pair.split("=>"))
            assert before in text, f"{self}: there is no {before!r} to replace"
            text = text.replace(before, after.format(model=model))
        return text

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in FENCE.finditer(text):
        above = text[: match.start()].rstrip("\n").rpartition("\n")[2]
        mark = re.fullmatch(r"<!-- ((?:not )?run.*) -->", above)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[2], match[3], mark[1] if mark else ""))
    return [block for block in found if block.language in ("bash", "python")]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# -- what is run -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tiny_copy, tiny_pool, tiny_targets, tmp_path):
    """Where a reader stands: a pool, targets, held-out rows, rows to append, a finished store, the sample."""
    place = tmp_path / "reader"
    shutil.copytree(tiny_pool, place / "pool")
    shutil.move(tiny_copy.path, place / "store")
    shutil.copy(tiny_targets, place / "skill.jsonl")
    (place / "assets").symlink_to(ROOT / "assets")
    for file, question in (("held-out.jsonl", "and the text?"), ("new.jsonl", "what is new in box?")):
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "in box 7"}]
        (place / file).write_text(
            "".join(json.dumps({"id": f"{file}-{n}", "messages": turns}) + "\n" for n in range(3))
        )
    return place


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUN if any(not b.reason for b in blocks(page))], ids=name)
def test_blocks_do_what_the_page_says(page, folder, tiny_model, monkeypatch):
    monkeypatch.chdir(folder)
    names = {"__name__": "__main__"}
    for block in blocks(page):
        if block.reason:
            continue
        text = block.replaced(tiny_model)
        if block.language == "python":
            exec(compile(text, str(block), "exec"), names)
            continue
        for words in command_lines(text):
            assert words[0] == "gradsift", f"{block}: mark it as not run, or run only gradsift in it"
            if words[1] in SERVES:
                look_up(words[1:])
                continue
            argv = [path for word in words[1:] for path in (sorted(glob.glob(word)) or [word])]
            command = commands.gradsift(*argv, cwd=folder)
            assert command.code == 0, f"{block}: gradsift {' '.join(argv)}\n{command.err}"


@pytest.mark.parametrize("page", RUN, ids=name)
def test_blocks_that_are_not_run_say_why_and_name_what_there_is(page):
    for block in blocks(page):
        assert block.mark in ("", "run") or block.mark.startswith(("run: ", "not run: ")), f"{block}: {block.mark}"
        if not block.reason:
            continue
        if block.language == "python":
            ast.parse(block.text)
            assert set(re.findall(r"\bgradsift\.(\w+)", block.text)) <= set(gradsift.__all__), block
            continue
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        for words in command_lines(block.text):
            if words[0] == "make":
                assert words[1] in targets, block
            if "gradsift" in words:
                look_up(words[words.index("gradsift") + 1 :])


def command_lines(text: str) -> list[list[str]]:
    """The commands of a block, each as its words."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def look_up(words: list[str]) -> None:
    """Fail where there is no such command, or it does not take these flags."""
    command = _command_line()
    while below := getattr(command, "commands", None):
        assert words[0] in below, f"there is no gradsift {words[0]}"
        command, words = below[words[0]], words[1:]
    command.make_context(command.name, list(words))


# -- what is looked up -------------------------------------------------------------------------------------------------


def test_readme_fits_on_a_screen_and_a_half():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_every_link_leads_to_a_page_and_a_heading(page, reference):
    broken = []
    for target in links(page.read_text()):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if file.is_relative_to(DOCS / "reference"):
            file = reference / file.relative_to(DOCS / "reference")
        if not file.exists() or (anchor and anchor not in headings(file.read_text())):
            broken.append(target)
    assert broken == []


def test_every_link_of_the_generated_reference_leads_somewhere(reference):
    for page in reference.glob("*.md"):
        text = page.read_text()
        for target in links(text):
            path, _, anchor = target.partition("#")
            there = (reference / path).read_text() if path else text
            assert anchor in headings(there), f"{page.name}: {target}"


@pytest.mark.parametrize("page", [page for page in WRITTEN if page.name != "CHANGELOG.md"], ids=name)
def test_every_file_and_function_that_a_page_names_is_there(page):
    missing = []
    for line in FENCE.sub("", page.read_text()).splitlines():
        files = [one for word in re.findall(r"`([\w./-]+\.py)`", line) for one in (find(word) or [word])]
        missing += [file for file in files if isinstance(file, str)]
        functions = re.findall(r"`(\w+)\(\)`", line)
        known = set().union(*map(defined, files)) if files and not missing else everything()
        missing += [f"{function}() in {files or 'any file'}" for function in functions if function not in known]
    assert missing == []


def test_the_tables_of_imports_are_those_that_are_tested():
    tables = [match[3] for match in FENCE.finditer((DOCS / "architecture.md").read_text()) if match[2] == "text"]
    assert tables == [test_imports.LIBRARY.lstrip("\n"), test_imports.APP.lstrip("\n")]


def test_every_package_has_its_line_in_readme_and_architecture():
    tops = {path.name for path in (ROOT / "backend" / "gradsift").iterdir() if (path / "__init__.py").is_file()}
    readme = set(re.findall(r"^  (\w+)/ ", (ROOT / "README.md").read_text(), re.MULTILINE))
    table = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "architecture.md").read_text(), re.MULTILINE)) - {
        "config",
        "pages",
    }
    assert readme == table == tops


def test_the_walks_name_each_file_once():
    text = (DOCS / "architecture.md").read_text()
    files = re.findall(r"^\| \d+ \| `([\w/.]+)` \|", text, re.MULTILINE)
    assert len(files) > 20
    assert sorted(set(files)) == sorted(files)


def test_every_command_has_help_an_example_and_a_place_in_the_pages():
    text = "\n".join(page.read_text() for page in WRITTEN if page.name != "CHANGELOG.md")
    for full, command in reference_pages.walk(_command_line()):
        assert command.help, full
        assert full in text, f"no page mentions {full}"
        examples = list(reference_pages._examples(command.epilog or ""))
        assert examples, f"{full} has no example"
        for _, example in examples:
            look_up(shlex.split(example)[1:])


def test_every_public_name_is_in_the_reference(reference):
    text = (reference / "python.md").read_text()
    assert [name for name in gradsift.__all__ if f"\n### `{name}`\n" not in text] == []


def test_every_method_is_in_the_guide():
    text = (DOCS / "guides" / "choosing.md").read_text()
    assert [method for method in METHODS if f"`{method}`" not in text] == []


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("zensical", reason="the documentation's generator is not installed: make docs")
    pytest.importorskip("latex2mathml", reason="the documentation's generator is not installed: make docs")
    import website

    assert website.build(tmp_path) == 0
    pages = {str(page.relative_to(tmp_path / "site")) for page in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "method.html", "guides/data.html", "reference/commands.html"} <= pages
    for page in pages:
        html = (tmp_path / "site" / page).read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"([^\"]+)|<link[^>]* href=\"([^\"]+)", html)
        assert [url for urls in loaded for url in urls if re.match(r"(https?:)?//", url)] == []
        assert "```" not in html
    assert "<math" in (tmp_path / "site" / "method.html").read_text()


def test_a_broken_link_or_heading_fails_the_build(tmp_path):
    pytest.importorskip("zensical", reason="the documentation's generator is not installed: make docs")
    (tmp_path / "build" / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    for target, code in (("index.md#here", 0), ("gone.md", 1), ("index.md#gone", 1)):
        (tmp_path / "build" / "docs" / "index.md").write_text(f"# Here\n\nA [link]({target}).\n")
        command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert bool(run.returncode) == bool(code), (target, run.stdout, run.stderr)


# -- helpers -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The pages that are made from the code."""
    made = tmp_path_factory.mktemp("reference")
    reference_pages.write(made)
    return made


@cache
def _command_line():
    return reference_pages.command_line()


def links(text: str) -> list[str]:
    """Targets of all links and pictures outside of code."""
    return LINK.findall(re.sub(r"`[^`\n]+`", "", FENCE.sub("", text)))


def headings(text: str) -> set[str]:
    """Anchors of a page's headings, as Markdown's table of contents makes them."""
    found = re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text), re.MULTILINE)
    plain = [unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode() for title in found]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in plain}


def find(path: str) -> list[Path]:
    """The file that a page means: from the root of the repository, or within the library or the app."""
    places = (ROOT, ROOT / "backend" / "gradsift", ROOT / "app", DOCS)
    return [place / path for place in places if (place / path).is_file()][:1]


@cache
def defined(file: Path) -> set[str]:
    """Functions and classes of a file."""
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@cache
def everything() -> set[str]:
    files = [*(ROOT / "backend").rglob("*.py"), *(ROOT / "app").rglob("*.py"), *DOCS.glob("*.py")]
    return set().union(*map(defined, files))
