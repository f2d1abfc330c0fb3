"""Fields with values that they cannot have, on every route that takes some."""

from typing import Any

from tests.api.bad_requests.row import (
    CANARY,
    CHAT,
    COMPLETIONS,
    DETOKENIZE,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    TEMPLATE,
    TOKENIZE,
    USER,
    Row,
    invalid,
    missing,
    unsupported,
)

PROMPT, HELLO, ASKED = {"prompt": "x"}, {"messages": [USER]}, {"input": "x"}
ANTHROPIC = {"messages": [USER], "max_tokens": 1}
BANANA = {"type": "object", "properties": {"a": {"type": "banana"}}}  # a schema that no answer can be held to
OF_GENERATION: dict[str, tuple[Any, ...]] = {
    "temperature": (-0.1, "1", True, [], {}, -1e-320),
    "top_p": (-0.1, 1.1, "1", False, []),
    "min_p": (-0.1, 1.1, "0", True),
    "presence_penalty": (-2.1, 2.1, "0", False),
    "frequency_penalty": (-2.1, 2.1, True, {}),
    "repetition_penalty": (0, -1, 2.1, True, "1", 1e-320, 0.009),
    "n": (0, -1, 1.5, "2", True, 129, 2**31, 2**53, -(2**31), []),
    "seed": ("1", True, 1.5, []),
    "top_k": ("40", True, []),
    "max_tokens": ("16", True, [], -(2**31)),
    "min_tokens": (-1, "1", 0.5, 2**31),
    "stop": (5, True, "x" * 257, ["x"] * 17),
    "stop_token_ids": ("x", 5, list(range(65))),
    "logit_bias": ([], 5, "x", {str(token): 1 for token in range(301)}),
    "stream": ("true", 1, [], "yes"),
    "stream_options": (True, "usage", []),
    "ignore_eos": (1, "true"),
    "timeout": (0, -1, True, "1", 10**9),
    "model": (5, True, [], {}, ""),
}
GENERATION = [
    invalid(path, {**body, name: value}, name)
    for path, body in ((COMPLETIONS, PROMPT), (CHAT, HELLO))
    for name, values in OF_GENERATION.items()
    for value in values
]

