"""Schemas, regular expressions, choices and Lark grammars as llguidance's source text. Knows no tokens, and compiles nothing.

What llguidance understands: https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md and syntax.md beside it.
"""

import json
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from src.errors import FIELD, FieldPath, InvalidSchema
from src.text.grammar.keywords import asking
from src.text.json_schema import parts

Form = Literal["json_schema", "regex", "choice", "lark"]

# Between two JSON tokens: nothing, a space, or a line break and the next line's indentation. Without a bound, small models
# write white space till the end.
WHITESPACE = r" ?|\n {0,24}|\n\t{0,6}"
# A string has one spelling only. If \u could stand for any character, an additional property could be named "\u0061" where
# "a" has a schema of its own.
ESCAPES = 'nrbtf\\"'


class Limits(msgspec.Struct, frozen=True):
    """What a grammar may cost."""

    bytes: int = 64 * 1024  # of a schema or grammar, as text
    depth: int = 32  # of its objects and lists in each other
    seconds: float = 5.0  # to compile it
    properties: int = 400  # of one object: where all may be left out, llguidance follows every one of them at each step


def source_of(form: Form, text: str, limits: Limits, param: str | FieldPath | None = None) -> str:
    """llguidance's source for a constraint. Raises InvalidSchema, at `param`."""
    size = len(text.encode(errors="replace"))
    if size > limits.bytes:
        raise InvalidSchema(f"{FIELD} has {size} bytes, but MAX_GRAMMAR_BYTES allows {limits.bytes}.", param)
    if form in ("regex", "lark") and "\0" in text:
        raise InvalidSchema(f"{FIELD} has a NUL character.", param)
    if form == "json_schema":
        return _of_schema(text, limits, param)
    if form == "regex":
        return _grammars({"lark_grammar": f"start: /{_in_slashes(text)}/"})
    if form == "choice":
        return "start: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in json.loads(text))
    if "::=" in text:
        raise InvalidSchema(f"{FIELD} looks like GBNF; write it in Lark: `start: ...` in place of `root ::= ...`.", param)
    return text


def _grammars(*grammars: dict[str, Any]) -> str:
    return json.dumps({"grammars": grammars}, ensure_ascii=False)


def _in_slashes(regex: str) -> str:
    """A regular expression as it stands between slashes: a slash in it has to be escaped, unless it is already, and a line
    break cannot stand there."""
    written, escaped = [], False
    for character in regex:
        if character == "\n":
            written.append("n" if escaped else "\\n")
        else:
            written.append("\\/" if character == "/" and not escaped else character)
        escaped = character == "\\" and not escaped
    return "".join(written)


def _of_schema(text: str, limits: Limits, param: str | FieldPath | None) -> str:
    if _depth(text) > limits.depth:  # before a parser recurses
        raise InvalidSchema(f"{FIELD} is nested deeper than the {limits.depth} levels that MAX_GRAMMAR_DEPTH allows.", param)
    schema = asking(json.loads(text))
    for keyword, reason in _unenforceable(schema, limits.properties):
        raise InvalidSchema(f'{FIELD}: the keyword "{keyword}" {reason}.', param)
    options = {
        "whitespace_pattern": WHITESPACE,
        "json_allowed_escapes": ESCAPES,
        "json_allow_general_unicode_escapes": False,
        "lenient": False,  # else it would ignore what it cannot enforce
        "coerce_one_of": False,
    }
    return _grammars({"json_schema": {**schema, "x-guidance": options}})


def _depth(text: str) -> int:
    """How deep JSON's brackets are nested."""
    depth = deepest = 0
    quoted = escaped = False
    for character in text:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _unenforceable(schema: Any, most: int) -> Iterator[tuple[str, str]]:
    """Keywords that llguidance takes, though not every answer it allows would hold them, each with the reason."""
    if not isinstance(schema, dict):
        return
    least, required = schema.get("minProperties"), schema.get("required")
    # Names of additional properties may be written twice; only the last of them counts.
    if isinstance(least, int) and least > 1 + (len(set(map(str, required))) if isinstance(required, list) else 0):
        yield "minProperties", "can be no more than one above the number of the required properties"
    properties = schema.get("properties")
    if isinstance(properties, dict) and len(properties) > most:
        yield "properties", f"has {len(properties)} properties, but MAX_GRAMMAR_PROPERTIES allows {most} of one object"
    for inner in parts(schema):
        yield from _unenforceable(inner, most)


def grammars_of(source: str) -> list[dict[str, Any]]:
    """A source as the list of grammars that llguidance's JSON holds."""
    if source.lstrip().startswith("{"):
        grammars: list[dict[str, Any]] = json.loads(source)["grammars"]
        return grammars
    return [{"lark_grammar": source}]
