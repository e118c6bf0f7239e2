"""The pool's index: one line per row, the script of its letters, built once and rebuilt when stale."""

import fcntl
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import regex
from commands import gradsift
from conversations import pairs, talk
from stores import flip

from gradsift.builder.build import build
from gradsift.config import BuildConfig
from gradsift.data.conversation import Conversation, Message, ToolCall
from gradsift.datastore.store import Store
from gradsift.datastore.verify import verify
from gradsift.runtime.errors import GradsiftError, StoreError
from gradsift.runtime.progress import Cancelled, Progress
from gradsift.text import index
from gradsift.text.index import ensure_index, has_index, index_path, near, script_of, scripts

JAPANESE = "東京は日本の首都です。"
CHINESE = "巴黎是法国的首都。"


def turns(*contents: str) -> Conversation:
    return talk(*(("user", content) for content in contents))


def rows_of(store: Store) -> list[dict]:
    return pq.read_table(index_path(store)).to_pylist()


@pytest.fixture
def unindexed(tiny_copy: Store) -> Store:
    """A copy of the tiny store without its index."""
    shutil.rmtree(tiny_copy.path / "index")
    return tiny_copy


class TestFile:
    def test_a_build_makes_it_with_every_row_of_the_pool(self, tiny_store: Store) -> None:
        expected = []
        for row, conversation in enumerate(tiny_store.texts(range(tiny_store.manifest.rows))["conversation"]):
            turns = pairs(conversation.messages)
            said = {role: [content for other, content in turns if other == role] for role in index.ROLES}
            expected.append({"row": row, **{role: "\n".join(texts).lower() for role, texts in said.items()}})
        got = [{name: row[name] for name in ("row", *index.ROLES)} for row in rows_of(tiny_store)]
        assert got == expected
        assert tiny_store.manifest.usable < len(got) == 42  # with excluded rows

    def test_roles_case_copies_and_unreadable_lines(self, tiny_config: BuildConfig, tmp_path: Path) -> None:
        chat = [("system", "Be BRIEF"), ("user", "Größe?"), ("assistant", "ΣΟΦΟΣ"), ("user", "İ"), ("assistant", "Да")]
        messages = {"messages": [{"role": role, "content": content} for role, content in chat]}
        lines = [json.dumps(messages), "{half a", json.dumps(messages), "{half a"]
        (tmp_path / "pool.jsonl").write_text("\n".join(lines) + "\n")
        store = build([tmp_path / "pool.jsonl"], tmp_path / "store", tiny_config, progress=Progress(quiet=True))
        text = {"user": "größe?\n" + "İ".lower(), "assistant": "ΣΟΦΟΣ\nДа".lower(), "system": "be brief"}
        text |= {"tool": "", "text": ""}
        nothing = {"script": "None", **dict.fromkeys(index.ROLES, "")}
        assert rows_of(store) == [
            {"row": 0, "script": "Latin", "near": 0, **text},
            {"row": 1, "near": 1, **nothing},
            {"row": 2, "script": "Latin", "near": 0, **text},
            {"row": 3, "near": 3, **nothing},  # lines without text are not copies
        ]
        assert near(store).tolist() == [0, 1, 0, 3]
        assert scripts(store).tolist() == ["Latin", "None", "Latin", "None"]

    def test_reasoning_and_calls_are_the_assistants_and_results_the_tools(self) -> None:
        call = ToolCall("get_weather", '{"city": "Zürich"}')
        turns = (
            Message("user", "Rain?"),
            Message("assistant", "One moment.", "I must LOOK", (call,)),
            Message("tool", "Sun", name="get_weather"),
            Message("assistant", "No."),
            Message("text", "Plain"),
        )
        assert {role: index._text(Conversation(turns), role) for role in index.ROLES} == {
            "user": "rain?",
            "assistant": 'i must look\none moment.\nget_weather({"city": "zürich"})\nno.',
            "system": "",
            "tool": "sun",
            "text": "plain",
        }

    def test_columns_come_by_row_number_over_row_groups(self, unindexed: Store, monkeypatch) -> None:
        monkeypatch.setattr(index, "_ROW_GROUP", 5)
        ensure_index(unindexed)
        assert pq.ParquetFile(index_path(unindexed)).num_row_groups == 9
        rows = rows_of(unindexed)
        assert [row["row"] for row in rows] == list(range(42))
        assert near(unindexed).tolist() == [row["near"] for row in rows]
        assert scripts(unindexed).tolist() == [row["script"] for row in rows]
        assert set(scripts(unindexed)) == {"Latin", "None"}
        assert near(unindexed).dtype == np.int64

    def test_progress_counts_every_row(self, unindexed: Store) -> None:
        progress = Progress(quiet=True)
        ensure_index(unindexed, progress)
        assert (progress.status.stage, progress.status.done, progress.status.total) == ("index", 42, 42)
        assert "near" in progress.status.seconds


