"""Saved sessions: nothing is lost with several writers, and every step can be undone."""

import itertools
import re
import resource
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from gradsift.runtime.errors import GradsiftError, UsageError
from gradsift.workspace import session_file, sessions
from gradsift.workspace.sessions import NAME_LENGTH, STEPS_KEPT, Decisions, Sessions
from gradsift.workspace.workspace import Workspace

STORE, OTHER_STORE = "a" * 64, "b" * 64
NAMES = [
    "Robert'); DROP TABLE sessions;--",
    'a "quoted" name; SELECT 1 -- ?',
    "অনুসন্ধান",
    "בדיקה ‮reversed",
    "👩‍🔬 first pass",
    "<script>alert(1)</script>",
    "nul \0 inside",
    "line\nbreak",
    "é" * NAME_LENGTH,
    "",
]
WRITER = """
import sys
from pathlib import Path
from gradsift.workspace.sessions import Sessions
path, id, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for row in range(first, first + 60):
    own = Sessions(path).create(f"of {row}")
    Sessions(path).decide(own.id, "s", [row], "reject")
    Sessions(path).decide(id, "s", [row], "accept")
"""


@pytest.fixture
def kept(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path / "sessions.sqlite3")


def state(decisions: Decisions) -> tuple[list[int], list[int], dict[int, str]]:
    return decisions.accepted.tolist(), decisions.rejected.tolist(), decisions.notes


def set_back(kept: Sessions, id: str, seconds: float) -> None:
    with closing(sqlite3.connect(kept.path)) as db, db:
        db.execute("UPDATE sessions SET changed = changed - ? WHERE id = ?", (seconds, id))


def test_looking_makes_nothing_and_finds_nothing(tmp_path: Path) -> None:
    kept = Sessions(Workspace(tmp_path / "new").sessions_path)
    assert kept.list() == []
    assert kept.get("abc") is None
    assert kept.last_step("abc", STORE) == ""
    assert state(kept.decisions("abc", STORE)) == ([], [], {})
    with pytest.raises(UsageError, match="This session is gone"):
        kept.rename("abc", "x")
    assert not (tmp_path / "new").exists()


def test_the_cheap_looks_agree_with_the_thorough_ones(kept: Sessions) -> None:
    assert kept.view("abc") is None
    assert kept.version("abc", STORE) == 0
    made = kept.create("first look", "compare", {"q": "ü"})
    for step in (
        lambda: kept.decide(made.id, STORE, [3, 4], "accept"),
        lambda: kept.note(made.id, STORE, 4, "why?"),
        lambda: kept.undo(made.id, STORE),
        lambda: kept.save_view(made.id, "why", {"row": "4"}),
    ):
        step()
        view, record = kept.view(made.id), kept.get(made.id)
        assert all(
            getattr(view, name) == getattr(record, name) for name in ("id", "name", "created", "page", "address")
        )
        assert kept.version(made.id, STORE) == kept.decisions(made.id, STORE).version > 0
    assert kept.version(made.id, OTHER_STORE) == 0
    assert kept.view("\ud800") is None


def test_a_session_comes_back_as_it_was_saved(kept: Sessions) -> None:
    made = kept.create("first look", "compare", {"q": "ü & ?", "method": "less"})
    assert re.fullmatch("[a-z0-9]{10}", made.id)
    assert kept.get(made.id) == made
    assert (made.name, made.page, made.address) == ("first look", "compare", {"q": "ü & ?", "method": "less"})
    assert made.created == made.changed
    kept.save_view(made.id, "why", {"row": "17"})
    kept.rename(made.id, "  renamed \n")
    again = Sessions(kept.path).get(made.id)
    assert (again.name, again.page, again.address) == ("renamed", "why", {"row": "17"})
    assert again.created == made.created < again.changed


def test_a_view_that_did_not_change_is_not_written(kept: Sessions) -> None:
    made = kept.create("x", "compare", {"b": "1", "a": "2"})
    kept.save_view(made.id, "compare", {"a": "2", "b": "1"})
    assert kept.get(made.id).changed == made.changed
    kept.save_view(made.id, "compare", {"a": "3", "b": "1"})
    assert kept.get(made.id).changed > made.changed


def test_the_list_counts_over_all_stores_and_begins_with_the_latest(kept: Sessions) -> None:
    first, second = kept.create("first"), kept.create("second")
    assert [record.id for record in kept.list()] == [second.id, first.id]
    kept.decide(first.id, STORE, [1, 2, 3], "accept")
    kept.decide(first.id, OTHER_STORE, [1, 4], "reject")
    kept.note(first.id, STORE, 2, "good")
    kept.note(first.id, STORE, 9, "odd")
    assert [record.id for record in kept.list()] == [first.id, second.id]
    assert [(r.accepted, r.rejected, r.notes) for r in kept.list()] == [(3, 2, 2), (0, 0, 0)]
    assert kept.list()[0] == kept.get(first.id)


