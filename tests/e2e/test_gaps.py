"""`suffix` on a real model: it is shown the text around a gap as models are that were trained to fill one."""

import subprocess
import sys

import httpx
import pytest

from tests.support.hf_model import GGUF
from tests.support.server import Server

GAP = {"fim_pre": 3, "fim_suf": 5, "fim_mid": 6}  # <repo_name>, <file_sep>, <filename>: control tokens that the model has no other use for
PREFIX, SUFFIX = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    marks = [word for name, token in GAP.items() for word in ("--special-token-by-id", name, str(token))]
    command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--force", *marks, str(GGUF), str(folder / "gaps.gguf")]
    subprocess.run(command, check=True, capture_output=True)
    with Server(INFERENCE_ENGINE="llama_cpp", MODELS_DIR=folder, CONTEXT_LENGTH=256, MAX_PARALLEL_SEQUENCES=2) as server:
        yield server


def post(server: Server, path: str, **fields: object) -> dict:
    response = httpx.post(f"{server.url}{path}", json=fields, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("prefix", [PREFIX, ""])
def test_a_gap_is_filled_as_if_its_tokens_had_been_written_by_hand(server, prefix):
    before, after = (post(server, "/v1/tokenize", prompt=text, add_special_tokens=False)["tokens"] for text in (prefix, SUFFIX))
    by_hand = [GAP["fim_pre"], *before, GAP["fim_suf"], *after, GAP["fim_mid"]]
    asked = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
    filled = post(server, "/v1/completions", prompt=prefix, suffix=SUFFIX, **asked)
    assert filled["usage"]["prompt_tokens"] == len(by_hand)
    assert filled["choices"][0]["text"]
    assert filled["choices"] == post(server, "/v1/completions", prompt=by_hand, **asked)["choices"]
