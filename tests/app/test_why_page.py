"""Why: the page by its address, the drawer, and rows of every kind, on real scores of the toy model."""

import json
import shutil
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.text import escape
from app.views.comparison import METHODS, compare, ranking_of
from app.why.subject import neighbors
from gradsift.analysis.row import by_subtask, by_target
from gradsift.builder.build import build
from gradsift.config import BuildConfig
from gradsift.data.targets import parse_targets, read_targets
from gradsift.datastore.store import Store
from gradsift.runtime.progress import Progress
from gradsift.scoring.choices import Choices
from gradsift.scoring.influence import influence
from gradsift.scoring.score_targets import score_targets
from gradsift.scoring.scoring import Scoring
from gradsift.workspace.sessions import Sessions
from gradsift.workspace.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<script>alert(1)</script> ![](http://127.0.0.1:9/x.png) $\\alpha$ \u202e =1+1"
ARABIC = "\u0645\u0627 \u0647\u064a \u0639\u0627\u0635\u0645\u0629 \u0641\u0631\u0646\u0633\u0627"
TWIN = "the cat sat on the mat and the dog sat on the cat, so the answer is in the text of the country " * 3
SUBTASKS = 45


def text_of(at: AppTest) -> str:
    """All HTML of the page."""
    return "".join(html.value for html in at.html if not html.value.startswith("<style"))


def frame_with(at: AppTest, column: str):
    """The first table that has this column."""
    return next(frame.value for frame in at.dataframe if column in frame.value)


def opened(workspace: Workspace, name: str, targets: str) -> tuple[Store, Scoring]:
    store = Store.open(workspace.store_path(name))
    return store, score_targets(store, read_targets(workspace.target_set(targets).path).rows)


@pytest.fixture(scope="module")
def odd_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the toy model that a test may delete."""
    return shutil.copytree(tiny_model, tmp_path_factory.mktemp("model") / "odd")


@pytest.fixture(scope="module")
def odd_store(odd_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with hostile text, right-to-left text, near-duplicates, a very long row and one without an answer."""
    folder = tmp_path_factory.mktemp("odd")
    pairs = [
        (HOSTILE, HOSTILE),
        (ARABIC, ARABIC),
        (TWIN, TWIN),
        (TWIN, TWIN + "again"),
        ("long", "the cat sat " * 9000),
    ]
    pairs += [(f"what is in box {n}?", f"the dog and the cat {n}") for n in range(8)]
    turns = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in pairs]
    turns.append([{"role": "user", "content": "and no answer"}])
    lines = [json.dumps({"id": f"odd {n} <b>", "messages": messages}) for n, messages in enumerate(turns)]
    (folder / "pool.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = BuildConfig(
        model=str(odd_model), max_length=128, warmup_fraction=0.5, epochs=2, batch_size=4, lr=1e-3, lora_rank=2, dim=64
    )
    build([folder / "pool.jsonl"], folder / "store", config, progress=Progress(quiet=True))
    return folder / "store"


