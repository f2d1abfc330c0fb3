"""Writes grammars of answers in llguidance's Lark (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md).

Knows no tool format and no tokenizer: a marker's token id is told by who makes the writer.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from src.text.thinking import Marks, Phase
from src.text.tools.call import Function
from src.text.tools.schema import closed

# As Python's json.dumps writes, which models were trained on; and no room for endless whitespace.
STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
Check = Callable[[str], bool]  # whether llguidance takes a grammar


@dataclass(frozen=True)
class Token:
    """A text that is one token. `control`: it has no bytes, so that nothing but its id can name it."""

    id: int
    control: bool


@dataclass(frozen=True)
class Want:
    """What an answer has to be."""

    forced: bool = False  # a call, and nothing else
    parallel: bool = True  # as many calls as the model likes
    content: str | None = None  # the rule of an answer that is no call; None: any text
    marks: Marks | None = None
    phase: Phase = Phase.OVER


class Lark:
    def __init__(self, token_of: Callable[[str], Token | None], compiles: Check) -> None:
        self._token_of = token_of
        self._compiles = compiles
        self._rules: list[str] = []
        self._known: dict[str, str] = {}

    def source(self, start: str) -> str:
        return "\n".join(["%llguidance {}", f"start: {start}", *self._rules, r"TEXT: /(.|\n)*/", ""])

    def rule(self, body: str) -> str:
        """A rule's name; one name for one body."""
        if body not in self._known:
            self._known[body] = f"r{len(self._known)}"
            self._rules.append(f"{self._known[body]}: {body}")
        return self._known[body]

    def lazy(self, terminal: str) -> str:
        """A rule that ends as soon as the terminal fits."""
        name = f"r{len(self._known)}"
        self._known[f"lazy {name}"] = name
        self._rules.append(f"{name}[lazy]: {terminal}")
        return name

    def either(self, bodies: Iterable[str]) -> str:
        return self.rule(" | ".join(bodies))

    def text(self, text: str) -> str:
        return json.dumps(text, ensure_ascii=False)

    def marker(self, text: str) -> str:
        """A marker by its token, and unless that is a control token by its text: vocabularies differ in what they call special."""
        token = self._token_of(text)
        if token is None:
            return self.text(text)
        return f"<[{token.id}]>" if token.control else f"(<[{token.id}]> | {self.text(text)})"

    def through(self, marker: str) -> str:
        """Any text, and the first marker in it."""
        token = self._token_of(marker)
        by_id = f"TEXT? <[{token.id}]>" if token else ""
        if token and token.control:
            return f"({by_id})"
        by_text = self.lazy(f"TEXT {self.text(marker)}")
        return f"({by_text} | {by_id})" if by_id else by_text

    def json(self, schema: dict[str, Any], function: Function) -> str:
        """The rule of a JSON value. A schema that is not strict and that llguidance cannot follow is one for any value."""
        written = f"%json {json.dumps({**schema, 'x-guidance': STYLE}, ensure_ascii=False)}"
        if not function.strict and not self._compiles(f"start: {written}\n"):
            written = f"%json {json.dumps({'x-guidance': STYLE})}"
        return self.rule(written)

    def arguments(self, function: Function) -> str:
        """The rule of a call's arguments, as one JSON object."""
        schema = closed(function.parameters)
        written = f"%json {json.dumps({**schema, 'x-guidance': STYLE}, ensure_ascii=False)}"
        if not function.strict and not self._compiles(f"start: {written}\n"):
            written = f"%json {json.dumps({'type': 'object', 'x-guidance': STYLE})}"
        return self.rule(written)

    def answer(self, want: Want, opening: str | None, call: str, *, between: str | None = None, free: str = "TEXT") -> str:
        """The whole answer: reasoning, then calls or content.

        `opening`: the marker that begins a call, or a list of calls; None where nothing does, and only the answer's first
        character tells: `free` is then the terminal of an answer that is no call. `call`: the rule of what follows the
        opening. `between`: what stands between one call and the next opening; None where `call` holds a list.
        """
        thinking = self.thinking(want)
        first = f"{self.marker(opening) if opening else ''} {call}"
        more = between is not None and want.parallel
        if want.forced:
            again = f"({self.text(between) if between else ''} {first})*" if more else ""
            return f"{thinking} {first} {again}"
        if want.content is not None:
            again = f"({self.text(between) if between else ''} {first})*" if more else ""
            return f"{thinking} ({first} {again} | {want.content})"
        if opening is None:
            return f"{thinking} ({call} | {self.rule_of_terminal(free)})?"
        begun = f"{self.through(opening)} {call}"
        return f"{thinking} ({begun})* TEXT" if more else f"{thinking} ({begun} | TEXT)"

    def thinking(self, want: Want) -> str:
        """Reasoning, and the line breaks behind it, as far as they are still to come."""
        if want.marks is None or want.phase is Phase.OVER:
            return ""
        rest = f"{self.through(want.marks.closing)} /\\n{{1,2}}/?"
        return rest if want.phase is Phase.BEGUN else f"({self.marker(want.marks.opening)} {rest})?"

    def rule_of_terminal(self, terminal: str) -> str:
        if terminal == "TEXT":
            return terminal
        name = f"FREE{len(self._known)}"
        self._known[f"terminal {name}"] = name
        self._rules.append(f"{name}: {terminal}")
        return name


def named(lark: Lark, functions: list[Function], *, key: str = "arguments") -> str:
    """A call as an object with a name and arguments."""
    calls = (lark.text(f'{{"name": "{one.name}", "{key}": ') + f" {lark.arguments(one)} " + lark.text("}") for one in functions)
    return lark.either(calls)
