"""The build form shows how a pool is read and what is learned of it, before a build; columns are mapped by a person."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import streamlit as st

from app.datastore import reading
from app.views import masks as views
from app.views.commands import Build
from app.views.masks import Files, why_unasked
from app.widgets import masks
from gradsift.config import BuildConfig, ColumnPart, Take
from gradsift.data.conversation import Conversation, Message
from gradsift.data.masks import Masked
from gradsift.data.rendering import Dropped, Stretch
from gradsift.runtime import jobs

HOSTILE = "<script>alert(1)</script> **bold** ![](http://127.0.0.1:9/x.png)"


def write(path: Path, *records: object) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n")
    return path


def chat(question: str, answer: str, **fields: object) -> dict[str, object]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **fields}


@pytest.fixture(autouse=True)
def fresh():
    st.cache_resource.clear()


@pytest.fixture
def form(app, workspace, tiny_model):
    """The build form on a pool of this machine, with the toy model."""

    def run(*paths: object, **state: object):
        at = app()
        at.session_state["datastore_room"] = "New store"
        at.run()
        at.session_state["build_model"] = str(tiny_model)
        at.session_state["build_paths"] = "\n".join(map(str, paths))
        for name, value in state.items():
            at.session_state[name] = value
        at.run()
        assert not at.exception, at.exception
        return at

    return run


def html_of(at) -> str:
    return "\n".join(html.value for html in at.html if not html.value.startswith("<style"))


def text_of(at) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html_of(at)))


class TestPreview:
    def test_rows_are_shown_as_conversations_with_counts_and_reasons(self, form, tmp_path):
        path = write(
            tmp_path / "pool.jsonl", chat("where?", "here"), {"instruction": "do", "output": "done"}, "{broken"
        )
        text = text_of(form(path))
        assert "All 3 rows: 2 usable , 1 cannot be used. Read as messages (1), alpaca (1)." in text
        assert "Columns read: messages , instruction , output ." in text
        assert "1 row : not valid JSON" in text
        assert "User where? Assistant here" in text
        assert "pool.jsonl , line 2: alpaca" in text

    def test_hostile_rows_names_and_reasons_are_text(self, form, tmp_path):
        path = write(tmp_path / "pool.jsonl", chat(HOSTILE, HOSTILE, **{HOSTILE: "x"}), {HOSTILE: HOSTILE}, HOSTILE)
        at = form(path)
        for view in (reading.ROWS, reading.LEARNED):
            at.session_state["build_rows_as"] = view
            at.run()
            assert not at.exception, at.exception
            assert "<script" not in html_of(at)
            assert "<img" not in html_of(at)

    def test_a_path_that_cannot_be_read_is_a_sentence(self, form, tmp_path):
        at = form(tmp_path / "no.jsonl")
        assert any("does not exist" in error.value for error in at.error)
        write(tmp_path / "pool.jsonl", chat("where?", "here"))
        at.session_state["build_paths"] = str(tmp_path / "pool.jsonl")
        at.run()
        assert not at.error
        assert "1 usable" in text_of(at)

    def test_a_changed_file_is_read_again(self, form, tmp_path):
        path = write(tmp_path / "pool.jsonl", chat("where?", "here"))
        at = form(path)
        write(path, chat("where?", "here"), chat("when?", "now"))
        assert "All 2 rows: 2 usable" in text_of(at.run())

    def test_the_sample_is_read_like_any_other_pool(self, form):
        assert re.search(r"All \d+ rows: \d+ usable", text_of(form(build_origin="The sample")))

    def test_nothing_is_drawn_without_files(self, form):
        assert "usable" not in text_of(form())


class TestUnasked:
    def test_what_is_not_on_this_machine_waits_for_a_button(self, form, monkeypatch):
        asked = []
        monkeypatch.setattr(views, "first_rows", lambda files, *rest: asked.append(files))
        at = form("org/data")
        assert not asked
        assert at.button(key="read-first")

    def test_hub_ids_and_large_files_are_recognized(self, tmp_path, monkeypatch):
        monkeypatch.setattr(views, "LARGE", 100)
        small, large = tmp_path / "a.json", tmp_path / "b.json"
        small.write_text("[]")
        large.write_text(" " * 101)
        lines = write(tmp_path / "c.jsonl", "x" * 200)
        assert why_unasked(Files((str(small), str(lines), str(tmp_path / "no" / "file.jsonl"), "x/*.jsonl"))) == ""
        assert "have to be fetched" in why_unasked(Files(("org/data",)))
        assert "is large" in why_unasked(Files((str(large),)))


class TestMapping:
    ROWS = ({"ask": "where?", "reply": "here", "note": "n"}, {"ask": "when?", "reply": "now", "note": "n"})

    def test_unknown_columns_open_the_form_and_show_the_rows_as_they_stand(self, form, tmp_path):
        at = form(write(tmp_path / "pool.jsonl", *self.ROWS))
        assert "0 usable" in text_of(at)
        assert "where?" in text_of(at)
        assert at.selectbox(key="build_column_user").options == ["ask", "reply", "note"]

    def test_chosen_columns_are_read_at_once_and_become_the_commands(self, form, tmp_path, monkeypatch):
        started = []
        monkeypatch.setattr(jobs, "start", lambda folder, argv: started.append(Build.read(argv)))
        at = form(write(tmp_path / "pool.jsonl", *self.ROWS))
        at.selectbox(key="build_column_user").set_value("ask")
        at.selectbox(key="build_column_assistant").set_value("reply").run()
        assert not at.error
        assert "All 2 rows: 2 usable" in text_of(at)
        assert "User where? Assistant here" in text_of(at)
        assert "Held text and not used : note (2 rows)" in text_of(at)
        at.session_state["build_template_option"] = ["enable_thinking=false"]
        at.selectbox(key="build_source_column").set_value("note")
        at.text_input(key="build_name").set_value("mine")
        next(button for button in at.button if button.label == "Build the datastore").click().run()
        (command,) = started
        assert command.columns == ("user=ask", "assistant=reply")
        assert command.source_column == "note"
        assert command.template_option == ("enable_thinking=false",)
        assert command.take == ()

    def test_a_mapping_without_an_answer_is_a_sentence(self, form, tmp_path):
        at = form(write(tmp_path / "pool.jsonl", *self.ROWS), build_column_user="ask")
        assert any("no column that is learned from" in error.value for error in at.error)
        assert at.selectbox(key="build_column_assistant").options == ["ask", "reply", "note"]

    def test_a_column_of_other_files_stays_chosen_until_it_is_removed(self, form, tmp_path):
        at = form(
            write(tmp_path / "pool.jsonl", chat("q", "a")), build_column_user="gone", build_column_assistant="lost"
        )
        assert at.selectbox(key="build_column_user").value == "gone"

    def test_every_part_and_kind_of_row_has_a_name(self):
        assert set(reading.PARTS) == set(get_args(ColumnPart))
        assert set(reading.TAKES) == set(get_args(Take))


class TestLearned:
    def test_the_chosen_models_marks_are_drawn(self, form, tmp_path):
        path = write(tmp_path / "pool.jsonl", chat("where?", "here"))
        html = html_of(form(path, build_rows_as=reading.LEARNED))
        assert '<mark class="gs-learned">here&lt;|im_end|&gt;</mark>' in html
        assert '<span class="gs-given">where?</span>' in html
        assert '<span class="gs-template">&lt;|im_start|&gt;user\n</span>' in html
        assert "learned" in html

    def test_a_model_or_template_that_cannot_be_loaded_is_a_sentence(self, form, tmp_path):
        path = write(tmp_path / "pool.jsonl", chat("where?", "here"))
        at = form(path, build_rows_as=reading.LEARNED, build_model="/no/such/model")
        assert any("cannot be loaded" in warning.value for warning in at.warning)
        at = form(path, build_rows_as=reading.LEARNED, build_template="/no/such.jinja")
        assert any("nor a readable file" in error.value for error in at.error)
        at = form(path, build_rows_as=reading.LEARNED, build_template_option=["x"])
        assert any("NAME" in error.value for error in at.error)

    def test_rows_that_the_template_refuses_are_counted_with_their_reason(self, form, tmp_path):
        template = tmp_path / "t.jinja"
        template.write_text(
            "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('never') }}{% endif %}"
            "{{ m.role + ':' + m.content + '<|im_end|>' }}{% endfor %}"
        )
        path = write(tmp_path / "pool.jsonl", chat("where?", "here"), chat("q", "no"))
        text = text_of(form(path, build_rows_as=reading.LEARNED, build_template=str(template)))
        assert re.search(r"2 usable\b.*1 row : .*never", text)

    def test_the_bundled_model_is_never_converted_by_a_page(self, form, tmp_path, monkeypatch):
        monkeypatch.setattr(views, "is_converted", lambda: False)
        path = write(tmp_path / "pool.jsonl", chat("where?", "here"))
        at = form(path, build_rows_as=reading.LEARNED, build_model=views.BUNDLED)
        assert any("not prepared on this machine" in warning.value for warning in at.warning)


class TestMask:
    def masked(self, text: str, *stretches: tuple[int, int, str], dropped: tuple[Dropped, ...] = ()) -> Masked:
        rendering = SimpleNamespace(text=text, stretches=[Stretch(*s, 0) for s in stretches], dropped=dropped)
        return Masked(Conversation((Message("assistant", "x"),)), rendering, 7, 3, 5, 2)

    def test_neighbours_of_one_kind_are_one_and_every_character_is_there(self):
        html = masks.draw(self.masked("<a>bc", (0, 3, "template"), (3, 4, "learned"), (4, 5, "learned")))
        assert '<span class="gs-template">&lt;a&gt;</span><mark class="gs-learned">bc</mark>' in html
        assert "<b>3</b> learned, 7 in the prompt (5 of them the template’s own); 2 more are cut off" in html

    def test_long_context_is_folded_and_what_is_learned_is_not(self):
        text = "head " * 100 + "rule " * 400 + "answer " * 400
        html = masks.draw(self.masked(text, (0, 500, "template"), (500, 2500, "given"), (2500, len(text), "learned")))
        assert re.findall(r"… ([\d,]+) more characters", html) == ["300", "1,800"]
        assert re.sub("<summary>.*?</summary>|<[^>]+>", "", html).startswith(text)

    def test_what_was_left_out_is_struck_and_named(self):
        html = masks.draw(self.masked("a", (0, 1, "given"), dropped=(Dropped(0, "reasoning", "<hm>"),)))
        assert "the reasoning of message 1, assistant" in html
        assert '<s class="gs-dropped" dir="auto">&lt;hm&gt;</s>' in html

    def test_a_long_rendering_is_cut_and_says_so(self):
        n = masks.LONGEST
        html = masks.draw(self.masked("0" * (n + 5), (0, n + 2, "learned"), (n + 2, n + 5, "given")))
        assert f">{'0' * n}<" in html
        assert "[5 more characters are not shown here]" in html


def test_pages_load_no_weights(tiny_model, monkeypatch):
    from gradsift.model import load

    monkeypatch.setattr(load, "load_model", lambda *_: pytest.fail("weights"))
    encoder = views.encoder_for(BuildConfig(model=str(tiny_model)))
    assert views.mask_of(encoder, Conversation((Message("user", "q"), Message("assistant", "a")))).learned > 0
    assert views.encoder_for(BuildConfig(model=str(tiny_model))) is encoder
