"""The Compare page's board in tests: what goes to the browser, and what the user's keys send back."""

import json
from itertools import count

from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.proto.WidgetStates_pb2 import WidgetState

_numbers = count(1)


def board(at) -> list[dict]:
    """The columns on the board: key, name, head, cards (row, name, html, verdict, note), foot."""
    result = _protos(at)
    return json.loads(result[0].bytes)["columns"] if result else []


def card(at, method: str, place: int = 0) -> dict:
    """One card of a method's column."""
    return next(column for column in board(at) if column["key"] == method)["cards"][place]


def press(at, *actions: dict):
    """Send the keys' actions in one message, and run the page."""
    states = at._tree.get_widget_states()
    payload = [{"number": next(_numbers), **action} for action in actions]
    states.widgets.append(
        WidgetState(
            id=_make_trigger_id(_protos(at)[0].id, "events"),
            json_trigger_value=json.dumps([{"event": "acts", "value": payload}]),
        )
    )
    at._run(states)
    assert not at.exception, at.exception
    return at


def _protos(at) -> list:
    """The board, found among the page's components; an empty list if the page has none."""
    protos = [element.proto for element in at.get("bidi_component")]
    return [proto for proto in protos if proto.component_name.endswith("gradsift_board")]
