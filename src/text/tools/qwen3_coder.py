r"""Qwen 3 Coder's and 3.5's: `<tool_call>\n<function=f>\n<parameter=a>\nvalue\n</parameter>\n</function>\n</tool_call>`.

Source: https://huggingface.co/Qwen/Qwen3-Coder-30B-A3B-Instruct, chat_template.jinja. A value has no quotes: whether it is
a string tells the function's schema.
"""

import json
import re
from typing import Any

from src.errors import InvalidValue
from src.text.reader import Markers, Reading
from src.text.tools.call import NAME, Call, CallReader, Function
from src.text.tools.lark import Lark, Want
from src.text.tools.schema import NAMES, Schema, properties, required, types_of, with_definitions

OPENING, CLOSING = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END, PARAMETER, PARAMETER_END = "<function=", "</function>", "<parameter=", "</parameter>"
MARKERS = (OPENING, CLOSING)
KEY = re.compile(r"[^>\n]+")
PYTHON = {"True": True, "False": False, "None": None}
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
        separator = ""
        while (yield from self._literal(PARAMETER)):
            key = yield from self._run(KEY)
            if not key or not (yield from self._literal(">")):
                return False
            if not separator:
                self._name(name)
            self._arguments(f"{separator or '{'}{json.dumps(key, ensure_ascii=False)}: ")
            separator = ", "
            yield from self._literal("\n")
            if not (yield from self._value(declared, key)):
                return False
            kept = self._keep()
            yield from self._spaces()
            self._let_go(kept)
        if not (yield from self._literal(FUNCTION_END)):
            return False
        if not separator:
            self._name(name)
        self._arguments("}" if separator else "{}")
        return True

    def _value(self, function: Function | None, key: str) -> Reading[bool]:
        parameters = (function.parameters if function else None) or {}
        types = types_of(properties(parameters).get(key, {}), parameters)
        ends = Markers("\n" + PARAMETER_END, PARAMETER_END)
        text: list[str] = []
        if types != {"string"}:
            found = yield from self._until(ends, text.append)
            if found or text:
                self._arguments(json.dumps(value_of("".join(text), types), ensure_ascii=False) if found else "".join(text))
            return bool(found)
        self._arguments('"')
        found = yield from self._until(ends, lambda part: self._arguments(json.dumps(part, ensure_ascii=False)[1:-1]))
        self._arguments('"' if found else "")
        return bool(found)


def value_of(text: str, types: set[str]) -> Any:
    """What the model meant: a value of one of the types, of any where there are none; else the text itself."""
    try:
        value = PYTHON[text.strip()] if text.strip() in PYTHON else json.loads(text)
    except (ValueError, RecursionError):
        return text
    kind = NAMES[type(value)]
    return value if not types or kind in types or (kind == "integer" and "number" in types) else text


reader = Qwen3CoderReader


def write(calls: list[Call]) -> str:
    return "\n".join(f"{OPENING}\n{FUNCTION}{call.name}>\n{_parameters(call)}{FUNCTION_END}\n{CLOSING}" for call in calls)


def _parameters(call: Call) -> str:
    values = {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in call.arguments.items()}
    return "".join(f"{PARAMETER}{key}>\n{value}\n{PARAMETER_END}\n" for key, value in values.items())


def grammar(lark: Lark, functions: list[Function], want: Want) -> str:
    one = lark.either(
        f"{lark.text(f'{FUNCTION}{function.name}>' + chr(10))} {_arguments(lark, function)} {lark.text(FUNCTION_END)}"
        for function in functions
    )
    return lark.answer(want, OPENING, f'"\\n" {one} "\\n" {lark.marker(CLOSING)}', between="\n")


def _arguments(lark: Lark, function: Function) -> str:
    parameters, end = function.parameters or {}, "\n" + PARAMETER_END + "\n"
    parts = []
    for key, schema in properties(parameters).items():
        value = _value_rule(lark, function, key, schema, end)
        rule = f"({lark.text(f'{PARAMETER}{key}>' + chr(10))} {value})"
        parts.append(rule if key in required(parameters) else f"{rule}?")
    return " ".join(parts)


def _value_rule(lark: Lark, function: Function, key: str, schema: Schema, end: str) -> str:
    types = types_of(schema, function.parameters or {})
    if types and "string" not in types:
        return f"{lark.json(with_definitions(schema, function.parameters or {}), function)} {lark.text(end)}"
    if isinstance(choices := schema.get("enum"), list) and all(isinstance(one, str) for one in choices):
        return f"{lark.either(lark.text(one) for one in choices)} {lark.text(end)}"
    if isinstance(constant := schema.get("const"), str):
        return lark.text(constant + end)
    if function.strict and (found := next((word for word in NOT_ENFORCED if word in schema), None)):
        raise InvalidValue(f"{found} of {function.name}'s {key} cannot be enforced in this model's tool format.", "tools")
    least, most = schema.get("minLength"), schema.get("maxLength")
    if isinstance(least, int) or isinstance(most, int):
        return lark.lazy(f"/(?s:.){{{least or 0},{most if most is not None else ''}}}/ {lark.text(end)}")
    return lark.lazy(f"TEXT {lark.text(end)}")
