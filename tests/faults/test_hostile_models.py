"""Model files that pass the catalog and are hostile all the same cost a load, or a request: never the server or the models beside."""

import re
from pathlib import Path

import httpx
import pytest

from tests.support.server import Server
from tests.support.tiny_gguf import METADATA, NORMAL, TEMPLATE, TOKENS, tiny_gguf

pytestmark = pytest.mark.slow
LOOP = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
IF_EVIL = "{% if messages[-1].content == 'evil' %}EVIL{% else %}" + TEMPLATE + "{% endif %}"
COSTLY, FORBIDDEN = (500, "chat_template_too_costly"), (500, "chat_template_error")
TEMPLATES = {
    "loops": (LOOP, COSTLY),
    "a giant": ("{{ messages[0].content * 10**10 }}", COSTLY),
    "a way out": ("{{ cycler.__init__.__globals__.os.system('touch TOUCHED') }}", FORBIDDEN),
    "a refusal": ("{{ raise_exception('No, thanks.') }}", (400, "invalid_value")),
}
NO_TOKENIZER = {key: None for key in METADATA if key.startswith("tokenizer.")}
FEWER_TOKENS = {"tokenizer.ggml.tokens": TOKENS[:100], "tokenizer.ggml.token_type": [NORMAL] * 100}
FAILS = r"llama.cpp cannot load model.gguf: .*"
SPOILED: dict[str, tuple[dict, dict, str]] = {
    "no tokenizer": (NO_TOKENIZER, {}, FAILS + "key not found in model: tokenizer.ggml.model"),
    "fewer tokens than rows": (FEWER_TOKENS, {}, FAILS + "tensor 'token_embd.weight' has wrong shape"),
    "no layers": ({"llama.block_count": 0}, {}, r"its runner crashed while loading \(signal SIGABRT\)"),
    "no heads": ({"llama.attention.head_count": 0}, {}, FAILS + "has wrong shape"),
    "no context": ({"llama.context_length": 0}, {}, "llama.cpp cannot make a context of 2 × 0 tokens for model.gguf"),
    "a missing tensor": ({}, {"blk.0.attn_q.weight": None}, FAILS + "'blk.0.attn_q.weight' not found"),
    "a template with a mistake": ({"tokenizer.chat_template": "{% for %}"}, {}, "chat template is wrong in line 1"),
    "a template without end": ({"tokenizer.chat_template": LOOP}, {}, r"longer than the 0\.5 s that TEMPLATE_SECONDS"),
}


def put(root: Path, name: str, content: bytes) -> None:
    (root / name).mkdir()
    (root / name / "model.gguf").write_bytes(content)


@pytest.fixture(scope="module")
def touched(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outside") / "touched"


@pytest.fixture(scope="module")
def server(tmp_path_factory, touched):
    root = tmp_path_factory.mktemp("models")
    put(root, "good", tiny_gguf())
    put(root, "cut", tiny_gguf()[:-1])
    put(root, "odd", tiny_gguf({"tokenizer.ggml.eos_token_id": 10**9, "tokenizer.ggml.bos_token_id": 10**9}))
    for name, (metadata, tensors, _) in SPOILED.items():
        put(root, name, tiny_gguf(metadata, tensors))
    for name, (source, _) in TEMPLATES.items():
        put(root, name, tiny_gguf({"tokenizer.chat_template": IF_EVIL.replace("EVIL", source.replace("TOUCHED", str(touched)))}))
    small = {"CONTEXT_LENGTH": 128, "MAX_PARALLEL_SEQUENCES": 2, "MAX_CONCURRENT_MODELS": 2, "MEMORY_RESERVE": 0}
    with Server(
        MODELS_DIR=root, DEFAULT_MODEL="good", INFERENCE_ENGINE="llama_cpp", TEMPLATE_SECONDS=0.5, disposable=True, **small
    ) as server:
        yield server


def ask(server: Server, model: str, content: str = "hello") -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 2}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def state(server: Server, name: str) -> dict:
    return next(model for model in server.status()["models"] if model["name"] == name)


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_model_fails_its_load_with_the_reason_and_another_answers(server, name):
    gateway, manager = server.pids("gateway"), server.pids("manager")
    answer = ask(server, name)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "model_load_failed")
    assert re.search(SPOILED[name][2], error["message"])
    found = state(server, name)
    assert found["state"] == "failed"
    assert found["reason"] in error["message"]
    assert ask(server, "good").status_code == 200
    assert (server.pids("gateway"), server.pids("manager")) == (gateway, manager)


def test_a_model_that_is_cut_short_is_never_loaded(server):
    answer = ask(server, "cut")
    assert answer.status_code == 503
    assert "cut short" in answer.json()["error"]["message"]


def test_special_tokens_outside_the_vocabulary_are_not_used(server):
    assert ask(server, "odd").status_code == 200


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_hostile_template_costs_the_request_it_is_hostile_to_and_the_next_one_is_answered(server, name, touched):
    [before, evil, after] = [ask(server, name, content) for content in ("hello", "evil", "hello")]
    assert before.status_code == after.status_code == 200
    assert (evil.status_code, evil.json()["error"]["code"]) == TEMPLATES[name][1]
    assert evil.headers.get("x-should-retry") == ("false" if evil.status_code == 500 else None)
    assert evil.elapsed.total_seconds() < 10
    assert not touched.exists()
    assert state(server, name)["restarts"] == 0
