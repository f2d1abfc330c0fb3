"""Answers of a real model hold their schema, expression, choices or grammar; what cannot be held is refused while others stream on."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import jsonschema
import openai
import psutil
import pytest

from tests.e2e.conftest import MODEL
from tests.support.schemas import schema_of
from tests.support.server import Server, wait_until

SCHEMAS = 200
ASK = [{"role": "user", "content": "Describe a town in JSON."}]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server():
    with Server(INFERENCE_ENGINE="llama_cpp", CONTEXT_LENGTH=512, MAX_PARALLEL_SEQUENCES=21) as server:
        yield server


def schema_format(schema: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def ask(server, **fields) -> openai.types.chat.ChatCompletion:
    given = {"model": MODEL, "messages": ASK, "max_tokens": 60, "temperature": 0, **fields}
    return server.client().chat.completions.create(**given)


def content(server, **fields) -> str:
    choice = ask(server, **fields).choices[0]
    assert choice.finish_reason == "stop"
    return choice.message.content


# What is held


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_schemas_are_held_by_every_answer_that_is_not_cut_off(server):
    client = server.client()

    def answer(number: int) -> tuple[dict, str, str]:  # every second one streamed
        schema = schema_of(number)
        given = {"model": MODEL, "messages": ASK, "max_tokens": 90, "seed": number, "response_format": schema_format(schema)}
        if number % 2:
            choice = client.chat.completions.create(**given).choices[0]
            return schema, choice.message.content, choice.finish_reason
        chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**given, stream=True)]
        return schema, "".join(chunk.delta.content or "" for chunk in chunks), chunks[-1].finish_reason

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(answer, range(SCHEMAS)))
    whole = [(schema, text) for schema, text, reason in answers if reason == "stop"]
    assert {reason for _, _, reason in answers} <= {"stop", "length"}
    assert len(whole) > SCHEMAS * 0.8, "too few to prove anything"
    for schema, text in whole:
        jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator)


@pytest.mark.slow
def test_json_mode_answers_with_an_object_and_no_runs_of_white_space(server):
    for seed in range(4):
        choice = ask(server, response_format={"type": "json_object"}, max_tokens=120, temperature=1.3, seed=seed).choices[0]
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        for gap in re.findall(r"\s+", re.sub(r'"(?:[^"\\]|\\.)*"?', '""', choice.message.content)):
            assert re.fullmatch(r" |\n {0,24}|\n\t{0,6}", gap)


def test_vllms_names_hold_too(server):
    assert re.fullmatch(r"[0-9]{3}-[A-Z]{2}", content(server, extra_body={"guided_regex": "[0-9]{3}-[A-Z]{2}"}))
    assert content(server, extra_body={"guided_choice": ["rouge", "vert", "bleu ciel"]}) in ("rouge", "vert", "bleu ciel")
    assert re.fullmatch(r"\(*x\)*", content(server, extra_body={"guided_grammar": 'start: "(" start ")" | "x"'}, temperature=1.0, seed=3))
    assert json.loads(content(server, extra_body={"guided_json": PERSON}))["age"] <= 120
    assert set(json.loads(content(server, extra_body={"structured_outputs": {"json": PERSON}}))) == {"name", "age"}


def test_text_completions_hold_a_schema_too(server):
    answer = server.client().completions.create(
        model=MODEL, prompt="A person:", max_tokens=60, temperature=0, extra_body={"response_format": schema_format(PERSON)}
    )
    jsonschema.validate(json.loads(answer.choices[0].text), PERSON)


def test_every_choice_of_a_request_holds_the_schema(server):
    answer = ask(server, response_format=schema_format(PERSON), n=3, temperature=1.0, seed=1)
    assert len({choice.message.content for choice in answer.choices}) > 1
    for choice in answer.choices:
        jsonschema.validate(json.loads(choice.message.content), PERSON)


def test_the_streamed_and_the_plain_answer_are_the_same(server):
    fields = {"model": MODEL, "messages": ASK, "max_tokens": 60, "temperature": 0, "response_format": schema_format(PERSON)}
    plain = server.client().chat.completions.create(**fields).choices[0].message.content
    chunks = server.client().chat.completions.create(**fields, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == plain


# What is refused


def computed(pid: int) -> float:
    """Seconds of processor time that the process has had: none while others keep it from running."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


class Stream:
    """An answer that goes on till it is stopped, how many pieces of it have come, and the engine's most work between two."""

    def __init__(self, server: Server) -> None:
        self.pieces, self.standstill, self.failure = 0, 0.0, None
        [self._engine] = server.pids("runner")
        self._worked = computed(self._engine)
        self._server, self._stopped = server, threading.Event()
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        while not self._stopped.is_set() and self.failure is None:
            try:
                given = {"model": MODEL, "messages": ASK, "stream": True, "extra_body": {"ignore_eos": True}}
                for chunk in self._server.client().chat.completions.create(**given):
                    if chunk.choices and chunk.choices[0].delta.content:
                        worked = computed(self._engine)
                        self.standstill, self._worked = max(self.standstill, worked - self._worked), worked
                        self.pieces += 1
                    if self._stopped.is_set():
                        break
            except Exception as error:
                self.failure = error

    def __enter__(self) -> "Stream":
        self._thread.start()
        wait_until(lambda: self.pieces > 2 or self.failure, what="the stream's first tokens")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()


def post(server, **fields) -> httpx.Response:
    body = {"model": MODEL, "messages": ASK, "max_tokens": 8, **fields}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=100)


def in_itself(depth: int, keyword: str) -> dict:
    schema: dict = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", keyword: {"a": schema} if keyword == "properties" else schema}
    return schema


