"""Search: every term of a query in a row's text, in any case, by role; compared with Python's `in`."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradsift.builder.build import build
from gradsift.config import BuildConfig
from gradsift.datastore.store import Store
from gradsift.runtime.errors import StoreError, UsageError
from gradsift.runtime.progress import Progress
from gradsift.text import search
from gradsift.text.index import ROLES, index_path
from gradsift.text.search import search_rows, terms

LINES = [
    '{"messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Capital of FRANCE?"}, '
    '{"role": "assistant", "content": "Paris is the capital of France."}]}',
    '{"prompt": "Where is Paris?", "completion": "In France; it\'s 100% sure, and_so on"}',
    '{"prompt": "Größe der Ägäis", "completion": "ΣΟΦΟΣ ÉCOLE"}',
    '{"prompt": "কলকাতা কোথায়?", "completion": "巴黎是法国的首都"}',
    '{"prompt": "no answer mentions France"}',
    '{"prompt": "a \\"quoted\\" [word] \\\\ back", "completion": "drop table rows; -- \'x\'"}',
]


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory, tiny_config: BuildConfig) -> Store:
    """A store of six rows; its folder's name has characters with a meaning in file patterns."""
    folder = tmp_path_factory.mktemp("talks")
    (folder / "pool.jsonl").write_text("\n".join(LINES) + "\n")
    return build([folder / "pool.jsonl"], folder / "st[ao]re*?", tiny_config, progress=Progress(quiet=True))


@pytest.fixture(autouse=True, params=[search.HELD, 0], ids=["in memory", "from the file"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to search: texts in memory, and texts too large for that."""
    monkeypatch.setattr(search, "HELD", request.param)
    search._texts.cache_clear()


def by_loop(store: Store, wanted: list[str], role: str) -> list[int]:
    columns = ROLES if role == "any" else (role,)
    rows = pq.read_table(index_path(store)).to_pylist()
    return [row["row"] for row in rows if all(any(term in row[column] for column in columns) for term in wanted)]


@pytest.mark.parametrize(
    ("words", "role", "rows"),
    [
        ("france", "any", [0, 1]),
        ("FRANCE", "user", [0]),
        ("france", "assistant", [0, 1]),
        ("france paris", "any", [0, 1]),  # even in turns of different roles
        ("france paris", "user", []),
        ('"capital of france"', "any", [0]),
        ('"france capital"', "any", []),
        ("kind", "system", [0]),
        ("kind", "user", []),
        ("ari", "any", [0, 1]),  # inside a word
        ("ägäis GRÖSSE", "any", []),
        ("ÄGÄIS größe", "user", [2]),
        ("École", "any", [2]),
        ("কলকাতা 法国", "any", [3]),
        ("100%", "any", [1]),  # no wildcards
        ("%", "any", [1]),
        ("d_s", "any", [1]),
        ("[word]", "any", [5]),
        ("\\", "any", [5]),
        ("'x'", "any", [5]),
        ("'; drop table rows; --", "any", []),
        ("", "any", [0, 1, 2, 3, 4, 5]),
        ('  "" ', "assistant", [0, 1, 2, 3, 4, 5]),
        ("mentions", "any", []),  # an excluded row has no conversation
    ],
)
def test_found_rows(talks: Store, words: str, role: str, rows: list[int]) -> None:
    found = search_rows(talks, words, role)
    assert found.tolist() == rows == by_loop(talks, terms(words), role)
    assert found.dtype == "int64"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", []),
        ("  Two  words\n", ["two", "words"]),
        ('"A Phrase  here" word', ["a phrase  here", "word"]),
        ('left"middle part"right', ["left", "middle part", "right"]),
        ('an "open quote', ["an", "open", "quote"]),
        ('"" " "', []),
        ("twice Twice", ["twice"]),
        ("İ ΣΟΦΟΣ", ["İ".lower(), "ΣΟΦΟΣ".lower()]),
    ],
)
def test_terms(words: str, expected: list[str]) -> None:
    assert terms(words) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from(["franc", "a", "is", "%", "?", "'", "\\", "কল", "\x00", "é", "ß", "zz"]), max_size=3),
    st.sampled_from(["any", *ROLES]),
)
def test_any_query_finds_what_a_loop_finds(talks: Store, wanted: list[str], role: str) -> None:
    assert search_rows(talks, " ".join(wanted), role).tolist() == by_loop(talks, wanted, role)


def test_another_store_that_the_name_would_match_as_a_pattern_is_not_searched(talks: Store) -> None:
    other = talks.path.parent / "stare-x"
    shutil.copytree(talks.path, other, dirs_exist_ok=True)
    assert search_rows(talks, "france").tolist() == [0, 1]
    assert search_rows(Store.open(other), "france").tolist() == [0, 1]


def test_many_row_groups_come_in_order(talks: Store, tmp_path: Path) -> None:
    shutil.copytree(talks.path, tmp_path / "store")
    store = Store.open(tmp_path / "store")
    pq.write_table(pq.read_table(index_path(store)), index_path(store), row_group_size=1)
    assert search_rows(store, "a").tolist() == by_loop(store, ["a"], "any")


def test_without_an_index(tiny_copy: Store) -> None:
    shutil.rmtree(tiny_copy.path / "index")
    with pytest.raises(StoreError, match="no index of its texts yet: run gradsift score"):
        search_rows(tiny_copy, "cat")


def test_a_damaged_index_is_a_sentence(tiny_copy: Store) -> None:
    path = index_path(tiny_copy)
    content = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(0).column(3).dictionary_page_offset
    content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(StoreError, match="cannot be searched"):
        search_rows(tiny_copy, "cat")


def test_an_unknown_role(talks: Store) -> None:
    with pytest.raises(UsageError, match="no role 'narrator'"):
        search_rows(talks, "france", "narrator")
