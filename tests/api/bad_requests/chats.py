"""What only chats have: messages, tools, variables of the template; and grammars, which all that write text may have."""

from typing import Any

from tests.api.bad_requests.row import CHAT, COMPLETIONS, TEMPLATE, USER, Row, invalid, missing, unsupported

HELLO = {"messages": [USER]}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def said(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


MESSAGES = [
    missing(CHAT, {}, "messages"),
    *(invalid(CHAT, {"messages": value}, "messages") for value in ([], "hello", None, 5, {"role": "user"}, [USER] * 2049)),
    *(invalid(CHAT, said(value), "messages[0]") for value in ("x", None, 5, [])),
    missing(CHAT, said({"content": "x"}), "messages[0].role"),
    missing(CHAT, said({}), "messages[0].role"),
    *(
        invalid(CHAT, said({"role": role, "content": "x"}), "messages[0].role")
        for role in ("king", "User", "", None, 5, ["user"], "user\0")
    ),
    *(invalid(CHAT, said({"role": "user", "content": value}), "messages[0].content") for value in (5, True, {}, {"text": "x"})),
    *(invalid(CHAT, said({"role": "user", "content": [value]}), "messages[0].content[0]") for value in ("x", None, 5)),
    missing(CHAT, said({"role": "user", "content": [{"type": "text"}]}), "messages[0].content[0].text"),
    missing(CHAT, said({"role": "user", "content": [{"text": "x"}]}), "messages[0].content[0].type"),
    invalid(CHAT, said({"role": "user", "content": [{"type": "text", "text": 5}]}), "messages[0].content[0].text"),
    invalid(CHAT, said({"role": "user", "content": [{"type": "smell", "text": "x"}]}), "messages[0].content[0].type"),
    *(
        invalid(CHAT, said({"role": "user", "content": [part]}), "messages[0].content[0]", "unsupported_content")
        for part in (
            {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}},
            {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "video_url", "video_url": {"url": "gopher://127.0.0.1:1/"}},
            {"type": "file", "file": {"file_id": "x"}},
        )
    ),
    invalid(CHAT, said(USER, {"role": "user", "content": "x", "name": 5}), "messages[1].name"),
    invalid(CHAT, said({"role": "user", "content": "x", "tool_calls": [{"id": "c", "function": {"name": "f"}}]}), "messages[0]"),
    missing(CHAT, said({"role": "assistant", "tool_calls": [{"id": "c"}]}), "messages[0].tool_calls[0].function"),
    invalid(CHAT, said({"role": "assistant", "tool_calls": "f"}), "messages[0].tool_calls"),
    invalid(CHAT, {**said(USER), "continue_final_message": True}, "continue_final_message"),
    invalid(CHAT, {**HELLO, "reasoning_effort": "much"}, "reasoning_effort"),
    *(unsupported(CHAT, {**HELLO, name: value}, name) for name, value in (("functions", [{}]), ("audio", {}), ("prediction", {}))),
    *(unsupported(CHAT, {**HELLO, name: value}, name) for name, value in (("modalities", ["audio"]), ("chat_template", "{{ 1 }}"))),
]


def variables(value: Any) -> dict[str, Any]:
    return {**HELLO, "chat_template_kwargs": value}


RESERVED = (
    *("messages", "tools", "tokenize", "self", "chat_template", "add_generation_prompt", "range", "cycler", "lipsum", "namespace"),
    *("__class__", "a.b", "a b", "", "é", "raise_exception", "bos_token", "x" * 65, "environment", "loop", "kwargs", "padding"),
)
VARIABLES = [
    *(invalid(CHAT, variables({name: True}), "chat_template_kwargs") for name in RESERVED),
    *(invalid(TEMPLATE, variables({name: True}), "chat_template_kwargs") for name in ("tokenize", "messages")),
    *(invalid(CHAT, variables(value), "chat_template_kwargs") for value in ("x", 5, [], True)),
    *(
        invalid(CHAT, variables({"x": value}), "chat_template_kwargs")
        for value in ({"__class__": 1}, ["a" * 1025], [[2**63]], "x" * 1025, 2**63)
    ),
    invalid(CHAT, variables({f"x{index}": 1 for index in range(17)}), "chat_template_kwargs", told="MAX_TEMPLATE_VARIABLES allows 16"),
    invalid(CHAT, variables({"nobody_knows_this": 1}), "chat_template_kwargs.nobody_knows_this"),
]


def with_tool(**function: Any) -> dict[str, Any]:
    return {**HELLO, "tools": [{"type": "function", "function": {"name": "f", **function}}]}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


