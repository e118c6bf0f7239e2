"""The workspace: what it lists, remembers and refuses."""

import json
from pathlib import Path

import pytest

from gradsift.data.targets import parse_targets, read_targets
from gradsift.runtime.errors import UsageError
from gradsift.runtime.paths import data_home
from gradsift.workspace.workspace import Workspace, sample_pool, sample_targets

ROWS = parse_targets("Q: one?\nA: yes\n\nQ: two?\nA: no\n").rows


def a_store(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "manifest.json").write_text("{}")
    return path


def test_without_a_folder_it_is_the_persons_own():
    assert Workspace().root == data_home()


def test_looking_around_makes_nothing(tmp_path):
    workspace = Workspace(tmp_path / "new")
    assert workspace.stores() == []
    assert [entry.shipped for entry in workspace.target_sets()] == [True] * len(sample_targets())
    assert not (tmp_path / "new").exists()


def test_stores_of_the_workspace_come_by_name_and_folders_that_are_none_do_not(tmp_path):
    for name in ("b", "a"):
        a_store(tmp_path / "stores" / name)
    (tmp_path / "stores" / "notes").mkdir()
    assert [entry.name for entry in Workspace(tmp_path).stores()] == ["a", "b"]


def test_a_build_that_has_only_begun_is_a_store(tmp_path):
    job = tmp_path / "stores" / "begun" / "job"
    job.mkdir(parents=True)
    (job / "status.json").write_text("{}")
    assert [entry.name for entry in Workspace(tmp_path).stores()] == ["begun"]


def test_a_store_elsewhere_is_remembered_newest_first_and_forgotten_when_gone(tmp_path):
    workspace = Workspace(tmp_path / "w")
    first, second = a_store(tmp_path / "x"), a_store(tmp_path / "y")
    for path in (first, second, first):
        assert workspace.open_store(str(path)).path == path
    assert [entry.path for entry in Workspace(tmp_path / "w").stores()] == [first, second]
    (first / "manifest.json").unlink()
    assert [entry.path for entry in workspace.stores()] == [second]


def test_a_name_and_a_path_inside_the_workspace_open_the_same_store(tmp_path):
    path = a_store(tmp_path / "stores" / "mine")
    workspace = Workspace(tmp_path)
    assert workspace.open_store("mine") == workspace.open_store(str(path))
    assert not (tmp_path / "stores.json").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "path"),
        (".", "is not a datastore"),
        *((name, "There is no folder") for name in ("/no/such/folder", "~no-such-person/x", "a" * 300, "a\0b")),
    ],
)
def test_what_is_no_store_is_refused_in_words(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=says):
        Workspace(tmp_path / "w").open_store(text)


@pytest.mark.parametrize("damage", ["", "{", "[1, null]", '{"a": 1}', '["relative/path"]'])
def test_a_damaged_memory_of_stores_is_an_empty_one(tmp_path, damage):
    (tmp_path / "stores.json").write_text(damage)
    assert Workspace(tmp_path).stores() == []


def test_target_sets_are_saved_read_and_replaced(tmp_path):
    workspace = Workspace(tmp_path)
    entry = workspace.save_targets("mine", ROWS)
    assert entry.path == tmp_path / "targets" / "mine.jsonl"
    assert [row.messages for row in read_targets(workspace.target_set("mine").path).rows] == [
        row.messages for row in ROWS
    ]
    workspace.save_targets("mine", ROWS[:1])
    assert len(read_targets(workspace.target_set("mine").path).rows) == 1
    assert workspace.target_sets()[0] == entry
    assert workspace.free_target_name("mine") == "mine-2"


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "-flag", "x" * 65, "nul\0", "two\nlines"])
def test_names_that_would_leave_the_folder_are_refused(tmp_path, name):
    workspace = Workspace(tmp_path)
    with pytest.raises(UsageError, match="cannot name"):
        workspace.save_targets(name, ROWS)
    with pytest.raises(UsageError, match="cannot name"):
        workspace.new_store_path(name)
    assert list(tmp_path.rglob("*.jsonl")) == []


def test_the_samples_names_and_existing_stores_are_not_overwritten(tmp_path):
    workspace = Workspace(tmp_path)
    with pytest.raises(UsageError, match="comes with gradsift"):
        workspace.save_targets(sample_targets()[0].stem, ROWS)
    with pytest.raises(UsageError, match="no usable example"):
        workspace.save_targets("empty", [])
    a_store(tmp_path / "stores" / "there")
    with pytest.raises(UsageError, match="already exists"):
        workspace.new_store_path("there")


def test_uploads_keep_their_names_without_their_folders(tmp_path):
    kept = Workspace(tmp_path).keep_uploads("mine", [("../../evil.jsonl", b"1"), ("b.jsonl", b"2")])
    assert [path.relative_to(tmp_path).as_posix() for path in kept] == [
        "uploads/mine/evil.jsonl",
        "uploads/mine/b.jsonl",
    ]
    assert kept[0].read_bytes() == b"1"


def test_uploads_of_one_name_do_not_replace_each_other(tmp_path):
    kept = Workspace(tmp_path).keep_uploads("mine", [("a.jsonl", b"1"), ("a.jsonl", b"2"), ("a.jsonl", b"3")])
    assert [path.name for path in kept] == ["a.jsonl", "2-a.jsonl", "3-a.jsonl"]
    assert [path.read_bytes() for path in kept] == [b"1", b"2", b"3"]


def test_the_sample_is_found():
    assert len(sample_pool()) == 4
    assert all(json.loads(line) for path in sample_targets() for line in path.read_text(encoding="utf-8").splitlines())
