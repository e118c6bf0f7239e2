"""The documentation site, built strictly: python docs/website.py [FOLDER]

    FOLDER/build/docs/   what the generator reads: the pages of docs/, the reference made from the code, the pictures
    FOLDER/site/         the site; it loads nothing from other hosts, and only its search needs a server

FOLDER is the checkout by default. Zensical reads zensical.toml; a link to a missing page or heading is an error.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import reference_pages
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_PRIME = re.compile(r"<msup><mi>(\w)</mi><m\w>&#x02032;</m\w></msup>")  # whose glyph is raised already
_MATH = re.compile(r"^```math\n(.*?)\n```$", re.MULTILINE | re.DOTALL)


def stage(folder: Path) -> Path:
    """Put everything the generator reads into `folder`/build/docs, and return that."""
    target = folder / "build" / "docs"
    shutil.rmtree(target, ignore_errors=True)
    for page in sorted(DOCS.rglob("*.md")):
        place = target / page.relative_to(DOCS)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(_page(page, target), encoding="utf-8")
    shutil.copytree(DOCS / "style", target / "style")
    shutil.copytree(DOCS / "figures", target / "figures")
    shutil.copy(ROOT / "CHANGELOG.md", target / "changelog.md")
    for picture in ("logo.svg",):
        shutil.copy(ROOT / "assets" / picture, target / "style" / picture)
    reference_pages.write(target / "reference")
    return target


def build(folder: Path) -> int:
    """Stage and build the site in `folder`; the generator's exit code."""
    stage(folder)
    config = folder / "zensical.toml"
    if folder != ROOT:
        shutil.copy(ROOT / "zensical.toml", config)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(config)]
    return subprocess.run(command, cwd=folder).returncode


def _page(page: Path, target: Path) -> str:
    """A page as the generator reads it, with formulas as MathML and its pictures copied, both light and dark."""

    def link(match: re.Match[str]) -> str:
        mark, text, place, anchor = match[1], match[2], match[3], match[4] or ""
        file = (page.parent / place).resolve()
        if "://" in place or file.is_relative_to(DOCS):
            return match[0]
        if not mark:
            raise SystemExit(f"{page.relative_to(ROOT)} links to {place}, which is not a page: name the file instead.")
        light = _bring(file, page, target)
        dark = file.with_name(f"{file.stem}-dark{file.suffix}")
        if not dark.is_file():
            return f"![{text}]({light}{anchor})"
        return f"![{text}]({light}#only-light)\n![{text}]({_bring(dark, page, target)}#only-dark)"

    text = _LINK.sub(link, page.read_text(encoding="utf-8"))
    return _MATH.sub(lambda match: _PRIME.sub(r"<mi>\1′</mi>", convert(match[1], display="block")), text)


def _bring(file: Path, page: Path, target: Path) -> str:
    """Copy a file of the repository into the site's sources; returns its path relative to `page`."""
    copy = target / file.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, copy)
    return os.path.relpath(copy, (target / page.relative_to(DOCS)).parent)


if __name__ == "__main__":
    raise SystemExit(build(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT))