@pytest.mark.parametrize("name", NAMES)
def test_any_text_is_a_name_a_view_and_a_note(kept: Sessions, name: str) -> None:
    made = kept.create(name, "compare", {name: name})
    kept.note(made.id, name, 5, name * 3)
    again = kept.get(made.id)
    assert (again.name, again.address) == (name, {name: name})
    assert kept.decisions(made.id, name).notes == ({5: (name * 3).strip()} if name else {})
    assert kept.get(name) is None
    kept.rename(made.id, "plain")
    kept.rename(made.id, name)
    assert [record.name for record in kept.list()] == [name]


def test_half_surrogates_are_replaced_instead_of_failing(kept: Sessions) -> None:
    made = kept.create("a\ud800b", address={"q": "\ud800"})
    kept.note(made.id, STORE, 1, "\udfff")
    assert kept.get(made.id).name == "a?b"
    assert kept.get(made.id).address == {"q": "\ud800"}
    assert kept.decisions(made.id, STORE).notes == {1: "?"}
    assert kept.get("\ud800") is None


def test_a_name_that_is_too_long_is_refused(kept: Sessions) -> None:
    made = kept.create("kept")
    for call in (kept.create, lambda name: kept.rename(made.id, name)):
        with pytest.raises(UsageError, match="81 characters: choose one of at most 80"):
            call("x" * 81)
    assert [record.name for record in kept.list()] == ["kept"]


def test_delete_takes_the_decisions_along_and_nothing_of_others(kept: Sessions) -> None:
    gone, stays = kept.create("gone"), kept.create("stays")
    for record in (gone, stays):
        kept.decide(record.id, STORE, [1, 2], "accept")
        kept.note(record.id, STORE, 1, "n")
    kept.delete(gone.id)
    assert kept.get(gone.id) is None
    assert state(kept.decisions(gone.id, STORE)) == ([], [], {})
    assert state(kept.decisions(stays.id, STORE)) == ([1, 2], [], {1: "n"})
    with closing(sqlite3.connect(kept.path)) as db:
        left = [db.execute(f"SELECT COUNT(*) FROM {t}").fetchone()[0] for t in ("boards", "decisions", "steps")]
    assert left == [1, 2, 2]
    calls = [
        lambda: kept.delete(gone.id),
        lambda: kept.rename(gone.id, "x"),
        lambda: kept.save_view(gone.id, "why", {}),
        lambda: kept.decide(gone.id, STORE, [1], "accept"),
        lambda: kept.note(gone.id, STORE, 1, "x"),
        lambda: kept.undo(gone.id, STORE),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="This session is gone"):
            call()


def test_decisions_are_of_one_store_and_one_session(kept: Sessions) -> None:
    one, two = kept.create("one"), kept.create("two")
    kept.decide(one.id, STORE, [3, 1], "accept")
    kept.decide(one.id, OTHER_STORE, [1], "reject")
    assert state(kept.decisions(one.id, STORE)) == ([1, 3], [], {})
    assert state(kept.decisions(one.id, OTHER_STORE)) == ([], [1], {})
    assert state(kept.decisions(two.id, STORE)) == ([], [], {})
    assert kept.undo(one.id, OTHER_STORE) == "Undone: 1 row rejected"
    assert kept.undo(two.id, STORE) == ""
    assert state(kept.decisions(one.id, STORE)) == ([1, 3], [], {})


def test_decide_counts_what_changed_and_leaves_notes(kept: Sessions) -> None:
    id = kept.create("x").id
    kept.note(id, STORE, 2, "  keep me ")
    assert kept.decide(id, STORE, np.array([5, 2, 5, 9], dtype=np.int32), "accept") == 3
    assert kept.decide(id, STORE, [5, 9], "accept") == 0
    assert kept.decide(id, STORE, [2, 5, 7], "reject") == 3
    assert kept.decide(id, STORE, [], "accept") == 0
    decisions = kept.decisions(id, STORE)
    assert decisions.accepted.dtype == decisions.rejected.dtype == np.int64
    assert state(decisions) == ([9], [2, 5, 7], {2: "keep me"})
    assert kept.decide(id, STORE, [2, 9, 100], "") == 2
    assert state(kept.decisions(id, STORE)) == ([], [5, 7], {2: "keep me"})


