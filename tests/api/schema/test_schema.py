"""OpenAI's JSON: what is right becomes a request for a runner, what is wrong an error that names the field and echoes nothing."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.api.schema import parse
from src.api.schema.chat import ChatRequest
from src.api.schema.completion import Completion, CompletionRequest
from src.api.schema.conversation import Chat
from src.api.schema.generation import GenerationRequest
from src.api.schema.models import LoadRequest
from src.api.schema.text_request import TextRequest
from src.api.schema.unsupported import UNSUPPORTED
from src.errors import InvalidValue, MissingField, ServiceError, UnsupportedField
from src.protocol import ChatPrompt, TextPrompt, TokenPrompt
from src.sampling import SamplingParams

CANARY = "canary-7f3a"
KINDS = {ChatRequest: {"messages": [{"role": "user", "content": "hi"}]}, CompletionRequest: {"prompt": "hi"}}


def chat(**fields: object) -> Chat:
    return parse(ChatRequest, {**KINDS[ChatRequest], **fields}).chat()


def completion(**fields: object) -> Completion:
    return parse(CompletionRequest, {**KINDS[CompletionRequest], **fields}).completion()


def asked(kind: type, body: dict) -> TextRequest:
    parsed = parse(kind, body)
    return parsed.chat() if kind is ChatRequest else parsed.completion()


def message(role: object = "user", content: object = "hi", **fields: object) -> dict:
    return {"messages": [{"role": role, "content": content, **fields}]}


def refused(kind: type, fields: dict) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        parse(kind, {**KINDS.get(kind, {}), **fields})
    error = caught.value
    assert error.status == 400
    assert error.param
    assert error.param in error.message
    assert CANARY not in str(error.body())
    return error


def ranges(name: str, least: float, most: float, *, beyond: float = 1) -> list[tuple[str, object, str]]:
    return [(name, least - beyond, "at least"), (name, most + beyond, "at most")]


INT64 = 2**63
NUMBERS = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
INTEGERS = ("max_tokens", "top_k", "seed", "n", "min_tokens")
BAD_FIELDS = [
    ("temperature", -0.001, "at least 0"),
    *ranges("top_p", 0, 1, beyond=0.001),
    *ranges("min_p", 0, 1, beyond=0.001),
    *ranges("presence_penalty", -2, 2, beyond=0.001),
    *ranges("frequency_penalty", -2, 2, beyond=0.001),
    ("repetition_penalty", 0, "at least 0.01"),
    ("repetition_penalty", 1e-38, "at least 0.01"),
    ("repetition_penalty", 2.001, "at most"),
    *ranges("top_k", -1, 2**31 - 1),
    *ranges("max_tokens", 1, 2**31 - 1),
    *ranges("seed", -INT64, INT64 - 1),
    *((name, value, "a number") for name in NUMBERS for value in ("1", CANARY, [], {}, [1])),
    *((name, value, "a number") for name in NUMBERS for value in (True, False)),
    *((name, value, "an integer") for name in INTEGERS for value in (True, False, "1", CANARY, 1.5, -1e999, [], {})),
    *((name, 2**64, "MAX_N allows 128" if name == "n" else "at most") for name in INTEGERS),
    ("seed", -(2**64), "at least"),
    ("seed", 10**4000, "at most"),
    ("temperature", 10**400, "a number"),
    ("n", 0, "at least"),
    ("n", 129, "MAX_N allows 128"),
    ("n", 10**400, "MAX_N allows 128"),
    *ranges("min_tokens", 0, 2**31 - 1),
    ("logit_bias", [CANARY], "an object"),
    ("logit_bias", {str(token): 1 for token in range(301)}, "MAX_LOGIT_BIAS allows 300"),
    ("stop_token_ids", CANARY, "an array"),
    ("stop_token_ids", list(range(65)), "MAX_STOP_TOKEN_IDS allows 64"),
    ("include_stop_str_in_output", 1, "true or false"),
    ("timings", "yes", "true or false"),
    ("model", 5, "a string"),
    ("model", True, "a string"),
    ("model", [CANARY], "a string"),
    ("model", "", "must not be empty"),
    ("stream", 1, "true or false"),
    ("stream", "true", "true or false"),
    ("stream", CANARY, "true or false"),
    ("ignore_eos", 0, "true or false"),
    ("stream_options", True, "an object"),
    ("stream_options", CANARY, "an object"),
    ("stop", 5, "a string"),
    ("stop", True, "a string"),
    ("stop", {CANARY: CANARY}, "a string"),
    ("stop", "x" * 257, "MAX_STOP_LENGTH allows 256 characters"),
    ("stop", ["x"] * 17, "MAX_STOP allows 16"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "value", "told"), BAD_FIELDS, ids=lambda value: str(value)[:20])
def test_a_wrong_value_is_refused_by_name(kind, name, value, told):
    error = refused(kind, {name: value})
    assert type(error) is InvalidValue
    assert error.param == name
    assert told in error.message


BAD_PARTS = [
    ({"stop": ["a", 5]}, InvalidValue, "stop[1]", "a string"),
    ({"stop": ["a", None]}, InvalidValue, "stop[1]", "a string"),
    ({"stop": ["x" * 257]}, InvalidValue, "stop[0]", "MAX_STOP_LENGTH allows 256 characters"),
    ({"stop": [[CANARY]]}, InvalidValue, "stop[0]", "a string"),
    ({"logit_bias": {"7": 101}}, InvalidValue, "logit_bias", "at most"),
    ({"logit_bias": {"7": -101}}, InvalidValue, "logit_bias", "at least"),
    ({"logit_bias": {"7": "1"}}, InvalidValue, "logit_bias", "a number"),
    ({"logit_bias": {"-1": 1}}, InvalidValue, "logit_bias", "must match"),
    ({"stop_token_ids": [-1]}, InvalidValue, "stop_token_ids[0]", "at least"),
    ({"stop_token_ids": [2**31]}, InvalidValue, "stop_token_ids[0]", "at most"),
    ({"stream_options": {"include_usage": 1}}, InvalidValue, "stream_options.include_usage", "true or false"),
    ({"stream_options": {"include_usage": CANARY}}, InvalidValue, "stream_options.include_usage", "true or false"),
]
BAD_CHATS = [
    *BAD_PARTS,
    ({"max_completion_tokens": 0}, InvalidValue, "max_completion_tokens", "at least 1"),
    ({"max_completion_tokens": 2**31}, InvalidValue, "max_completion_tokens", "at most"),
    ({"max_completion_tokens": True}, InvalidValue, "max_completion_tokens", "an integer"),
    ({"logprobs": 5}, InvalidValue, "logprobs", "true or false"),
    ({"top_logprobs": 5}, InvalidValue, "top_logprobs", "requires logprobs to be true"),
    ({"logprobs": True, "top_logprobs": 21}, InvalidValue, "top_logprobs", "MAX_LOGPROBS allows 20"),
    ({"logprobs": True, "top_logprobs": -1}, InvalidValue, "top_logprobs", "at least 0"),
    ({"messages": []}, InvalidValue, "messages", "must not be empty"),
    ({"messages": None}, InvalidValue, "messages", "an array"),
    ({"messages": CANARY}, InvalidValue, "messages", "an array"),
    ({"messages": {"role": "user"}}, InvalidValue, "messages", "an array"),
    ({"messages": KINDS[ChatRequest]["messages"] * 2049}, InvalidValue, "messages", "MAX_MESSAGES allows 2048"),
    ({"messages": [CANARY]}, InvalidValue, "messages[0]", "an object"),
    ({"messages": [None]}, InvalidValue, "messages[0]", "an object"),
    ({"messages": [{}]}, MissingField, "messages[0].role", "required"),
    ({"messages": [{"content": CANARY}]}, MissingField, "messages[0].role", "required"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "robot"}]}, InvalidValue, "messages[1].role", "'assistant'"),
    (message(role=CANARY), InvalidValue, "messages[0].role", "'assistant'"),
    (message(role=5), InvalidValue, "messages[0].role", "'assistant'"),
    (message(role=None), InvalidValue, "messages[0].role", "'assistant'"),
    (message(content=5), InvalidValue, "messages[0].content", "a string"),
    (message(content=True), InvalidValue, "messages[0].content", "a string"),
    (message(content={"text": CANARY}), InvalidValue, "messages[0].content", "a string"),
    (message(content=[CANARY]), InvalidValue, "messages[0].content[0]", "an object"),
    (message(content=[{"text": CANARY}]), MissingField, "messages[0].content[0].type", "required"),
    (message(content=[{"type": "text"}]), MissingField, "messages[0].content[0].text", "required"),
    (message(content=[{"type": "text", "text": 5}]), InvalidValue, "messages[0].content[0].text", "a string"),
    (
        message(content=[{"type": "text", "text": "a"}, {"type": "table", "table": CANARY}]),
        InvalidValue,
        "messages[0].content[1].type",
        "'text'",
    ),
    (message(content=[{"type": "formula", "formula": {"data": CANARY}}]), InvalidValue, "messages[0].content[0].type", "'text'"),
    (message(name=5), InvalidValue, "messages[0].name", "a string"),
    (message(role="tool", tool_call_id=5), InvalidValue, "messages[0].tool_call_id", "a string"),
    (message(role="assistant", tool_calls=[{"id": CANARY}]), MissingField, "messages[0].tool_calls[0].function", "required"),
    (message(role="assistant", tool_calls=CANARY), InvalidValue, "messages[0].tool_calls", "an array"),
]
BAD_COMPLETIONS = [
    *BAD_PARTS,
    ({"prompt": None}, InvalidValue, "prompt", "a string"),
    ({"prompt": 5}, InvalidValue, "prompt", "a string"),
    ({"prompt": {CANARY: 1}}, InvalidValue, "prompt", "a string"),
    ({"prompt": []}, InvalidValue, "prompt", "must not be empty"),
    ({"prompt": ["a", 1]}, InvalidValue, "prompt[1]", "a string"),
    ({"prompt": [[1, 2], "a"]}, InvalidValue, "prompt[1]", "an array"),
    ({"prompt": [[1, 2], []]}, InvalidValue, "prompt[1]", "must not be empty"),
    ({"prompt": [[1, CANARY]]}, InvalidValue, "prompt[0][1]", "an integer"),
    ({"prompt": [1, CANARY]}, InvalidValue, "prompt[1]", "an integer"),
    ({"prompt": ["a"] * 65}, InvalidValue, "prompt", "MAX_PROMPTS allows 64"),
    ({"logprobs": True}, InvalidValue, "logprobs", "an integer"),
    ({"logprobs": 6}, InvalidValue, "logprobs", "at most 5"),
    ({"logprobs": 0, "echo": True}, InvalidValue, "echo", "cannot be combined with logprobs"),
    ({"echo": 1}, InvalidValue, "echo", "true or false"),
    ({"prompt": [1, True]}, InvalidValue, "prompt[1]", "an integer"),
    ({"prompt": [1, 2.5]}, InvalidValue, "prompt[1]", "an integer"),
    ({"prompt": [-1]}, InvalidValue, "prompt[0]", "at least 0"),
    ({"prompt": [2**31]}, InvalidValue, "prompt[0]", "at most"),
    ({"prompt": [2**64]}, InvalidValue, "prompt[0]", "at most"),
]
BAD_LOADS = [
    ({}, MissingField, "model_name", "required"),
    ({"model": CANARY}, MissingField, "model_name", "required"),
    ({"model_name": None}, InvalidValue, "model_name", "a string"),
    ({"model_name": ""}, InvalidValue, "model_name", "must not be empty"),
    ({"model_name": [CANARY]}, InvalidValue, "model_name", "a string"),
]
TABLES = [(ChatRequest, BAD_CHATS), (CompletionRequest, BAD_COMPLETIONS), (LoadRequest, BAD_LOADS)]


@pytest.mark.parametrize(
    ("kind", "fields", "failure", "param", "told"),
    [(kind, *row) for kind, table in TABLES for row in table],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_a_wrong_part_is_refused_by_its_place(kind, fields, failure, param, told):
    error = refused(kind, fields)
    assert type(error) is failure
    assert error.param == param
    assert told in error.message


@pytest.mark.parametrize(("kind", "field"), [(ChatRequest, "messages"), (CompletionRequest, "prompt")])
def test_a_missing_field_is_told_by_name(kind, field):
    with pytest.raises(MissingField) as caught:
        parse(kind, {"model": "m"})
    assert caught.value.param == field
    assert caught.value.code == "missing_required_parameter"


# One value or more that would change the answer, for every field that is known and not supported.
ASKING = {
    "best_of": [2, True],
    "prompt_logprobs": [0, 1],
    "tools": [[{"type": "function", "function": {"name": CANARY}}]],
    "tool_choice": ["required", {"type": "function", "function": {"name": CANARY}}],
    "functions": [[{"name": CANARY}]],
    "function_call": [{"name": CANARY}],
    "modalities": [["text", "audio"], ["audio"]],
    "audio": [{"voice": CANARY, "format": "wav"}],
    "prediction": [{"type": "content", "content": CANARY}],
    "web_search_options": [{}],
    "reasoning_effort": ["low"],
    "suffix": [CANARY],
    "bad_words": [[CANARY]],
    "guided_whitespace_pattern": ["[ ]?"],
    "guided_decoding_backend": ["outlines"],
    "grammar": ["root ::= 'a'"],
    "json_schema": [{"type": "object"}],
    "chat_template": [CANARY],
    "chat_template_kwargs": [{"enable_thinking": False}],
    "continue_final_message": [True],
    "add_generation_prompt": [False],
    "prompt_embeds": [CANARY],
    "typical_p": [0.5, True],
    "mirostat": [1, 2],
    "dry_multiplier": [0.8],
    "xtc_probability": [0.5],
}


def test_every_unsupported_field_is_tried():
    assert set(ASKING) == set(UNSUPPORTED)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(kind, name, value) for kind in KINDS for name, values in ASKING.items() for value in values if name not in kind.model_fields],
)
def test_a_field_that_cannot_be_honoured_is_refused_by_name(kind, name, value):
    error = refused(kind, {name: value})
    assert type(error) is UnsupportedField
    assert error.param == name
    assert error.code == "unsupported_parameter"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in UNSUPPORTED.items() for value in values])
def test_a_value_that_asks_for_nothing_is_accepted(kind, name, value):
    parse(kind, {**KINDS[kind], name: value})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GenerationRequest.model_fields)
def test_null_counts_as_absent(kind, name):
    with_null = parse(kind, {"seed": 1, **KINDS[kind], name: None})
    without = parse(kind, {key: value for key, value in {"seed": 1, **KINDS[kind]}.items() if key != name})
    assert with_null == without


@pytest.mark.parametrize("kind", [*KINDS, LoadRequest])
def test_unknown_fields_change_nothing(kind):
    body = KINDS.get(kind, {"model_name": "m"})
    plain = parse(kind, body)
    odd = parse(kind, {**body, "user": 5, "metadata": {"a": "b"}, "x": [CANARY], "__class__": 1, "": 0, "generate": 1})
    assert type(odd) is kind
    assert [getattr(odd, name) for name in kind.model_fields] == [getattr(plain, name) for name in kind.model_fields]
    if kind in KINDS:
        assert asked(kind, body).generate().prompts == asked(kind, {**body, "x": [CANARY]}).generate().prompts


def test_the_defaults_are_openais():
    request = chat()
    assert (request.model, request.include_usage, request.stream) == (None, False, False)
    generate = request.generate()
    assert (generate.max_tokens, generate.stop) == (None, [])
    assert generate.sampling == SamplingParams(seed=generate.sampling.seed)


def test_a_request_without_a_seed_gets_a_random_one():
    seeds = {chat().generate().sampling.seed for _ in range(50)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_what_bends_the_draw_arrives_as_given():
    given = chat(logit_bias={"5": -100, "07": 1.5}, stop_token_ids=[9], min_tokens=3, logprobs=True, n=2, include_stop_str_in_output=True)
    generate = given.generate()
    sampling = generate.sampling
    assert (sampling.logit_bias, sampling.stop_tokens, sampling.min_tokens, sampling.logprobs) == ({5: -100, 7: 1.5}, [9], 3, 0)
    assert (generate.n, generate.include_stop) == (2, True)


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        *(({}, None), ({"logprobs": False}, None), ({"logprobs": False, "top_logprobs": 0}, None), ({"top_logprobs": 0}, None)),
        *(({"logprobs": True}, 0), ({"logprobs": True, "top_logprobs": 20}, 20)),
    ],
)
def test_logprobs_of_a_chat_have_to_be_asked_for(fields, count):
    assert chat(**fields).generate().sampling.logprobs == count


@pytest.mark.parametrize("count", [None, 0, 5])
def test_logprobs_of_a_completion_are_a_number(count):
    assert completion(logprobs=count).generate().sampling.logprobs == count


def test_a_peers_spelling_counts_too():
    assert chat(repeat_penalty=1.5).generate().sampling.repetition_penalty == 1.5


def test_sampling_arrives_as_given():
    given = {
        "seed": -INT64,
        "temperature": 0,
        "top_p": 0.0,
        "top_k": 2**31 - 1,
        "min_p": 1,
        "presence_penalty": -2,
        "frequency_penalty": 2.0,
        "repetition_penalty": 2,
        "ignore_eos": True,
    }
    assert completion(**given).generate().sampling == SamplingParams(**given)


def test_top_k_of_minus_one_keeps_all_tokens():
    assert chat(top_k=-1).generate().sampling.top_k == 0


def test_limits_themselves_are_allowed():
    request = chat(max_tokens=2**31 - 1, seed=INT64 - 1, stop=["x" * 256] * 16, temperature=2, repetition_penalty=0.01)
    assert request.generate().max_tokens == 2**31 - 1


def test_max_completion_tokens_wins_over_its_older_name():
    assert chat(max_tokens=5).generate().max_tokens == 5
    assert chat(max_completion_tokens=6).generate().max_tokens == 6
    assert chat(max_tokens=5, max_completion_tokens=6).generate().max_tokens == 6


@pytest.mark.parametrize(("stop", "stops"), [("a", ["a"]), (["a", "b"], ["a", "b"]), ([], []), (None, [])])
def test_stop_may_be_one_string_or_several(stop, stops):
    assert chat(stop=stop).generate().stop == stops


def test_usage_in_a_stream_has_to_be_asked_for():
    assert chat(stream=True, stream_options={"include_usage": True}).include_usage
    assert not chat(stream=True, stream_options={}).include_usage
    assert not chat(stream=True, stream_options={"include_usage": None, "later": 1}).include_usage


def test_a_text_and_a_list_of_tokens_are_prompts():
    assert completion(prompt="").generate().prompts[0] == TextPrompt(text="")
    assert completion(prompt=[0, 2**31 - 1]).generate().prompts == [TokenPrompt(tokens=[0, 2**31 - 1])]


def test_several_texts_and_lists_of_tokens_are_several_prompts():
    assert completion(prompt=["a", ""]).generate().prompts == [TextPrompt(text="a"), TextPrompt(text="")]
    assert completion(prompt=[[1], [2, 3]]).generate().prompts == [TokenPrompt(tokens=[1]), TokenPrompt(tokens=[2, 3])]


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool", "function"])
def test_every_role_reaches_the_template(role):
    assert chat(**message(role=role)).generate().prompts[0] == ChatPrompt(messages=[{"role": role, "content": "hi"}])


def test_developer_is_the_system_role_by_its_newer_name():
    assert parse(ChatRequest, message(role="developer")).chat().generate().prompts[0].messages == [{"role": "system", "content": "hi"}]


def test_text_parts_are_joined_by_lines():
    parts = [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "b"},
    ]
    assert parse(ChatRequest, message(content=parts)).chat().generate().prompts[0].messages == [{"role": "user", "content": "a\n\nb"}]


def test_an_assistant_may_have_said_nothing():
    expected = [{"role": "assistant", "content": ""}]
    assert parse(ChatRequest, message(role="assistant", content=None)).chat().generate().prompts[0].messages == expected
    assert parse(ChatRequest, {"messages": [{"role": "assistant", "tool_calls": []}]}).chat().generate().prompts[0].messages == expected


def test_names_and_call_ids_reach_the_template():
    request = parse(ChatRequest, message(role="tool", name="f", tool_call_id="c1", refusal=None)).chat()
    assert request.generate().prompts[0].messages == [{"role": "tool", "content": "hi", "name": "f", "tool_call_id": "c1"}]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=9), values, max_size=3),
    max_leaves=9,
)
fields = st.sampled_from([*ChatRequest.model_fields, *CompletionRequest.model_fields, *UNSUPPORTED])


@settings(deadline=None)
@given(st.sampled_from(list(KINDS)), st.dictionaries(fields, json_values, max_size=4))
def test_any_json_is_a_request_or_an_error_with_a_param(kind, given):
    param = None
    try:
        asked(kind, {**KINDS[kind], **given}).generate()
    except ServiceError as error:
        param = f"{error.param}"
    assert param is None or re.split(r"[.\[]", param)[0] in {**kind.model_fields, **UNSUPPORTED}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("given", "taken"), [(1e-320, 0.0), (1e-45, 0.0), (9.9e-6, 0.0), (1e-5, 1e-5), (0, 0.0), (0.7, 0.7)])
def test_a_temperature_that_no_logit_could_be_divided_by_is_nought(kind, given, taken):
    assert asked(kind, {**KINDS[kind], "temperature": given}).generate().sampling.temperature == taken


@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest])
def test_a_number_without_a_fraction_is_an_integer(kind):
    floats = {"max_tokens": 8.0, "top_k": 40.0, "seed": 42.0, "n": 2.0, "min_tokens": 1.0, "stop_token_ids": [5.0], "temperature": 1.0}
    asked = parse(kind, {**KINDS[kind], **floats})
    assert asked == parse(
        kind, {**KINDS[kind], **{name: [5] if name == "stop_token_ids" else int(value) for name, value in floats.items()}}
    )
    assert type(asked.max_tokens) is type(asked.seed) is type(asked.stop_token_ids[0]) is int
    assert refused(kind, {"n": 129.0}).message == "n is too large: MAX_N allows 128."
    assert refused(kind, {"max_tokens": 1e300}).param == "max_tokens"


def test_a_number_without_a_fraction_is_one_everywhere_and_a_clients_own_data_stays():
    assert parse(ChatRequest, {**KINDS[ChatRequest], "max_completion_tokens": 8.0, "logprobs": True, "top_logprobs": 2.0}).top_logprobs == 2
    assert parse(CompletionRequest, {"prompt": [[1.0, 2], [3]]}).prompt == [[1, 2], [3]]
    variables = {"chat_template_kwargs": {"temperature_word": 8.0}}
    assert repr(parse(ChatRequest, {**KINDS[ChatRequest], **variables}).chat_template_kwargs["temperature_word"]) == "8.0"


def test_minus_one_means_random_and_without_limit():
    def asked(kind: type, **fields: object):
        request = parse(kind, {**KINDS[kind], **fields})
        return request.chat().generate() if kind is ChatRequest else request.completion().generate()

    for kind in (ChatRequest, CompletionRequest):
        assert asked(kind, seed=-1).sampling.seed != asked(kind, seed=-1).sampling.seed
        assert asked(kind, seed=-2).sampling.seed == -2
        for value in (-1, -1.0):
            assert asked(kind, max_tokens=value).max_tokens is None
        assert refused(kind, {"max_tokens": -2}).message == "max_tokens must be at least 1."
    assert asked(ChatRequest, max_tokens=5, max_completion_tokens=-1).max_tokens == 5


@pytest.mark.parametrize(("stop", "expected"), [("", []), ([""], []), (["", "a", ""], ["a"]), ("a", ["a"]), ([], [])])
def test_an_empty_stop_is_ignored(stop, expected):
    assert parse(ChatRequest, {**KINDS[ChatRequest], "stop": stop}).chat().generate().stop == expected