@pytest.fixture
def odd(odd_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with that store and 90 targets in 45 subtasks, scored."""
    root = tmp_path / "workspace"
    shutil.copytree(odd_store, root / "stores" / "odd")
    monkeypatch.setenv("GRADSIFT_WORKSPACE", str(root))
    workspace = Workspace(root)
    blocks = [f"Subtask: part {n // 2} {HOSTILE}\nQ: box {n}?\nA: the cat {n}\n" for n in range(2 * SUBTASKS)]
    workspace.save_targets("many", parse_targets("\n".join(blocks)).rows)
    opened(workspace, "odd", "many")
    return workspace


def test_a_row_by_its_address_stands_where_every_method_ranks_it(app, scored):
    store, scoring = opened(scored, "toy", "two")
    row, position = int(scoring.rows[5]), 5
    at = app("why", store="toy", targets="two", row=str(row))
    html = text_of(at)
    assert str(store.pool().at[row, "id"]) in html
    for column in compare(store, scoring, list(METHODS), "5%", Choices()).columns:
        assert f"<b>{int(column.ranking.rank[position]):,}</b>" in html
    assert html.count('class="gs-pane"') == 2
    best = by_target(scoring, "less", position)
    by_example, by_part = frame_with(at, "question"), frame_with(at, "subtask")
    np.testing.assert_allclose(by_example["weighted sum"], sorted(best[:, -1], reverse=True), atol=1e-9)
    np.testing.assert_allclose(by_part["epoch-1"].max(), by_subtask(scoring, "less", position)[:, 0].max(), atol=1e-9)
    assert len(at.get("plotly_chart")) == 2


def test_the_target_beside_the_row_is_of_the_winning_subtask(app, scored):
    store, scoring = opened(scored, "toy", "two")
    ranking = ranking_of(store, scoring, "less", Choices())
    for winner, answer in enumerate(("Paris.", "Four.")):
        position = int(np.flatnonzero(ranking.best_subtask == winner)[0])
        at = app("why", store="toy", targets="two", row=str(scoring.rows[position]))
        beside = next(html.value for html in at.html if 'class="gs-pair"' in html.value).split("<section")[2]
        assert answer in beside
        assert scoring.subtask_names[winner] in beside


def test_words_of_bm25_are_listed(app, scored):
    _, scoring = opened(scored, "toy", "two")
    position = int(np.asarray(scoring.evidence("bm25")[0].products).max(1).argmax())
    at = app("why", store="toy", targets="two", row=str(scoring.rows[position]), methods="bm25")
    table = frame_with(at, "matched words")
    assert table["score"].is_monotonic_decreasing
    assert table["score"].iloc[0] > 0
    assert table["matched words"].iloc[0]
    assert not at.get("plotly_chart")


def test_without_a_row_the_opponents_are_shown_from_the_lowest_up(app, scored):
    store, scoring = opened(scored, "toy", "two")
    at = app("why", store="toy", targets="two")
    assert "No row is open" in text_of(at)
    ranking = ranking_of(store, scoring, "less", Choices())
    lowest = ranking.rows[np.argsort(ranking.score, kind="stable")][:10]
    cards = [html.value for html in at.html if ' gs-opponent"' in html.value]
    ids = store.pool().loc[lowest, "id"]
    assert len(cards) == min(10, int((ranking.score < 0).sum()) or 10)
    assert all(f">{id}</p>" in card for id, card in zip(ids, cards, strict=False))


def test_opponents_of_one_subtask_are_lowest_on_it(app, scored):
    store, scoring = opened(scored, "toy", "two")
    at = app("why", store="toy", targets="two", against="1")
    scores = influence(scoring.evidence("less"), scoring.subtask_of, 2)[:, 1]
    first = next(html.value for html in at.html if ' gs-opponent"' in html.value)
    assert f">{store.pool().at[int(scoring.rows[scores.argmin()]), 'id']}</p>" in first


@pytest.mark.parametrize("name", ["999999", "abc", "-1", "1.5", "<b>"])
def test_a_row_that_is_not_there_is_said(app, scored, name):
    at = app("why", store="toy", targets="two", row=name)
    assert at.error[0].value.startswith("There is no row")


def test_an_id_finds_its_row_and_the_address_has_the_number(app, scored):
    store, scoring = opened(scored, "toy", "two")
    row = int(scoring.rows[3])
    at = app("why", store="toy", targets="two")
    at.text_input(key="why-go").set_value(str(store.pool().at[row, "id"])).run()
    assert not at.exception
    assert at.query_params["row"] == str(row)
    assert f"row {row}" in text_of(at)


def test_an_excluded_row_says_why_and_has_no_scores(app, scored):
    store, _ = opened(scored, "toy", "two")
    pool = store.pool()
    row = int(pool.index[pool["status"] != "usable"][0])
    at = app("why", store="toy", targets="two", row=str(row))
    assert "excluded" in at.info[0].value
    assert "gs-why-ranks" not in text_of(at)
    assert not at.get("plotly_chart")


def test_what_is_learned_of_a_row_is_folded_and_marked(app, scored):
    store, scoring = opened(scored, "toy", "two")
    row = int(scoring.rows[5])
    at = app("why", store="toy", targets="two", row=str(row))
    assert "gs-mask" not in text_of(at)
    at.session_state[f"why-learned-{row}"] = True
    at.run()
    assert not at.exception, at.exception
    answer = store.texts([row])["conversation"].iloc[0].messages[-1].content
    assert f'<mark class="gs-learned">{escape(answer)}&lt;|im_end|&gt;</mark>' in text_of(at)
    n_prompt, n_answer = store.pool().loc[row, ["n_prompt_tokens", "n_answer_tokens"]]
    assert f"<b>{n_answer:,}</b> learned, {n_prompt:,} in the prompt" in text_of(at)


def test_next_and_previous_go_through_the_picks_of_a_method(app, scored):
    store, scoring = opened(scored, "toy", "two")
    column = compare(store, scoring, ["rds"], "5", Choices()).columns[0]
    picks = scoring.rows[column.picks].tolist()
    at = app("why", store="toy", targets="two", budget="5", by="rds")
    for row in picks:
        at.button(key="why-next").click().run()
        assert at.query_params["row"] == str(row)
    assert at.button(key="why-next").disabled
    at.button(key="why-previous").click().run()
    assert at.query_params["row"] == str(picks[-2])


def test_neighbors_of_rows_that_are_picks_and_of_others(scored):
    store, scoring = opened(scored, "toy", "two")
    column = compare(store, scoring, ["less"], "5", Choices()).columns[0]
    order = column.ranking.order
    assert neighbors(column, int(order[0])) == (1, None, int(order[1]))
    assert neighbors(column, int(order[2])) == (3, int(order[1]), int(order[3]))
    assert neighbors(column, int(order[9])) == (0, int(order[4]), None)
    assert neighbors(column, None) == (0, None, int(order[0]))


def test_a_verdict_and_a_note_are_kept_and_taken_back(app, scored):
    store, scoring = opened(scored, "toy", "two")
    row = int(scoring.rows[4])
    at = app("why", store="toy", targets="two", row=str(row))
    at.button(key="why-accept").click().run()
    at.text_input(key=next(box.key for box in at.text_input if box.key.startswith("why-note"))).set_value("good").run()
    sessions = Sessions(scored.sessions_path)
    decisions = sessions.decisions(at.query_params["session"], store.fingerprint)
    assert decisions.accepted.tolist() == [row]
    assert decisions.notes == {row: "good"}
    assert at.button(key="why-accept").label == "Accepted"
    at.button(key="why-accept").click().run()
    assert not len(sessions.decisions(at.query_params["session"], store.fingerprint).accepted)


def test_token_influence_is_shown_with_its_check(app, scored):
    store, scoring = opened(scored, "toy", "two")
    row = int(scoring.rows[6])
    at = app("why", store="toy", targets="two", row=str(row))
    assert "gs-tokens" not in text_of(at)
    at.button(key="why-tokens").click().run()
    assert not at.exception
    from gradsift.analysis.tokens import TokenExplainer

    subtask = int(by_subtask(scoring, "less", 6)[:, -1].argmax())
    influence = TokenExplainer(store).explain(scoring, row, subtask)
    table = frame_with(at, "piece")
    assert table["piece"].tolist() == influence.pieces
    np.testing.assert_allclose(table["epoch-2"], influence.values[1], atol=1e-6)
    html = text_of(at)
    assert html.count("<b>yes</b>") == len(influence.epochs)
    assert html.count('<span class="gs-up"') + html.count('<span class="gs-down"') == len(influence.pieces)
    at.button(key=f"why-agreement-{subtask}").click().run()
    assert any("correlate by" in text.value for text in at.markdown)


def test_the_drawer_shows_the_same_row(scored):
    store, scoring = opened(scored, "toy", "two")
    row = int(scoring.rows[2])
    at = AppTest.from_string(DRAWER, default_timeout=60)
    for name, value in {"store": "toy", "targets": "two", "opened_row": str(row)}.items():
        at.query_params[name] = value
    at.run()
    assert not at.exception
    assert str(store.pool().at[row, "id"]) in text_of(at)
    assert 'class="gs-pair"' in text_of(at)
    assert any("its own page" in link.value for link in at.get("page_link"))


DRAWER = """
import streamlit as st
from app.pages import ROOMS
from app.state.session import begin_run
from app.views.view import View
from app.why import explanation
from app.widgets import required
from gradsift.scoring.choices import Choices
st.navigation([st.Page(room.path, title=room.title) for room in ROOMS])
session = begin_run("compare")
view = View(session, *required.scored(session), ("less", "bm25"), "5%", Choices())
explanation.drawer(view, int(st.query_params["opened_row"]))
"""


def test_hostile_text_is_shown_as_text(app, odd):
    at = app("why", store="odd", targets="many", row="0")
    html = text_of(at)
    assert "<script>" not in html
    assert "<b>" not in html.split("gs-why-id")[1].split("</p>")[0]
    assert "&lt;script&gt;" in html
    assert not any("script" in text.value for text in at.markdown)


def test_many_subtasks_are_drawn_in_part_and_listed_in_whole(app, odd):
    at = app("why", store="odd", targets="many", row="1")
    assert len(frame_with(at, "question")) == 2 * SUBTASKS
    assert sum("The 40 highest of" in caption.value for caption in at.caption) == 2
    specs = [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]
    assert [len(spec["data"][0]["y"]) for spec in specs] == [40, 40]
    at.segmented_control(key="why-lens-less-bm25-rds").set_value("bm25").run()
    assert len(frame_with(at, "matched words")) == 2 * SUBTASKS


def test_a_link_to_a_row_keeps_session_methods_and_what_ifs(app, odd):
    id = Sessions(odd.sessions_path).create().id
    view = {"methods": "less,rds", "aggregate": "mean", "similarity": "dot", "session": id}
    at = app("why", store="odd", targets="many", budget="3", row="3", view="row", **view)
    links = [parse_qs(link.proto.query_string) for link in at.get("page_link") if "row=" in link.proto.query_string]
    assert links
    for link in links:
        assert {name: link[name][0] for name in view} == view
        assert link["row"] != ["3"]


def test_near_duplicates_are_linked(app, odd):
    at = app("why", store="odd", targets="many", row="2")
    assert any("odd 3" in link.value.replace("\\", "") for link in at.get("page_link"))
    at = app("why", store="odd", targets="many", row="5")
    assert any("No other row" in caption.value for caption in at.caption)


def test_a_very_long_row_and_its_tokens_fit(app, odd):
    at = app("why", store="odd", targets="many", row="4")
    assert "more characters are not shown here" in text_of(at)
    assert "cut off at 128" in text_of(at)
    at.button(key="why-tokens").click().run()
    assert not at.exception
    assert "were cut off and never learned" in text_of(at)
    assert len(text_of(at)) < 200_000


def test_a_model_that_is_gone_is_said(app, odd, odd_model):
    st.cache_resource.clear()
    away = odd_model.rename(odd_model.with_name("away"))
    try:
        at = app("why", store="odd", targets="many", row="1")
        at.button(key="why-tokens").click().run()
    finally:
        away.rename(odd_model)
    assert not at.exception
    assert len(at.error) == 1
    assert "model" in at.error[0].value.lower()
