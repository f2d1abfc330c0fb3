"""Reads JSON as it comes: a value, or an object that holds a call. Knows nothing of what stands around it.

The grammar is RFC 8259's, with one mercy: a control character in a string, which JSON wants escaped, is escaped here.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from src.text.reader import Reading
from src.text.tools.call import CallReader

MOST_DEPTH = 128
PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
SCALAR = re.compile(r"[-+.0-9A-Za-z]+")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
HEX = re.compile(r"[0-9a-fA-F]+")
Say = Callable[[str], None]


class JsonReader(CallReader):
    def _json(self, say: Say) -> Reading[bool]:
        """Take one JSON value and say its text as it comes. False where it is none, or not whole."""
        open_: list[str] = []
        expected = "value"
        while True:
            yield from self._json_space(say)
            character = yield from self._peek()
            if not character:
                return False
            if character in "]}" and expected in ("end", "first " + ("value" if character == "]" else "key")):
                if not open_ or open_.pop() != character:
                    return False
                say(self._take(1))
                expected = "end"
            elif expected in ("value", "first value") and character in "[{":
                if len(open_) == MOST_DEPTH:
                    return False
                say(self._take(1))
                open_.append("]" if character == "[" else "}")
                expected = "first value" if character == "[" else "first key"
                continue
            elif expected in ("value", "first value", "key", "first key") and character == '"':
                if not (yield from self._json_string(say)):
                    return False
                expected = "colon" if "key" in expected else "end"
            elif expected in ("value", "first value"):
                if not (yield from self._json_scalar(say)):
                    return False
                expected = "end"
            elif expected == "colon" and character == ":":
                say(self._take(1))
                expected = "value"
            elif expected == "end" and character == "," and open_:
                say(self._take(1))
                expected = "value" if open_[-1] == "]" else "key"
            else:
                return False
            if not open_ and expected == "end":
                return True

    def _json_space(self, say: Say) -> Reading[None]:
        while (yield from self._peek()) in (" ", "\t", "\n", "\r"):
            say(self._take(1))

    def _json_scalar(self, say: Say) -> Reading[bool]:
        kept = self._keep()
        word = yield from self._run(SCALAR, limit=1000)
        if word in ("true", "false", "null") or NUMBER.fullmatch(word) or self._is_over:
            self._let_go(kept)
            say(word)
            return not self._is_over or bool(NUMBER.fullmatch(word))
        return False

    def _json_string(self, say: Say) -> Reading[bool]:
        say(self._take(1))
        while character := (yield from self._peek()):
            if match := PLAIN.match(self._text, self._at):
                say(self._take(len(match[0])))
            elif character == '"':
                say(self._take(1))
                return True
            elif character != "\\":
                say(json.dumps(self._take(1))[1:-1])
            elif not (yield from self._json_escape(say)):
                return False
        return False

    def _json_escape(self, say: Say) -> Reading[bool]:
        """A backslash and what it escapes, said together: the text so far is never cut within."""
        kept = self._keep()
        escape = self._take(1)
        kind = yield from self._peek()
        if kind and kind in '"\\/bfnrtu':
            escape += self._take(1)
            while kind == "u" and len(escape) < 6 and HEX.match((yield from self._peek())):
                escape += self._take(1)
            if kind != "u" or len(escape) == 6:
                self._let_go(kept)
                say(escape)
                return True
        if self._is_over:  # cut off here: half an escape is worth nothing
            self._let_go(kept)
        return False

    def _json_call(self, *, bare: bool = False) -> Reading[bool]:
        """An object with a call's name and arguments: {"name": …, "arguments": {…}}. A `bare` one has nothing around it
        that says it is a call: it needs a known name and arguments.

        False where it is no call, or ends before it is whole.
        """
        name: Any = None
        held: list[str] | None = None  # arguments that came before the name
        said = False
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
                name = yield from self._json_of()
                if not isinstance(name, str) or not name or (bare and name not in self._functions):
                    return False
                if held is not None:
                    self._name(name)
                    self._arguments("".join(held))
                    said = True
            elif key in ("arguments", "parameters") and held is None and not said:
                held = []
                if name is not None and (yield from self._peek()) == "{":
                    self._name(name)
                    said = True
                    if not (yield from self._json(self._arguments)):
                        return False
                elif not (yield from self._loose_arguments(held)):
                    return False
                elif name is not None:
                    self._name(name)
                    self._arguments("".join(held))
                    said = True
            elif not (yield from self._json(_nobody)):
                return False
            yield from self._spaces()
            if not (yield from self._literal(",")):
                break
        if not (yield from self._literal("}")) or name is None or (bare and not said):
            return False
        if not said:
            self._name(name)
            self._arguments("{}")
        return True

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
                text, value = [value], json.loads(value)
            except (ValueError, RecursionError):
                return False
        if value is None:
            text, value = ["{}"], {}
        into += text
        return isinstance(value, dict)


def _nobody(text: str) -> None:
    """Hears what is of no use."""
