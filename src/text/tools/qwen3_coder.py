r"""Qwen 3 Coder's and 3.5's: `<tool_call>\n<function=f>\n<parameter=a>\nvalue\n</parameter>\n</function>\n</tool_call>`.

Source: https://huggingface.co/Qwen/Qwen3-Coder-30B-A3B-Instruct, chat_template.jinja. A value has no quotes: whether it is
a string tells the function's schema.
"""

import json
import re
from typing import Any

from src.errors import InvalidValue
from src.text.grammar.keywords import asking
from src.text.json_schema import Schema
from src.text.json_text import parsed, written
from src.text.output.reader import Markers, Reading
from src.text.tools.call import NAME, Call, CallReader, Function
from src.text.tools.json_call import Emit, discard
from src.text.tools.lark import Lark, Want
from src.text.tools.schema import NAMES, types_of

OPENING, CLOSING = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END, PARAMETER, PARAMETER_END = "<function=", "</function>", "<parameter=", "</parameter>"
MARKERS = (OPENING, CLOSING)
KEY = re.compile(r"[^>\n]+")
PYTHON = {"True": True, "False": False, "None": None}
SPACES = re.compile(r"\s+")
ENDS = Markers("\n" + PARAMETER_END, PARAMETER_END)
BEHIND_VALUE = (PARAMETER, FUNCTION_END, CLOSING)
ANY_TEXT = "/(?s:.*)/"
HOLDS_AN_END = r"(?s:.*)<\/parameter>\s*(<parameter=|<\/function>|<\/tool_call>)(?s:.*)"
NOT_ENFORCED = ("pattern", "format")  # of a string without quotes


def is_of(template: str) -> bool:
    return OPENING in template and FUNCTION in template and PARAMETER in template


class Qwen3CoderReader(CallReader):
    def _read(self) -> Reading[None]:
        opening = Markers(OPENING, FUNCTION)  # models forget the first one
        while marker := (yield from self._until(opening, self._content)):
            self._begin(marker)
            yield from self._spaces()
            if (marker == OPENING and not (yield from self._literal(FUNCTION))) or not (yield from self._function()):
                self._fail()
                continue
            yield from self._spaces()
            yield from self._literal(CLOSING)
        self._finish()

    def _function(self) -> Reading[bool]:
        name = yield from self._run(NAME)
        if not name or not (yield from self._literal(">")):
            return False
        yield from self._spaces()
        declared = self._functions.get(name)
        names: set[str] = set()
        while (yield from self._literal(PARAMETER)):
            key = yield from self._run(KEY)
            if not key or not (yield from self._literal(">")):
                return False
            if not names:
                self._name(name)
            # Of two values of one parameter the first stands: it has been sent on already.
            emit = discard if key in names else self._arguments
            emit(f"{', ' if names else '{'}{json.dumps(key, ensure_ascii=False)}: ")
            names.add(key)
            yield from self._literal("\n")
            if not (yield from self._value(declared, key, emit)):
                return False
        if not (yield from self._literal(FUNCTION_END)) and (self._is_over or not (yield from self._ahead(CLOSING))):
            return False
        if not names:
            self._name(name)
        self._arguments("}" if names else "{}")
        return True

    def _value(self, function: Function | None, key: str, emit: Emit) -> Reading[bool]:
        types = types_of(function.properties.get(key), function.document) if function else set()
        text: list[str] = []
        if types != {"string"}:
            found = yield from self._text_of_value(text.append)
            if found or text:
                emit(written(value_of("".join(text), types)) if found else "".join(text))
            return found
        emit('"')
        found = yield from self._text_of_value(lambda part: emit(json.dumps(part, ensure_ascii=False)[1:-1]))
        emit('"' if found else "")
        return found

    def _text_of_value(self, emit: Emit) -> Reading[bool]:
        """Take a value and what ends it. A closing tag is one only where the call goes on or ends behind it: files that a model
        writes hold such tags, too. False where none came."""
        while tag := (yield from self._until(ENDS, emit)):
            space = yield from self._run(SPACES, limit=None)
            if (yield from self._ahead(*BEHIND_VALUE)):
                return True
            if space.endswith("\n"):  # with which the next tag may begin
                space = space[:-1]
                self._put_back("\n")
            emit(tag + space)
        return False


