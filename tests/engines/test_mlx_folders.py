"""Quantised folders as mlx-lm makes them and as they are shared today: each is listed, loads, and draws the tokens mlx-lm draws."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

mx = pytest.importorskip("mlx.core", reason="MLX is not installed here")

import mlx_lm.utils as mlx_utils  # noqa: E402
from mlx.utils import tree_flatten, tree_unflatten  # noqa: E402
from mlx_lm.convert import mixed_quant_predicate_builder  # noqa: E402
from mlx_lm.generate import generate_step  # noqa: E402

from src.catalog import Catalog  # noqa: E402
from src.engines import load_engine  # noqa: E402
from src.engines.base import Job  # noqa: E402
from src.engines.mlx import MLXOptions  # noqa: E402
from src.sampling import SamplingParams  # noqa: E402

VOCABULARY = 320
TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
}  # fmt: skip
LLAMA = {"model_type": "llama", **TEXT, "tie_word_embeddings": False}
GEMMA_TEXT = {"sliding_window": 32, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16, "rope_local_base_freq": 1e4}
GEMMA = {"model_type": "gemma3", "vocab_size": VOCABULARY, "text_config": {"model_type": "gemma3_text", **TEXT, **GEMMA_TEXT}}
MISTRAL = {"model_type": "mistral3", "text_config": {**TEXT, "model_type": "llama"}}
QWEN = {"model_type": "qwen3_vl", "text_config": {"model_type": "qwen3_vl_text", **TEXT, "tie_word_embeddings": True}}
PICTURES = {"vision_config": {"hidden_size": 32}, "image_token_index": 7}


class Made(NamedTuple):
    config: dict
    bits: int = 4
    mode: str = "affine"
    recipe: str = ""  # of mixed bits
    shards: int = 1
    vision: str = ""  # how the names of its vision tower's tensors begin


FOLDERS = {
    **{f"{bits} bits": Made(LLAMA, bits) for bits in (4, 5, 6, 8)},
    "mxfp4": Made(LLAMA, mode="mxfp4"),
    "nvfp4": Made(LLAMA, mode="nvfp4"),
    "mxfp8": Made(LLAMA, 8, mode="mxfp8"),
    "mixed bits": Made(LLAMA, recipe="mixed_4_6"),
    "tied embeddings": Made({**LLAMA, "tie_word_embeddings": True}),
    "shards with an index": Made(LLAMA, shards=3),
    "nested text_config": Made(MISTRAL, 8),
    "pictures and text, Gemma 3": Made({**GEMMA, **PICTURES}, vision="vision_tower."),
    "pictures and text, Qwen 3 VL": Made({**QWEN, **PICTURES}, 6, vision="vision_tower."),
    "pictures and text, mixed bits and shards": Made({**MISTRAL, **PICTURES}, recipe="mixed_3_6", shards=2, vision="vision_tower."),
}


def make(folder: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """With mlx-lm's own converters; a vision tower is added as mlx-vlm leaves it, not quantised."""
    kind, arguments = mlx_utils._get_classes(made.config)[:2]
    mx.random.seed(3)
    model = kind(arguments.from_dict(json.loads(json.dumps(made.config))))
    weights = {name: mx.random.normal(array.shape) * 0.3 if array.ndim > 1 else array for name, array in tree_flatten(model.parameters())}
    model.update(tree_unflatten(list(weights.items())))
    predicate = mixed_quant_predicate_builder(made.recipe, model, 32) if made.recipe else None
    group = 32 if made.mode == "affine" else None
    bits = None if made.recipe else made.bits
    model, config = mlx_utils.quantize_model(model, made.config, group, bits, mode=made.mode, quant_predicate=predicate)
    with monkeypatch.context() as patch:
        patch.setattr(mlx_utils, "make_shards", lambda weights: shards(weights, made))
        mlx_utils.save_model(folder, model)
    mlx_utils.save_config(config, folder / "config.json", keep_vision_config=bool(made.vision))


def shards(weights: dict, made: Made) -> list[dict]:
    if made.vision:
        weights = {**weights, f"{made.vision}blocks.0.weight": mx.zeros((32, 32)), f"{made.vision}norm.weight": mx.ones((32,))}
    names = sorted(weights)
    return [{name: weights[name] for name in names[number :: made.shards]} for number in range(made.shards)]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_today_is_listed_loads_and_draws_mlx_lms_own_tokens(name, tmp_path, monkeypatch):
    made = FOLDERS[name]
    folder = tmp_path / "model"
    make(folder, made, monkeypatch)
    [entry] = Catalog(tmp_path).scan().values()
    assert (entry.name, entry.format, entry.problem) == ("model", "mlx", None)
    assert len(entry.weights) == made.shards
    facts = entry.facts
    assert (facts.architecture, facts.context_length, facts.vocabulary) == (made.config["model_type"], 512, VOCABULARY)
    if not made.recipe:  # of mixed bits the config names a default alone
        assert facts.quantisation == (f"{made.bits}-bit" if made.mode == "affine" else made.mode)
    assert facts.kv_bytes_per_token == 2 * 2 * 2 * 16 * 2, "by the text's own numbers"

    reference, _ = mlx_utils.load_model(folder)
    prompt = [1 + 7 * index % 300 for index in range(20)]
    expected = [token for token, _ in generate_step(mx.array(prompt), reference, max_tokens=4)]
    engine = load_engine("mlx", MLXOptions(model_path=str(folder), context_length=256, max_sequences=2, cached_prefixes=0))
    try:
        sampling = SamplingParams(seed=1, temperature=0.0, ignore_eos=True)
        engine.add(Job(id=1, tokens=prompt, prompt_tokens=len(prompt), max_tokens=4, sampling=sampling))
        drawn = []
        while steps := engine.step():
            assert not [step.error for step in steps if step.error]
            drawn += [step.token for step in steps if step.token is not None]
    finally:
        engine.close()
    assert drawn == expected
