"""The Targets page: what is read, what is refused, what is saved."""

import json

from gradsift.data.targets import parse_targets, read_targets
from gradsift.scoring.methods import DEFAULT_METHODS, METHODS
from gradsift.workspace.workspace import sample_targets

PASTED = """{"prompt": "What is the capital of France?", "completion": "Paris"}
{broken
{"prompt": "2+2?", "completion": "4"}
"""


def test_a_sample_set_is_chosen_and_counted(app, workspace):
    name = sample_targets()[0].stem
    at = app("targets", targets=name)
    table = at.dataframe[0].value
    assert len(table) > 0
    assert (table["answer"] > 0).all()


def test_what_is_learned_of_an_example_is_marked(app, scored):
    at = app("targets", store="toy", targets="two")
    at.toggle(key="two-learned").set_value(True).run()
    assert not at.exception, at.exception
    html = "".join(html.value for html in at.html)
    assert '<mark class="gs-learned">Paris.&lt;|im_end|&gt;</mark>' in html
    assert '<span class="gs-given">What is the capital of France?</span>' in html


def test_scores_that_the_command_line_made_lead_to_compare(app, scored):
    at = app("targets", store="toy", targets="two")
    assert at.button(key="to-compare")
    assert not [button for button in at.button if button.key == "score"]
    assert any(", ".join(method.label for method in METHODS.values()) in caption.value for caption in at.caption)


def test_methods_that_are_not_scored_yet_are_offered(app, scored, monkeypatch):
    started = []
    monkeypatch.setattr("app.targets.score.start_scoring", lambda *args: started.append(args[-1]))
    assert "score-more" not in {button.key for button in app("targets", store="toy", targets="two").button}
    (kept,) = (scored.store_path("toy") / "scorings").glob("*/rds+.safetensors")
    kept.unlink()
    at = app("targets", store="toy", targets="two")
    assert at.button(key="score-more").disabled
    at.pills(key="more_methods").set_value(["rds+"]).run()
    at.button(key="score-more").click().run()
    assert started == [[*(name for name in METHODS if name != "rds+"), "rds+"]]


def test_methods_ticked_for_one_set_do_not_become_those_of_another(app, scored):
    (kept,) = (scored.store_path("toy") / "scorings").glob("*/rds+.safetensors")
    kept.unlink()
    at = app("targets", store="toy", targets="two")
    at.pills(key="more_methods").set_value(["rds+"]).run()
    at.query_params["targets"] = "yes-no"
    at.run()
    assert at.pills(key="score_methods").value == list(DEFAULT_METHODS)
    at.pills(key="score_methods").set_value([]).run()
    assert "score" not in {button.key for button in at.button}
    assert any("at least one method" in caption.value for caption in at.caption)


def test_an_upload_stays_when_the_page_changes(app, workspace):
    at = app("targets", store="toy")
    at.session_state["targets_from"] = "Upload"
    at.run()
    at.get("file_uploader")[0].set_value(("mine.jsonl", PASTED.encode(), "text/plain")).run()
    assert not at.exception, at.exception
    assert len(at.data_editor[0].value) == 2
    for page in ("datastore", "targets"):
        at.switch_page(f"../pages/{page}.py").run()
    assert len(at.data_editor[0].value) == 2
    assert any(caption.value.replace("\\", "") == "From mine.jsonl" for caption in at.caption)
    at.text_input(key="targets_name").set_value("mine")
    at.button(key="save-targets").click().run()
    assert len(read_targets(workspace.target_set("mine").path).rows) == 2


def test_a_paste_keeps_the_good_rows_and_names_the_bad_line(app, workspace):
    at = app("targets")
    at.session_state["targets_from"] = "Paste"
    at.run()
    at.text_area(key="targets_text").set_value(PASTED).run()
    assert not at.exception
    assert len(at.data_editor[0].value) == 2
    listed = "".join(html.value for html in at.html if 'class="gs-bad' in html.value)
    assert "Line 2" in listed
    assert "{broken" in listed


def test_a_paste_is_saved_by_name(app, workspace):
    at = app("targets")
    at.session_state["targets_from"] = "Paste"
    at.run()
    at.text_area(key="targets_text").set_value(PASTED).run()
    at.text_input(key="targets_name").set_value("mine")
    at.button(key="save-targets").click().run()
    assert not at.exception
    assert len(read_targets(workspace.target_set("mine").path).rows) == 2
    assert at.query_params["targets"] == "mine"


def test_a_bad_name_is_refused_in_words(app, workspace):
    at = app("targets")
    at.session_state["targets_from"] = "Paste"
    at.run()
    at.text_area(key="targets_text").set_value(PASTED).run()
    at.text_input(key="targets_name").set_value("../../evil")
    at.button(key="save-targets").click().run()
    assert "cannot name a target set" in at.error[0].value.replace("\\", "")
    assert not list(workspace.root.rglob("evil*"))


def test_an_example_longer_than_the_window_is_left_out_with_its_reason(app, workspace):
    at = app("targets")
    at.session_state["targets_from"] = "Paste"
    at.run()
    long = json.dumps({"prompt": "long " * 900, "completion": "x"})
    at.text_area(key="targets_text").set_value(PASTED.splitlines()[0] + "\n" + long).run()
    listed = "".join(html.value for html in at.html if 'class="gs-bad' in html.value)
    assert "window" in listed
    assert any("Save and score 1 example" in button.label for button in at.button)


def test_hostile_text_is_shown_as_text(app, workspace):
    at = app("targets")
    at.session_state["targets_from"] = "Paste"
    at.run()
    hostile = "<img src=x onerror=alert(1)> ![x](https://example.com/p.png) $$x$$"
    at.text_area(key="targets_text").set_value(json.dumps({"prompt": hostile, "completion": "ok"})).run()
    assert not any("<img" in html.value for html in at.html)
    assert not any("example.com" in markdown.value for markdown in at.markdown)


def pasted(app):
    """The page with a good example pasted, which is not saved yet."""
    at = app("targets")
    at.session_state["targets_from"] = "Paste"
    at.run()
    at.text_area(key="targets_text").set_value(PASTED.splitlines()[2]).run()
    return at


def test_a_set_is_never_saved_over_another_one(app, workspace):
    workspace.save_targets("mine", parse_targets("Q: theirs?\nA: yes").rows)
    at = pasted(app)
    for name in ("mine", " mine ", sample_targets()[0].stem):
        at.text_input(key="targets_name").set_value(name)
        at.button(key="save-targets").click().run()
        assert "exists already: choose another name" in at.error[0].value.replace("\\", "")
        assert at.text_input(key="targets_name").value == name
    assert [row.messages[0].content for row in read_targets(workspace.target_set("mine").path).rows] == ["theirs?"]
    at.text_input(key="targets_name").set_value("mine-too")
    at.button(key="save-targets").click().run()
    assert at.query_params["targets"] == "mine-too"


def test_a_proposed_name_that_somebody_took_meanwhile_is_proposed_anew(app, workspace):
    at = pasted(app)
    assert at.text_input(key="targets_name").value == "my-targets"
    workspace.save_targets("my-targets", parse_targets("Q: theirs?\nA: yes").rows)
    at.button(key="save-targets").click().run()
    assert not at.error
    assert at.query_params["targets"] == "my-targets-2"
    assert [row.messages[0].content for row in read_targets(workspace.target_set("my-targets").path).rows] == [
        "theirs?"
    ]
