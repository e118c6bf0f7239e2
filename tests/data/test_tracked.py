"""Tracked strings: every method as `str` has it, and the origin of each character as counted one by one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsift.data.tracked import (
    NOWHERE,
    UNKNOWN,
    Run,
    Tracked,
    TrackedDict,
    join,
    origin,
    runs_of,
    to_json,
    track,
    tracked,
)

LETTERS = st.text(alphabet="ab \n<>é👍ßİ", max_size=12)
PIECES = st.lists(st.tuples(LETTERS, st.integers(-1, 2)), max_size=4)
SHORT = st.text(alphabet="ab \n<é", max_size=2)


def made(pieces: list[tuple[str, int]]) -> str:
    """Texts of messages (turn 0 to 2) and of the template (-1), one after another."""
    return join(text if turn < 0 else origin(text, turn, "content") for text, turn in pieces)


def letters(text: str) -> list[tuple[str, int, str, int]]:
    """(letter, turn, part, position) of each character."""
    spread = [
        (run.turn, run.part, run.at + k if run.at != UNKNOWN else UNKNOWN)
        for run in runs_of(text)
        for k in range(run.size)
    ]
    assert len(spread) == len(text)
    return [(letter, *where) for letter, where in zip(str.__str__(text), spread, strict=True)]


def same(found: str, expected: list[tuple[str, int, str, int]]) -> None:
    assert letters(found) == expected


def located(whole: str, piece: str, at: int) -> list[tuple[str, int, str, int]]:
    return letters(whole)[at : at + len(piece)]


@given(PIECES)
def test_joined_texts_know_every_letter(pieces):
    expected = [
        (letter, turn, "content" if turn >= 0 else "", at if turn >= 0 else UNKNOWN)
        for text, turn in pieces
        for at, letter in enumerate(text)
    ]
    same(made(pieces), expected)
    assert made(pieces) == "".join(text for text, _ in pieces)


@given(PIECES, st.integers(-15, 15) | st.none(), st.integers(-15, 15) | st.none())
def test_slices(pieces, start, stop):
    text = made(pieces)
    same(text[start:stop], letters(text)[start:stop])
    assert text[start:stop:2] == str.__str__(text)[start:stop:2]
    assert text[::-1] == str.__str__(text)[::-1]
    for at in range(-len(text), len(text)):
        same(text[at], [letters(text)[at]])
    assert [letters(letter)[0] for letter in text] == letters(text)
    with pytest.raises(IndexError):
        text[len(text)]


@given(PIECES, st.sampled_from([None, "a", "<\n", " b", ""]))
def test_stripping(pieces, chars):
    text, plain = made(pieces), "".join(text for text, _ in pieces)
    all_letters = letters(text)
    left = len(plain) - len(plain.lstrip(chars))
    same(text.lstrip(chars), all_letters[left:])
    same(text.rstrip(chars), all_letters[: len(plain.rstrip(chars))])
    same(text.strip(chars), all_letters[left : left + len(plain.strip(chars))])
    assert text.strip(chars) == plain.strip(chars)


@given(PIECES, SHORT)
def test_prefixes_and_suffixes(pieces, end):
    text, plain = made(pieces), "".join(text for text, _ in pieces)
    same(text.removeprefix(end), letters(text)[len(plain) - len(plain.removeprefix(end)) :])
    same(text.removesuffix(end), letters(text)[: len(plain.removesuffix(end))])


@given(PIECES, SHORT, st.integers(-1, 3))
def test_splitting(pieces, between, most):
    text, plain = made(pieces), "".join(text for text, _ in pieces)
    for separator in {between or None, None}:
        for name in ("split", "rsplit"):
            found = getattr(text, name)(separator, most)
            assert found == getattr(plain, name)(separator, most)
            for piece in found:
                assert any(letters(piece) == located(text, piece, at) for at in range(len(text) + 1))
    for keep in (False, True):
        assert text.splitlines(keep) == plain.splitlines(keep)
    assert [one for line in text.splitlines(True) for one in letters(line)] == letters(text)
    if between:
        assert [one for part in text.partition(between) for one in letters(part)] == letters(text)
        assert [one for part in text.rpartition(between) for one in letters(part)] == letters(text)
        assert text.partition(between) == plain.partition(between)
        assert text.rpartition(between) == plain.rpartition(between)
        assert join(text.split(between), between) == plain
    else:
        with pytest.raises(ValueError, match="empty separator"):
            text.split("")


@given(PIECES, st.text(alphabet="ab \n<é", min_size=1, max_size=2), SHORT, st.integers(-1, 3))
def test_replacing(pieces, old, new, count):
    text, plain = made(pieces), "".join(text for text, _ in pieces)
    expected, at, done = [], 0, 0
    all_letters = letters(text)
    while at < len(plain):
        if plain.startswith(old, at) and (count < 0 or done < count):
            expected += [(letter, NOWHERE, "", UNKNOWN) for letter in new]
            at, done = at + len(old), done + 1
        else:
            expected.append(all_letters[at])
            at += 1
    same(text.replace(old, new, count), expected)
    assert text.replace(old, new, count) == plain.replace(old, new, count)
    assert text.replace("", new, count) == plain.replace("", new, count)


@given(PIECES, st.sampled_from(["lower", "upper", "capitalize", "title"]))
def test_letters_of_another_case_keep_their_place(pieces, name):
    """Where one letter becomes two (ß, İ), no place can be kept, and none is claimed."""
    text, plain = made(pieces), "".join(text for text, _ in pieces)
    found, expected = getattr(text, name)(), getattr(plain, name)()
    assert found == expected
    if len(expected) == len(plain):
        assert [one[1:] for one in letters(found)] == [one[1:] for one in letters(text)]
    else:
        assert not isinstance(found, Tracked)


@given(PIECES, PIECES)
def test_adding(one, other):
    a, b = made(one), made(other)
    same(a + b, letters(a) + letters(b))
    same("<" + a + ">", [("<", -1, "", -1), *letters(a), (">", -1, "", -1)])
    with pytest.raises(TypeError):
        a + 1
    with pytest.raises(TypeError):
        1 + a


@given(PIECES)
def test_everything_else_is_as_of_a_string(pieces):
    text, plain = made(pieces), "".join(text for text, _ in pieces)
    assert text == plain
    assert hash(text) == hash(plain)
    assert {text: 1}[plain] == 1
    assert str(text) is text
    assert (text in plain, plain in text, text.find("a"), text.count("b")) == (
        True,
        True,
        plain.find("a"),
        plain.count("b"),
    )
    assert json.dumps({text: text}) == json.dumps({plain: plain})
    assert f"{text}" == plain
    assert text.isspace() == plain.isspace()
    assert text.encode() == plain.encode()


def test_joining_with_a_text_between_keeps_it_too():
    found = join([origin("a", 0, "content"), 3, origin("b", 1, "content")], origin("-", 2, "content"))
    same(
        found,
        [
            ("a", 0, "content", 0),
            ("-", 2, "content", 0),
            ("3", -1, "", -1),
            ("-", 2, "content", 0),
            ("b", 1, "content", 0),
        ],
    )


def test_json_comes_from_where_its_value_came_from():
    value = {"city": "Rome", "days": [1, {"to": "é"}], "none": None}
    marked = track(value, 3, "arguments 0")
    assert marked == value
    assert isinstance(marked["days"][1], TrackedDict)
    text = to_json(marked)
    assert text == json.dumps(value, ensure_ascii=False)
    assert runs_of(text) == (Run(len(text), 3, "arguments 0"),)
    assert runs_of(to_json(marked["city"])) == (Run(6, 3, "arguments 0"),)
    assert runs_of(to_json([1, marked["days"]], indent=1))[0].turn == 3
    assert runs_of(to_json({"a": [1]})) == (Run(10),)
    assert runs_of(to_json(None)) == (Run(4),)
    assert all(runs_of(key) == (Run(len(key), 3, "arguments 0"),) for key in marked)


def test_pieces_of_rewritten_text_claim_no_position():
    text = tracked("abc", [Run(3, 1, "call 0")])
    assert runs_of(text[1:]) == (Run(2, 1, "call 0", UNKNOWN),)
