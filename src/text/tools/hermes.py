r"""Hermes 2 Pro's, and Qwen 2.5's and 3's: `<tool_call>\n{"name": "f", "arguments": {…}}\n</tool_call>`, one after the other.

Sources: https://huggingface.co/NousResearch/Hermes-2-Pro-Llama-3-8B, https://qwen.readthedocs.io/en/latest/framework/function_call.html.
"""

from src.text.json_text import written
from src.text.output.reader import Markers, Reading
from src.text.tools.call import Call, Function
from src.text.tools.json_call import JsonReader
from src.text.tools.lark import Lark, Want, named

OPENING, CLOSING = "<tool_call>", "</tool_call>"
MARKERS = (OPENING, CLOSING)
OTHERS = ("<arg_key>", "<function=")  # of formats that have the same tags around something else


def is_of(template: str) -> bool:
    return OPENING in template and not any(other in template for other in OTHERS)


class HermesReader(JsonReader):
    def _read(self) -> Reading[None]:
        opening = Markers(OPENING)
        while marker := (yield from self._until(opening, self._content)):
            self._begin(marker)
            yield from self._spaces()
            if not (yield from self._json_call()):
                self._fail()
                continue
            yield from self._spaces()
            yield from self._literal(CLOSING)
        self._finish()


reader = HermesReader


def write(calls: list[Call]) -> str:
    return "\n".join(f'{OPENING}\n{{"name": "{call.name}", "arguments": {written(call.arguments)}}}\n{CLOSING}' for call in calls)


def grammar(lark: Lark, functions: list[Function], want: Want) -> str:
    call = f"{lark.text(chr(10))} {named(lark, functions)} {lark.text(chr(10))} {lark.marker(CLOSING)}"
    return lark.answer(want, OPENING, call, between="\n")