CHAIN = "\n".join(f"r{index}: r{index + 1}" for index in range(5000)) + '\nr5000: "a"'
REGEXES = {
    "not a group": "(",
    "sixty thousand groups": "(" * 60_000 + "a" + ")" * 60_000,
    "twenty thousand groups": "(" * 20_000 + "a" + ")" * 20_000,
    "a NUL": "a\0b",
    "a range from NUL": "[\0-⹿]+",
    "look-around": "(?=a)b",
    "a word's end": r"\bword\b",
    "a reference": r"(a)\1",
}
SCHEMAS_REFUSED = {
    "depth 41": in_itself(20, "properties"),
    "additionalProperties in each other": in_itself(40, "additionalProperties"),
    "1000 properties": {"type": "object", "properties": {f"p{index}": {"type": "integer"} for index in range(1000)}},
    "enum of 10,000": {"enum": [f"value {index}" for index in range(10_000)]},
    "itself": {"$ref": "#"},
    "each other": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "a web address": {"$ref": "http://127.0.0.1:9/schema.json"},
    "a file": {"$ref": "file:///etc/passwd"},
    "look-behind": {"type": "string", "pattern": "(?<=x)*"},
    "banana": {"type": "banana"},
    "not": {"not": {"type": "string"}},
    "a chain of references": {"$defs": {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(1500)} | {"a1500": {}}, "$ref": "#/$defs/a0"},
    "many ways at once": {"allOf": [{"anyOf": [{"properties": {f"{n}{i}": {"type": "integer"}}} for n in "ab"]} for i in range(14)]},
    "prime multiples": {"type": "integer", "multipleOf": 982_451_653, "minimum": 10**15},
}
GRAMMARS = {
    "sixty thousand brackets": "start: " + "(" * 30_000 + '"a"' + ")" * 30_000,
    "a chain of 5000 rules": f"start: r0\n{CHAIN}",
    "itself": "start: start",
    "no start": 'root: "a"',
    "GBNF": 'root ::= "a"',
    "endless work": "start: A\nA: " + " & ".join(f"/(?s:.*)a{index}(?s:.*)/" for index in range(30)),
}
REFUSED = [
    *(pytest.param({"guided_regex": regex}, "guided_regex", id=f"regex: {name}") for name, regex in REGEXES.items()),
    *(
        pytest.param({"response_format": schema_format(one)}, "response_format", id=f"schema: {name}")
        for name, one in SCHEMAS_REFUSED.items()
    ),
    *(pytest.param({"guided_grammar": grammar}, "guided_grammar", id=f"grammar: {name}") for name, grammar in GRAMMARS.items()),
]


@pytest.fixture(scope="module")
def stream(server):
    with Stream(server) as stream:
        yield stream


STANDSTILL = 5.0  # seconds of work, which are a hundred tokens; seconds on a clock would count what others take of the machine


@pytest.fixture
def others_go_on(server, stream):
    """The engine's process is the same afterwards; the other stream has not stood still while it worked, and moves on."""
    pids, stream.standstill = server.pids("runner"), 0.0
    yield
    assert server.pids("runner") == pids
    pieces = stream.pieces
    wait_until(lambda: stream.pieces > pieces + 3 or stream.failure, timeout=120, what="the stream's next tokens")
    assert stream.failure is None
    assert stream.standstill < STANDSTILL


@pytest.mark.usefixtures("others_go_on")
@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_cannot_be_held_or_costs_too_much_is_refused_in_time_and_others_go_on(server, fields, param):
    response = post(server, **fields)  # which does not wait forever: 5 s for the grammar, the rest for a busy machine
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"], error["type"]) == ("invalid_schema", param, "invalid_request_error")
    assert len(response.content) < 1000


@pytest.mark.usefixtures("others_go_on")
@pytest.mark.parametrize(
    "fields",
    [{"guided_regex": "((((a{10}){10}){10}){10}){10}"}, {"guided_grammar": "start: s\ns: s s s | /[a-z ]/"}],
    ids=["powers of ten", "too many parses"],
)
def test_what_turns_out_to_cost_too_much_is_given_up_in_the_middle_of_an_answer(server, fields):
    response = post(server, **fields, max_tokens=200, ignore_eos=True)  # else it might end after a few tokens
    if response.status_code != 400:  # the trial has seen it coming
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "engine_error"
        assert "too complex" in response.json()["error"]["message"]


@pytest.mark.usefixtures("others_go_on")
@pytest.mark.parametrize("regex", ["foo**", "(a+)+$", "a{1,100000}", "(x|y)*x(x|y){300}", r"(\p{L}{1,50}\p{N}{1,50}){1,50}"])
def test_an_expression_that_only_looks_dangerous_is_followed(server, regex):
    response = post(server, guided_regex=regex)
    assert response.status_code == 200


@pytest.mark.usefixtures("others_go_on")
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "integer"}, "maxItems": 10**9},
        {"type": "string", "maxLength": 10**9},
        {"enum": list(range(3000))},
    ],
    ids=["maxItems", "maxLength", "enum"],
)
def test_a_large_bound_costs_nothing(server, schema):
    assert post(server, response_format=schema_format(schema)).status_code == 200


@pytest.mark.parametrize("field", ["ignore_eos", "min_tokens"])
def test_an_answer_cannot_both_end_with_its_schema_and_go_on(server, field):
    response = post(server, response_format=schema_format(PERSON), **{field: True if field == "ignore_eos" else 3})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == field


def test_two_constraints_are_refused(server):
    response = post(server, response_format={"type": "json_object"}, guided_regex="a")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "guided_regex")
