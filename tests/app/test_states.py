"""Every page in every state that a workspace, a store, a scoring or an address can be in: a sentence, no exception."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from boards import board
from stores import flip
from streamlit.testing.v1 import AppTest

from app.distributions.sections import SECTIONS
from app.pages import ROOMS
from gradsift.builder.build import build
from gradsift.config import BuildConfig
from gradsift.data.targets import parse_targets, read_targets
from gradsift.datastore.store import Store
from gradsift.runtime.progress import Progress
from gradsift.scoring.methods import METHODS
from gradsift.scoring.score_targets import score_targets
from gradsift.scoring.scoring import scoring_path
from gradsift.workspace.sessions import Sessions
from gradsift.workspace.workspace import Workspace

PAGES = tuple(room.stem for room in ROOMS)
PICKS = ("compare", "why", "distributions", "norms", "export")  # pages that show a scoring
VIEW = {"store": "toy", "targets": "two", "budget": "10"}


@pytest.fixture(autouse=True)
def no_cache() -> Iterator[None]:
    """An equal, intact store elsewhere has been read before: what is cached of it must not hide the damage."""
    st.cache_resource.clear()
    st.cache_data.clear()
    yield
    st.cache_resource.clear()
    st.cache_data.clear()


def words(at: AppTest) -> str:
    """The page's headings, texts, boxes and alerts, without its fields."""
    kinds = (at.title, at.subheader, at.markdown, at.caption, at.html, at.error, at.warning, at.info)
    texts = [str(element.value) for kind in kinds for element in kind]
    return "\n".join(text.replace("\\", "") for text in texts if not text.startswith("<style"))


def walk(at: AppTest, *pages: str) -> dict[str, str]:
    """Visit pages in one tab, by default all; fails if one breaks. Returns page -> text."""
    texts = {}
    for page in pages or PAGES:
        at.switch_page(f"../pages/{page}.py").run()
        assert not at.exception, (page, at.exception)
        texts[page] = words(at)
    return texts


def test_no_workspace(app, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADSIFT_WORKSPACE", str(tmp_path / "nothing-here"))
    at = app()
    for page, text in walk(at).items():
        assert not at.error, page
        assert "gs-empty" in text or page == "targets", page
    assert not (tmp_path / "nothing-here").exists()


def test_a_store_without_targets(app, workspace):
    texts = walk(app(store="toy"))
    assert all("No targets yet" in texts[page] for page in PICKS)
    assert "Nothing to compare yet" in texts["sessions"]


def test_targets_that_are_not_scored(app, workspace):
    texts = walk(app(store="toy", targets="yes-no"))
    assert all("not scored on this datastore yet" in texts[page] for page in PICKS)


def test_an_unfinished_store(app, scored):
    next((scored.store_path("toy") / "features" / "epoch-2").iterdir()).unlink()
    for page, text in walk(app(**VIEW)).items():
        assert "not finished" in text or page == "sessions", page


@pytest.mark.parametrize("name", ["vanished", "/no/such/folder", "../toy", "a" * 300, "a\0b", "<b>$x$", ".", "/"])
def test_a_store_that_is_not_there(app, scored, name):
    for page, text in walk(app(**{**VIEW, "store": name})).items():
        assert "There is no datastore" in text or page in ("targets", "sessions"), page


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "list", "old", "binary"])
def test_a_damaged_manifest(app, scored, damage):
    path = scored.store_path("toy") / "manifest.json"
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content.replace(b'"usable": ', b'"usable": 1', 1))
    else:
        path.write_bytes(
            {
                "cut": content[:99],
                "empty": b"",
                "list": b"[]",
                "old": b'{"schema_version": 0}',
                "binary": b"\xff\0\xfe",
            }[damage]
        )
    at = app(**VIEW)
    texts = walk(at)
    assert all("build" in texts[page] and "again" in texts[page] for page in ("datastore", "targets", *PICKS))


@pytest.mark.parametrize("name", ["pool.parquet", "metrics/epoch-1/00000.parquet"])
@pytest.mark.parametrize("damage", ["flip", "empty", "gone"])
def test_a_damaged_file_of_the_store(app, scored, name, damage):
    _damage(scored.store_path("toy") / name, damage)
    for page, text in walk(app(**VIEW, row="3"), *PICKS).items():
        # half way of a whole pool lies a text, which not every page reads
        assert f"{Path(name).name} is " in text or "not finished" in text or damage == "flip", page
    walk(app(**VIEW), "datastore", "targets", "sessions")


