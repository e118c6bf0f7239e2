"""Templates, rendered as Hugging Face renders them, with the origin of every character."""

import json
from concurrent.futures import ThreadPoolExecutor

import jinja2
import pytest
from jinja2.exceptions import SecurityError
from transformers.utils.chat_template_utils import render_jinja_template

from gradsift.data.template import TemplateSyntaxError, check_syntax, render
from gradsift.data.tracked import MESSAGE, TrackedDict, origin, runs_of

TALK = [("user", "Ping <b>"), ("assistant", "  Pong.\n"), ("user", "More"), ("assistant", "Yes")]


def messages(*turns: tuple[str, str]) -> list[TrackedDict]:
    return [
        TrackedDict({"role": role, "content": origin(content, turn, "content")}, turn, MESSAGE)
        for turn, (role, content) in enumerate(turns or TALK)
    ]


def rendered(template: str, *turns: tuple[str, str], **values):
    """Our rendering, which must be what transformers makes of it."""
    text = render(template, messages(*turns), values)
    plain = json.loads(json.dumps(messages(*turns)))
    (expected,), _ = render_jinja_template([plain], chat_template=template, **values)
    assert text == expected
    return text


def parts(text) -> list[tuple[str, int, int]]:
    """(text, message it is of or -1, message being written) of the pieces."""
    found, at = [], 0
    for run in filter(lambda run: run.size, runs_of(text)):
        found.append((str.__str__(text)[at : at + run.size], run.turn if run.part else -1, run.host))
        at += run.size
    return found


def said(text) -> list[tuple[str, int]]:
    """The messages' own pieces."""
    return [(piece, turn) for piece, turn, _ in parts(text) if turn >= 0]


ALL = [("Ping <b>", 0), ("  Pong.\n", 1), ("More", 2), ("Yes", 3)]
TRIMMED = [("Ping <b>", 0), ("Pong.", 1), ("More", 2), ("Yes", 3)]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", ALL),
        ("{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] | trim + '/' }}{% endfor %}", TRIMMED),
        ("{% for m in messages %}{{ '<' ~ m.role ~ '>' ~ m.content ~ 1 }}{% endfor %}", ALL),
        ("{% for m in messages %}{% set c = '>' ~ m.content.strip() %}{{ c ~ '/' }}{% endfor %}", TRIMMED),
        ("{% for m in messages %}{% set c %}<{{ m.content }}>{% endset %}{{ c | trim }}{% endfor %}", ALL),
        ("{% macro say(m) %}[{{ m.content }}]{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}", ALL),
        (
            "{% macro say(m) %}[{{ m.content }}]{% endmacro %}{% for m in messages %}{{ say(m) | trim + '.' }}"
            "{% endfor %}",
            ALL,
        ),
        (
            "{% set ns = namespace(text='') %}{% for m in messages %}{% set ns.text = ns.text + m.content + '|' %}"
            "{% endfor %}{{ ns.text }}",
            ALL,
        ),
        ("{{ messages | map(attribute='content') | join('|') }}", ALL),
        ("{{ messages | join('|', attribute='content') }}", ALL),
        ("{{ '|'.join([messages[0].content, messages[3].content]) }}", [ALL[0], ALL[3]]),
        ("{% for i in range(messages | length) %}{{ messages[i].content + '\n' }}{% endfor %}", ALL),
        ("{% for m in messages %}{{ m.content.split(' ')[-1] }}{% endfor %}", [("<b>", 0), ("Pong.\n", 1), *ALL[2:]]),
        (
            "{% for m in messages %}{{ m.content[1:] }}|{% endfor %}",
            [("ing <b>", 0), (" Pong.\n", 1), ("ore", 2), ("es", 3)],
        ),
        (
            "{% for m in messages %}{{ m.content | replace('Pong', 'x') }}{% endfor %}",
            [ALL[0], ("  ", 1), (".\n", 1), *ALL[2:]],
        ),
        (
            "{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
            [ALL[1], ALL[3]],
        ),
        ("{% for m in messages %}{{ m.content }}{% if loop.index0 == 1 %}{% break %}{% endif %}{% endfor %}", ALL[:2]),
        (
            "{% for m in messages %}{% for n in messages %}{% if n == m %}{{ n.content }}{% endif %}{% endfor %}"
            "{% endfor %}",
            ALL,
        ),
        (
            "{% for m in messages[1:] if m.role == 'assistant' %}{{ m.content }}{% else %}-{% endfor %}",
            [ALL[1], ALL[3]],
        ),
        ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}", ALL[::-1]),
        ("{% for k, v in messages[0].items() %}{{ v }}{% endfor %}", [ALL[0]]),
        (
            "{% with c = messages[0].content %}{{ c }}{% endwith %}{% filter trim %} {{ messages[3].content }} "
            "{% endfilter %}",
            [ALL[0], ALL[3]],
        ),
    ],
)  # fmt: skip
def test_every_way_to_write_a_message_keeps_its_origin(template, expected):
    assert said(rendered(template)) == expected


