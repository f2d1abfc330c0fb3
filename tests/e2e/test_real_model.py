"""A real chat model answers curl and the OpenAI SDK: plain, streamed, asynchronous, one client and twenty."""

import asyncio
import itertools
import json
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.e2e.conftest import MODEL, settings_of
from tests.support.programs import program
from tests.support.server import Server, wait_until

QUESTION = [{"role": "user", "content": "Why is the sky blue? Answer in one sentence."}]
GREEDY = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 60}


def collect(stream) -> tuple[str, str, object, list]:
    """Text, finish reason, usage and all chunks of a stream."""
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    finish = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert finish[:-1] == [None] * (len(finish) - 1), "only the last chunk says how it ended"
    return text, finish[-1], chunks[-1].usage, chunks


def test_a_question_gets_an_answer_about_it(server):
    answer = server.client().chat.completions.create(**GREEDY)
    assert "blue" in answer.choices[0].message.content.lower()
    assert answer.model == MODEL
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streamed_and_plain_replies_are_the_same_text_reason_and_usage(server):
    plain = server.client().chat.completions.create(**GREEDY)
    text, finish, usage, chunks = collect(
        server.client().chat.completions.create(**GREEDY, stream=True, stream_options={"include_usage": True})
    )
    assert text == plain.choices[0].message.content
    assert finish == plain.choices[0].finish_reason
    assert (usage.prompt_tokens, usage.completion_tokens) == (plain.usage.prompt_tokens, plain.usage.completion_tokens)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1


def test_an_answer_that_ends_by_itself_has_the_reason_stop(server):
    answer = server.client().chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Say hi."}], temperature=0)
    assert answer.choices[0].finish_reason == "stop"
    assert "<|im_end|>" not in answer.choices[0].message.content


def test_max_tokens_cuts_with_the_reason_length_and_usage_counts_real_tokens(server):
    for field in ("max_tokens", "max_completion_tokens"):
        request = {**GREEDY, "max_tokens": None, field: 7}
        answer = server.client().chat.completions.create(**request, extra_body={"ignore_eos": True})
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 7


@pytest.mark.slow
def test_without_max_tokens_an_answer_may_fill_the_context(engine):
    with Server(CONTEXT_LENGTH=256, MAX_PARALLEL_SEQUENCES=1, **settings_of(engine)) as server:
        answer = server.client().chat.completions.create(model=MODEL, messages=QUESTION, extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == 256


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(server):
    whole = server.client().chat.completions.create(**GREEDY).choices[0].message.content
    stop = whole[10:14]
    for stream in (False, True):
        reply = server.client().chat.completions.create(**GREEDY, stop=[stop], stream=stream)
        text, finish = collect(reply)[:2] if stream else (reply.choices[0].message.content, reply.choices[0].finish_reason)
        assert text == whole[: whole.index(stop)]
        assert finish == "stop"


def test_the_same_seed_gives_the_same_text_and_another_seed_another(server):
    def draw(seed: int) -> str:
        request = {**GREEDY, "temperature": 1.0, "seed": seed}
        return server.client().chat.completions.create(**request).choices[0].message.content

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in (1, 2, 3)}) == 3


def test_every_role_and_text_parts_are_accepted(server):
    messages = [
        {"role": "developer", "content": "You are brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is 2+2?"}, {"type": "text", "text": "Only the number."}]},
        {"role": "assistant", "content": "4"},
        {"role": "tool", "content": "5", "tool_call_id": "call_1"},
        {"role": "user", "content": "And then?"},
    ]
    answer = server.client().chat.completions.create(model=MODEL, messages=messages, max_tokens=8)
    assert answer.usage.prompt_tokens > 30


def test_special_tokens_in_user_text_stay_text(server):
    def prompt_tokens(text: str) -> int:
        messages = [{"role": "user", "content": text}]
        return server.client().chat.completions.create(model=MODEL, messages=messages, max_tokens=1).usage.prompt_tokens

    assert prompt_tokens("a<|im_end|>") - prompt_tokens("a") > 1, "as a control token it would be one"


def test_text_completions_go_on_with_the_prompt_streamed_and_not(server):
    request = {"model": MODEL, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 12}
    plain = server.client().completions.create(**request)
    streamed = "".join(chunk.choices[0].text for chunk in server.client().completions.create(**request, stream=True))
    assert "Paris" in plain.choices[0].text
    assert streamed == plain.choices[0].text
    assert plain.object == "text_completion"


def test_a_prompt_of_token_ids_is_the_text_they_stand_for(server):
    one = server.client().completions.create(model=MODEL, prompt=[504, 3575, 282], temperature=0, max_tokens=5)
    assert one.usage.prompt_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_holds_its_schema(server, stream):
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "London"]}, "people": {"type": "integer", "minimum": 1, "maximum": 99}},
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "town", "strict": True, "schema": schema}}
    reply = server.client().chat.completions.create(**GREEDY, response_format=form, stream=stream)
    text, finish = collect(reply)[:2] if stream else (reply.choices[0].message.content, reply.choices[0].finish_reason)
    answer = json.loads(text)
    assert finish == "stop"
    assert list(answer) == ["city", "people"]
    assert answer["city"] in ("Paris", "London")
    assert 1 <= answer["people"] <= 99


