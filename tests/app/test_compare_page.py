"""Compare and Export on real scores of the toy model."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import streamlit as st
from boards import board, card, press

from app.compare.board import PAGE
from app.views.comparison import EVERY, ONLY, OTHERS, SHARED, compare
from gradsift.data.conversation import Message
from gradsift.data.targets import parse_targets, read_targets
from gradsift.datastore.store import Store
from gradsift.scoring.choices import Choices
from gradsift.scoring.methods import METHODS


def sizes(at) -> list[int]:
    """Number of cards in every column."""
    return [len(column["cards"]) for column in board(at)]


def test_every_method_has_a_column_with_the_same_budget(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    assert sizes(at) == [10] * len(METHODS)
    for method, column in zip(METHODS.values(), board(at), strict=True):
        assert method.label in column["head"]


def test_long_lists_are_paged_and_the_position_is_said(app, scored):
    at = app("compare", store="toy", targets="two", budget="45")
    assert all(f"1–{PAGE} of 45 picks" in column["foot"] for column in board(at))
    first = (45 - 1) // PAGE * PAGE + 1  # of the last page
    at.query_params["page"] = str(1 + first // PAGE)
    at.run()
    assert all(f"{first}–45 of 45 picks" in column["foot"] for column in board(at))
    assert sizes(at) == [45 - first + 1] * len(METHODS)


def test_the_filter_for_one_method_leaves_rows_no_other_picks(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    at.session_state["show"] = ONLY
    at.run()
    assert sum(sizes(at)) > 0
    for column in board(at):
        assert all('<span class="gs-badge gs-only">' in card["html"] for card in column["cards"])


def test_what_only_the_others_pick_stands_by_this_methods_rank(app, scored):
    at = app("compare", store="toy", targets="two", budget="10", show="others")
    ranks = [int(card["name"].split()[-1]) for card in board(at)[0]["cards"]]
    assert ranks == sorted(ranks)
    assert min(ranks) > 10
    assert all("gs-out" in card["html"] for card in board(at)[0]["cards"])


def test_the_whole_pool_is_listed_in_each_methods_order(app, scored):
    usable = Store.open(scored.store_path("toy")).manifest.usable
    at = app("compare", store="toy", targets="two", budget="5", scope="pool")
    for column in board(at):
        assert f"1–{PAGE} of {usable} rows" in column["foot"]
        assert [card["name"].split()[-1] for card in column["cards"]] == [str(n) for n in range(1, PAGE + 1)]
        assert sum("gs-out" in card["html"] for card in column["cards"]) == PAGE - 5


def test_filters_come_from_the_address_and_are_counted_in_words(app, scored):
    at = app("compare", store="toy", targets="two", budget="50%", source="reasoning,open", sort="short")
    assert at.session_state["source"] == ["reasoning", "open"]
    rows = {card["row"] for column in board(at) for card in column["cards"]}
    pool = Store.open(scored.store_path("toy")).pool()
    assert rows
    assert set(pool.loc[sorted(rows), "source"]) == {"reasoning", "open"}
    lengths = [int(pool.at[card["row"], "n_answer_tokens"]) for card in board(at)[0]["cards"]]
    assert lengths == sorted(lengths)
    whole = app("compare", store="toy", targets="two", budget="50%")
    everything = len({card["row"] for column in all_pages(whole) for card in column})
    matching = len({card["row"] for column in all_pages(at) for card in column})
    assert any(f"**{matching} of {everything} rows** match" in text.value for text in at.markdown)
    assert not any("match" in text.value for text in whole.markdown)


def all_pages(at) -> list[list[dict]]:
    """The cards of every column, of all its pages."""
    columns = [list(column["cards"]) for column in board(at)]
    for page in range(2, 99):
        at.query_params["page"] = str(page)
        at.run()
        if at.query_params.get("page") != str(page) or board(at)[0]["cards"][:1] == columns[0][:1]:
            return columns
        for kept, column in zip(columns, board(at), strict=True):
            kept += column["cards"]
    raise AssertionError


def test_clear_filters_takes_all_of_them_off(app, scored):
    at = app("compare", store="toy", targets="two", budget="10", source="open", length="2-", q="the", verdict="open")
    at.button(key="clear").click().run()
    assert sizes(at) == [10] * len(METHODS)
    assert not {"source", "length", "q", "verdict"} & set(at.query_params)


def test_a_chip_takes_one_value_off(app, scored):
    at = app("compare", store="toy", targets="two", budget="10", source="open,closed")
    at.button(key="chip_source_open").click().run()
    assert at.query_params["source"] == "closed"


def test_a_subtask_in_the_address_leaves_what_serves_it_and_its_chip_takes_it_off(app, scored):
    every = board(app("compare", store="toy", targets="two", budget=str(PAGE)))[0]["cards"]
    served = {name: sum(f"for {name}" in card["html"] for card in every) for name in ("capitals", "sums")}
    name = min(served, key=served.get)
    at = app("compare", store="toy", targets="two", budget=str(PAGE), subtask=f"{name},nothing")
    assert at.query_params["subtask"] == name
    column = board(at)[0]
    assert all(f"for {name}" in card["html"] for card in column["cards"])
    assert len(column["cards"]) == served[name] < len(every) == sum(served.values())
    at.button(key=f"chip_subtask_{name}").click().run()
    assert "subtask" not in at.query_params
    assert sizes(at)[0] == len(every)


def test_nonsense_filters_filter_nothing(app, scored):
    nonsense = {"source": "<x>", "length": "long", "area": "epoch-1;x;1,1", "sort": "?", "scope": "all", "role": "cat"}
    at = app("compare", store="toy", targets="two", budget="10", **nonsense)
    assert sizes(at) == [10] * len(METHODS)
    assert not set(nonsense) & set(at.query_params)


@pytest.mark.parametrize("q", ["x" * 5_000, "a\0b", "\u202e", '"', "'; drop table", "%_*", "  "])
def test_any_words_can_stand_in_the_address(app, scored, q):
    at = app("compare", store="toy", targets="two", budget="10", q=q, length="7-3" if q == '"' else "")
    assert not at.exception
    assert not at.error


def test_a_search_that_finds_nothing_says_what_to_do(app, scored):
    at = app("compare", store="toy", targets="two", budget="10", q="no such words anywhere zzz")
    assert not board(at)
    assert any("No row matches" in html.value for html in at.html)


def test_hits_are_marked_and_another_filter_starts_at_the_first_page(app, scored):
    at = app("compare", store="toy", targets="two", budget="60%")
    at.query_params["page"] = "2"
    at.run()
    assert all(f"{PAGE + 1}–" in column["foot"] for column in board(at))
    at.session_state["q"] = "the"
    at.run()
    assert "page" not in at.query_params
    assert at.query_params["q"] == "the"
    shown = [card["html"] for column in board(at) for card in column["cards"]]
    assert shown
    assert all('<mark class="gs-hit">' in html for html in shown)


def test_bm25s_words_are_marked_in_its_column_alone_and_named(app, scored):
    at = app("compare", store="toy", targets="two", budget="30")
    marked = {c["key"]: sum('<mark class="gs-word">' in x["html"] for x in c["cards"]) for c in board(at)}
    assert marked.pop("bm25") > 0
    assert not any(marked.values())
    assert all("BM25 matched" in x["html"] for x in board(at)[1]["cards"] if "gs-word" in x["html"])


def test_keys_decide_in_every_column_and_undo_takes_back(app, scored):
    at = app("compare", store="toy", targets="two", budget="80%")
    row = card(at, "less")["row"]
    press(at, {"kind": "decide", "row": row, "verdict": "accept"})
    cards = [c for column in all_pages(at) for c in column if c["row"] == row]
    assert len(cards) > 1
    assert {c["verdict"] for c in cards} == {"accept"}
    at.query_params["page"] = "1"
    press(at, {"kind": "undo"})
    assert card(at, "less")["verdict"] == ""


def test_keys_sent_again_are_done_once_and_those_sent_together_all(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    rows = [c["row"] for c in board(at)[0]["cards"][:3]]
    press(at, *({"kind": "decide", "row": row, "verdict": "reject"} for row in rows))
    assert [c["verdict"] for c in board(at)[0]["cards"][:4]] == ["reject"] * 3 + [""]
    seen = at.session_state["board_seen"]
    press(at, {"kind": "undo", "number": seen})
    assert [c["verdict"] for c in board(at)[0]["cards"][:3]] == ["reject"] * 3
    press(at, {"kind": "undo"}, {"kind": "undo"})
    assert [c["verdict"] for c in board(at)[0]["cards"][:3]] == ["reject", "", ""]


def test_a_decision_is_kept_under_the_address_and_not_without_it(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    press(at, {"kind": "decide", "row": card(at, "less")["row"], "verdict": "reject"})
    again = app("compare", store="toy", targets="two", budget="10", session=at.query_params["session"])
    assert card(again, "less")["verdict"] == "reject"
    assert card(app("compare", store="toy", targets="two", budget="10"), "less")["verdict"] == ""


def test_all_filtered_rows_of_all_pages_are_decided_at_once(app, scored):
    at = app("compare", store="toy", targets="two", budget="70%", source="closed")
    everything = {c["row"] for column in all_pages(at) for c in column}
    at.query_params["page"] = "1"
    at.run()
    at.button(key="all_accept").click().run()
    assert any(f"{len(everything)} accepted" in text.value for text in at.caption)
    at.query_params["verdict"] = "open"
    at.run()
    assert not board(at)
    at.button(key="undo").click().run()
    assert {c["row"] for column in all_pages(at) for c in column} == everything


def test_many_rows_are_decided_only_after_a_second_yes(app, scored, monkeypatch):
    from app.compare import review

    monkeypatch.setattr(review, "MANY", 5)
    at = app("compare", store="toy", targets="two", budget="10")
    assert at.button(key="all_reject").disabled
    box = next(box for box in at.checkbox if box.key.startswith("sure"))
    box.check().run()
    assert not at.button(key="all_reject").disabled


def test_a_note_is_written_in_a_dialog_and_shown_on_the_card(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    row = card(at, "less")["row"]
    press(at, {"kind": "note", "row": row})
    at.text_area(key=f"note_{row}").set_value("<b>look</b> again")
    at.button(key="save_note").click().run()
    at.run()
    assert card(at, "less")["note"] == "<b>look</b> again"


def test_why_opens_on_the_row(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    press(at, {"kind": "why", "row": card(at, "bm25", 2)["row"]})
    row = Store.open(scored.store_path("toy")).pool().loc[card(at, "bm25", 2)["row"]]
    assert any(str(row["id"]) in html.value for html in at.html)


@pytest.mark.parametrize("methods", ["less", "random"])
def test_one_method_alone(app, scored, methods):
    at = app("compare", store="toy", targets="two", budget="10", methods=methods, show="only")
    assert sizes(at) == [10]
    assert "only here" not in board(at)[0]["cards"][0]["html"]


HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> ![i](http://evil.example/i.png) "
    "$\\LaTeX$ \0 \u202eabc\u202c =cmd|' /C calc'!A0"
)


def test_hostile_texts_are_text_on_the_board(app, scored):
    path = scored.store_path("toy") / "pool.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    for at, row in enumerate(rows):
        content = HOSTILE + ("x" * 1_000_000 if at % 2 else "")
        row["messages"] = [Message(role, content).record() for role in ("user", HOSTILE, "assistant")]
        row |= dict.fromkeys(("prefix", "task", "id", "file"), HOSTILE)
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    st.cache_resource.clear()  # an equal store elsewhere has been shown before
    at = app("compare", store="toy", targets="two", budget="20")
    html = "".join(c["html"] for column in board(at) for c in column["cards"])
    assert not re.search(r"<(?!/?(div|span|p|b|i|bdi|mark|details|summary)\b)", html)
    assert not re.search(r"<[^>]*\son\w+=", re.sub(r'"[^"]*"', '""', html))
    assert "&lt;script&gt;" in html
    assert "more characters are not shown here" in html
    assert len(json.dumps(board(at), ensure_ascii=False).encode()) < 2_000_000
    assert not any("evil.example" in text.value for text in at.markdown)
    st.cache_resource.clear()


def test_a_pool_without_tasks(app, scored):
    path = scored.store_path("toy") / "pool.parquet"
    rows = [row | {"task": ""} for row in pq.read_table(path).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    st.cache_resource.clear()
    at = app("compare", store="toy", targets="two", budget="10")
    assert sizes(at) == [10] * len(METHODS)
    assert not [pills for pills in at.pills if pills.key == "task"]
    st.cache_resource.clear()


def test_unscored_targets_lead_back_to_targets(app, workspace):
    at = app("compare", store="toy", targets="yes-no")
    assert not board(at)
    assert any("Score" in link.value for link in at.page_link)


def test_a_broken_budget_in_the_address_is_said_not_raised(app, scored):
    at = app("compare", store="toy", targets="two", budget="lots")
    assert not at.exception


def test_a_budget_of_tokens_below_the_best_row_is_said(app, scored):
    at = app("compare", store="toy", targets="two", budget="1tokens")
    assert "less than the best row" in at.error[0].value.replace("\\", "")


@pytest.mark.parametrize("method", METHODS)
def test_membership_is_what_the_sets_say(scored, method):
    store = Store.open(scored.store_path("toy"))
    from gradsift.scoring.score_targets import score_targets

    scoring = score_targets(store, read_targets(scored.target_set("two").path).rows)
    comparison = compare(store, scoring, list(METHODS), "25%", Choices())
    picks = {column.method: set(column.picks.tolist()) for column in comparison.columns}
    column = next(column for column in comparison.columns if column.method == method)
    others = set().union(*(rows for name, rows in picks.items() if name != method))
    assert set(comparison.shown(column, ONLY).tolist()) == picks[method] - others
    assert set(comparison.shown(column, EVERY).tolist()) == set.intersection(*picks.values())
    assert set(comparison.shown(column, SHARED).tolist()) == picks[method] & others
    only_others = comparison.shown(column, OTHERS)
    assert set(only_others.tolist()) == others - picks[method]
    assert (column.ranking.rank[only_others[:-1]] < column.ranking.rank[only_others[1:]]).all()


def test_the_options_count_different_rows(scored):
    from app.compare import overlap
    from gradsift.scoring.score_targets import score_targets

    store = Store.open(scored.store_path("toy"))
    scoring = score_targets(store, read_targets(scored.target_set("two").path).rows)
    comparison = compare(store, scoring, list(METHODS), "25%", Choices())
    for show, name in overlap.options(comparison).items():
        rows = set().union(*(comparison.shown(column, show).tolist() for column in comparison.columns))
        assert name.endswith(f"({len(rows)})"), name


def test_export_previews_what_will_be_written(app, scored):
    at = app("export", store="toy", targets="two", budget="5")
    assert '{"messages":' in re.sub(r'"role"', '"role"', at.code[0].value)
    assert any(
        list(frame.value) == ["source", "rows", "tokens"] and frame.value["rows"].sum() == 5 for frame in at.dataframe
    )
    at.radio(key="format").set_value("sharegpt").run()
    assert '"conversations"' in at.code[0].value


def test_subtasks_whose_names_begin_alike_are_told_apart_among_the_what_ifs(app, workspace):
    from gradsift.data.targets import parse_targets
    from gradsift.scoring.score_targets import score_targets

    text = "\n\n".join(f"Subtask: {'long ' * 20}{n}\nQ: How much is {n} and one?\nA: {n + 1}." for n in range(3))
    workspace.save_targets("alike", parse_targets(text).rows)
    rows = read_targets(workspace.target_set("alike").path).rows
    score_targets(Store.open(workspace.store_path("toy")), rows, ["less"])
    at = app("compare", store="toy", targets="alike", budget="10")
    shown = at.multiselect(key="without").options
    assert len(shown) == len(set(shown)) >= 8
    at.multiselect(key="without").set_value(["s1"]).run()
    assert at.query_params["without"] == "s1"


def test_only_gradients_that_less_is_scored_by_can_be_chosen(app, tiny_copy, workspace):
    from gradsift.scoring.score_targets import score_targets

    tiny_copy.path.rename(workspace.store_path("two-kinds"))
    store = Store.open(workspace.store_path("two-kinds"))
    workspace.save_targets("boxes", parse_targets("Q: where is the cat?\nA: in box 3").rows)
    rows = read_targets(workspace.target_set("boxes").path).rows
    score_targets(store, rows, ["less", "random"])
    view = {"store": "two-kinds", "targets": "boxes", "budget": "5"}
    at = app("compare", **view, gradient="sgd")
    assert not [radio for radio in at.radio if radio.key == "gradient"]
    assert [column["key"] for column in board(at)] == ["less", "random"]
    assert "What if" in {popover.proto.popover.label for popover in at.get("popover")}  # and not "What if (1)"
    score_targets(store, rows, ["less"], "sgd")
    at.run()
    at.radio(key="gradient").set_value("sgd").run()
    assert [column["key"] for column in board(at)] == ["less", "random"]
    assert at.query_params["gradient"] == "sgd"