@pytest.mark.parametrize("name", ["adam-epoch-1.safetensors", "rds-epoch-2.safetensors", "bm25.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "empty"])
def test_a_damaged_file_of_the_scoring(app, scored, name, damage):
    _damage(_folder(scored) / name, damage)
    method = {"adam": "less", "rds": "rds", "bm25": "bm25"}[name.split("-")[0].split(".")[0]]
    at = app(**VIEW, method=method, row="3")
    for page, text in walk(at, *PICKS).items():
        assert f"{name} is damaged" in text, page
    walk(at, "datastore", "targets", "sessions")


@pytest.mark.parametrize("damage", ["flip", "empty", "gone"])
def test_damaged_targets_of_the_scoring(app, scored, damage):
    path = _folder(scored) / "targets.jsonl"
    if damage == "flip":
        path.write_text("{" + path.read_text()[1:].replace('"', "'", 1))
    else:
        _damage(path, damage)
    for page, text in walk(app(**VIEW)).items():
        if page in PICKS:
            assert "not scored" in text or "targets.jsonl" in text, page


def test_a_damaged_session_file(app, scored):
    scored.sessions_path.write_bytes(b"not a database" * 99)
    texts = walk(app(**VIEW))
    assert "sessions.sqlite3" in texts["sessions"]


def test_a_method_that_is_not_scored(app, scored):
    (_folder(scored) / "bm25.safetensors").unlink()
    at = app(**VIEW, methods="bm25", method="bm25", by="bm25")
    walk(at, *PICKS)
    at.switch_page("../pages/compare.py").run()
    assert [column["key"] for column in board(at)] == [name for name in METHODS if name != "bm25"]


def test_only_the_method_that_needs_nothing(app, scored):
    for path in _folder(scored).glob("*.safetensors"):
        path.unlink()
    at = app(**VIEW, row="3")
    walk(at)
    for section in SECTIONS:  # the charts
        at.query_params["chart"] = section
        walk(at, "distributions")


def test_a_tab_keeps_methods_and_what_ifs_from_page_to_page(app, scored):
    at = app(**VIEW, methods="less,rds", cap="50%", sort="long")
    for _ in range(2):
        walk(at, "compare", "why", "distributions", "norms", "export", "sessions")
        at.switch_page("../pages/compare.py").run()
        assert [column["key"] for column in board(at)] == ["less", "rds"]
        assert {key: at.query_params[key] for key in ("methods", "cap", "sort")} == {
            "methods": "less,rds",
            "cap": "50%",
            "sort": "long",
        }


@pytest.mark.parametrize(
    "value",
    ["0", "-1", "9" * 24, "nan", "\0", "a" * 5000, "%", "%,%2C", "\u202e$x$ <b>", "None", "٣", "t99,s99,c99", ","],
)
def test_address_nonsense(app, scored, value):
    keys = (
        *("methods", "method", "of_method", "beside", "evaluation"),
        *("by", "row", "view", "against", "chart", "highlight", "epoch", "norm", "of", "take"),
        *("compress", "format", "aggregate", "similarity", "pooling", "gradient", "without", "also", "cap", "session"),
        *("source", "task", "script", "length", "q", "role", "area", "verdict", "show", "scope", "sort", "page"),
        *("a", "b", "a-method", "b-method", "a-budget", "b-budget"),
    )
    at = app(**VIEW)
    for page in PAGES:
        for key in keys:
            at.query_params[key] = value
        walk(at, page)


@pytest.mark.parametrize(
    "budget",
    ["0", "-5", "0%", "200%", "0tokens", "nan", "inf", "1e5", "٣", "9" * 40, "5 %", "1.5", "$x$", "\0", "0.00001%"],
)
def test_budget_nonsense(app, scored, budget):
    walk(app(**{**VIEW, "budget": budget}, **{"a-budget": budget}))


@pytest.mark.parametrize("targets", ["none-such", "../two", "a\0b", "x" * 300, "<b>$x$"])
def test_a_target_set_that_is_not_there(app, scored, targets):
    for page, text in walk(app(**{**VIEW, "targets": targets})).items():
        expected = "There is no target set" if page == "targets" else "There is no such target set"
        assert expected in text or page in ("datastore", "sessions"), page


def test_a_budget_larger_than_the_pool(app, scored):
    usable = Store.open(scored.store_path("toy")).manifest.usable
    at = app(**{**VIEW, "budget": "999999"})
    texts = walk(at)
    at.switch_page("../pages/compare.py").run()
    assert all(f"of {usable} picks" in column["foot"] for column in board(at))
    assert f"<b>{usable}</b>" in texts["export"]


def test_all_rows_rejected(app, scored):
    store = Store.open(scored.store_path("toy"))
    sessions = Sessions(scored.sessions_path)
    session = sessions.create().id
    sessions.decide(session, store.fingerprint, store.scored_rows.tolist(), "reject")
    at = app(**VIEW, session=session, verdict="open", row="3")
    texts = walk(at)
    assert "No row matches" in texts["compare"]
    assert "gs-empty" in texts["export"]
    at.query_params["take"] = "accepted"
    assert "Nothing is accepted yet" in walk(at, "export")["export"]


@pytest.mark.parametrize(
    "choice", [{"without": "t0,t1"}, {"without": "c0,c1"}, {"without": "s0,s1"}, {"cap": "0"}, {"cap": "lots"}]
)
def test_a_what_if_that_leaves_nothing(app, scored, choice):
    at = app(**VIEW, **choice, row="3")
    for page, text in walk(at, *PICKS).items():
        assert at.error or "Nothing is left" in text or "cap" in text, page


def test_two_hundred_subtasks(app, workspace):
    blocks = [f"Subtask: {'x' * 60} {n}\nQ: what is {n}?\nA: {n}\n" for n in range(200)]
    workspace.save_targets("many", parse_targets("\n".join(blocks)).rows)
    store = Store.open(workspace.store_path("toy"))
    scoring = score_targets(store, read_targets(workspace.target_set("many").path).rows)
    assert len(scoring.subtask_names) == 200
    many = ",".join(f"s{n},t{n}" for n in range(9))
    walk(app(store="toy", targets="many", budget="20", chart="targets", highlight=many), "distributions")
    at = app(store="toy", targets="many", budget="20", row="3", without=many)
    walk(at)
    for section in SECTIONS:  # the charts
        at.query_params["chart"] = section
        walk(at, "distributions")


def test_a_single_target_and_a_pool_of_one_usable_row(app, tmp_path, monkeypatch, tiny_model):
    pool = tmp_path / "one.jsonl"
    pool.write_text('{"prompt": "where is the cat?", "completion": "on the mat"}\n{"prompt": "no answer"}\n')
    root = Workspace(tmp_path / "ws")
    config = BuildConfig(
        model=str(tiny_model), max_length=64, warmup_fraction=1.0, epochs=1, batch_size=1, lora_rank=2, dim=64
    )
    store = build([pool], root.store_path("one"), config, progress=Progress(quiet=True))
    root.save_targets("single", parse_targets("Q: the cat?\nA: the mat").rows)
    score_targets(store, read_targets(root.target_set("single").path).rows)
    monkeypatch.setenv("GRADSIFT_WORKSPACE", str(root.root))
    at = app(store="one", targets="single", budget="100%", row="0")
    walk(at)
    for section in SECTIONS:  # the charts
        at.query_params["chart"] = section
        walk(at, "distributions")
    for more in (
        {"similarity": "dot"},
        {"aggregate": "mean"},
        {"also": "unique,matched"},
        {"view": "opponents"},
        {"row": "1"},
    ):
        at = app(store="one", targets="single", budget="1", **more)
        walk(at)


def _folder(opened: Workspace) -> Path:
    """Where the kept scoring of the targets `two` lies."""
    store = Store.open(opened.store_path("toy"))
    return scoring_path(store, read_targets(opened.target_set("two").path).rows)


def _damage(path: Path, how: str) -> None:
    if how == "flip":
        flip(path, path.stat().st_size // 2)
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
