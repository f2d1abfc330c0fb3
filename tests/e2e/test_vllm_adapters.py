"""LoRA adapters behind the server: each is a model of its own name to whoever asks, and the process is the same."""

import httpx
import psutil
import pytest

from src.engines import why_not
from src.keys import KeyFile
from tests.e2e.conftest import MODEL, settings_of
from tests.support.lora import write_adapter
from tests.support.server import Server, wait_until

if reason := why_not("vllm"):
    pytest.skip(reason, allow_module_level=True)

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    settings = settings_of("vllm")
    folder = tmp_path_factory.mktemp("models")
    base = settings["MODELS_DIR"] / MODEL
    (folder / MODEL).symlink_to(base)
    write_adapter(folder / "adapters" / "nothing", base, strength=0)
    write_adapter(folder / "adapters" / "strong", base, strength=0.05)
    (folder / "models.toml").write_text(f'["{MODEL}".adapters]\nsame = "adapters/nothing"\nsql = "adapters/strong"\n')
    keys = KeyFile(folder / "keys.json")
    secrets = {"all": keys.add("all", scopes=["admin"])[0], "sql": keys.add("sql", models=["sql"])[0]}
    settings |= {"MODELS_DIR": folder, "CONTEXT_LENGTH": 512, "MAX_PARALLEL_SEQUENCES": 4, "API_KEYS_FILE": keys.path}
    with Server(key=secrets["all"], **settings) as server:
        yield server, secrets


def complete(server: Server, model: str, **fields) -> tuple[str, str]:
    """The model that the answer names, and its text."""
    reply = server.client().completions.create(model=model, prompt=PROMPT, **{"max_tokens": 12, "temperature": 0, **fields})
    return reply.model, reply.choices[0].text


def test_each_is_listed_and_found_as_a_model_with_a_parent(served):
    server, _ = served
    models = {model.id: model for model in server.client().models.list().data}
    assert sorted(models) == ["same", MODEL, "sql"]
    assert (models["sql"].parent, models["sql"].state, models[MODEL].parent, models[MODEL].adapters) == (
        MODEL,
        "ready",
        None,
        ["same", "sql"],
    )
    assert server.client().models.retrieve("sql").parent == MODEL


def test_an_answer_is_the_adapters_and_says_so(served):
    server, _ = served
    (base, plain), (same, unchanged), (sql, changed) = (complete(server, name) for name in (MODEL, "same", "sql"))
    assert (base, same, sql) == (MODEL, "same", "sql")
    assert "Paris" in plain
    assert unchanged == plain
    assert changed != plain
    assert len(server.pids("runner")) == 1


def test_a_chat_streams_under_its_name(served):
    server, _ = served
    chunks = list(
        server.client().chat.completions.create(model="sql", messages=[{"role": "user", "content": "Hi"}], max_tokens=4, stream=True)
    )
    assert {chunk.model for chunk in chunks} == {"sql"}


def test_a_key_for_an_adapter_sees_that_alone(served):
    server, secrets = served
    client = server.client(api_key=secrets["sql"])
    assert [model.id for model in client.models.list().data] == ["sql"]
    assert client.completions.create(model="sql", prompt=PROMPT, max_tokens=2).model == "sql"
    for hidden in (MODEL, "same"):
        answer = httpx.post(f"{server.url}/v1/completions", json={"model": hidden, "prompt": "x"}, headers={"x-api-key": secrets["sql"]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_an_answer_goes_on_with_the_same_adapter_when_the_process_is_killed(served):
    server, _ = served
    whole = complete(server, "sql", max_tokens=60, extra_body={"ignore_eos": True})[1]
    [victim] = server.pids("runner")
    stream = server.client(timeout=400).completions.create(
        model="sql", prompt=PROMPT, max_tokens=60, temperature=0, stream=True, extra_body={"ignore_eos": True}
    )
    text = next(stream).choices[0].text
    psutil.Process(victim).kill()
    text += "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    assert text == whole
    wait_until(lambda: server.pids("runner") != [victim], what="another process")