def value_of(text: str, types: set[str]) -> Any:
    """What the model meant: a value of one of the types, of any where there are none; else the text itself."""
    try:
        value = PYTHON[text.strip()] if text.strip() in PYTHON else parsed(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, float) and "integer" in types and "number" not in types and value.is_integer():
        value = int(value)  # 140.0 and 1e3 are integers: JSON Schema 2020-12, core, 4.2.3
    kind = NAMES[type(value)]
    return value if not types or kind in types or (kind == "integer" and "number" in types) else text


reader = Qwen3CoderReader


def write(calls: list[Call]) -> str:
    return "\n".join(f"{OPENING}\n{FUNCTION}{call.name}>\n{_parameters(call)}{FUNCTION_END}\n{CLOSING}" for call in calls)


def _parameters(call: Call) -> str:
    values = {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in call.arguments.items()}
    return "".join(f"{PARAMETER}{key}>\n{value}\n{PARAMETER_END}\n" for key, value in values.items())


def grammar(lark: Lark, functions: list[Function], want: Want) -> str:
    one = lark.either(f"{lark.text(f'{FUNCTION}{function.name}>' + chr(10))} {_arguments(lark, function)}" for function in functions)
    return lark.answer(want, OPENING, f'"\\n" {one} "\\n" {lark.marker(CLOSING)}', between="\n")


def _arguments(lark: Lark, function: Function) -> str:
    """Those that are required, and any of the others, in their order, and the function's end: from the last one backwards, what
    may follow a value. A value without quotes ends only with what follows it, as the reader has it."""
    required = function.required
    first = None  # what may follow PARAMETER; None: nothing
    may_end = True
    for key, schema in reversed(function.properties.items()):
        values = _values(lark, function, key, schema, _following(first, may_end))
        # Without groups: llguidance recurses into each, and hundreds of arguments are that deep.
        here = [f"{lark.text(key + '>' + chr(10))} {value}" for value in values]
        needed = key in required
        first = lark.either(here if needed or first is None else [*here, first])
        may_end = may_end and not needed
    return lark.either(f"{lark.text(text)} {rule}" for text, rule in _following(first, may_end))


def _following(first: str | None, may_end: bool) -> list[tuple[str, str]]:
    """The texts that may come next, each with the rule of what is behind it."""
    return [*([(PARAMETER, first)] if first else []), *([(FUNCTION_END, "")] if may_end else [])]


def _values(lark: Lark, function: Function, key: str, schema: Schema, following: list[tuple[str, str]]) -> list[str]:
    """A value and all that follows it, in each way that it may go on."""
    ways = [("\n" + PARAMETER_END + "\n" + text, rule) for text, rule in following]
    types = types_of(schema, function.document)
    if types and "string" not in types:
        return _ended(lark, lark.json(schema, function), ways)
    schema = asking(function.document.whole(schema))
    if isinstance(choices := schema.get("enum"), list) and all(isinstance(one, str) for one in choices):
        return _ended(lark, lark.either(lark.text(one) for one in choices), ways)
    if isinstance(constant := schema.get("const"), str):
        return _ended(lark, lark.text(constant), ways)
    if function.strict and (found := next((word for word in NOT_ENFORCED if word in schema), None)):
        raise InvalidValue(f"{found} of {function.name}'s {key} cannot be enforced in this model's tool format.", "tools")
    least, most = schema.get("minLength"), schema.get("maxLength")
    text = ANY_TEXT
    if isinstance(least, int) or isinstance(most, int):
        text = f"/(?s:.){{{least or 0},{most if most is not None else ''}}}/"
    value = lark.terminal(f"{text} & ~/{HOLDS_AN_END}/")
    return [f"{lark.lazy(f'{value} {lark.text(end)}')} {rule}" for end, rule in ways]


def _ended(lark: Lark, value: str, ways: list[tuple[str, str]]) -> list[str]:
    return [f"{value} {lark.text(end)} {rule}" for end, rule in ways]
