"""Fixtures for tests of the app: a workspace with a real store of the toy model, and the app running in it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def app() -> Callable[..., AppTest]:
    """Run the app from its entry point at a page, with these parameters in the address."""

    def run(page: str = "datastore", **address: str) -> AppTest:
        at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
        for name, value in address.items():
            at.query_params[name] = value
        at.run()
        assert not at.exception, at.exception
        if page != "datastore":
            at.switch_page(f"../pages/{page}.py").run()
            assert not at.exception, at.exception
        return at

    return run
