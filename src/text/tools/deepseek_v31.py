"""DeepSeek V3.1's: `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{…}<｜tool▁call▁end｜>…<｜tool▁calls▁end｜>`.

Source: https://huggingface.co/deepseek-ai/DeepSeek-V3.1, "ToolCall".
"""

from src.text.json_text import written
from src.text.tools import deepseek
from src.text.tools.call import Call, Function
from src.text.tools.deepseek import CALL_BEGIN, CALL_END, CALLS_BEGIN, CALLS_END, SEPARATOR
from src.text.tools.lark import Lark, Want

MARKERS = deepseek.MARKERS
reader = deepseek.reader


def is_of(template: str) -> bool:
    return CALLS_BEGIN in template


def write(calls: list[Call]) -> str:
    texts = (f"{CALL_BEGIN}{call.name}{SEPARATOR}{written(call.arguments)}{CALL_END}" for call in calls)
    return CALLS_BEGIN + "".join(texts) + CALLS_END


def grammar(lark: Lark, functions: list[Function], want: Want) -> str:
    begin, separator, end = lark.marker(CALL_BEGIN), lark.marker(SEPARATOR), lark.marker(CALL_END)
    one = lark.either(f"{lark.text(one.name)} {separator} {lark.arguments(one)}" for one in functions)
    calls = f"({begin} {one} {end}){'+' if want.parallel else ''}"
    return lark.answer(want, CALLS_BEGIN, f"{calls} {lark.marker(CALLS_END)}")
