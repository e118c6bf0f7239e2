"""Which files are read from folders and patterns, and which source their rows have."""

import json

import pytest

from gradsift.data.pool import PoolError, input_hashes, read_rows
from gradsift.data.schemas import Reading
from gradsift.data.sources import Place, name_sources
from gradsift.data.targets import read_targets


def write(path, **fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"prompt": "q", "completion": "a", **fields}) + "\n")
    return path


def sources(*given, **options):
    rows = read_rows(given, **options)
    return [row.source for row in rows], rows.left_out


def test_a_stem_that_nothing_else_has_is_the_source(tmp_path):
    for name in ("flan/one.jsonl", "cot/two.jsonl"):
        write(tmp_path / name)
    assert sources(tmp_path) == (["two", "one"], [])


def test_files_of_one_stem_are_told_apart_by_their_folders(tmp_path):
    paths = [write(tmp_path / "pool" / name / "train.jsonl") for name in ("cot", "flan")]
    assert sources(tmp_path) == (["cot", "flan"], [])
    assert sources(*paths) == (["cot", "flan"], [])
    assert sources(tmp_path / "pool" / "flan", tmp_path / "pool" / "cot") == (["flan", "cot"], [])
    assert sources(f"{tmp_path}/pool/*/train.jsonl") == (["cot", "flan"], [])


def test_shards_are_one_source_and_test_splits_are_left_out(tmp_path):
    for name in ("dolly", "oasst"):
        for part in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
            write(tmp_path / name / "data" / f"{part}.jsonl")
    tests = [f"{name}/data/test-00000-of-00001.jsonl" for name in ("dolly", "oasst")]
    trains = ["dolly", "dolly", "oasst", "oasst"]
    assert sources(tmp_path) == (trains, tests)
    assert sources(f"{tmp_path}/*/data/*.jsonl") == (trains, tests)
    assert sources(f"{tmp_path}/*/data/test-*.jsonl") == (["dolly", "oasst"], [])
    found, left_out = sources(tmp_path, whole=True)
    assert (sorted(set(found)), left_out) == (["dolly", "dolly/test", "oasst", "oasst/test"], [])
    found, left_out = sources(tmp_path, tmp_path / tests[0])
    assert (found, left_out) == ([*trains, "test"], tests[1:])
    assert sources(tmp_path / "dolly") == (["train", "train"], ["data/test-00000-of-00001.jsonl"])
    assert len(input_hashes([tmp_path])) == 4


@pytest.mark.parametrize(
    "name",
    [
        "test.jsonl",
        "validation.jsonl",
        "valid.json",
        "val-00000-of-00001.jsonl",
        "dev.jsonl.gz",
        "eval.jsonl",
        "test_sft.jsonl",
        "dolly-test.jsonl",
        "validation/part.jsonl",
        "a/Test/x.jsonl",
        "test/0000.jsonl",
    ],
)
def test_names_of_test_and_validation_splits(tmp_path, name):
    write(tmp_path / "train.jsonl")
    write(tmp_path / name)
    assert sources(tmp_path) == (["train"], [name])


@pytest.mark.parametrize(
    "name", ["contest.jsonl", "latest.jsonl", "train_test.jsonl", "evaluations.jsonl", "x/a.jsonl"]
)
def test_names_that_only_look_like_a_split(tmp_path, name):
    write(tmp_path / "more.jsonl")
    write(tmp_path / name)
    found, left_out = sources(tmp_path)
    assert (len(found), left_out) == (2, [])


def test_a_folder_of_test_files_only_says_how_to_ask_for_them(tmp_path):
    path = write(tmp_path / "pool" / "test.jsonl")
    with pytest.raises(PoolError, match=r"only test or validation files \(test\.jsonl\)") as error:
        read_rows([tmp_path / "pool"])
    assert str(path) in str(error.value)
    assert sources(path) == (["test"], [])
    write(tmp_path / "test" / "test.jsonl")
    assert sources(tmp_path / "test") == (["test"], [])
    assert len(read_targets(tmp_path / "pool").rows) == 1  # targets are what people keep in validation files


def test_a_source_named_by_hand(tmp_path):
    path = write(tmp_path / "x.jsonl")
    write(tmp_path / "y.jsonl", dataset="own")
    assert sources(f"code={path}") == (["code"], [])
    assert sources(f"code={tmp_path}") == (["code", "code"], [])
    assert sources(f"code={tmp_path}/*.jsonl") == (["code", "code"], [])
    with pytest.raises(PoolError, match=r"missing\.jsonl does not exist"):
        read_rows(["code=missing.jsonl"])


def test_a_path_that_has_an_equals_sign_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "lang=en" / "x.jsonl")
    write(tmp_path / "a=b.jsonl")
    write(tmp_path / "b.jsonl")
    assert sources("lang=en/x.jsonl") == (["x"], [])
    assert sources("lang=en/*.jsonl") == (["x"], [])
    assert sources("a=b.jsonl") == (["a=b"], [])


def test_a_column_names_the_source(tmp_path):
    path = write(tmp_path / "x.jsonl", origin="web", source="own")
    write(tmp_path / "y.jsonl", source="own")
    write(tmp_path / "z.jsonl", origin=7)
    rows = list(read_rows([tmp_path], reading=Reading(source_column="origin")))
    assert [(row.source, row.id) for row in rows] == [("web", "web:1"), ("own", "own:1"), ("7", "7:1")]
    assert b"dataset" not in rows[0].raw
    assert [row.source for row in read_rows([path])] == ["own"]


def test_a_hand_given_source_of_the_hub(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: iter([{"prompt": "q", "completion": "a"}]))
    assert sources("code=acme/chat:all") == (["code"], [])
    assert sources("acme/chat:all", "acme/chat:code", "acme/other") == (["chat:all", "chat:code", "other"], [])


def named(*paths, below=0):
    return name_sources([Place(tuple(path.split("/")[:-1]), path.split("/")[-1], below) for path in paths])


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["data/a/raw/flan/train.jsonl", "mnt/b/cot/train.jsonl"], ["flan", "cot"]),
        (
            [
                "c/datasets--x--dolly/snapshots/abcdef0123/data/train.csv",
                "c/datasets--y--oasst/snapshots/123/train.csv",
            ],
            ["x/dolly", "y/oasst"],
        ),
        (["p/x/train.csv", "p/y/train.csv", "q/x/train.csv"], ["p/x", "p/y", "q/x"]),
        (["d/a.csv", "d/a.jsonl"], ["a.csv", "a.jsonl"]),
        (["d/train.csv", "d/flan/train.csv"], ["train", "flan"]),
        (["d/default/train/0000.parquet", "d/default/train/0001.parquet"], ["train", "train"]),
        (["d/2023.jsonl", "d/2024.jsonl"], ["2023", "2024"]),
        (["d/flan.jsonl", "d/flan/train.csv", "d/cot/train.csv"], ["flan", "flan/train", "cot/train"]),
        (["d/v1/train.csv", "d/v2/train.csv"], ["v1", "v2"]),
        (["d/part-00000-aa.c000.snappy.parquet", "d/part-00001-aa.c000.snappy.parquet"], ["part", "part"]),
    ],
)
def test_names(paths, expected):
    assert named(*paths) == expected


def test_a_folder_that_was_given_names_by_what_is_directly_below_it():
    assert named("p/flan/deep/train.csv", "p/cot/deeper/train.csv", below=2) == ["flan", "cot"]