OF_TOOL = "tools[0].function"
TOOLS = [
    *(invalid(CHAT, {**HELLO, "tools": value}, "tools") for value in ("f", 5, {}, [FUNCTION] * 513, [FUNCTION, FUNCTION])),
    *(invalid(CHAT, {**HELLO, "tools": [value]}, "tools[0]") for value in ("f", None, 5)),
    missing(CHAT, {**HELLO, "tools": [{}]}, "tools[0].type"),
    missing(CHAT, {**HELLO, "tools": [{"type": "custom"}]}, "tools[0].custom"),
    missing(CHAT, {**HELLO, "tools": [{"type": "function"}]}, OF_TOOL),
    *(invalid(CHAT, with_tool(name=value), f"{OF_TOOL}.name") for value in ("", "a b", "a\nb", "x" * 129, "é", 5, "../f", "f\0")),
    *(invalid(CHAT, with_tool(description=value), f"{OF_TOOL}.description") for value in (5, "x" * (2**20 + 1))),
    *(invalid(CHAT, with_tool(parameters=value), f"{OF_TOOL}.parameters") for value in ("x", 5, [], {"type": "array"}, deep(17))),
    invalid(CHAT, with_tool(parameters={"description": "x" * 65_536}), f"{OF_TOOL}.parameters", told="MAX_GRAMMAR_BYTES"),
    invalid(CHAT, with_tool(strict=True, parameters={"properties": {"a": {"type": "banana"}}}), f"{OF_TOOL}.parameters", "invalid_schema"),
    invalid(CHAT, with_tool(strict=True, parameters={"properties": {"a": {"pattern": "("}}}), f"{OF_TOOL}.parameters", "invalid_schema"),
    *(invalid(CHAT, {**HELLO, "tools": [FUNCTION], "tool_choice": value}, "tool_choice") for value in ("some", 5, "function")),
    invalid(CHAT, {**HELLO, "tool_choice": "required"}, "tool_choice"),
    invalid(CHAT, {**HELLO, "tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
]


def schema(value: Any) -> dict[str, Any]:
    return {**HELLO, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


def no_schema(value: Any, told: str = "") -> Row:
    return invalid(CHAT, schema(value), "response_format", "invalid_schema", told)


def no_regex(value: str, told: str = "") -> Row:
    return invalid(COMPLETIONS, {"prompt": "x", "guided_regex": value, "max_tokens": 4}, "guided_regex", "invalid_schema", told)


def no_grammar(value: str, told: str = "") -> Row:
    return invalid(COMPLETIONS, {"prompt": "x", "guided_grammar": value, "max_tokens": 4}, "guided_grammar", "invalid_schema", told)


GRAMMARS = [
    no_schema(deep(20), "MAX_GRAMMAR_DEPTH"),
    no_schema({"description": "x" * 65_536}, "MAX_GRAMMAR_BYTES"),
    no_schema({"type": "object", "properties": {f"p{index}": {} for index in range(1000)}}, "MAX_GRAMMAR_PROPERTIES"),
    *(
        no_schema(value)
        for value in ({"type": "banana"}, {"$ref": "http://127.0.0.1:1/x"}, {"$ref": "#/$defs/none"}, {"$ref": "file:///etc/passwd"})
    ),
    *(no_schema({"type": "string", "pattern": value}) for value in ("(?<=x)*", "(", "[", "\\1(a)", "(?=a)b")),
    *(
        no_schema(value)
        for value in ({"not": {}}, {"contains": {}}, {"enum": []}, {"type": "integer", "minimum": 2, "maximum": 1}, {"anyOf": []})
    ),
    *(no_schema(value) for value in ({"minItems": -1}, {"properties": 5}, {"required": "a"}, {"items": 5})),
    no_schema({"$ref": "#"}),
    no_schema({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
    *(invalid(CHAT, schema(value), "response_format.json_schema.schema") for value in (5, "x", [])),
    *(invalid(CHAT, {**HELLO, "response_format": value}, "response_format") for value in (5, "json", [], {"type": "json_schema"})),
    invalid(CHAT, {**HELLO, "response_format": {"type": "xml"}}, "response_format.type"),
    missing(CHAT, {**HELLO, "response_format": {}}, "response_format.type"),
    *(no_regex(value) for value in ("(", "[", "a)", "*", "a{2,1}", "(?=a)b", "(?<=x)*", "\\1(a)", "(a+)+\\1", "[z-a]")),
    no_regex("a\0b", "NUL"),
    no_regex("(" * 30_000 + ")" * 30_000),
    no_regex("x" * 65_537, "MAX_GRAMMAR_BYTES"),
    *(invalid(COMPLETIONS, {"prompt": "x", "guided_regex": value}, "guided_regex") for value in ("", 5, [])),
    *(invalid(COMPLETIONS, {"prompt": "x", "guided_choice": value}, "guided_choice") for value in ([], "a", ["a"] * 1025)),
    invalid(COMPLETIONS, {"prompt": "x", "guided_choice": [""]}, "guided_choice[0]"),
    *(invalid(COMPLETIONS, {"prompt": "x", "guided_json": value}, "guided_json") for value in ("{", "[]", 5, "", "[" * 60_000)),
    *(no_grammar(value) for value in ("x", "start: unknown", "start: /(/", 'start: "a" start', "begin: x")),
    no_grammar('root ::= "a"', "GBNF"),
    no_grammar('start: "a\0"', "NUL"),
    no_grammar("start: " + "(" * 30_000 + '"a"' + ")" * 30_000),
    invalid(COMPLETIONS, {"prompt": "x", "guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
    invalid(COMPLETIONS, {"prompt": "x", "guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
    invalid(COMPLETIONS, {"prompt": "x", "guided_regex": "a", "min_tokens": 5}, "min_tokens"),
]

# None of these is wrong, so they are answered, or refused as too complex; but in no case in a time that they make up.
LAWFUL = [
    *(schema({"type": "string", "pattern": pattern}) for pattern in ("a{1,100000}", "(a+)+$", "(a|a)*b", "[\\x00-\\u2e7f]+", "(.*)*x")),
    *(
        schema(value)
        for value in ({"type": "array", "minItems": 10**9}, {"enum": list(range(10_000))}, {"type": "string", "minLength": 10**9})
    ),
    *({"guided_regex": regex} for regex in ("a{1,100000000}", "(((a{1,200}){1,200}){1,200}){1,200}", "(a+)+$", "(a*)*" * 20, "foo**")),
    *({"guided_grammar": grammar} for grammar in ("start: ", "start: a\na: b\nb: a", 'start: start "a" | "b"', 'start: "a"{1,100000}')),
    {"guided_choice": [str(number) for number in range(1024)]},
]

ROWS = [*MESSAGES, *VARIABLES, *TOOLS, *GRAMMARS]