def test_undo_goes_back_through_every_step_in_order(kept: Sessions) -> None:
    id = kept.create("x").id
    steps = [
        (lambda: kept.decide(id, STORE, range(12), "accept"), "12 rows accepted"),
        (lambda: kept.note(id, STORE, np.int64(3), "first"), "the note on row 3"),
        (lambda: kept.decide(id, STORE, range(6, 20), "reject"), "14 rows rejected"),
        (lambda: kept.note(id, STORE, 3, "second"), "the note on row 3"),
        (lambda: kept.decide(id, STORE, [3, 7, 15, 30], ""), "3 rows reset to undecided"),
        (lambda: kept.note(id, STORE, 3, ""), "the note on row 3"),
        (lambda: kept.decide(id, STORE, [30], "accept"), "1 row accepted"),
        (lambda: kept.note(id, STORE, 1234, "far"), "the note on row 1,234"),
    ]
    before = []
    for step, said in steps:
        before.append(state(kept.decisions(id, STORE)))
        step()
        assert kept.last_step(id, STORE) == said
    assert state(kept.decisions(id, STORE)) == (
        [0, 1, 2, 4, 5, 30],
        [6, *range(8, 15), *range(16, 20)],
        {1234: "far"},
    )
    for expected, (_, said) in zip(reversed(before), reversed(steps), strict=True):
        assert kept.undo(id, STORE) == f"Undone: {said}"
        assert state(kept.decisions(id, STORE)) == expected
    assert kept.undo(id, STORE) == kept.last_step(id, STORE) == ""


def test_what_changes_nothing_is_no_step(kept: Sessions) -> None:
    id = kept.create("x").id
    kept.decide(id, STORE, [1], "accept")
    version = kept.decisions(id, STORE).version
    kept.decide(id, STORE, [1], "accept")
    kept.decide(id, STORE, [2], "")
    kept.note(id, STORE, 1, "  ")
    assert kept.decisions(id, STORE).version == version
    assert kept.undo(id, STORE) == "Undone: 1 row accepted"
    assert kept.undo(id, STORE) == ""


def test_the_version_never_comes_twice(kept: Sessions) -> None:
    id = kept.create("x").id
    seen = [kept.decisions(id, STORE).version]
    for _ in range(3):
        kept.decide(id, STORE, [1], "accept")
        seen.append(kept.decisions(id, STORE).version)
        kept.note(id, STORE, 1, "n")
        seen.append(kept.decisions(id, STORE).version)
        for _ in range(2):
            kept.undo(id, STORE)
            seen.append(kept.decisions(id, STORE).version)
    assert seen == sorted(set(seen))


def test_random_steps_agree_with_a_dictionary_and_all_go_back(kept: Sessions) -> None:
    rng = np.random.default_rng(7)
    id, verdicts, notes, states = kept.create("x").id, {}, {}, []
    for number in range(60):
        states.append((dict(verdicts), dict(notes)))
        if rng.random() < 0.3:
            row, text = int(rng.integers(40)), str(rng.choice(["", "a", "b"]))
            kept.note(id, STORE, row, text)
            changed = notes.get(row, "") != text
            notes[row] = text
        else:
            rows, verdict = rng.integers(40, size=rng.integers(1, 20)), str(rng.choice(["accept", "reject", ""]))
            differing = {int(row) for row in rows if verdicts.get(int(row), "") != verdict}
            assert kept.decide(id, STORE, rows, verdict) == len(differing), number
            changed = bool(differing)
            verdicts.update(dict.fromkeys(differing, verdict))
        if not changed:
            states.pop()
        assert state(kept.decisions(id, STORE)) == as_state(verdicts, notes)
    for expected in reversed(states):
        assert kept.undo(id, STORE)
        assert state(kept.decisions(id, STORE)) == as_state(*expected)
    assert kept.undo(id, STORE) == ""
    with closing(sqlite3.connect(kept.path)) as db:
        assert db.execute("SELECT COUNT(*) FROM decisions").fetchone() == (0,)


def as_state(verdicts: dict[int, str], notes: dict[int, str]) -> tuple[list[int], list[int], dict[int, str]]:
    of = {name: sorted(row for row, verdict in verdicts.items() if verdict == name) for name in ("accept", "reject")}
    return of["accept"], of["reject"], {row: text for row, text in notes.items() if text}


