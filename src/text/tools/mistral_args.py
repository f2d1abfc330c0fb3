"""Mistral's newer form (Small 3.2, Magistral, Devstral): `[TOOL_CALLS]f[ARGS]{…}` for each call.

Source: https://github.com/mistralai/mistral-common, tokens/tokenizers/instruct.py (v11 and v13 of the tokenizer).
"""

from src.text.json_text import written
from src.text.tools import mistral
from src.text.tools.call import Call, Function
from src.text.tools.lark import Lark, Want

MARKERS = mistral.MARKERS
reader = mistral.reader


def is_of(template: str) -> bool:
    return mistral.OPENING in template and mistral.ARGUMENTS in template


def write(calls: list[Call]) -> str:
    return "".join(f"{mistral.OPENING}{call.name}{mistral.ARGUMENTS}{written(call.arguments)}" for call in calls)


def grammar(lark: Lark, functions: list[Function], want: Want) -> str:
    separator = lark.marker(mistral.ARGUMENTS)
    calls = lark.either(f"{lark.text(one.name)} {separator} {lark.arguments(one)}" for one in functions)
    return lark.answer(want, mistral.OPENING, calls, between="")
