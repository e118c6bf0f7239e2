"""Sessions: they begin and are saved automatically, reopen by address, and their picks are compared."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.sessions import sides
from gradsift.builder.build import build
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.runtime.progress import Progress
from gradsift.scoring.choices import Choices
from gradsift.scoring.score_targets import score_targets
from gradsift.workspace.sessions import Sessions
from gradsift.workspace.workspace import sample_pool

VIEW = {"store": "toy", "targets": "two", "budget": "10"}


@pytest.fixture(scope="session")
def other_store(tmp_path_factory: pytest.TempPathFactory, toy_store: Path) -> Path:
    """A store that shares lines with the toy store under other row numbers, some of them several times."""
    folder = tmp_path_factory.mktemp("other")
    lines = sample_pool()[1].read_text(encoding="utf-8").splitlines()[:6]
    (folder / "again.jsonl").write_text("\n".join([*lines, *lines]) + "\n", encoding="utf-8")
    config = Store.open(toy_store).manifest.config
    build([folder / "again.jsonl", *reversed(sample_pool())], folder / "store", config, progress=Progress(quiet=True))
    return folder / "store"


@pytest.fixture
def other(scored, other_store: Path, tmp_path: Path) -> str:
    """The workspace name of a copy of the other store, on which nothing is scored yet."""
    shutil.copytree(other_store, tmp_path / "elsewhere")
    return scored.open_store(str(tmp_path / "elsewhere")).name


@pytest.fixture
def both(scored, other: str):
    """The workspace with both stores, the target set scored on each."""
    score_targets(Store.open(scored.store_path(other)), read_targets(scored.target_set("two").path).rows)
    return scored


def kept(workspace) -> Sessions:
    return Sessions(workspace.sessions_path)


def text_of(at: AppTest) -> str:
    return " ".join(toast.value for toast in at.toast)


def test_a_session_begins_with_the_first_comparison(app, scored):
    at = app("targets", store="toy")
    assert not scored.sessions_path.exists()
    assert "session" not in at.query_params
    at = app("compare", **VIEW)
    (record,) = kept(scored).list()
    assert at.query_params["session"] == record.id
    assert (record.page, record.name) == ("compare", "")
    assert record.address == VIEW


def test_every_tab_has_a_session_of_its_own_until_it_opens_another(app, scored):
    first, second = app("compare", **VIEW), app("compare", **VIEW)
    ids = [at.query_params["session"] for at in (first, second)]
    assert ids[0] != ids[1]
    third = app("compare", **VIEW, session=ids[0])
    assert third.query_params["session"] == ids[0]
    assert len(kept(scored).list()) == 2


def test_an_address_with_only_the_session_opens_the_view_it_was_left_at(app, scored):
    at = app("compare", **VIEW)
    for name, value in {"methods": "less,rds", "aggregate": "mean", "cap": "40%"}.items():
        at.query_params[name] = value
    at.run()
    (record,) = kept(scored).list()
    assert record.address == {**VIEW, "methods": "less,rds", "aggregate": "mean", "cap": "40%"}

    again = app(session=record.id)
    assert not again.exception
    assert again.title[0].value == "Compare"
    assert dict(again.query_params) == {**record.address, "session": record.id}
    assert again.session_state["methods"] == ["less", "rds"]
    assert again.session_state["aggregate"] == "mean"


def test_what_a_page_without_picks_does_not_show_stays_in_the_saved_view(app, scored):
    at = app("compare", **VIEW)
    at.query_params["cap"] = "40%"
    at.run()
    at.query_params.clear()
    at.switch_page("../pages/targets.py").run()
    (record,) = kept(scored).list()
    assert record.page == "targets"
    assert record.address == {**VIEW, "cap": "40%"}

    again = app(session=record.id)
    assert again.title[0].value == "Targets"
    again.query_params.clear()
    again.switch_page("../pages/compare.py").run()
    assert again.session_state["cap"] == "40%"


def test_the_address_wins_over_the_saved_view(app, scored):
    id = app("compare", **VIEW).query_params["session"]
    at = app("compare", **{**VIEW, "budget": "7"}, session=id)
    assert at.query_params["budget"] == "7"
    assert kept(scored).view(id).address["budget"] == "7"


@pytest.mark.parametrize("id", ["nosuchone0", "<script>alert(1)</script>", "x" * 5000, "'; DROP TABLE sessions;--"])
def test_a_session_that_is_gone_leads_to_a_new_one_and_says_so(app, scored, id):
    at = app(**VIEW, session=id)
    assert "gone" in text_of(at)
    assert "session" not in at.query_params
    at.switch_page("../pages/compare.py").run()
    (record,) = kept(scored).list()
    assert at.query_params["session"] == record.id


def test_a_file_that_is_no_file_of_sessions_is_said_and_kept(app, scored):
    scored.sessions_path.write_text("not SQLite, but precious", encoding="utf-8")
    at = app("compare", **VIEW, session="abcdefghij")
    assert "move it away" in at.warning[0].value.replace("\\", "")
    assert at.session_state["methods"]  # the page itself is there
    at.switch_page("../pages/sessions.py").run()
    assert not at.exception
    assert "move it away" in at.error[0].value.replace("\\", "")
    assert scored.sessions_path.read_text(encoding="utf-8") == "not SQLite, but precious"


def test_names_are_given_in_the_header_and_shown_as_text(app, scored):
    at = app("compare", **VIEW)
    id = at.query_params["session"]
    name = "<img src=x onerror=alert(1)> **bold**"
    at.text_input(key=f"header-name-{id}").set_value(name).run()
    assert kept(scored).view(id).name == name
    at.switch_page("../pages/sessions.py").run()
    lines = [html.value for html in at.html if "gs-session" in html.value and not html.value.startswith("<style")]
    assert len(lines) == 1
    assert "&lt;img" in lines[0]
    assert "<img" not in lines[0]


def test_a_session_is_opened_renamed_and_deleted_from_the_list(app, scored):
    one = kept(scored).create("one", "compare", {**VIEW, "methods": "bm25"}).id
    at = app("compare", **VIEW)
    two = at.query_params["session"]
    at.switch_page("../pages/sessions.py").run()
    at.text_input(key=f"list-name-{one}").set_value("renamed").run()
    assert kept(scored).view(one).name == "renamed"
    at.button(key=f"delete-{two}").click().run()
    assert kept(scored).view(two) is not None  # asks for confirmation first
    at.button(key=f"delete-no-{two}").click().run()
    at.button(key=f"delete-{two}").click().run()
    at.button(key=f"delete-yes-{two}").click().run()
    assert kept(scored).view(two) is None
    assert "session" not in at.query_params
    at.button(key=f"open-session-{one}").click().run()
    assert not at.exception
    assert at.title[0].value == "Compare"
    assert at.query_params["session"] == one
    assert at.session_state["methods"] == ["bm25"]


def _deciding() -> None:
    import streamlit as st

    from app.state.session import begin_run
    from app.views.decisions import current_decisions, decide, last_step, undo, write_note
    from app.views.store import store_of

    session = begin_run("targets")
    store = store_of(session)
    assert store is not None
    st.button("Accept", on_click=decide, args=(session, store, [3, 5], "accept"))
    st.button("Note", on_click=write_note, args=(session, store, 5, "why?"))
    st.button("Undo", on_click=lambda: st.session_state.update(undone=undo(session, store)))
    decisions = current_decisions(session, store)
    st.session_state.seen = (decisions.accepted.tolist(), decisions.rejected.tolist(), decisions.notes)
    st.session_state.last = last_step(session, store)


def test_decisions_begin_a_session_and_are_taken_back(scored):
    at = AppTest.from_function(_deciding, default_timeout=60)
    at.query_params["store"] = "toy"
    at.run()
    assert at.session_state["seen"] == ([], [], {})
    assert kept(scored).list() == []
    at.button[0].click().run()
    assert at.session_state["seen"] == ([3, 5], [], {})
    assert at.session_state["last"] == "2 rows accepted"
    (record,) = kept(scored).list()
    assert at.query_params["session"] == record.id
    at.button[1].click().run()
    assert at.session_state["seen"] == ([3, 5], [], {5: "why?"})
    for expected in (([3, 5], [], {}), ([], [], {}), ([], [], {})):
        at.button[2].click().run()
        assert at.session_state["seen"] == expected
    assert at.session_state["undone"] == ""
    assert not at.exception


@pytest.mark.parametrize("button", [0, 1, 2])
def test_a_decision_in_a_session_that_was_deleted_meanwhile_goes_into_a_new_one(scored, button):
    at = AppTest.from_function(_deciding, default_timeout=60)
    at.query_params["store"] = "toy"
    at.run()
    at.button[0].click().run()
    gone = at.query_params["session"]
    kept(scored).delete(gone)
    at.button[button].click().run()
    assert not at.exception
    assert "gone" in text_of(at)
    assert at.session_state["seen"] == [([3, 5], [], {}), ([], [], {5: "why?"}), ([], [], {})][button]
    assert at.query_params.get("session") != gone


def _side(workspace, name: str, method: str, budget: str, choices: Choices) -> sides.Side:
    store = Store.open(workspace.store_path(name))
    scoring = score_targets(store, read_targets(workspace.target_set("two").path).rows)
    source = sides.Source("", name, "two", {}, None)
    nothing = Sessions(workspace.sessions_path).decisions("", "")
    return sides.side(sides.Opened(source, store, scoring, (method,), choices, nothing), method, budget)


def _lines(side: sides.Side, at: np.ndarray) -> list[bytes]:
    return side.store.texts(side.rows[at])["raw"].tolist() if len(at) else []


@pytest.mark.parametrize(("budget", "choices"), [("10", Choices()), ("60%", Choices(cap="30%")), ("100%", Choices())])
def test_two_methods_of_a_store_differ_as_their_sets_of_rows_do(scored, budget, choices):
    a, b = (_side(scored, "toy", method, budget, choices) for method in ("less", "bm25"))
    difference = sides.differ(a, b)
    rows_a, rows_b = set(a.rows.tolist()), set(b.rows.tolist())
    assert set(a.rows[difference.only_a].tolist()) == rows_a - rows_b
    assert set(b.rows[difference.only_b].tolist()) == rows_b - rows_a
    assert a.rows[difference.both[:, 0]].tolist() == b.rows[difference.both[:, 1]].tolist()
    assert set(a.rows[difference.both[:, 0]].tolist()) == rows_a & rows_b
    assert difference.overlap == len(rows_a & rows_b) / len(rows_a | rows_b)


@pytest.mark.parametrize("budget", ["6", "40%", "100%"])
@pytest.mark.parametrize("turned", [False, True])
def test_two_stores_differ_as_their_lines_do_each_counted_as_often_as_it_is_picked(both, other, budget, turned):
    pair = [_side(both, name, "less", budget, Choices()) for name in ("toy", other)]
    a, b = pair[::-1] if turned else pair
    difference = sides.differ(a, b)
    lines_a, lines_b = Counter(_lines(a, np.arange(len(a.rows)))), Counter(_lines(b, np.arange(len(b.rows))))
    assert Counter(_lines(a, difference.both[:, 0])) == lines_a & lines_b
    assert _lines(a, difference.both[:, 0]) == _lines(b, difference.both[:, 1])
    assert Counter(_lines(a, difference.only_a)) == lines_a - lines_b
    assert Counter(_lines(b, difference.only_b)) == lines_b - lines_a
    table = difference.table()
    assert table["where"].value_counts().reindex(["both", "only A", "only B"], fill_value=0).tolist() == [
        len(difference.both), len(difference.only_a), len(difference.only_b)
    ]  # fmt: skip
    assert sorted(table["row_a"].dropna().tolist()) == sorted(a.rows.tolist())
    assert sorted(table["row_b"].dropna().tolist()) == sorted(b.rows.tolist())
    by_source = difference.by_source()
    assert by_source[["both", "only_a", "only_b"]].sum().tolist() == [
        len(difference.both), len(difference.only_a), len(difference.only_b)
    ]  # fmt: skip


def test_a_row_is_found_on_the_other_side_at_the_best_rank_of_its_line(both, other):
    a, b = (_side(both, name, "less", "5", Choices()) for name in ("toy", other))
    rows = Store.open(both.store_path("toy")).pool().index.tolist()
    places = sides.places(b, a, rows)
    ranks: dict[bytes, list[int]] = {}
    ranking = b.column.ranking
    for row, raw in zip(ranking.rows, b.store.texts(ranking.rows)["raw"], strict=True):
        ranks.setdefault(raw, []).append(int(ranking.rank[np.searchsorted(ranking.rows, row)]))
    lines = a.store.texts(rows)["raw"].tolist()
    assert places == {row: min(ranks[raw]) for row, raw in zip(rows, lines, strict=True) if raw in ranks}
    assert 0 < len(places) < len(rows)


def test_the_page_shows_the_difference_of_two_sessions_with_their_what_ifs_and_decisions(app, scored):
    one = kept(scored).create("one", "compare", {**VIEW, "methods": "less"})
    two = kept(scored).create("two", "compare", {**VIEW, "methods": "less", "budget": "20", "cap": "3"})
    store = Store.open(scored.store_path("toy"))
    whole = _side(scored, "toy", "less", "10", Choices())
    rejected, accepted = int(whole.rows[0]), int(whole.column.ranking.rows[whole.column.ranking.order[-1]])
    kept(scored).decide(two.id, store.fingerprint, [rejected], "reject")
    kept(scored).decide(two.id, store.fingerprint, [accepted], "accept")
    at = app("sessions", session=one.id, a=f"session:{one.id}", b=f"session:{two.id}")
    for name, id in (("a", one.id), ("b", two.id)):
        at.query_params[name] = f"session:{id}"
    at.run()
    assert not at.exception
    choices = Choices(cap="3", accepted=(accepted,), rejected=(rejected,))
    difference = sides.differ(whole, _side(scored, "toy", "less", "20", choices))
    (figures,) = [html.value for html in at.html if html.value.startswith('<div class="gs-figures"')]
    for count in (len(difference.both), len(difference.only_a), len(difference.only_b)):
        assert f"<b>{count}</b>" in figures
    cards = "".join(html.value for html in at.html if html.value.startswith('<div class="gs-head'))
    assert cards.count("rejected there") == 1
    assert cards.count("accepted here") == 1


def test_another_side_brings_its_own_method_and_budget(app, scored):
    one = kept(scored).create("one", "compare", {**VIEW, "methods": "less"}).id
    two = kept(scored).create("two", "compare", {**VIEW, "methods": "bm25", "budget": "20"}).id
    at = app("sessions", session=one)
    assert [at.selectbox(key=key).value for key in ("a", "b")] == [f"session:{one}", f"session:{two}"]
    assert [at.text_input(key=key).value for key in ("a-budget", "b-budget")] == ["10", "20"]
    assert [at.selectbox(key=key).value for key in ("a-method", "b-method")] == ["less", "bm25"]
    at.text_input(key="b-budget").set_value("lots").run()
    assert not at.exception
    assert "lots" in at.info[0].value
    at.selectbox(key="b").set_value(f"session:{one}").run()
    assert at.text_input(key="b-budget").value == "10"
    assert at.selectbox(key="b-method").value == "less"


def test_sessions_that_are_called_the_same_are_told_apart(app, scored):
    ids = [kept(scored).create(name, "compare", VIEW).id for name in ("", "", "one", "one")]
    at = app("sessions", session=ids[0])
    shown = at.selectbox(key="b").options
    assert len(shown) == len(set(shown)) > len(ids)
    assert all(any(id in name for name in shown) for id in ids)


def test_a_store_on_which_the_targets_are_not_scored_is_said(app, scored, other):
    at = app("sessions", **VIEW)
    at.selectbox(key="b").set_value(f"store:{other}").run()
    assert not at.exception
    assert "not scored" in at.info[0].value
