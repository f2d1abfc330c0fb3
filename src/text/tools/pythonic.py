"""Calls as Python writes them, `[f(a=1, b="x"), g()]`: Llama 3.2 and 4, LFM2. Some models put tags around the list.

Sources: https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/text_prompt_format.md, llama4/prompt_format.md;
https://huggingface.co/LiquidAI/LFM2-1.2B. Literals are read, and nothing is ever evaluated.
"""

import json
import re
from collections.abc import Callable

from src.text.reader import Markers, Reading
from src.text.tools.call import NAME, Call, CallReader, Function
from src.text.tools.json_call import HEX, MOST_DEPTH, NUMBER, SCALAR
from src.text.tools.lark import Lark, Want
from src.text.tools.schema import properties, required, types_of, with_definitions

TAGS = {"<|python_start|>": "<|python_end|>", "<|tool_call_start|>": "<|tool_call_end|>"}
MARKERS = (*TAGS, *TAGS.values())
SIGN = re.compile(r"<\|python_start\|>|<\|tool_call_start\|>|<\|tool_list_start\|>|\[func_name1?\(")
FREE = r"/[^\[\s](?s:.*)/"
WORD = re.compile(r"\w+")
WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", "'": "'", '"': '"', "\n": "", "0": "\0", "/": "/"}
DIGITS = {"x": 2, "u": 4, "U": 8}
Say = Callable[[str], None]


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
        kept = self._keep()
        name = yield from self._run(NAME)
        if not name or (bare and name not in self._functions) or not (yield from self._literal("(")):
            return False
        separator = "{"
        while True:
            yield from self._spaces()
            key = yield from self._run(WORD)
            if not key:
                break
            yield from self._spaces()
            if not (yield from self._literal("=")):
                return False
            if separator == "{":
                self._let_go(kept)
                self._name(name)
            self._arguments(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
            separator = ", "
            yield from self._spaces()
            if not (yield from self._value(self._arguments)):
                return False
            yield from self._spaces()
            if not (yield from self._literal(",")):
                break
        if not (yield from self._literal(")")):
            return False
        if separator == "{":
            self._let_go(kept)
            self._name(name)
        self._arguments("{}" if separator == "{" else "}")
        return True

    def _value(self, say: Say) -> Reading[bool]:
        """Take one Python literal and say it in JSON as it comes. False where it is none, or not whole."""
        open_: list[str] = []
        expected, comma = "value", ""  # a comma is said with what follows it: Python allows a last one
        while True:
            yield from self._spaces()
            character = yield from self._peek()
            if open_ and character == open_[-1][0] and expected != "colon" and (expected != "value" or not open_[-1].endswith("}")):
                self._take(1)
                say(open_.pop()[1])
                expected, comma = "end", ""
            elif expected == "end" and character == ",":
                self._take(1)
                comma = ", "
                expected = "key" if open_[-1].endswith("}") else "value"
                continue
            elif expected == "colon" and character == ":":
                self._take(1)
                say(": ")
                expected = "value"
                continue
            elif not character or expected in ("end", "colon"):
                return False
            elif expected == "value" and character in "[({":
                if len(open_) == MOST_DEPTH:
                    return False
                say(comma + {"[": "[", "(": "[", "{": "{"}[self._take(1)])
                open_.append({"[": "]]", "(": ")]", "{": "}}"}[character])
                expected, comma = "key" if character == "{" else "value", ""
                continue
            elif character in "'\"":
                say(comma)
                if not (yield from self._string(say)):
                    return False
                expected, comma = "colon" if expected == "key" else "end", ""
            elif expected == "key" or not (yield from self._word(say, comma)):
                return False
            else:
                expected, comma = "end", ""
            if not open_:
                return True

    def _word(self, say: Say, comma: str) -> Reading[bool]:
        kept = self._keep()
        word = yield from self._run(SCALAR, limit=1000)
        if not self._is_over and word not in WORDS and not NUMBER.fullmatch(word):
            return False
        self._let_go(kept)
        say(comma + WORDS.get(word, word))
        return word in WORDS or bool(NUMBER.fullmatch(word))

    def _string(self, say: Say) -> Reading[bool]:
        quote = self._take(1)
        plain = re.compile(rf"[^\\{quote}]+")
        say('"')
        while character := (yield from self._peek()):
            if match := plain.match(self._text, self._at):
                say(json.dumps(self._take(len(match[0])), ensure_ascii=False)[1:-1])
            elif character == quote:
                self._take(1)
                say('"')
                return True
            else:
                say((yield from self._escape()))
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
    parameters = function.parameters or {}
    first = rest = ""
    for key, schema in reversed(properties(parameters).items()):
        is_boolean = types_of(schema, parameters) == {"boolean"}
        value = '("True" | "False")' if is_boolean else lark.json(with_definitions(schema, parameters), function)
        begun = f"{lark.text(key + '=')} {value}"
        needed = key in required(parameters)
        first = lark.rule(f"{begun} {rest}" + ("" if needed else f" | {first or _NOTHING}"))
        rest = lark.rule(f'", " {begun} {rest}' + ("" if needed else f" | {rest or _NOTHING}"))
    return first


_NOTHING = '""'