class TestStaleness:
    def test_it_is_made_once(self, tiny_copy: Store) -> None:
        before = index_path(tiny_copy).stat()
        ensure_index(tiny_copy)
        assert index_path(tiny_copy).stat().st_ino == before.st_ino

    def test_without_one(self, unindexed: Store) -> None:
        assert not has_index(unindexed)
        for ask in (near, scripts):
            with pytest.raises(StoreError, match="no index of its texts yet: run gradsift score"):
                ask(unindexed)

    def test_one_of_another_pool_is_made_again(self, tiny_copy: Store) -> None:
        table = pq.read_table(index_path(tiny_copy))
        pq.write_table(
            table.replace_schema_metadata({**table.schema.metadata, b"pool": b"other"}), index_path(tiny_copy)
        )
        assert not has_index(tiny_copy)
        ensure_index(tiny_copy)
        assert has_index(tiny_copy)
        assert pq.read_table(index_path(tiny_copy)).equals(table)

    def test_one_of_another_version_is_stale(self, tiny_copy: Store, monkeypatch) -> None:
        monkeypatch.setattr(index, "VERSION", "0")
        assert not has_index(tiny_copy)

    def test_one_cut_short_is_made_again(self, tiny_copy: Store) -> None:
        content = index_path(tiny_copy).read_bytes()
        index_path(tiny_copy).write_bytes(content[: len(content) // 2])
        assert not has_index(tiny_copy)
        ensure_index(tiny_copy)
        assert index_path(tiny_copy).read_bytes() == content

    def test_a_damaged_pool_is_refused(self, unindexed: Store) -> None:
        flip(unindexed.path / "pool.parquet", 500)
        with pytest.raises(StoreError, match=r"pool\.parquet is damaged"):
            ensure_index(unindexed)

    def test_a_damaged_column_is_named(self, tiny_copy: Store) -> None:
        start = pq.ParquetFile(index_path(tiny_copy)).metadata.row_group(0).column(2).dictionary_page_offset
        path = index_path(tiny_copy)
        content = bytearray(path.read_bytes())
        content[start : start + 8] = b"\xff" * 8
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"rows\.parquet is damaged"):
            near(tiny_copy)

    def test_a_build_run_again_makes_a_missing_one(self, unindexed: Store, tiny_pool: Path) -> None:
        build([tiny_pool], unindexed.path, unindexed.manifest.config, progress=Progress(quiet=True))
        assert has_index(unindexed)

    def test_scoring_makes_a_missing_one(self, unindexed: Store, tiny_targets: Path, tmp_path: Path) -> None:
        out = tmp_path / "scores.parquet"
        gradsift("score", unindexed.path, "--targets", tiny_targets, "--method", "random", "--out", out)
        assert has_index(unindexed)

    def test_a_store_is_whole_with_and_without(self, tiny_copy: Store) -> None:
        assert verify(tiny_copy.path) == []
        shutil.rmtree(tiny_copy.path / "index")
        assert verify(tiny_copy.path) == []


class TestInterruption:
    def test_a_stopped_run_leaves_nothing_half(self, unindexed: Store) -> None:
        class Stopped(Progress):
            def advance(self, units: int = 1) -> None:
                self._stopping = self.status.stage == "index"
                super().advance(units)

        with pytest.raises(Cancelled):
            ensure_index(unindexed, Stopped(quiet=True))
        assert [path.name for path in (unindexed.path / "index").iterdir()] == [".lock"]

    def test_what_a_killed_run_left_is_removed(self, unindexed: Store) -> None:
        left = unindexed.path / "index" / ".tmp-killed"
        left.parent.mkdir()
        left.touch()
        ensure_index(unindexed)
        assert not left.exists()

    def test_the_second_run_waits_for_the_first_and_uses_its_index(self, unindexed: Store, tiny_store: Store) -> None:
        waits = threading.Event()

        class Waiting(Progress):
            def stage(self, name: str, *about, **more) -> None:
                super().stage(name, *about, **more)
                if name == "wait":
                    waits.set()

        second = Waiting(quiet=True)
        (unindexed.path / "index").mkdir()
        with open(unindexed.path / "index" / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            thread = threading.Thread(target=ensure_index, args=(unindexed, second))
            thread.start()
            assert waits.wait(60)
            shutil.copy(index_path(tiny_store), index_path(unindexed))
        thread.join(10)
        assert not thread.is_alive()
        assert second.status.stage == "wait"  # it had nothing to build itself
        assert has_index(unindexed)

    def test_reading_needs_no_lock(self, tiny_copy: Store) -> None:
        with open(tiny_copy.path / "index" / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert len(near(tiny_copy)) == 42

    def test_a_missing_pool_is_a_sentence(self, unindexed: Store) -> None:
        (unindexed.path / "pool.parquet").unlink()
        with pytest.raises(GradsiftError, match=r"pool\.parquet is missing"):
            ensure_index(unindexed)


class TestScript:
    @pytest.mark.parametrize(
        ("text", "script"),
        [
            ("What is it?", "Latin"),
            ("Größe, naïveté", "Latin"),
            ("কলকাতা কোথায়? It is", "Bengali"),
            ("Привет, world", "Cyrillic"),
            (CHINESE, "Han"),
            (JAPANESE, "Japanese"),
            ("カタカナ", "Japanese"),
            (CHINESE * 5 + "の", "Han"),  # a stray letter does not make a Chinese text Japanese
            ("한국어 단어 漢字", "Hangul"),
            ("مرحبا", "Arabic"),
            ("ᚠᚢᚦᚨᚱᚲ", "Other"),
            ("", "None"),
            ("12 + 3 = 15 🙂 — µ", "None"),
            ("ab аб", "Latin"),  # a tie
        ],
    )
    def test_of_one_turn(self, text: str, script: str) -> None:
        assert script_of(turns(text)) == script

    def test_all_turns_count(self) -> None:
        assert script_of(turns("Say it in Bengali", "কলকাতা ভারতের একটি শহর কলকাতা ভারতের একটি শহর")) == "Bengali"
        assert script_of(turns()) == "None"

    def test_the_start_of_every_turn_is_looked_at(self) -> None:
        assert script_of(turns("a" * 1000, "я" * 5000 + "a" * 99999)) == "Cyrillic"
        assert script_of(turns("1" * 2000 + "a", "я")) == "Cyrillic"

    def test_letters_are_counted_as_by_one_search_per_script(self, shared_data: Path) -> None:
        files = sorted((shared_data / "pool").glob("*.jsonl"))
        lines = [line for path in files for line in path.read_text().split("\n") if line][::40]
        seen = set()
        for line in lines:
            conversation = json.loads(line)["messages"]
            sample = "".join(turn["content"][:2000] for turn in conversation)
            counts = {name: len(regex.findall(rf"(?V1)[\p{{{name}}}&&\p{{L}}]", sample)) for name in index.SCRIPTS}
            if any(counts[name] for name in ("Hiragana", "Katakana")) or not any(counts.values()):
                continue
            best = max(counts, key=counts.__getitem__)
            assert script_of(talk(*((turn["role"], turn["content"]) for turn in conversation))) == best
            seen.add(best)
        assert len(seen) > 2

    def test_every_name_is_unicode_s(self) -> None:
        assert all(regex.compile(rf"\p{{Script={name}}}") for name in index.SCRIPTS)
        assert len(set(index.SCRIPTS)) == len(index.SCRIPTS)
