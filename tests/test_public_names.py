"""The names that `gradsift` exports: the full list, that each one exists, and that the import costs nothing."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gradsift

NAMES = {
    *("BuildConfig", "Engine", "Choices", "Budget", "Store", "Selection"),
    *("plan", "build", "begin", "read_targets", "target_features", "score", "pick", "select"),
    *("explain", "evaluate", "verify"),
    *("GradsiftError", "UsageError", "StoreError", "TargetError"),
    "__version__",
}
HEAVY = ("torch", "numpy", "pandas", "pyarrow", "transformers", "pydantic", "streamlit", "typer")


def test_these_names_are_exported():
    assert set(gradsift.__all__) == NAMES
    assert len(gradsift.__all__) == len(NAMES)
    assert set(dir(gradsift)) >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_can_be_imported_and_says_what_it_is(name):
    value = getattr(gradsift, name)
    assert name == "__version__" or value.__doc__
    assert name == "__version__" or value.__name__ == name


def test_no_module_takes_a_names_place():
    """A module `gradsift.plan` would replace the function `gradsift.plan` as soon as anything imports it."""
    folder = Path(gradsift.__file__).parent
    assert not {path.stem for path in folder.iterdir()} & NAMES


def test_type_checkers_see_the_same_table():
    tree = ast.parse(Path(gradsift.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module.removeprefix("gradsift.") for node in imports for alias in node.names}
    assert seen == gradsift._HOME


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="has no attribute 'picks_of'"):
        gradsift.picks_of  # noqa: B018


def test_importing_the_package_imports_no_heavy_library():
    code = f"import sys, gradsift; gradsift.__version__; print([name for name in {HEAVY} if name in sys.modules])"
    environment = {"PYTHONPATH": str(Path(gradsift.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_the_version_is_the_one_of_pyproject(monkeypatch):
    project = Path(__file__).parents[1] / "pyproject.toml"
    (version,) = re.findall(r'^version = "(.+)"$', project.read_text(), re.M)
    assert gradsift.__version__ == version

    def not_installed(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    assert gradsift.__version__ == version
