"""Files are whole or absent, whatever happens while they are written."""

import os
from pathlib import Path

import pytest

from gradsift.runtime import atomic


def test_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic.write_text(path, "old")
    atomic.write_json(path, {"b": 1, "a": "γ"})
    assert path.read_text() == '{\n "a": "γ",\n "b": 1\n}\n'
    assert os.listdir(tmp_path) == ["a.json"]


def test_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    atomic.write_bytes(path, b"old")

    def fail() -> None:
        with atomic.open_for_write(path) as file:
            file.write(b"half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_rights_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_sweep_removes_files_and_folders_of_killed_writers_only(tmp_path: Path) -> None:
    kept = [tmp_path / "a", tmp_path / "below" / "b"]
    kept += [tmp_path / "scorings" / ".tmp-theirs", tmp_path / "index" / ".tmp-theirs"]
    left = [tmp_path / ".tmp-1", tmp_path / "below" / ".tmp-2", tmp_path / "below" / ".tmp-epoch-1" / ".tmp-3"]
    for path in kept + left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    atomic.sweep(tmp_path, keep=("scorings", "index"))
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(kept)
    assert not (tmp_path / "below" / ".tmp-epoch-1").exists()


def test_remove_takes_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("link", "nothing"):
        atomic.remove(tmp_path / name)
    assert (tmp_path / "folder" / "deep").is_dir()
    atomic.remove(tmp_path / "folder")
    assert os.listdir(tmp_path) == []
