"""Reads JSON as it comes: a value, or an object that holds a call. Knows nothing of what stands around it.

The grammar is RFC 8259's, with mercy for what models write: a control character in a string is escaped, a number that is not
finite is emitted as a string, True, False and None as JSON has them, half a surrogate pair as U+FFFD, and a name that an object
has already is left out.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from src.text.json_text import Halves, is_finite, parsed, written
from src.text.output.reader import Reading
from src.text.tools.call import CallReader

MOST_DEPTH = 128
PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
SCALAR = re.compile(r"[-+.0-9A-Za-z]+")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
NOT_FINITE = ("nan", "inf", "infinity")  # with a sign or not, and in capitals or not: each language has its own
WORDS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}  # JSON's and Python's
HEX = re.compile(r"[0-9a-fA-F]+")
CLOSING = {"[": "]", "{": "}"}
Emit = Callable[[str], None]


class JsonReader(CallReader):
    def _json(self, emit: Emit, depth: int = 0) -> Reading[bool]:
        """Take one JSON value, inside `depth` others, and emit its text as it comes. False where it is none, or not whole."""
        yield from self._json_space(emit)
        character = yield from self._peek()
        if not character:
            return False
        if character in "[{":
            return depth < MOST_DEPTH and (yield from self._json_items(emit, depth + 1))
        if character == '"':
            return (yield from self._json_string(emit))
        return (yield from self._json_scalar(emit))

    def _json_items(self, emit: Emit, depth: int) -> Reading[bool]:
        """An array or an object. Of members with one name the first stands: it may have been sent on already."""
        opening = self._take(1)
        closing = CLOSING[opening]
        emit(opening)
        yield from self._json_space(emit)
        if (yield from self._json_mark(closing, emit)):
            return True
        names: set[str] = set()
        lead: list[str] = []  # what precedes a value and was not emitted yet: a comma, and in an object a name
        while True:
            is_whole = closing == "]" or (yield from self._json_key(names, lead))
            if is_whole is not None:
                emit("".join(lead))
            if is_whole is False or not (yield from self._json(discard if is_whole is None else emit, depth)):
                return False
            yield from self._json_space(emit)
            lead = []
            if not (yield from self._json_mark(",", lead.append)):
                return (yield from self._json_mark(closing, emit))
            yield from self._json_space(lead.append)

    def _json_key(self, names: set[str], lead: list[str]) -> Reading[bool | None]:
        """A member's name and the colon behind it, which are added to `lead`. None where the name is among `names` already."""
        name: list[str] = []
        is_whole = (yield from self._peek()) == '"' and (yield from self._json_string(name.append))
        lead += name
        if not is_whole:
            return False
        yield from self._json_space(lead.append)
        if not (yield from self._json_mark(":", lead.append)):
            return False
        known = len(names)
        names.add(json.loads("".join(name)))
        return True if len(names) > known else None

    def _json_mark(self, mark: str, emit: Emit) -> Reading[bool]:
        if (yield from self._peek()) != mark:
            return False
        emit(self._take(1))
        return True

    def _json_space(self, emit: Emit) -> Reading[None]:
        while (yield from self._peek()) in (" ", "\t", "\n", "\r"):
            emit(self._take(1))

    def _json_scalar(self, emit: Emit) -> Reading[bool]:
        kept = self._hold()
        word = yield from self._run(SCALAR, limit=1000)
        value = in_json(word)
        if value is None and not self._is_over:
            return False
        self._release(kept)
        emit(word if value is None else value)
        return value is not None and (word not in WORDS or not self._is_over)

    def _json_string(self, emit: Emit) -> Reading[bool]:
        emit = Halves(emit)
        emit(self._take(1))
        while character := (yield from self._peek()):
            if match := PLAIN.match(self._text, self._at):
                emit(self._take(len(match[0])))
            elif character == '"':
                emit(self._take(1))
                return True
            elif character != "\\":
                emit(json.dumps(self._take(1))[1:-1])
            elif not (yield from self._json_escape(emit)):
                return False
        return False

    def _json_escape(self, emit: Emit) -> Reading[bool]:
        """A backslash and what it escapes, emitted together: the text so far is never cut within."""
        kept = self._hold()
        escape = self._take(1)
        kind = yield from self._peek()
        if kind and kind in '"\\/bfnrtu':
            escape += self._take(1)
            while kind == "u" and len(escape) < 6 and HEX.match((yield from self._peek())):
                escape += self._take(1)
            if kind != "u" or len(escape) == 6:
                self._release(kept)
                emit(escape)
                return True
        if self._is_over:  # cut off here: half an escape is worth nothing
            self._release(kept)
        return False

    def _json_call(self, *, bare: bool = False) -> Reading[bool]:
        """An object with a call's name and arguments: {"name": …, "arguments": {…}}. A `bare` one has nothing around it
        that says it is a call: it needs a known name and arguments.

        False where it is no call, or ends before it is whole.
        """
        name: Any = None
        arguments: list[str] | None = None  # once they are there: what of them came before the name
        if not (yield from self._literal("{")):
            return False
        while True:
            yield from self._spaces()
            if (yield from self._peek()) != '"':
                break
            key = yield from self._json_of()
            yield from self._spaces()
            if not (yield from self._literal(":")):
                return False
            yield from self._spaces()
            if key == "name" and name is None:
                name = (yield from self._json_of()) if (yield from self._peek()) == '"' else None
                if not name or (bare and name not in self._functions):
                    return False
                if arguments is not None:
                    self._whole_call(name, arguments)
            elif key in ("arguments", "parameters") and arguments is None:
                arguments = []
                if not (yield from self._call_arguments(name, arguments)):
                    return False
            elif not (yield from self._json(discard)):
                return False
            yield from self._spaces()
            if not (yield from self._literal(",")):
                break
        if not (yield from self._literal("}")) or name is None or (bare and arguments is None):
            return False
        if arguments is None:
            self._whole_call(name, ["{}"])
        return True

    def _call_arguments(self, name: str | None, into: list[str]) -> Reading[bool]:
        """Arguments as they come, where the name is known and they are an object; else `into` a list, and then all at once."""
        if name is not None and (yield from self._peek()) == "{":
            self._name(name)
            return (yield from self._json(self._arguments))
        if not (yield from self._loose_arguments(into)):
            return False
        if name is not None:
            self._whole_call(name, into)
        return True

    def _whole_call(self, name: str, arguments: list[str]) -> None:
        self._name(name)
        self._arguments("".join(arguments))

    def _json_of(self) -> Reading[Any]:
        """A whole value, decoded; None where it is none."""
        text: list[str] = []
        whole = yield from self._json(text.append)
        return json.loads("".join(text)) if whole else None

    def _loose_arguments(self, into: list[str]) -> Reading[bool]:
        """An object, or what models write for it: null, or its JSON in a string."""
        text: list[str] = []
        if not (yield from self._json(text.append)):
            return False
        value = json.loads("".join(text))
        if isinstance(value, str):
            try:
                value = parsed(value)
            except (ValueError, RecursionError):
                return False
            text = [written(value)]
        if value is None:
            text, value = ["{}"], {}
        into += text
        return isinstance(value, dict)


def in_json(word: str) -> str | None:
    """A word or a number as JSON; None where it is neither. JSON has no number for what is not finite: its text stands for it."""
    if word.lstrip("+-").lower() in NOT_FINITE or (NUMBER.fullmatch(word) and not is_finite(word)):
        return json.dumps(word)
    return WORDS.get(word, word if NUMBER.fullmatch(word) else None)


def discard(text: str) -> None:
    pass
