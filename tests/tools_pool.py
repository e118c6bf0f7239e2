"""A pool of 60 rows with tools and reasoning for the tests: assistants that look up, compute, think and correct."""

import json
from pathlib import Path
from typing import Any

CITIES = ("Dhaka", "Lagos", "Lima", "Oslo", "Quito", "Riga", "Seoul", "Tunis", "Wien", "Zürich")
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city now",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "the city's name"}},
            "required": ["city"],
        },
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two whole numbers",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "description": "the first"},
                "b": {"type": "integer", "description": "the second"},
            },
            "required": ["a", "b"],
        },
    },
}


def write_pool(path: Path) -> Path:
    """Write the 60 rows as JSON Lines: ten each of six kinds."""
    rows = [kind(at, city) for kind in KINDS for at, city in enumerate(CITIES)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _weather(at: int, city: str) -> dict[str, Any]:
    """OpenAI's form: a call, its result, an answer."""
    return {
        "id": f"weather-{at}",
        "task": "weather",
        "tools": [WEATHER],
        "messages": [
            {"role": "user", "content": f"What is the weather like in {city}?"},
            {"role": "assistant", "content": None, "tool_calls": [_call("get_weather", {"city": city})]},
            {
                "role": "tool",
                "name": "get_weather",
                "tool_call_id": "call_get_weather",
                "content": f'{{"sky": "clear", "celsius": {at + 11}}}',
            },
            {"role": "assistant", "content": f"In {city} the sky is clear, at {at + 11} °C."},
        ],
    }


def _sum(at: int, city: str) -> dict[str, Any]:
    """Reasoning before a call, and reasoning before the answer that the last turn gives."""
    a, b = 17 * at + 3, 29 * at + 8
    return {
        "id": f"sum-{at}",
        "task": "sums",
        "tools": [ADD],
        "messages": [
            {"role": "system", "content": "Use the tools for every sum."},
            {"role": "user", "content": f"{a} people live in one street of {city}, {b} in the next. How many in both?"},
            {
                "role": "assistant",
                "reasoning_content": f"I should add {a} and {b} with the tool.",
                "tool_calls": [_call("add", {"a": a, "b": b})],
            },
            {"role": "tool", "name": "add", "tool_call_id": "call_add", "content": str(a + b)},
            {"role": "assistant", "reasoning_content": f"The tool says {a + b}.", "content": f"{a + b} people."},
        ],
    }


def _sharegpt(at: int, city: str) -> dict[str, Any]:
    """ShareGPT's form of a call, with the tools as a JSON string."""
    call = json.dumps({"name": "get_weather", "arguments": {"city": city}})
    return {
        "id": f"sharegpt-{at}",
        "task": "weather",
        "tools": json.dumps([WEATHER["function"]]),
        "conversations": [
            {"from": "human", "value": f"Will I need an umbrella in {city} today?"},
            {"from": "function_call", "value": call},
            {"from": "observation", "value": '{"sky": "rain"}' if at % 2 else '{"sky": "sun"}'},
            {"from": "gpt", "value": "Yes, it rains." if at % 2 else "No, the sun shines."},
        ],
    }


def _thought(at: int, city: str) -> dict[str, Any]:
    """Two exchanges with reasoning and no tool."""
    return {
        "id": f"thought-{at}",
        "task": "puzzles",
        "messages": [
            {"role": "user", "content": f"How many letters has the name {city}?"},
            {
                "role": "assistant",
                "reasoning_content": " ".join(f"{n}: {c}." for n, c in enumerate(city, 1)),
                "content": str(len(city)),
            },
            {"role": "user", "content": "And how many of them are vowels?"},
            {
                "role": "assistant",
                "reasoning_content": "I look for a, e, i, o, u and ü among them.",
                "content": f"{sum(c in 'aeiouü' for c in city.lower())} of {len(city)}.",
            },
        ],
    }


def _corrected(at: int, city: str) -> dict[str, Any]:
    """A wrong answer that is not to be learned, then the right one."""
    return {
        "id": f"corrected-{at}",
        "task": "corrections",
        "messages": [
            {"role": "user", "content": f"Spell {city} backwards."},
            {"role": "assistant", "content": city.lower(), "weight": 0},
            {"role": "user", "content": "That is not backwards."},
            {"role": "assistant", "content": city[::-1].lower(), "weight": 1},
        ],
    }


def _plain(at: int, city: str) -> dict[str, Any]:
    """A question and an answer in the columns of a table."""
    return {
        "id": f"plain-{at}",
        "task": "greetings",
        "question": f"Greet the people of {city}.",
        "answer": f"Hello, {city}!",
    }


KINDS = (_weather, _sum, _sharegpt, _thought, _corrected, _plain)
