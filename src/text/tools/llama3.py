"""Llama 3.1's and 3.2's: the answer is {"name": "f", "parameters": {…}}, after <|python_tag|> or not; more follow behind a semicolon.

Source: https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/prompt_format.md.
"""

import re

from src.text.json_text import written
from src.text.output.reader import Reading
from src.text.tools.call import Call, Function
from src.text.tools.json_call import JsonReader
from src.text.tools.lark import Lark, Want, named

TAG = "<|python_tag|>"
MARKERS = (TAG,)
SIGN = re.compile(r'<\|python_tag\|>|Environment: ipython|"name": function name, "parameters"')
FREE = r"/[^{\s](?s:.*)/"


def is_of(template: str) -> bool:
    return SIGN.search(template) is not None


class Llama3Reader(JsonReader):
    def _read(self) -> Reading[None]:
        self._begin()
        yield from self._spaces()
        tagged = yield from self._literal(TAG)
        yield from self._spaces()
        while (yield from self._json_call(bare=not tagged)):
            self._begin()
            yield from self._spaces()
            yield from self._literal(";")
            yield from self._spaces()
            if (yield from self._peek()) not in ("{", ""):
                break
        if self.called and not "".join(self._raw or []).strip("; \n"):
            self._raw = None
        self._fail()
        while (yield from self._peek()):
            self._content(self._take(len(self._text) - self._at))
        self._finish()


reader = Llama3Reader


def write(calls: list[Call]) -> str:
    return "; ".join(f'{{"name": "{call.name}", "parameters": {written(call.arguments)}}}' for call in calls)


def grammar(lark: Lark, functions: list[Function], want: Want) -> str:
    call = named(lark, functions, key="parameters")
    more = f'("; " {call})*' if want.parallel else ""
    return lark.answer(want, None, f"{call} {more}", free=FREE, whole=lambda: lark.calls_schema(functions, key="parameters"))
