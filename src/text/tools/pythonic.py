"""Calls as Python writes them, `[f(a=1, b="x"), g()]`: Llama 3.2 and 4, LFM2. Some models put tags around the list.

Sources: https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/text_prompt_format.md, llama4/prompt_format.md;
https://huggingface.co/LiquidAI/LFM2-1.2B. Literals are read, and nothing is ever evaluated.
"""

import json
import re
from collections.abc import Callable

from src.text.json_text import Halves
from src.text.output.reader import Markers, Reading
from src.text.tools.call import NAME, Call, CallReader, Function
from src.text.tools.json_call import HEX, MOST_DEPTH, SCALAR, discard, in_json
from src.text.tools.lark import Lark, Want
from src.text.tools.schema import types_of

TAGS = {"<|python_start|>": "<|python_end|>", "<|tool_call_start|>": "<|tool_call_end|>"}
MARKERS = (*TAGS, *TAGS.values())
SIGN = re.compile(r"<\|python_start\|>|<\|tool_call_start\|>|<\|tool_list_start\|>|\[func_name1?\(")
FREE = r"/[^\[\s](?s:.*)/"
WORD = re.compile(r"\w+")
CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", "'": "'", '"': '"', "\n": "", "0": "\0", "/": "/"}
DIGITS = {"x": 2, "u": 4, "U": 8}
BRACKETS = {"[": ("]", "[]"), "(": (")", "[]"), "{": ("}", "{}")}  # Python's closing one, and JSON's
Emit = Callable[[str], None]


def is_of(template: str) -> bool:
    return SIGN.search(template) is not None


