"""The order of the house: packages import only from those above them, no import leads back, pages are on top.

Every import counts, lazy ones inside functions and those under `TYPE_CHECKING` too, since a reader follows them all.
"""

import ast
from pathlib import Path

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
    edges = {name: _modules(path, files) - {name} for name, path in files.items()}
    assert _circle(edges) == []


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
            if parts[0] == root and len(parts) > 1 and parts[1] != own and levels[parts[1]] >= levels[own]:
                wrong.append(f"{path.relative_to(ROOT)} ({own}) imports {module}")
    return wrong


def _imported(path: Path) -> set[str]:
    """Every module that a file imports, and every name that may be one."""
    result = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            result |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            result |= {f"{node.module}.{alias.name}" for alias in node.names}
    return result


def _files(top: Path, root: str) -> dict[str, Path]:
    names = {path: [root, *path.relative_to(top).with_suffix("").parts] for path in top.rglob("*.py")}
    return {".".join(parts): path for path, parts in names.items() if parts[-1] != "__init__"}


def _modules(path: Path, files: dict[str, Path]) -> set[str]:
    """The files behind a file's imports: of `package.module.name` the module."""
    candidates = _imported(path)
    return {name for name in files if name in candidates or any(c.rpartition(".")[0] == name for c in candidates)}


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
