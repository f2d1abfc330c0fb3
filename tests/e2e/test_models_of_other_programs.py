"""A whole server over folders of its own, LM Studio's, huggingface-hub's and Ollama's: each answers, none is written to, one vanishes."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.model_files import put
from tests.support.model_stores import OllamaStore, hub_cache, lm_studio
from tests.support.server import Server, wait_until
from tests.support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.slow
SMALL = {"CONTEXT_LENGTH": 128, "MAX_PARALLEL_SEQUENCES": 2, "MAX_CONCURRENT_MODELS": 1, "MEMORY_RESERVE": 0}
FROM = {"own": "folder", "Tiny-1B-GGUF": "lm_studio", "Tiny-2B-GGUF": "huggingface", "tiny:latest": "ollama"}


def named(name: str) -> bytes:
    return tiny_gguf({"general.name": name})


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """In the order of MODELS_DIR: its own first."""
    root = tmp_path_factory.mktemp("home")
    put(root, "own/own.gguf", content=named("own"))
    studio = lm_studio(root / ".lmstudio/models", content=named("studio"))
    hub = hub_cache(root / "hub", content=named("hub"))
    put(hub, "models--org--Copy/snapshots/c/Tiny-1B-GGUF.gguf", content=named("studio"))
    store = OllamaStore(root / "ollama")
    store.model("registry.ollama.ai/library/tiny/latest", named("ollama"), {"temperature": 0.25, "top_k": 7})
    store.model("registry.ollama.ai/library/strange/latest", tiny_gguf({"general.architecture": "of-ollama-alone"}))
    return [root / "own", studio, hub, store.root]


@pytest.fixture(scope="module")
def server(folders) -> Iterator[Server]:
    with Server(
        MODELS_DIR=",".join(map(str, folders)), INFERENCE_ENGINE="llama_cpp", DEFAULT_MODEL="own", disposable=True, **SMALL
    ) as server:
        yield server


def ask(server: Server, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def listed(server: Server) -> dict[str, dict]:
    return {model["id"]: model for model in httpx.get(f"{server.url}/v1/models", timeout=30).json()["data"]}


def runner_of(server: Server, model: str) -> psutil.Process:
    """Beside it, the model before may still be on its way out."""
    [pid] = [use["pid"] for use in server.status()["processes"] if use["model"] == model]
    return psutil.Process(pid)


def state_of_files(folders: list[Path]) -> dict[Path, tuple[int, int]]:
    paths = [path for folder in folders for path in [folder, *folder.rglob("*")]]
    return {path: ((info := path.lstat()).st_ino, info.st_ctime_ns) for path in paths}


def test_a_model_of_each_folder_is_loaded_and_answers_and_none_is_written_to(server, folders):
    before = state_of_files(folders[1:])
    for name in [*FROM, "tiny"]:
        answer = ask(server, name)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] >= 1
    models = listed(server)
    assert {name: models[name]["places"][0]["source"] for name in FROM} == FROM
    assert [place["source"] for place in models["Tiny-1B-GGUF"]["places"]] == ["lm_studio"]
    assert models["tiny:latest"]["aliases"] == ["tiny"]
    assert state_of_files(folders[1:]) == before


def test_a_blob_that_llama_cpp_cannot_load_is_listed_with_its_reason(server):
    answer = ask(server, "strange")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_load_failed")
    model = listed(server)["strange:latest"]
    assert (model["state"], "unknown model architecture" in model["reason"]) == ("failed", True)


def test_a_folder_that_vanishes_fails_its_models_with_the_reason_and_no_others(server, folders):
    away = folders[3].with_name("unplugged")
    assert ask(server, "tiny").status_code == 200
    runner = runner_of(server, "tiny:latest")
    folders[3].rename(away)
    try:
        assert server.status()["unreadable"] == ["ollama is not there"]
        assert ask(server, "tiny").status_code == 200, "what is loaded goes on"
        runner.kill()  # as SIGBUS does where the disk's pages are gone
        reason = "its folder ollama is not there. Connect its volume again"
        wait_until(lambda: reason in ask(server, "tiny").text, what="a model without its file failed with the reason")
        assert ask(server, "own").status_code == 200
        assert ask(server, "tiny").status_code == 503
        model = listed(server)["tiny:latest"]
        assert (model["state"], reason in model["reason"]) == ("failed", True)
    finally:
        away.rename(folders[3])
    assert ask(server, "tiny").status_code == 200


def test_one_that_was_asked_for_only_once_its_folder_is_back_is_loaded_again(server, folders):
    away = folders[3].with_name("unplugged")
    assert ask(server, "tiny").status_code == 200
    runner = runner_of(server, "tiny:latest")
    folders[3].rename(away)
    try:
        runner.kill()
        wait_until(lambda: listed(server)["tiny:latest"]["state"] == "failed", what="the model failed")
    finally:
        away.rename(folders[3])
    assert ask(server, "tiny").status_code == 200
