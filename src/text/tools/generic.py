"""For models whose template knows no tools, or none that are known here: {"tool_calls": [{"name": "f", "arguments": {…}}, …]}.

The form is this service's own. The model is told about it in the system prompt.
"""

import json
from typing import Any

from src.text.json_text import written
from src.text.output.reader import Reading
from src.text.tools.call import Call, Function
from src.text.tools.json_call import JsonReader
from src.text.tools.lark import Lark, Want, named

MARKERS = ()
KEY = '{"tool_calls": ['
FREE = r'/\S(?s:.*)/ & ~/\{\s*"tool_calls"(?s:.*)/'


def is_of(template: str) -> bool:
    return True


class GenericReader(JsonReader):
    def _read(self) -> Reading[None]:
        self._begin()
        if (yield from self._opened()):
            while (yield from self._json_call(bare=True)):
                yield from self._spaces()
                if not (yield from self._literal(",")):
                    break
                yield from self._spaces()
            if self._count:
                yield from self._closed()
        self._fail()
        while (yield from self._peek()):
            self._content(self._take(len(self._text) - self._at))
        self._finish()

    def _opened(self) -> Reading[bool]:
        for part in ("{", json.dumps("tool_calls"), ":", "["):
            yield from self._spaces()
            if not (yield from self._literal(part)):
                return False
        yield from self._spaces()
        return True

    def _closed(self) -> Reading[None]:
        for part in "]}":
            yield from self._spaces()
            if not (yield from self._literal(part)):
                return


reader = GenericReader


def write(calls: list[Call]) -> str:
    return KEY + ", ".join(f'{{"name": "{call.name}", "arguments": {written(call.arguments)}}}' for call in calls) + "]}"


def grammar(lark: Lark, functions: list[Function], want: Want) -> str:
    call = named(lark, functions)
    more = f'(", " {call})*' if want.parallel else ""
    return lark.answer(want, None, f'{lark.text(KEY)} {call} {more} "]}}"', free=FREE, whole=lambda: _schema(lark, functions, want))


def _schema(lark: Lark, functions: list[Function], want: Want) -> dict[str, Any]:
    call = lark.calls_schema(functions)
    most = {} if want.parallel else {"maxItems": 1}
    calls = {"type": "array", "minItems": 1, **most, "items": {"anyOf": call.pop("anyOf")}}
    return {"type": "object", "properties": {"tool_calls": calls}, "required": ["tool_calls"], "additionalProperties": False, **call}
