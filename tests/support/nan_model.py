"""Models whose numbers are NaN from one of their tokens on: of noise for llama.cpp, the built-in one as a folder."""

import json
import shutil
from pathlib import Path

import numpy as np

from src.engines.base import Engine, Job
from src.errors import EngineError
from tests.support.small_model import small_model
from tests.support.tiny_gguf import CONTROL, NORMAL, TENSORS, TOKENS, WIDTH, tiny_gguf

NAN = TOKENS.index("Z")  # the token of this letter
MORE = 4096  # tokens beside bytes: with so many the engine picks candidates itself
LENGTH = len(TOKENS) + MORE
PATHS = [  # from a row of logits to a token
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_k": 40},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 0.8, "min_p": 0.1},
    {"temperature": 0.0, "frequency_penalty": 1.0},
    {"temperature": 1.0, "repetition_penalty": 1.2, "presence_penalty": 0.5},
    {"temperature": 1.0, "logit_bias": {65: 5.0}},
    {"temperature": 1.0, "logprobs": 5},
    {"temperature": 0.0, "min_tokens": 3, "ignore_eos": True},
]


def noise_gguf(token: float | None = None, context_length: int = 256) -> bytes:
    """A tiny model whose weights are noise. `token`: what the embedding of the token NAN is filled with."""
    metadata: dict[str, object] = {
        "llama.context_length": context_length,
        "tokenizer.ggml.tokens": [*TOKENS, *(f"<more-{number}>" for number in range(MORE))],
        "tokenizer.ggml.token_type": [*[NORMAL] * 256, CONTROL, CONTROL, *[NORMAL] * MORE],
    }
    shapes = {"token_embd.weight": (WIDTH, LENGTH), "output.weight": (WIDTH, LENGTH)}
    whole = bytearray(tiny_gguf(metadata, shapes))
    numbers = sum(int(np.prod(shape)) for shape in {**TENSORS, **shapes}.values())  # each tensor fills whole blocks of 32 bytes
    data = np.frombuffer(whole, np.float32, count=numbers, offset=len(whole) - 4 * numbers)
    data[:] = np.random.default_rng(0).normal(size=numbers)
    if token is not None:
        data[: WIDTH * LENGTH].reshape(LENGTH, WIDTH)[NAN] = token  # the embeddings come first
    return bytes(whole)


def nan_gguf() -> bytes:
    return noise_gguf(np.nan)


def nan_folder(folder: Path) -> Path:
    """Two layers of the built-in model; the embedding of the token NAN is spoilt, its place in the output is not."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(small_model("float32"), folder)
    tensors = load_file(folder / "model.safetensors")
    embeddings = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = embeddings.copy()
    embeddings[NAN] = np.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    return folder


def run(engine: Engine, *jobs: Job) -> dict[int, list[int] | EngineError]:
    """What each drew, or how it failed."""
    results: dict[int, list[int] | EngineError] = {job.id: [] for job in jobs}
    for each in jobs:
        engine.add(each)
    while steps := engine.step():
        for step in steps:
            if step.error:
                results[step.job_id] = step.error
            elif step.token is not None:
                results[step.job_id].append(step.token)
    return results
