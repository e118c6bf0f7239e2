"""Text shared by conversations and examples, compared with an exhaustive search; planted leaks; other scripts."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsift.text.overlap import MOST_HITS, RUN, SHORTEST, Example, Matcher

ROLES = ("user", "assistant", "system", "")
WORDS = [f"w{number:03}" for number in range(200)]


def example(*turns, file="targets", line=1):
    return Example(file, line, f"e{line}", turns)


def asked(question, answer=""):
    return [("user", question), ("assistant", answer)]


def matches(conversation, *examples):
    """The hits of one conversation."""
    return Matcher([example(*turns, line=number) for number, turns in enumerate(examples, 1)]).find([conversation])[0][
        0
    ]


# -- against an exhaustive search --------------------------------------------------------------------------------------


def stands_in(part, whole):
    return any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))


def split(turns):
    return [(role, text.split()) for role, text in turns if role != "system"]


def shared(conversation, turns):
    """The longest run of words that the two share under the rules, 0 if neither rule applies."""
    mine, theirs = split(conversation), split(turns)
    all_mine, all_theirs = ([word for _, part in side for word in part] for side in (mine, theirs))
    found = [0]
    if all_mine == all_theirs:
        found.append(len(all_mine))
    for role, part in theirs:
        for own_role, own in mine:
            if part == own and (len(part) >= SHORTEST or role == own_role == "user"):
                found.append(len(part))
    for part in [part for role, part in theirs if role in ("user", "")] + [all_theirs]:
        if SHORTEST <= len(part) < RUN and stands_in(part, all_mine):
            found.append(len(part))
    for at in range(len(all_theirs)):
        for length in range(RUN, len(all_theirs) - at + 1):
            if stands_in(all_theirs[at : at + length], all_mine):
                found.append(length)
    return max(found)


text = st.lists(st.sampled_from("abc"), max_size=24).map(" ".join)
conversation = st.lists(st.tuples(st.sampled_from(ROLES), text), max_size=4)


@settings(max_examples=250, deadline=None)
@given(conversation, conversation)
def test_one_example_against_a_search_that_tries_everything(mine, theirs):
    hits = matches(mine, theirs)
    assert [hit.words for hit in hits] == [length for length in [shared(mine, theirs)] if length]


@settings(max_examples=60, deadline=None)
@given(st.lists(conversation, max_size=6), st.lists(conversation, max_size=5))
def test_many_conversations_and_examples(conversations, examples):
    matcher = Matcher([example(*turns, line=number) for number, turns in enumerate(examples, 1)])
    for mine, (hits, more) in zip(conversations, matcher.find(conversations), strict=True):
        expected = [shared(mine, theirs) for theirs in examples]
        assert [hit.words for hit in hits] == sorted((hit.words for hit in hits), reverse=True)
        assert all(hit.words == expected[hit.example] for hit in hits)
        assert (hits[0].words if hits else 0) == max(expected, default=0)
        assert len(hits) + more <= sum(length > 0 for length in expected)


def test_long_texts_with_parts_of_each_other():
    source = random.Random(0)
    examples = [[("user", " ".join(source.choices(WORDS, k=source.randint(3, 60))))] for _ in range(200)]
    conversations = []
    for _ in range(200):
        words = source.choices(WORDS, k=300)
        other = source.choice(examples)[0][1].split()
        at, length = source.randrange(len(other)), source.randint(1, 20)
        words[100 : 100 + length] = other[at : at + length]
        conversations.append([("user", " ".join(words[:120])), ("assistant", " ".join(words[120:]))])
    matcher = Matcher([example(*turns) for turns in examples])
    found = [bool(hits) for hits, _ in matcher.find(conversations)]
    assert found == [any(overlaps(mine, turns[0][1]) for turns in examples) for mine in conversations]
    assert 20 < sum(found) < 180


def overlaps(conversation, text):
    """The rules for a text of one turn, with strings for words."""
    mine, theirs = " ".join(part for _, part in conversation) + " ", text.split()
    length = RUN if len(theirs) >= RUN else len(theirs)
    parts = [" ".join(theirs[at : at + length]) + " " for at in range(len(theirs) - length + 1)]
    return length >= SHORTEST and any(part in mine for part in parts)


# -- planted -----------------------------------------------------------------------------------------------------------

SECRET = WORDS[:RUN]
NOISE = " ".join(WORDS[100:150])


@pytest.mark.parametrize(("length", "words"), [(RUN, RUN), (RUN - 1, 0), (RUN + 20, RUN + 20)])
def test_a_run_inside_a_long_text(length, words):
    theirs = asked(f"{' '.join(WORDS[:length])} {' '.join(WORDS[150:180])}")
    hits = matches([("user", NOISE), ("assistant", f"{NOISE} {' '.join(WORDS[:length])} {NOISE}")], theirs)
    assert [(hit.kind, hit.words) for hit in hits] == ([("run", words)] if words else [])


def test_twelve_of_thirteen_words_are_a_near_miss():
    changed = [*SECRET[:6], "other", *SECRET[7:]]
    assert not matches(asked(f"{NOISE} {' '.join(changed)} {NOISE}"), asked(" ".join([*SECRET, "end"])))


def test_a_run_over_the_border_of_turns():
    (hit,) = matches(
        asked(f"{NOISE} {' '.join(SECRET[:7])}", f"{' '.join(SECRET[7:])} {NOISE}"), asked(" ".join(SECRET))
    )
    assert (hit.kind, hit.words, hit.yours.shared) == ("run", RUN, f"{' '.join(SECRET[:7])}\n\n{' '.join(SECRET[7:])}")


def test_equal_turns_however_they_are_written():
    (hit,) = matches(
        asked("What is the CAPITAL, of France?!", "Rome"), asked("what is  the capital of france", "Paris")
    )
    assert (hit.kind, hit.words, hit.yours.shared) == ("equal", 6, "What is the CAPITAL, of France")


def test_a_short_question_inside_another_text():
    theirs = asked("How much is two and two?", "Four.")
    (hit,) = matches(asked("My teacher asked: how much is two and two? I said five."), theirs)
    assert (hit.kind, hit.words) == ("contained", 6)
    assert not matches(asked("How much is two and one and two?"), theirs)


def test_short_answers_say_nothing_and_short_questions_only_as_a_whole():
    assert not matches(
        asked("Is it cold in here today or not?", "Yes."), asked("Does the sun rise in the east?", "Yes.")
    )
    assert not matches(asked("Why? I never asked for it.", "No"), asked("Why?", "Because."))
    (hit,) = matches(asked("why", "no"), asked("Why?", "Because."))
    assert (hit.kind, hit.words) == ("equal", 1)


def test_system_turns_are_left_out():
    prompt = ("system", " ".join(SECRET))
    assert not matches(
        [prompt, *asked("one thing")], [prompt, *asked("another thing altogether", "with its own answer")]
    )


def test_scripts_without_spaces_count_characters():
    theirs = asked("今天的天气怎么样你知道明天会不会下雨吗")
    (hit,) = matches(asked("请问今天的天气怎么样你知道明天会下雪吗"), theirs)
    assert (hit.kind, hit.words, hit.yours.shared) == ("run", 14, "今天的天气怎么样你知道明天会")
    assert not matches(asked("请问今天的天气怎么样你知道后天会下雪吗"), theirs)
    (bengali,) = matches(asked("বাংলাদেশের রাজধানী কোথায় অবস্থিত বলো"), asked("বাংলাদেশের রাজধানী কোথায় অবস্থিত বলো?"))
    assert (bengali.kind, bengali.words) == ("equal", 5)


def test_texts_without_words_are_cut_at_their_blanks():
    (hit,) = matches(asked("?! ?! :-)"), asked("?! ?! :-)", "something else"))
    assert (hit.kind, hit.words, hit.yours.shared) == ("equal", 3, "?! ?! :-)")
    assert not matches([("user", ""), ("assistant", "")], [("user", ""), ("assistant", "")])


def test_quotes_are_what_stands_there_and_short():
    long = " ".join(WORDS)
    (hit,) = matches(asked(f"{NOISE} before. {long}! After {NOISE}"), asked(f"{long} end"))
    assert hit.yours.before.endswith("before. ")
    assert hit.yours.before.startswith("…")
    assert hit.yours.after.startswith("! After")
    assert hit.yours.shared.startswith("w000 w001 w002")
    assert " … " in hit.yours.shared
    assert len(hit.yours.shared) < 700
    assert hit.theirs.after == " end\n\n"


def test_many_examples_are_counted():
    examples = [asked(f"{NOISE} variant {number}") for number in range(10)]
    matcher = Matcher([example(*turns, line=number) for number, turns in enumerate(examples, 1)])
    ((hits, more),) = matcher.find([asked(f"{NOISE} variant 7")], quote=False)
    assert (hits[0].example, hits[0].kind, hits[0].yours) == (7, "equal", None)
    assert len(hits) <= MOST_HITS
    assert more <= 10 - len(hits)


def test_nothing_to_compare_with():
    assert Matcher([]).find([asked("a question")]) == [((), 0)]
    assert Matcher([example(*asked("one"))]).find([]) == []