def test_the_journal_keeps_the_latest_steps_of_each_store(kept: Sessions) -> None:
    id = kept.create("x").id
    kept.decide(id, OTHER_STORE, [1], "accept")
    for row in range(STEPS_KEPT + 5):
        kept.decide(id, STORE, [row], "accept")
    taken = list(itertools.takewhile(bool, (kept.undo(id, STORE) for _ in range(STEPS_KEPT + 5))))
    assert taken == ["Undone: 1 row accepted"] * STEPS_KEPT
    assert kept.decisions(id, STORE).accepted.tolist() == [0, 1, 2, 3, 4]
    assert kept.last_step(id, OTHER_STORE) == "1 row accepted"


def test_200_000_rows_are_one_step(kept: Sessions) -> None:
    id = kept.create("x").id
    rows = np.random.default_rng(0).permutation(270_000)[:200_000]
    kept.decide(id, STORE, rows[:1000], "reject")
    assert kept.decide(id, STORE, rows, "accept") == 200_000
    assert np.array_equal(kept.decisions(id, STORE).accepted, np.sort(rows))
    assert kept.undo(id, STORE) == "Undone: 200,000 rows accepted"
    assert state(kept.decisions(id, STORE)) == ([], sorted(rows[:1000].tolist()), {})
    assert kept.last_step(id, STORE) == "1,000 rows rejected"


def test_unnamed_sessions_without_decisions_go_after_a_day(kept: Sessions) -> None:
    named, decided, noted, undone, viewed, young = (kept.create(name) for name in ("named", "", "", "", "", ""))
    kept.decide(decided.id, STORE, [1], "reject")
    kept.note(noted.id, STORE, 1, "n")
    kept.decide(undone.id, STORE, [1], "accept")
    kept.undo(undone.id, STORE)
    for record in (named, decided, noted, undone, viewed):
        set_back(kept, record.id, sessions.KEEP_EMPTY + 60)
    set_back(kept, young.id, sessions.KEEP_EMPTY - 60)
    assert len(kept.list()) == 6
    made = kept.create()
    assert {record.id for record in kept.list()} == {named.id, decided.id, noted.id, young.id, made.id}


def test_two_tabs_see_each_others_decisions_and_undo_the_latest(kept: Sessions) -> None:
    other = Sessions(kept.path)
    id = kept.create("x").id
    kept.decide(id, STORE, [1, 2], "accept")
    other.decide(id, STORE, [2, 3], "reject")
    assert state(kept.decisions(id, STORE)) == state(other.decisions(id, STORE)) == ([1], [2, 3], {})
    assert kept.undo(id, STORE) == "Undone: 2 rows rejected"
    assert state(other.decisions(id, STORE)) == ([1, 2], [], {})


def test_reading_and_writing_do_not_wait_for_each_other(kept: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_file, "WAIT", 0.05)
    id = kept.create("x").id
    kept.decide(id, STORE, [1], "accept")
    with closing(sqlite3.connect(kept.path, isolation_level=None)) as db:
        db.execute("BEGIN")
        assert db.execute("SELECT COUNT(*) FROM decisions").fetchone() == (1,)
        kept.decide(id, STORE, [2, 3], "accept")
        assert db.execute("SELECT COUNT(*) FROM decisions").fetchone() == (1,)
        db.execute("COMMIT")
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM decisions")
        assert state(kept.decisions(id, STORE)) == ([1, 2, 3], [], {})
        assert kept.list()[0].accepted == 3
        db.execute("ROLLBACK")


def test_threads_that_write_at_once_lose_nothing(kept: Sessions) -> None:
    id = kept.create("x").id
    start, failed = threading.Barrier(4), []

    def write(first: int) -> None:
        try:
            start.wait()
            for row in range(first, first + 30):
                kept.decide(id, STORE, [row], "accept")
                kept.note(id, STORE, row, f"note {row}")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [100 * number + row for number in range(4) for row in range(30)]
    assert failed == []
    decisions = kept.decisions(id, STORE)
    assert state(decisions) == (rows, [], {row: f"note {row}" for row in rows})
    assert decisions.version == 240


def test_the_first_sessions_of_many_threads_all_stay(kept: Sessions) -> None:
    start, made, failed = threading.Barrier(8), [], []

    def create() -> None:
        try:
            start.wait()
            made.append(kept.create().id)
            kept.list()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {record.id for record in kept.list()} == set(made)
    assert len(set(made)) == 8


def test_processes_that_write_at_once_lose_nothing(kept: Sessions) -> None:
    shared = kept.create("shared").id
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(kept.path), shared, first], stderr=subprocess.PIPE)
        for first in ("0", "1000")
    ]
    said = [writer.communicate()[1].decode() for writer in writers]
    assert [(writer.returncode, text) for writer, text in zip(writers, said, strict=True)] == [(0, ""), (0, "")]
    rows = [*range(60), *range(1000, 1060)]
    assert state(kept.decisions(shared, "s")) == (rows, [], {})
    own = {record.name: record for record in kept.list() if record.id != shared}
    assert set(own) == {f"of {row}" for row in rows}
    assert all(kept.decisions(own[f"of {row}"].id, "s").rejected.tolist() == [row] for row in rows)