def test_the_templates_own_text_belongs_to_the_message_that_it_is_writing():
    found = parts(rendered("[{% for m in messages %}<{{ m.role }}>{{ m.content }}/{% endfor %}]"))
    hosts = [host for _, _, host in found]
    assert (hosts[0], hosts[-1]) == (-1, -1)
    assert hosts[1:-1] == sorted(hosts[1:-1])
    assert set(hosts[1:-1]) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% if loop.last %}{% continue %}{% endif %}<{{ m.content }}>{% endfor %}!",
        "{% for m in messages %}{% for x in [1, 2] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}"
        "{% endfor %}<{{ m.content }}>"
        "{% endfor %}!",
        "{% for m in messages %}{% for n in messages[::-1] %}{{ n.role[0] }}{% endfor %}<{{ m.content }}>{% endfor %}!",
    ],
)
def test_after_a_loop_the_message_around_it_is_written(template):
    text = rendered(template)
    assert parts(text)[-1][2] == -1
    assert all(host == turn for _, turn, host in parts(text) if turn >= 0)
    for piece, turn, host in parts(text):
        if turn < 0 and piece in "<>":
            assert host >= 0


def test_a_loop_over_numbers_does_not_say_which_message_it_writes():
    """What is learned is then found from the messages' own text (data/rendering.py)."""
    template = (
        "{% for i in range(messages | length) %}"
        "{{ '<' + messages[i].role + '>' + messages[i].content + '/' }}{% endfor %}"
    )
    text = rendered(template)
    assert {host for _, _, host in parts(text)} == {-1}
    assert said(text) == ALL


def test_generation_marks_what_is_inside():
    template = (
        "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}/"
        "{% endgeneration %}{% else %}{{ m.content }}/{% endif %}{% endfor %}"
    )
    text = rendered(template)
    inside = "".join(
        piece
        for (piece, _, _), run in zip(parts(text), filter(lambda run: run.size, runs_of(text)), strict=True)
        if run.generation
    )
    assert inside == "  Pong.\n/Yes/"


@pytest.mark.parametrize(
    "attack",
    [
        "{{ messages.__class__ }}",
        "{{ messages[0]._turn }}",
        "{{ messages[0].content._runs }}",
        "{{ messages[0]['content'].__class__.__mro__ }}",
        "{{ messages[0].content._part(0, 1) }}",
        "{{ (messages[0].content | attr('_runs')) }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__self__ }}",
        "{{ namespace(_x=1) }}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ self._TemplateReference__context }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ lipsum.__globals__['os'] }}",
    ],
)
def test_a_template_cannot_reach_python(attack):
    try:
        text = render(attack, messages(), {})
    except (SecurityError, jinja2.exceptions.UndefinedError, TypeError):
        return
    assert str.__str__(text) == ""  # undefined


def test_a_template_cannot_reach_or_change_what_is_being_written():
    names = ["state", "turn", "outer", "emit", "enter", "leave_loop", "enter_loop", "concatenate", "mark"]
    text = render("".join(f"{{{{ {name} is defined }}}}" for name in names), messages(), {})
    assert str.__str__(text) == "False" * len(names)


def test_values_in_a_template_are_not_changed_by_it():
    given = messages()
    render("{% set messages = messages[1:] %}{% for m in messages %}{{ m.content }}{% endfor %}", given, {})
    assert given == messages()


def test_two_threads_render_at_once():
    template = (
        "{% for m in messages %}{% for x in range(30) %}{{ m.content[:0] }}{% endfor %}<{{ m.content }}>{% endfor %}"
    )
    talks = [[("user", f"{n}"), ("assistant", f"answer {n}")] * (n % 5 + 1) for n in range(40)]
    expected = [parts(render(template, messages(*talk), {})) for talk in talks]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda talk: parts(render(template, messages(*talk), {})), talks))
    assert found == expected


def test_an_object_is_not_written_as_python_shows_it():
    with pytest.raises(TypeError, match="wants text"):
        render("{{ messages[0] }}", messages(), {})


@pytest.mark.parametrize("text", ["{% for %}", "{{ a", "{% generation %}", "{% endgeneration %}", "{% nothing %}"])
def test_what_is_no_template_is_said_with_its_line(text):
    with pytest.raises(TemplateSyntaxError, match="line 2"):
        check_syntax("\n" + text)


def test_whitespace_rules_and_globals_are_those_of_hugging_face():
    rendered(
        "{% set x = dict(a=1) %}\n  {% for m in messages %}\n  {{- m.role }}\n    "
        "{% if loop.last -%}\n last {% endif %}\n"
        "{% endfor %}{{ x | tojson }}{{ {'b': 'é<'} | tojson(indent=2) }}{{ messages | length }}\n"
    )
    with pytest.raises(jinja2.TemplateError, match=r"No\."):
        render("{{ raise_exception('No.') }}", messages(), {})
