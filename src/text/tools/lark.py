"""Writes grammars of answers in llguidance's Lark (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md).

Knows no tool format and no tokenizer: its maker gives it the token ids of markers.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from src.errors import FieldPath, InvalidSchema
from src.text.grammar import EXPRESSIONS, UNSUPPORTED, Budget, GrammarCompiler, grammars_of, loosened, source_of
from src.text.output.thinking import Marks, Phase
from src.text.tools.call import Function
from src.text.tools.schema import moved

# As Python's json.dumps writes, which models were trained on; and no room for endless whitespace.
STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
GAP = r"/[ \n]{1,4}/?"  # what may stand before an answer
ANY_OBJECT: dict[str, Any] = {"type": "object"}


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
    content: bool = False  # an answer that is no call is held to a grammar of its own
    marks: Marks | None = None
    phase: Phase = Phase.OVER


class Lark:
    def __init__(
        self,
        token_of: Callable[[str], Token | None],
        grammars: GrammarCompiler,
        content: str | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`content`: the source of a grammar that an answer without calls is held to. `budget`: for all schemas together."""
        self._token_of = token_of
        self._grammars = grammars
        self._content = content
        self._budget = budget
        self._rules: list[str] = []
        self._known: dict[str, str] = {}

    @property
    def content(self) -> str:
        """The rule of an answer without calls."""
        return "TEXT" if self._content is None else "@content"

    def source(self, start: str) -> str:
        source = "\n".join(["%llguidance {}", f"start: {start}", *self._rules, r"TEXT: /(.|\n)*/", ""])
        if self._content is None:
            return source
        first, *others = grammars_of(self._content)
        return json.dumps({"grammars": [{"lark_grammar": source}, {**first, "name": "content"}, *others]}, ensure_ascii=False)

    def rule(self, body: str) -> str:
        """A rule's name; one name for one body."""
        if body not in self._known:
            self._known[body] = f"r{len(self._known)}"
            self._rules.append(f"{self._known[body]}: {body}")
        return self._known[body]

    def lazy(self, terminal: str) -> str:
        """A rule that ends as soon as the terminal fits; one for one terminal."""
        return self._named(f"r{len(self._known)}", "[lazy]", terminal)

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
        """The rule of one argument. `schema`: that of one of the function's properties."""
        return self._schema(function.document.extracted(schema), {}, function)

    def calls_schema(self, functions: list[Function], *, key: str = "arguments") -> dict[str, Any]:
        """The schema of a call as an object with a name and arguments."""
        calls, definitions = [], {}
        for place, function in enumerate(functions):
            parameters = json.loads(self.rule_body(self.arguments(function)).removeprefix("%json "))
            options = parameters.pop("x-guidance")
            definitions[f"function{place}"] = moved(parameters, f"#/$defs/function{place}")
            properties = {"name": {"const": function.name}, key: {"$ref": f"#/$defs/function{place}"}}
            calls.append({"type": "object", "properties": properties, "required": ["name", key], "additionalProperties": False})
        return {"anyOf": calls, "$defs": definitions, "x-guidance": options}

    def rule_body(self, name: str) -> str:
        return next(body for body, known in self._known.items() if known == name)

    def arguments(self, function: Function) -> str:
        """The rule of a call's arguments, as one JSON object."""
        return self._schema(function.document.extracted(function.document.root), ANY_OBJECT, function)

    def _schema(self, schema: dict[str, Any], otherwise: dict[str, Any], function: Function) -> str:
        """A schema that cannot be enforced is refused where it is strict. Else it is so without what is not supported of it, or,
        where that is not enough, `otherwise`."""
        forms = [schema]
        for keywords in () if function.strict else (UNSUPPORTED, UNSUPPORTED | EXPRESSIONS):
            if (weaker := loosened(schema, keywords)) != forms[-1]:
                forms.append(weaker)
        for one in forms:
            try:
                checked = self._checked(one, function.param)
                self._grammars.try_part(json.dumps({"grammars": [{"json_schema": checked}]}), function.param, self._budget)
                break
            except InvalidSchema:
                if function.strict:
                    raise
        else:
            checked = self._checked(otherwise, function.param)
        return self.rule(_in_style(checked))

    def _checked(self, schema: dict[str, Any], param: str | FieldPath) -> dict[str, Any]:
        source = source_of("json_schema", json.dumps(schema, ensure_ascii=False), self._grammars.limits, param)
        checked: dict[str, Any] = grammars_of(source)[0]["json_schema"]
        return checked

    def answer(
        self,
        want: Want,
        opening: str | None,
        call: str,
        *,
        between: str | None = None,
        free: str = "TEXT",
        whole: Callable[[], dict[str, Any]] | None = None,
    ) -> str:
        """The whole answer: reasoning, then calls or content.

        `opening`: the marker that begins a call, or a list of calls; None where nothing does, and only the answer's first
        character tells: `free` is then the terminal of an answer that is no call, and begins with no whitespace. `call`: the
        rule of what follows the opening. `between`: what stands between one call and the next opening; None where `call`
        holds a list. `whole`: where calls are JSON from the first character to the last, the schema of all that; beside
        content that is JSON too they are read by one lexer.
        """
        thinking = self.thinking(want)
        first = f"{self.marker(opening) if opening else ''} {call}"
        more = between is not None and want.parallel
        if want.forced:
            again = f"({self.text(between) if between else ''} {first})*" if more else ""
            return f"{thinking} {first} {again}"
        if want.content:
            again = f"({self.text(between) if between else ''} {first})*" if more else ""
            if whole and (content := self._json_content()):
                return f"{thinking} ({self.rule(_in_style(whole()))} | {content})"
            return f"{thinking} ({first} {again} | {self.content})"
        if opening is None:
            if want.marks and want.phase is Phase.POSSIBLE:  # the longest terminal wins: this one must not take the reasoning
                free += f" & ~/{re.escape(want.marks.opening)}(?s:.*)/"
            return f"{thinking or GAP} ({call} | {self.terminal(free)})?"
        begun = f"{self.through(opening)} {call}"
        return f"{thinking} ({begun})* TEXT" if want.parallel else f"{thinking} ({begun} | TEXT)"

    def thinking(self, want: Want) -> str:
        """Reasoning, and the whitespace behind it, as far as they are still to come."""
        if want.marks is None or want.phase is Phase.OVER:
            return ""
        rest = self.through(want.marks.closing)
        return f"{rest if want.phase is Phase.BEGUN else f'({self.marker(want.marks.opening)} {rest})?'} {GAP}"

    def _json_content(self) -> str | None:
        """The rule of content that is JSON, in the style of calls; None where it is something else."""
        assert self._content
        schema = grammars_of(self._content)[0].get("json_schema")
        return self.rule(_in_style(schema)) if schema else None

    def terminal(self, terminal: str) -> str:
        """The name of a terminal: of expressions joined by & and ~, which stand nowhere else."""
        return self._named(f"FREE{len(self._known)}", "", terminal)

    def _named(self, name: str, kind: str, body: str) -> str:
        known = self._known.setdefault(f"{name[0]}{kind}: {body}", name)
        if known == name:
            self._rules.append(f"{name}{kind}: {body}")
        return known


def _in_style(schema: dict[str, Any]) -> str:
    options = {key: value for key, value in schema.get("x-guidance", {}).items() if key != "whitespace_pattern"}
    return f"%json {json.dumps({**schema, 'x-guidance': options | STYLE}, ensure_ascii=False)}"


def named(lark: Lark, functions: list[Function], *, key: str = "arguments") -> str:
    """A call as an object with a name and arguments."""
    calls = (lark.text(f'{{"name": "{one.name}", "{key}": ') + f" {lark.arguments(one)} " + lark.text("}") for one in functions)
    return lark.either(calls)