def test_a_second_turn_is_mostly_served_from_the_cache(server, engine):
    messages = [{"role": "user", "content": "Tell me about the river Danube. " * 10}]
    first = server.client().chat.completions.create(model=MODEL, messages=messages, temperature=0, max_tokens=20)
    messages += [{"role": "assistant", "content": first.choices[0].message.content}, {"role": "user", "content": "More."}]
    second = server.client().chat.completions.create(model=MODEL, messages=messages, temperature=0, max_tokens=5)
    unit = 32 if engine == "vllm" else 1  # vLLM finds whole blocks
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens - 5 - (unit - 1)


def test_curl_streams_server_sent_events(server):
    body = json.dumps({"model": MODEL, "messages": QUESTION, "stream": True, "max_tokens": 5})
    command = [program("curl"), "-sN", f"{server.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all(line.startswith("data: {") for line in lines[:-2])


def test_the_asynchronous_client_streams_many_answers_together(server):
    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": f"Count from {number}."}], stream=True, max_tokens=16, seed=number
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def ask_all() -> list[str]:
        async with server.async_client() as client:
            return await asyncio.gather(*(ask(client, number) for number in range(10)))

    assert all(asyncio.run(ask_all()))


@pytest.mark.slow
def test_twenty_clients_with_forty_requests_each_get_their_own_whole_answer(server):
    """A seeded request among nineteen others is as long as asked for, and none is answered with another's words."""

    def ask(number: int) -> tuple[str, str, int]:
        request = {
            "model": MODEL,
            "prompt": f"Item {number}: " + f"item number {number}, " * 8,
            "temperature": 0,
            "seed": number,
            "max_tokens": 24,
        }
        text, finish, usage = "", None, None
        for chunk in server.client().completions.create(
            **request, stream=True, stream_options={"include_usage": True}, extra_body={"ignore_eos": True}
        ):
            text += chunk.choices[0].text if chunk.choices else ""
            finish = chunk.choices[0].finish_reason if chunk.choices else finish
            usage = chunk.usage
        return text, finish, usage.completion_tokens

    running = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            running.append(server.status()["requests"]["running"])
            done.wait(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(ask, range(100, 140)))
    done.set()
    watcher.join()
    for number, (text, finish, tokens) in zip(range(100, 140), answers, strict=True):
        assert (finish, tokens) == ("length", 24)
        assert str(number) in text, f"the answer to {number} is {text!r}"
    assert max(running) > 10, "they were served together, not in turn"


@pytest.mark.slow
def test_health_is_answered_while_twenty_streams_run(server):
    with ThreadPoolExecutor(20) as clients:
        request = {**GREEDY, "max_tokens": 40, "stream": True, "extra_body": {"ignore_eos": True}}
        streams = [clients.submit(lambda: collect(server.client().chat.completions.create(**request))) for _ in range(20)]
        wait_until(lambda: server.status()["requests"]["running"] > 10, what="the load")
        assert httpx.get(f"{server.url}/health", timeout=2).json() == {"status": "ok", "models_ready": [MODEL]}
        assert all(stream.result()[1] == "length" for stream in streams)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_its_slot_at_once(server, stream):
    body = {**GREEDY, "max_tokens": 900, "ignore_eos": True, "stream": stream}
    with httpx.Client(timeout=60) as client, pytest.raises(httpx.TimeoutException if not stream else StopIteration):  # noqa: PT012
        if not stream:
            client.post(f"{server.url}/v1/chat/completions", json=body, timeout=1)
        with client.stream("POST", f"{server.url}/v1/chat/completions", json=body) as response:
            next(response.iter_lines())
            raise StopIteration
    wait_until(lambda: server.status()["requests"]["running"] == 0, timeout=5, what="the end of the job")


def test_the_status_tells_engine_versions_memory_and_work(server, engine):
    status = server.status()
    model = next(model for model in status["models"] if model["name"] == MODEL)
    assert (model["engine"], model["state"], model["context_length"]) == (engine, "ready", 1024)
    assert model["device"] in ("cpu", "mps", "cuda")
    assert model["stats"]["kv_total"] == model["stats"]["slots"] * 1024
    assert {process["name"] for process in status["processes"]} == {"master", "manager", "runner", "gateway"}
    assert all(process["rss_bytes"] > 10**6 for process in status["processes"])
    assert status["versions"]["gunicorn"]
    assert status["uptime_seconds"] > 0


@pytest.mark.slow
def test_several_workers_share_one_model_and_a_stop_lets_its_answers_end(engine):
    with Server(WORKERS=2, SHUTDOWN_GRACE_SECONDS=90, **settings_of(engine)) as server:
        wait_until(lambda: len(server.pids("gateway")) == 2, what="two gateway workers")
        assert len(server.pids("runner")) == 1
        request = {**GREEDY, "max_tokens": 120, "stream": True, "stream_options": {"include_usage": True}}
        request["extra_body"] = {"ignore_eos": True}
        begun = threading.Barrier(5)

        def answer() -> tuple:
            stream = iter(server.client().chat.completions.create(**request))
            first = next(stream)
            begun.wait(60)
            return collect(itertools.chain([first], stream))

        with ThreadPoolExecutor(4) as clients:
            streams = [clients.submit(answer) for _ in range(4)]
            begun.wait(60)
            assert server.stop(timeout=110) == 0
            answers = [stream.result() for stream in streams]
    assert [(finish, usage.completion_tokens) for _, finish, usage, _ in answers] == [("length", 120)] * 4
