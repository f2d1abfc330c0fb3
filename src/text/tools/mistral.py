"""Mistral's older form (7B v0.3, Nemo, Small 3): `[TOOL_CALLS][{"name": "f", "arguments": {…}, "id": "…"}, …]`.

Source: https://docs.mistral.ai/cookbooks/concept-deep-dive-tokenization-tool_calling (v3 and v7 of the tokenizer).
Its templates want ids of nine letters and digits in the history: see `short_id`.
"""

import hashlib

from src.text.json_text import written
from src.text.output.reader import Markers, Reading
from src.text.tools.call import NAME, Call, Function
from src.text.tools.json_call import JsonReader
from src.text.tools.lark import Lark, Want, named

OPENING, ARGUMENTS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
MARKERS = (OPENING, ARGUMENTS, CALL_ID)


def is_of(template: str) -> bool:
    return OPENING in template


class MistralReader(JsonReader):
    """Reads both forms: which one it is shows by what follows the marker."""

    def _read(self) -> Reading[None]:
        opening = Markers(OPENING)
        while marker := (yield from self._until(opening, self._content)):
            self._begin(marker)
            yield from self._spaces()
            is_list = (yield from self._peek()) in ("[", "{")
            if not (yield from (self._list() if is_list else self._one())):
                self._fail()
        self._finish()

    def _list(self) -> Reading[bool]:
        bracket = yield from self._literal("[")
        yield from self._spaces()
        while (yield from self._json_call()):
            yield from self._spaces()
            if not (yield from self._literal(",")):
                return not bracket or (yield from self._literal("]"))
            yield from self._spaces()
        return False

    def _one(self) -> Reading[bool]:
        name = yield from self._run(NAME)
        if name and (yield from self._literal(CALL_ID)):
            yield from self._run(NAME)
        yield from self._literal(ARGUMENTS)
        yield from self._spaces()
        if not name or (yield from self._peek()) != "{":
            return False
        self._name(name)
        return (yield from self._json(self._arguments))


reader = MistralReader


def short_id(id: str) -> str:
    """Nine letters and digits for an id of any form: the same for the same."""
    return id if len(id) == 9 and id.isalnum() and id.isascii() else hashlib.sha256(id.encode(errors="replace")).hexdigest()[:9]


def write(calls: list[Call]) -> str:
    return f"{OPENING}[" + ", ".join(f'{{"name": "{call.name}", "arguments": {written(call.arguments)}}}' for call in calls) + "]"


def grammar(lark: Lark, functions: list[Function], want: Want) -> str:
    call = named(lark, functions)
    more = f'(", " {call})*' if want.parallel else ""
    return lark.answer(want, OPENING, f'"[" {call} {more} "]"')
