"""DeepSeek V3's and R1's: a call is `<｜tool▁call▁begin｜>function<｜tool▁sep｜>f`, its arguments in a block of JSON, and an end mark.

Source: https://huggingface.co/deepseek-ai/DeepSeek-V3-0324 and DeepSeek-R1-0528, chat_template.
"""

from src.text.json_text import written
from src.text.output.reader import Markers, Reading
from src.text.tools.call import NAME, Call, Function
from src.text.tools.json_call import JsonReader
from src.text.tools.lark import Lark, Want

CALLS_BEGIN, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL_BEGIN, CALL_END, SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
MARKERS = (CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_END, SEPARATOR)
FENCE, FENCE_END = "\n```json\n", "\n```"


def is_of(template: str) -> bool:
    return CALLS_BEGIN in template and "```json" in template


class DeepSeekReader(JsonReader):
    """Reads V3.1's form too: there the name stands where V3 writes `function`."""

    def _read(self) -> Reading[None]:
        begin = Markers(CALLS_BEGIN, CALL_BEGIN)
        while marker := (yield from self._until(begin, self._content)):
            self._begin(marker)
            if marker == CALLS_BEGIN:
                yield from self._spaces()
                if not (yield from self._literal(CALL_BEGIN)):
                    self._fail()
                    continue
            if not (yield from self._call()):
                self._fail()
                continue
            yield from self._spaces()
            yield from self._literal(CALLS_END)
        self._finish()

    def _call(self) -> Reading[bool]:
        name = yield from self._run(NAME)
        if not (yield from self._literal(SEPARATOR)):
            return False
        fenced = False
        if name == "function" and (yield from self._peek()) != "{":
            name = yield from self._run(NAME)
            yield from self._spaces()
            fenced = yield from self._literal("```json")
        yield from self._spaces()
        if not name or (yield from self._peek()) != "{":
            return False
        self._name(name)
        if not (yield from self._json(self._arguments)):
            return False
        yield from self._spaces()
        if fenced:
            yield from self._literal("```")
            yield from self._spaces()
        yield from self._literal(CALL_END)
        return True


reader = DeepSeekReader


def write(calls: list[Call]) -> str:
    texts = (f"{CALL_BEGIN}function{SEPARATOR}{call.name}{FENCE}{written(call.arguments)}{FENCE_END}{CALL_END}" for call in calls)
    return CALLS_BEGIN + "\n".join(texts) + CALLS_END


def grammar(lark: Lark, functions: list[Function], want: Want) -> str:
    begin = f'{lark.marker(CALL_BEGIN)} "function" {lark.marker(SEPARATOR)}'
    one = lark.either(f"{lark.text(one.name + FENCE)} {lark.arguments(one)}" for one in functions)
    call = f"{begin} {one} {lark.text(FENCE_END)} {lark.marker(CALL_END)}"
    more = f'("\\n" {call})*' if want.parallel else ""
    return lark.answer(want, CALLS_BEGIN, f"{call} {more} {lark.marker(CALLS_END)}")
