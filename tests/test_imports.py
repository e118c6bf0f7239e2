"""The order of the house: packages import only from those above them, no import leads back, pages are on top.

Every import counts, lazy ones inside functions and those under `TYPE_CHECKING` too, since a reader follows them all.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the bottom up; packages on one line do not import each other. docs/architecture.md says what each is for.
LIBRARY = """
runtime
config
data
model
training
datastore
gradients text
builder scoring
selection workspace
analysis
export
evaluation
cli
"""
APP = """
text theme pages
state
views
widgets
datastore targets compare why distributions norms export proof sessions
main
"""


def test_a_package_of_the_library_imports_only_from_those_above_it_in_the_table() -> None:
    assert _against_the_order(ROOT / "backend" / "gradsift", "gradsift", _levels(LIBRARY)) == []


def test_a_folder_of_the_app_imports_only_from_those_above_it_in_the_table() -> None:
    assert _against_the_order(ROOT / "app", "app", _levels(APP)) == []


def test_imports_lead_from_pages_to_the_app_to_the_library_and_never_back() -> None:
    allowed = {"backend": {"gradsift"}, "app": {"gradsift", "app"}, "pages": {"gradsift", "app"}}
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for folder, known in allowed.items()
        for path in (ROOT / folder).rglob("*.py")
        for module in _imported(path)
        if module.split(".")[0] in {"gradsift", "app", "pages"} - known
    ]
    assert wrong == []


def test_no_file_is_reached_from_itself() -> None:
    files = {
        **_files(ROOT / "backend" / "gradsift", "gradsift"),
        **_files(ROOT / "app", "app"),
        **_files(ROOT / "pages", "pages"),
    }
    assert _circle(_edges(files)) == []


def test_modules_are_imported_by_name_only_where_a_table_or_a_folder_lists_them() -> None:
    """Such imports are in no table here: the public names' homes, and the files of methods."""
    calls = [
        str(path.relative_to(ROOT))
        for folder in ("backend", "app", "pages")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in ("import_module", "__import__")
        if name in {node.id for node in ast.walk(_tree(path)) if isinstance(node, ast.Name)}
    ]
    assert calls == ["backend/gradsift/__init__.py", "backend/gradsift/scoring/methods/__init__.py"]


ABOVE = [
    "from gradsift.upper.other import name",
    "import gradsift.upper.other",
    "from gradsift import upper",
    "def f():\n    from gradsift.upper.other import name",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gradsift.upper.other import name",
    "from gradsift import build",  # by the door, behind which everything is
    "import gradsift",
]


@pytest.mark.parametrize("line", ABOVE)
def test_whatever_form_an_import_has_it_counts(tmp_path: Path, line: str) -> None:
    house = _house(tmp_path, {"lower/one.py": line, "upper/other.py": "", "upper/__init__.py": ""})
    assert len(_against_the_order(house, "gradsift", _levels("lower\nupper"))) == 1
    assert _against_the_order(house, "gradsift", _levels("upper\nlower")) == [] or line in ABOVE[-2:]


@pytest.mark.parametrize("line", ["from . import other", "from .other import name", "from .. import upper"])
def test_relative_imports_are_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(AssertionError, match="imports relatively"):
        _imported(_house(tmp_path, {"lower/one.py": line}) / "lower" / "one.py")


@pytest.mark.parametrize(
    ("sources", "circle"),
    [
        ({"a/one.py": "import gradsift.a.two", "a/two.py": "def f():\n    from gradsift.a.one import g"}, 3),
        ({"a/one.py": "from gradsift.a import g", "a/__init__.py": "from gradsift.a.one import f"}, 3),
        (
            {
                "a/one.py": "import gradsift.a.two",
                "a/two.py": "import gradsift.b",
                "b/__init__.py": "import gradsift.a.one",
            },
            4,
        ),
        ({"a/one.py": "from gradsift.a.two import f", "a/two.py": "", "a/__init__.py": ""}, 0),
    ],
)
def test_a_circle_is_seen_also_through_a_package(tmp_path: Path, sources: dict[str, str], circle: int) -> None:
    assert len(_circle(_edges(_files(_house(tmp_path, sources), "gradsift")))) == circle


def test_every_package_says_in_a_line_what_it_is_for() -> None:
    tops = [ROOT / "backend" / "gradsift", ROOT / "app"]
    silent = [path for top in tops for path in top.rglob("__init__.py") if not ast.get_docstring(_tree(path))]
    assert silent == []


def _levels(table: str) -> dict[str, int]:
    return {name: level for level, line in enumerate(table.strip().splitlines()) for name in line.split()}


def _against_the_order(top: Path, root: str, levels: dict[str, int]) -> list[str]:
    wrong = []
    for path in sorted(top.rglob("*.py")):
        if path.parent == top and path.stem in (
            "__init__",
            "__main__",
        ):  # may import every package
            continue
        own = path.relative_to(top).parts[0].removesuffix(".py")
        for module in sorted(_imported(path)):
            parts = module.split(".")
            if parts[0] != root or parts[1:2] == [own]:
                continue
            if len(parts) == 1 or parts[1] not in levels:  # by the door, behind which everything is
                wrong.append(f"{path.relative_to(top)} ({own}) imports {module} by the package: name its file")
            elif levels[parts[1]] >= levels[own]:
                wrong.append(f"{path.relative_to(top)} ({own}) imports {module}")
    return wrong


def _imported(path: Path) -> set[str]:
    """Every module that a file imports, and every name that may be one."""
    result = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            result |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            result |= {f"{node.module}.{alias.name}" for alias in node.names}
    return result


def _files(top: Path, root: str) -> dict[str, Path]:
    """Module -> its file; a package is the module of its `__init__.py`. The door is left out."""
    names = {path: [root, *path.relative_to(top).with_suffix("").parts] for path in top.rglob("*.py")}
    doors = {top / "__init__.py", top / "__main__.py"}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in names.items() if path not in doors}


def _edges(files: dict[str, Path]) -> dict[str, set[str]]:
    """The modules that each module imports: of `package.module.name` the module, of `package.name` the package."""
    edges = {}
    for name, path in files.items():
        candidates = _imported(path)
        nearest = {c if c in files else c.rpartition(".")[0] for c in candidates}
        edges[name] = {other for other in nearest if other in files} - {name}
    return edges


def _circle(edges: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, in order; an empty list if there is no circle."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name not in done:
            for other in sorted(edges[name]):
                if circle := visit(other, [*trail, name]):
                    return circle
            done.add(name)
        return []

    return next((circle for name in sorted(edges) if (circle := visit(name, []))), [])


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _house(folder: Path, sources: dict[str, str]) -> Path:
    """A library of these files."""
    for name, text in sources.items():
        (folder / "gradsift" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "gradsift" / name).write_text(text, encoding="utf-8")
    return folder / "gradsift"
