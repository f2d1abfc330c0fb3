"""LoRA adapters on llama.cpp: applied to all answers, refused by name where they are not made for the model."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from src.engines import load_engine
from src.engines.llamacpp import LlamaCppOptions
from src.errors import ModelLoadFailed
from tests.engines.test_llamacpp_prefix import job, run, words
from tests.support.llamacpp_greedy import TOLERANCE, GreedyReference

CONTEXT = 256
RANK = 4


def write_adapter(path: Path, width: int = 576, layers: int = 30, strength: float = 0.1) -> Path:
    """Random changes to every layer's query projection."""
    numbers = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    for layer in range(layers):
        writer.add_tensor(f"blk.{layer}.attn_q.weight.lora_a", numbers.normal(0, 1, (RANK, width)).astype(np.float32))
        writer.add_tensor(f"blk.{layer}.attn_q.weight.lora_b", numbers.normal(0, strength, (width, RANK)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def load(model_path: Path, *adapters: Path):
    options = LlamaCppOptions(
        model_path=str(model_path),
        context_length=CONTEXT,
        max_sequences=2,
        threads=1,
        device="cpu",
        lora=tuple(str(path) for path in adapters),
    )
    return load_engine("llama_cpp", options)


@pytest.mark.slow
def test_an_adapter_changes_answers_as_it_does_in_llama_cpp_itself(model_path, tmp_path):
    adapter = write_adapter(tmp_path / "adapter.gguf")
    engine = load(model_path, adapter)
    jobs = [job(id, words(id, 40), max_tokens=12) for id in range(2)]
    drawn, _ = run(engine, jobs)
    engine.close()
    adapted, plain = GreedyReference(model_path, CONTEXT, adapter), GreedyReference(model_path, CONTEXT)
    for one in jobs:
        adapted.assert_greedy(one.tokens, drawn[one.id])
    assert max(plain.shortfall(one.tokens, drawn[one.id]) for one in jobs) > 2 * TOLERANCE


def test_an_adapter_of_another_model_is_refused_by_name(model_path, tmp_path):
    with pytest.raises(ModelLoadFailed, match=r"adapter other\.gguf to SmolLM2-135M-Instruct\.Q4_1\.gguf"):
        load(model_path, write_adapter(tmp_path / "other.gguf", width=64))


def test_a_file_that_is_no_adapter_is_refused_by_name(model_path, tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(50))
    with pytest.raises(ModelLoadFailed, match=r"adapter broken\.gguf"):
        load(model_path, path)
