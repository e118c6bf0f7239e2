"""The hashes that name and check stores, kept scorings and exports: their values must never change."""

import hashlib
import json
from pathlib import Path

import pytest

from gradsift.runtime.hashing import hash_bytes, hash_file, hash_json, hash_parts, hash_text, raw_hash

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # the standard's own example


def test_the_standards_example_every_way(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert hash_file(tmp_path / "abc") == ABC
    assert hash_bytes(b"abc") == hash_bytes(memoryview(b"abc")) == hash_text("abc") == ABC
    assert hash_parts([b"a", memoryview(b"b"), b"c"]) == hash_parts(iter([b"abc"])) == ABC
    assert raw_hash(b"abc").hex() == ABC


def test_empty_data_has_a_hash(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert hash_file(tmp_path / "empty") == hash_bytes(b"") == hash_text("") == hash_parts([])


@pytest.mark.parametrize("value", [["v1", 1, 0.5, None, True, [["ü", "日本"]]], {}, [], "text", {"b": 1, "a": [2]}])
def test_a_json_value_is_hashed_as_json_writes_it_with_sorted_keys(value: object) -> None:
    written = json.dumps(value, sort_keys=True)
    assert hash_json(value) == hashlib.sha256(written.encode()).hexdigest()


def test_equal_json_values_have_equal_hashes() -> None:
    assert hash_json({"a": 1, "b": (2, 3)}) == hash_json({"b": [2, 3], "a": 1})
    assert hash_json([("user", "hi")]) == hash_json([["user", "hi"]])


def test_values_of_before() -> None:
    """The values date from when every file had a hashing helper of its own."""
    assert hash_json(["v1", "sparse", 0, 1, 4096, [["w", [2, 3]]]])[:16] == "99702426bffa268c"
    assert hash_json({"schema_version": 1, "rows": [1, 2], "name": "ß"})[:32] == "e0cd7b93b7e7e2a38246f93b6e08dcd6"


def test_half_a_surrogate_pair_is_no_utf_8() -> None:
    with pytest.raises(UnicodeEncodeError):
        hash_text("\ud800")
    assert len(hash_json("\ud800")) == 64  # JSON writes it as an escape