LISTS = [
    invalid(COMPLETIONS, {**PROMPT, "stop": ["a", None]}, "stop[1]"),
    invalid(COMPLETIONS, {**PROMPT, "stop_token_ids": [-1]}, "stop_token_ids[0]"),
    invalid(COMPLETIONS, {**PROMPT, "stop_token_ids": [2**31]}, "stop_token_ids[0]"),
    invalid(COMPLETIONS, {**PROMPT, "stop_token_ids": [1000]}, "stop_token_ids", told="vocabulary"),
    invalid(COMPLETIONS, {**PROMPT, "logit_bias": {"1000": 1}}, "logit_bias", told="vocabulary"),
    invalid(COMPLETIONS, {**PROMPT, "logit_bias": {"a": 1}}, "logit_bias.a"),
    *(invalid(COMPLETIONS, {**PROMPT, "logit_bias": {key: 1}}, "logit_bias") for key in ("-1", "1.5", "", "1e3", "٣", "a" * 1_000_000)),
    *(invalid(COMPLETIONS, {**PROMPT, "logit_bias": {"1": value}}, "logit_bias") for value in (101, -101, "1", None, [])),
    invalid(COMPLETIONS, {**PROMPT, "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    invalid(COMPLETIONS, {**PROMPT, "max_tokens": 1, "n": 5, "logprobs": -1}, "logprobs"),
    *(invalid(COMPLETIONS, {**PROMPT, "logprobs": value}, "logprobs") for value in (6, -1, 16_384, True, "1")),
    invalid(COMPLETIONS, {**PROMPT, "echo": True, "logprobs": 1}, "echo"),
    *(invalid(CHAT, {**HELLO, "logprobs": True, "top_logprobs": value}, "top_logprobs") for value in (21, -1, 16_384, "1", True)),
    invalid(CHAT, {**HELLO, "top_logprobs": 2}, "top_logprobs"),
    invalid(CHAT, {**HELLO, "logprobs": 1}, "logprobs"),
]

PROMPTS = [
    missing(COMPLETIONS, {}, "prompt"),
    *(invalid(COMPLETIONS, {"prompt": value}, "prompt") for value in (None, 5, True, {}, {"text": "x"}, [], ["a"] * 65, [[1]] * 65)),
    *(invalid(COMPLETIONS, {"prompt": value}, "prompt[0]") for value in ([-1], [1.5], [None], [True], [2**31], [2**64], [[]], [{}])),
    *(invalid(COMPLETIONS, {"prompt": value}, "prompt[1]") for value in ([1, "a"], ["a", 1], [[1], []], [[1], "a"])),
    *(invalid(COMPLETIONS, {"prompt": value}, "prompt[0][0]") for value in ([["a"]], [[-1]], [[None]])),
    invalid(COMPLETIONS, {"prompt": [1000]}, "prompt", told="vocabulary"),
    invalid(COMPLETIONS, {"prompt": [[1], [1000]]}, "prompt", told="vocabulary"),
    invalid(COMPLETIONS, {"prompt": "x" * 1024}, "prompt", "context_length_exceeded", told="1024 tokens"),
    *(unsupported(COMPLETIONS, {**PROMPT, name: value}, name) for name, value in (("best_of", 2), ("prompt_logprobs", 1), ("tools", [1]))),
    *(unsupported(COMPLETIONS, {**PROMPT, name: value}, name) for name, value in (("chat_template", "{{ x }}"), ("prompt_embeds", "AAAA"))),
    *(unsupported(COMPLETIONS, {**PROMPT, name: value}, name) for name, value in (("grammar", "root ::= x"), ("json_schema", {}))),
    unsupported(COMPLETIONS, {**PROMPT, "suffix": "y"}, "suffix"),
]

EMBEDDED = [
    missing(EMBEDDINGS, {}, "input"),
    *(invalid(EMBEDDINGS, {"input": value}, "input") for value in (None, 5, {}, {"content": "x"}, "", [], ["a"] * 2049)),
    *(invalid(EMBEDDINGS, {"input": value}, "input[0]") for value in ([-1], [""], [[]], [None])),
    *(invalid(EMBEDDINGS, {**ASKED, "dimensions": value}, "dimensions") for value in (0, -1, 1.5, "8", 10**9, True)),
    *(invalid(EMBEDDINGS, {**ASKED, "encoding_format": value}, "encoding_format") for value in ("xml", 5, "Float")),
    invalid(EMBEDDINGS, {"input": "x" * 2000}, "input", "context_length_exceeded"),
    invalid(EMBEDDINGS, {"input": [1000]}, "input", told="vocabulary"),
]

TOKENS = [
    missing(TOKENIZE, {}, "prompt"),
    *(invalid(TOKENIZE, {"prompt": value}, "prompt") for value in (5, None, [1], {})),
    invalid(TOKENIZE, {"messages": []}, "messages"),
    invalid(TOKENIZE, {**PROMPT, "add_special_tokens": 1}, "add_special_tokens"),
    missing(DETOKENIZE, {}, "tokens"),
    *(invalid(DETOKENIZE, {"tokens": value}, "tokens") for value in ("x", None, 5, {}, [1000])),
    *(invalid(DETOKENIZE, {"tokens": value}, "tokens[0]") for value in ([-1], ["a"], [2**40], [1.5], [None])),
    missing(TEMPLATE, {}, "messages"),
]

RESPONSE = [
    missing(RESPONSES, {}, "input"),
    *(invalid(RESPONSES, {"input": value}, "input") for value in (5, None, {})),
    invalid(RESPONSES, {"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
    missing(RESPONSES, {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
    invalid(RESPONSES, {"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id", told="store: false"),
    missing(RESPONSES, {"input": [{"type": "item_reference"}]}, "input[0].id"),
    invalid(RESPONSES, {"input": [{"type": "computer_call"}]}, "input"),  # which is left out
    invalid(RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]", "unsupported_content"),
    *(invalid(RESPONSES, {**ASKED, "max_output_tokens": value}, "max_output_tokens") for value in (0, -2, "5", 2**31)),
    invalid(RESPONSES, {**ASKED, "top_logprobs": 21}, "top_logprobs"),
    invalid(RESPONSES, {**ASKED, "temperature": -3}, "temperature"),
    invalid(RESPONSES, {**ASKED, "metadata": {"a": 1}}, "metadata.a"),
    invalid(RESPONSES, {**ASKED, "metadata": {"a" * 1_000_000: 1}}, "metadata"),
    invalid(RESPONSES, {**ASKED, "truncation": "some"}, "truncation"),
    unsupported(RESPONSES, {**ASKED, "background": True}, "background"),
    invalid(RESPONSES, {**ASKED, "previous_response_id": "resp_1"}, "previous_response_id", told="store: false"),
    invalid(RESPONSES, {**ASKED, "tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
    invalid(RESPONSES, {**ASKED, "tools": [{"type": "function", "name": "f g"}]}, "tools[0].name"),
    invalid(
        RESPONSES,
        {**ASKED, "tools": [{"type": "function", "name": "f", "strict": True, "parameters": BANANA}]},
        "tools[0].parameters",
        "invalid_schema",
        told="tools[0].parameters: ",
    ),
]


def anthropic(body: dict[str, Any], told: str, status: int = 400, kind: str = "invalid_request_error") -> Row:
    """Its errors have a type and no code; the message names the field."""
    return invalid(MESSAGES, body, None, kind, told, status)


OF_ANTHROPIC = [
    anthropic({}, "messages is required"),
    anthropic({"messages": [USER]}, "max_tokens is required"),
    *(anthropic({**ANTHROPIC, "max_tokens": value}, "max_tokens") for value in (0, -1, "1", 1.5, None)),
    anthropic({**ANTHROPIC, "messages": []}, "messages"),
    anthropic({**ANTHROPIC, "messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    anthropic({**ANTHROPIC, "messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0]"),
    anthropic({**ANTHROPIC, "temperature": -1}, "temperature"),
    anthropic({**ANTHROPIC, "stop_sequences": ["x"] * 17}, "stop_sequences"),
    anthropic({**ANTHROPIC, "system": 5}, "system"),
    anthropic({**ANTHROPIC, "tools": [{"name": "f", "strict": True, "input_schema": BANANA}]}, "tools[0].input_schema: "),
    anthropic({**ANTHROPIC, "tool_choice": {"type": "tool"}}, "tool_choice"),
    anthropic({**ANTHROPIC, "model": f"../{CANARY[:6]}"}, "does not exist", 404, "not_found_error"),
]

ROWS = [*GENERATION, *LISTS, *PROMPTS, *EMBEDDED, *TOKENS, *RESPONSE, *OF_ANTHROPIC]
