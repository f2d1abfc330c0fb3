"""The routes about models: what they tell, how a load is streamed, and that no name reaches the file system."""

import json
import re
from urllib.parse import quote

import httpx
import pytest

from tests.support.in_process import InProcess
from tests.support.model_files import gguf_bytes
from tests.support.server import wait_until

LIGHT = {"INFERENCE_ENGINE": "llama_cpp", "CONTEXT_LENGTH": 256, "MAX_PARALLEL_SEQUENCES": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model_path):
    """Two models, half of a third, and a fourth beside the folder."""
    folder = tmp_path_factory.mktemp("top") / "models"
    folder.mkdir()
    for name in ("a.gguf", "b.gguf"):
        (folder / name).symlink_to(model_path)
    (folder.parent / "secret.gguf").symlink_to(model_path)
    (folder / "half.gguf.incomplete").write_bytes(gguf_bytes())
    (folder / "terse.jinja").write_text("{{ messages[-1].content }}")
    (folder / "models.toml").write_text(
        '[a]\naliases = ["gpt-4o-mini", "org/alias"]\n'
        '[b]\naliases = ["org/*"]\ntemperature = 0\nchat_template = "terse.jinja"\ncontext_length = 300\n'
    )
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with InProcess(MODELS_DIR=folder, MAX_CONCURRENT_MODELS=2, **LIGHT) as running:
        yield running


@pytest.fixture(scope="module")
def http(server):
    with server.http() as client:
        yield client


def post(http: httpx.Client, route: str, **body: object) -> httpx.Response:
    return http.post(f"/v1/models/{route}", json=body)


def chat(http: httpx.Client, model: str, **fields: object) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, **fields}
    return http.post("/v1/chat/completions", json=body)


def test_a_model_tells_what_its_files_say(http):
    model = http.get("/v1/models/a").json()
    assert (model["parameters"], model["quantisation"], model["trained_context_length"]) == (134_515_008, "Q4_1", 8192)
    assert (model["architecture"], model["context_length"]) == ("llama", 256)
    assert model["capabilities"] == ["chat_template", "mean_embeddings"]
    assert model["engines"]["llama_cpp"] is None
    assert model["engines"]["mlx"] == "it does not read the format gguf"


def test_a_half_downloaded_model_is_listed_with_the_reason_and_never_offered(http):
    models = {model["id"]: model for model in http.get("/v1/models").json()["data"]}
    assert models["half"]["state"] == "failed"
    assert "its download is incomplete" in models["half"]["reason"]
    for response in (chat(http, "half"), post(http, "load", model_name="half"), post(http, "switch", model_name="half")):
        assert (response.status_code, response.json()["error"]["code"]) == (503, "model_load_failed")
    assert "half" not in chat(http, "nowhere").json()["error"]["message"]


@pytest.mark.parametrize("alias", ["gpt-4o-mini", "org/alias"])
def test_an_alias_names_its_model_everywhere(http, alias):
    assert http.get(f"/v1/models/{alias}").json()["id"] == "a"
    assert chat(http, alias).json()["model"] == "a"
    assert post(http, "load", model_name=alias).json()["id"] == "a"
    assert http.get(f"/v1/models/{alias}/plan").json()["model"] == "a"


def test_options_of_a_model_reach_its_requests_and_its_runner(http):
    answers = {chat(http, "b").json()["choices"][0]["message"]["content"] for _ in range(3)}
    assert len(answers) == 1, "temperature = 0 is its default"
    assert http.get("/v1/models/b").json()["context_length"] == 300
    assert chat(http, "b").json()["usage"]["prompt_tokens"] == 1, "its own template would add more"
    drawn = {chat(http, "b", temperature=2, top_p=1, seed=seed).json()["choices"][0]["message"]["content"] for seed in range(4)}
    assert len(drawn) > 1, "a request's own temperature wins"


def test_a_plan_tells_engine_memory_and_what_fits(http):
    plan = http.get("/v1/models/a/plan").json()
    assert (plan["fits"], plan["engine"], plan["context_length"], plan["max_parallel_sequences"]) == (True, "llama_cpp", 256, 2)
    parts = plan["memory_bytes"]
    assert parts["kv_cache"] == 2 * 256 * 23040
    assert parts["total"] == parts["weights"] + parts["kv_cache"] + parts["overhead"]
    assert 0 < plan["memory_free"] < plan["memory_total"]
    assert plan["engines"]["vllm"]