class PythonicReader(CallReader):
    def _read(self) -> Reading[None]:
        openings = Markers(*TAGS)
        self._begin()
        yield from self._spaces()
        if not (yield from self._list(bare=True)):
            self._fail()
        while tag := (yield from self._until(openings, self._content)):
            self._begin(tag)
            yield from self._spaces()
            if (yield from self._list(bare=False)):
                yield from self._spaces()
                yield from self._literal(TAGS[tag])
            else:
                self._fail()
        self._finish()

    def _list(self, *, bare: bool) -> Reading[bool]:
        if not (yield from self._literal("[")):
            return False
        while True:
            yield from self._spaces()
            if not (yield from self._call(bare=bare)):
                return False
            yield from self._spaces()
            if not (yield from self._literal(",")):
                return (yield from self._literal("]"))

    def _call(self, *, bare: bool) -> Reading[bool]:
        kept = self._hold()
        name = yield from self._run(NAME)
        if not name or (bare and name not in self._functions) or not (yield from self._literal("(")):
            return False
        separator = "{"
        names: set[str] = set()
        while True:
            yield from self._spaces()
            key = yield from self._run(WORD)
            if not key:
                break
            yield from self._spaces()
            if not (yield from self._literal("=")):
                return False
            if separator == "{":
                self._release(kept)
                self._name(name)
            emit = discard if key in names else self._arguments
            names.add(key)
            emit(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
            separator = ", "
            yield from self._spaces()
            if not (yield from self._value(emit)):
                return False
            yield from self._spaces()
            if not (yield from self._literal(",")):
                break
        if not (yield from self._literal(")")):
            return False
        if separator == "{":
            self._release(kept)
            self._name(name)
        self._arguments("{}" if separator == "{" else "}")
        return True

    def _value(self, emit: Emit, comma: str = "", depth: int = 0) -> Reading[bool]:
        """Take one Python literal, inside `depth` others, and emit it in JSON as it comes, behind the `comma` before it. False
        where it is none, or not whole."""
        yield from self._spaces()
        character = yield from self._peek()
        if not character:
            return False
        if character in BRACKETS:
            return depth < MOST_DEPTH and (yield from self._items(emit, comma, depth + 1))
        if character in "'\"":
            emit(comma)
            return (yield from self._string(emit))
        return (yield from self._word(emit, comma))

    def _items(self, emit: Emit, comma: str, depth: int) -> Reading[bool]:
        """A list, tuple or dictionary. A comma is emitted with what follows it: Python allows a last one."""
        closing, in_json = BRACKETS[self._take(1)]
        emit(comma + in_json[0])
        comma, more = "", True
        names: set[str] = set()
        while True:
            yield from self._spaces()
            if (yield from self._peek()) == closing:
                self._take(1)
                emit(in_json[1])
                return True
            if not more:
                return False
            into = emit
            if closing == "}":
                lead = [comma]
                is_whole = yield from self._key(names, lead)
                into = discard if is_whole is None else emit
                into("".join(lead))
                comma = ""
                if is_whole is False:
                    return False
            if not (yield from self._value(into, comma, depth)):
                return False
            yield from self._spaces()
            comma, more = ", ", (yield from self._literal(","))

    def _key(self, names: set[str], lead: list[str]) -> Reading[bool | None]:
        """A dictionary's key and the colon behind it, added to `lead`. None where the key is among `names` already."""
        character = yield from self._peek()
        if not character or character not in "'\"":
            lead.clear()
            return False
        key: list[str] = []
        is_whole = yield from self._string(key.append)
        lead += key
        if not is_whole:
            return False
        yield from self._spaces()
        if not (yield from self._literal(":")):
            return False
        lead.append(": ")
        known = len(names)
        names.add(json.loads("".join(key)))
        return True if len(names) > known else None

    def _word(self, emit: Emit, comma: str) -> Reading[bool]:
        kept = self._hold()
        word = yield from self._run(SCALAR, limit=1000)
        value = in_json(word)
        if value is None and not self._is_over:
            return False
        self._release(kept)
        emit(comma + (word if value is None else value))
        return value is not None

    def _string(self, emit: Emit) -> Reading[bool]:
        emit = Halves(emit)
        quote = self._take(1)
        plain = re.compile(rf"[^\\{quote}]+")
        emit('"')
        while character := (yield from self._peek()):
            if match := plain.match(self._text, self._at):
                emit(json.dumps(self._take(len(match[0])), ensure_ascii=False)[1:-1])
            elif character == quote:
                self._take(1)
                emit('"')
                return True
            else:
                emit((yield from self._escape()))
        return False

    def _escape(self) -> Reading[str]:
        """What a backslash and the character behind it stand for; themselves, where that is nothing."""
        self._take(1)
        kind = yield from self._peek()
        if not kind:
            return ""
        self._take(1)
        if kind not in DIGITS:
            return json.dumps(CONTROLS.get(kind, "\\" + kind), ensure_ascii=False)[1:-1]
        digits = ""
        while len(digits) < DIGITS[kind] and HEX.match((yield from self._peek())):
            digits += self._take(1)
        if len(digits) < DIGITS[kind] or int(digits, 16) > 0x10FFFF:
            return "" if self._is_over else json.dumps("\\" + kind + digits)[1:-1]
        return json.dumps(chr(int(digits, 16)))[1:-1]


reader = PythonicReader


def write(calls: list[Call]) -> str:
    return f"[{', '.join(f'{call.name}({_keywords(call)})' for call in calls)}]"


def _keywords(call: Call) -> str:
    return ", ".join(f"{key}={_python(value)}" for key, value in call.arguments.items())


def _python(value: object) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key, ensure_ascii=False)}: {_python(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_python, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def grammar(lark: Lark, functions: list[Function], want: Want) -> str:
    call = lark.either(f"{lark.text(one.name + '(')} {_arguments(lark, one)} {lark.text(')')}" for one in functions)
    more = f'(", " {call})*' if want.parallel else ""
    return lark.answer(want, None, f'"[" {call} {more} "]"', free=FREE)


def _arguments(lark: Lark, function: Function) -> str:
    """Those that are required, and any of the others, in their order, with commas between: from the last one backwards, what
    may stand first in a list, and what may follow another one. Values are JSON, which is Python but for three words."""
    required = function.required
    first = rest = ""
    for key, schema in reversed(function.properties.items()):
        is_boolean = types_of(schema, function.document) == {"boolean"}
        value = '("True" | "False")' if is_boolean else lark.json(schema, function)
        begun = f"{lark.text(key + '=')} {value}"
        needed = key in required
        first = lark.rule(f"{begun} {rest}" + ("" if needed else f" | {first or _NOTHING}"))
        rest = lark.rule(f'", " {begun} {rest}' + ("" if needed else f" | {rest or _NOTHING}"))
    return first


_NOTHING = '""'
