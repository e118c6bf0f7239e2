"""`bench scoring` and `bench bm25` in small: every figure is there, and those that do not depend on speed are right."""

import json

import pytest
from typer.testing import CliRunner

from gradsift.cli.main import cli


def bench(*argv: object) -> dict:
    found = CliRunner().invoke(cli, ["bench", *map(str, argv), "--json"])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


@pytest.mark.parametrize(("dtype", "width"), [("int8", 64), ("bit", 8), ("fp16", 128)])
def test_scoring(tmp_path, dtype, width):
    argv = ("scoring", "--rows", 100, "--dim", 64, "--checkpoints", 2, "--store-dtype", dtype, "--folder", tmp_path)
    found = bench(*argv)["scoring"]
    assert {"rows": 100, "dim": 64, "checkpoints": 2}.items() <= found.items()
    figures = found[dtype]
    assert figures["feature_bytes"] == 100 * 2 * width
    assert figures["feature_bytes_per_row"] == width + 8  # the row's scale and norm
    assert figures["runs"] == 9
    assert figures["largest_error"] < 3 * 2**-16  # of a cosine: 16 bits of entries that are three lengths / 8 at most
    assert figures["working_set_mb"] >= 0  # so few rows may fit what is there
    for name in ("vectors_8", "vectors_57"):
        assert figures[name]["time_ratio_to_plain"] > 0
        assert figures[name]["time_ratio_to_plain_threaded"] > 0
    made = sorted(tmp_path.rglob("*.safetensors"))
    times = [path.stat().st_mtime_ns for path in made]
    bench(*argv)
    assert [path.stat().st_mtime_ns for path in made] == times  # the store is kept


def test_bm25():
    found = bench("bm25", "--rows", 400)["bm25"]
    assert found["documents"] == found["sample"] == 400
    assert found["query_words"] == 200
    assert found["largest_difference_of_largest_score"] <= 1e-6
    for name in ("index_s", "query_s", "open_s", "index_bytes", "speedup_over_rank_bm25"):
        assert found[name] >= 0


def test_bm25_of_a_pool(tmp_path):
    pool = tmp_path / "pool.jsonl"
    rows = [{"prompt": f"What is {n}?", "completion": f"The number {n}."} for n in range(20)]
    pool.write_text("\n".join(map(json.dumps, rows)))
    found = bench("bm25", pool)["bm25"]
    assert found["documents"] == 20
    assert found["query_words"] == 24  # 20 numbers and four words: all there are