def assert_refused(kept: Sessions, sentence: str) -> None:
    """Reading, creating and changing all raise the sentence, and leave the file as it is."""
    before = kept.path.read_bytes()
    calls = [kept.list, kept.create, lambda: kept.get("x"), lambda: kept.decide("x", STORE, [1], "accept")]
    for call in [*calls, lambda: kept.decisions("x", STORE), lambda: kept.save_view("x", "why", {})]:
        with pytest.raises(GradsiftError, match=sentence) as raised:
            call()
        assert str(kept.path) in str(raised.value)
        assert "\n" not in str(raised.value)
    assert kept.path.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(kept: Sessions) -> None:
    kept.path.write_bytes(b"these are somebody's notes, not a database\n" * 100)
    assert_refused(kept, "is damaged or not a session file .*: move it away")


def test_a_torn_file_is_left_alone(kept: Sessions) -> None:
    id = kept.create("x").id
    kept.decide(id, STORE, range(5000), "accept")
    data = kept.path.read_bytes()
    kept.path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    assert_refused(kept, "is damaged or not a session file .*: move it away")


def test_bytes_that_sqlite_cannot_see_changed_are_damage_as_well(kept: Sessions) -> None:
    id = kept.create("x").id
    kept.decide(id, STORE, [1], "accept")
    with closing(sqlite3.connect(kept.path)) as db, db:
        db.execute("UPDATE steps SET before = x'00'")
    with pytest.raises(GradsiftError, match="is damaged or not a session file"):
        kept.undo(id, STORE)
    with closing(sqlite3.connect(kept.path)) as db, db:
        db.execute("UPDATE sessions SET address = '{', name = CAST(x'ff' AS TEXT)")
    with pytest.raises(GradsiftError, match="is damaged or not a session file"):
        kept.get(id)
    with closing(sqlite3.connect(kept.path)) as db, db:
        db.execute("UPDATE sessions SET name = ''")
    with pytest.raises(GradsiftError, match="is damaged or not a session file"):
        kept.list()


def test_another_programs_database_is_left_alone(kept: Sessions) -> None:
    with closing(sqlite3.connect(kept.path)) as db, db:
        db.execute("CREATE TABLE sessions (id TEXT, theirs TEXT)")
    assert_refused(kept, "belongs to another program: move it away")


def test_a_newer_format_is_refused(kept: Sessions) -> None:
    kept.create("x")
    with closing(sqlite3.connect(kept.path)) as db:
        db.execute("PRAGMA user_version = 2")
    assert_refused(kept, r"written by a newer gradsift \(format 2; this one reads 1\): update")


def test_a_folder_in_its_place_is_said(kept: Sessions) -> None:
    kept.path.mkdir()
    for call in (kept.list, kept.create):
        with pytest.raises(GradsiftError, match=r"cannot be read or written .*: check that it is a file"):
            call()


def test_an_empty_file_is_a_beginning(kept: Sessions) -> None:
    kept.path.touch()
    assert kept.list() == []
    made = kept.create("x")
    assert kept.list() == [made]


def test_a_lock_that_stays_is_said(kept: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_file, "WAIT", 0.05)
    id = kept.create("x").id
    with closing(sqlite3.connect(kept.path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(GradsiftError, match=r"has been locked by another program for over 0.05 seconds"):
            kept.decide(id, STORE, [1], "accept")
        db.execute("ROLLBACK")
    assert kept.decide(id, STORE, [1], "accept") == 1


def test_no_room_for_more_is_said_and_keeps_what_was_saved(kept: Sessions) -> None:
    id = kept.create("x").id
    kept.decide(id, STORE, [1], "accept")
    code = f"""
from pathlib import Path
from gradsift.runtime.errors import GradsiftError
from gradsift.workspace.sessions import Sessions
try:
    Sessions(Path({str(kept.path)!r})).decide({id!r}, {STORE!r}, range(100_000), "reject")
except GradsiftError as error:
    print(error)
"""
    small = 128 * 1024
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (small, small)),
    )
    assert ran.stdout.startswith(str(kept.path))
    assert "the disk is not full." in ran.stdout
    assert state(kept.decisions(id, STORE)) == ([1], [], {})
    assert kept.last_step(id, STORE) == "1 row accepted"