def test_a_plan_of_what_does_not_fit_says_what_would(model_path):
    name = model_path.stem
    with InProcess(MODELS_DIR=model_path.parent, MEMORY_RESERVE=10**7, **LIGHT) as running, running.http() as http:
        plan = http.get(f"/v1/models/{name}/plan").json()
        assert (plan["fits"], plan["engine"]) == (False, "llama_cpp")
        assert re.search(r"needs \d\.\d GiB .*MEMORY_RESERVE", plan["reason"])
        load = post(http, "load", model_name=name)
        assert (load.status_code, load.json()["error"]["code"]) == (503, "model_does_not_fit")
        assert "runner" not in {use["name"] for use in running.status()["processes"]}


def test_a_load_is_streamed_from_found_to_ready(http):
    assert post(http, "unload", model_name="b").json()["state"] == "available"
    response = post(http, "load", model_name="b", stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    *steps, done = re.findall(r"^data: (.*)$", response.text, re.MULTILINE)
    stages = [json.loads(step)["stage"] for step in steps]
    assert (stages[0], stages[-1], done) == ("found", "ready", "[DONE]")
    assert "reading_weights" in stages
    assert http.get("/v1/models/b").json()["state"] == "ready"


def test_a_streamed_load_of_an_unknown_model_is_a_404_a_failing_one_an_event(http, folder):
    assert post(http, "load", model_name="nowhere", stream=True).status_code == 404
    bad = folder / "bad.gguf"
    bad.write_bytes(gguf_bytes())
    response = post(http, "load", model_name="bad", stream=True)
    bad.unlink()
    last = json.loads(re.findall(r"^data: (.*)$", response.text, re.MULTILINE)[-1])
    assert last["error"]["code"] == "model_load_failed"


def test_a_switch_puts_a_model_in_the_place_of_the_default(http, server):
    post(http, "load", model_name="a")
    assert post(http, "switch", model_name="b", before="a").json()["state"] == "ready"
    wait_until(lambda: http.get("/v1/models/a").json()["state"] == "available", what="the end of a")
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    assert http.post("/v1/chat/completions", json=body).json()["model"] == "b"
    assert server.status()["default_model"] == "b"


@pytest.mark.parametrize("route", ["unload", "switch", "load"])
@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "model_name"), ({"model_name": ""}, "model_name"), ({"model_name": 7}, "model_name"), ({"model_name": ["a"]}, "model_name")],
)
def test_a_body_without_a_name_is_refused(http, route, body, param):
    response = http.post(f"/v1/models/{route}", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


NAMES = [
    "../secret",
    "../secret.gguf",
    "models/../../secret",
    "..",
    ".",
    "/etc/passwd",
    "a.gguf",
    "./a",
    "a\0",
    "a\0.gguf",
    "..%2fsecret",
    "%2e%2e%2fsecret",
    "..%252fsecret",
    "..\\secret",
    "C:\\x",
    "\u202ea",
    "a/",
    "x" * 10_000,
    "../" * 3_000 + "etc/passwd",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:24]))
def test_a_name_is_looked_up_and_never_a_path(http, name):
    for response in (
        chat(http, name),
        post(http, "load", model_name=name),
        post(http, "load", model_name=name, stream=True),
        post(http, "unload", model_name=name),
        post(http, "switch", model_name=name),
        post(http, "switch", model_name="a", before=name),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found"), response.text
        assert len(response.text) < 1000
    if name in (".", ".."):
        return  # the client itself resolves these in an address: tests/api/test_served.py sends them as they are
    for path in (quote(name, safe=""), quote(quote(name, safe=""), safe="")):
        for suffix in ("", "/plan"):
            response = http.get(f"/v1/models/{path}{suffix}")
            assert response.status_code == 404, (path, response.text)
            assert "root:" not in response.text


def test_the_answer_names_the_model_that_answered_for_another_name():
    with InProcess(UNKNOWN_MODELS_USE_DEFAULT="true") as server, server.http() as http:
        for path, body in (
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
            ("/v1/messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}),
            ("/v1/responses", {"input": "x"}),
        ):
            response = http.post(path, json={"model": "claude-haiku-4-5", **body})
            assert (response.status_code, response.json()["model"]) == (200, "echo")
        assert http.get("/v1/models/claude-haiku-4-5").status_code == 404


def test_an_alias_with_a_wildcard_is_found_by_any_name_that_it_stands_for(http):
    assert http.get("/v1/models/org/any").json()["id"] == "b"
    assert http.get("/v1/models/org/alias").json()["id"] == "a"
