"""A folder of safetensors tells its size, quantisation and abilities; one that is not whole tells what is wrong."""

import json
import struct
from pathlib import Path

import pytest

from src.catalog.facts import BrokenModel
from src.catalog.safetensors import facts
from src.errors import ModelLoadFailed
from tests.support.model_files import safetensors_bytes

QWEN = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "vocab_size": 1000,
}


def folder(root: Path, config: object = QWEN, weights: bytes | None = None, **files: str) -> Path:
    (root / "config.json").write_text(json.dumps(config))
    (root / "model.safetensors").write_bytes(safetensors_bytes({"w": ("BF16", (10, 20))}) if weights is None else weights)
    for name, content in files.items():
        (root / f"{name}.json").write_text(content)
    return root


def read(root: Path):
    return facts(root, [root / "model.safetensors"])


def test_the_config_tells_the_sizes(tmp_path):
    form, told = read(folder(tmp_path))
    assert form == "safetensors"
    assert (told.architecture, told.parameters, told.quantisation, told.context_length) == ("qwen2", 200, "BF16", 32768)
    assert told.kv_bytes_per_token == 3 * 2 * (8 + 8) * 2
    assert (told.vocabulary, told.embedding_length, told.feed_forward_length) == (1000, 64, 128)


def test_heads_may_be_wider_than_the_hidden_size_makes_them(tmp_path):
    assert read(folder(tmp_path, {**QWEN, "head_dim": 32}))[1].kv_bytes_per_token == 3 * 2 * 64 * 2


def test_a_model_of_text_and_pictures_has_its_sizes_in_a_part(tmp_path):
    both = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": QWEN}
    told = read(folder(tmp_path, both))[1]
    assert (told.architecture, told.context_length) == ("gemma3", 32768)


def test_an_mlx_folder_is_told_by_its_quantisation(tmp_path):
    weights = safetensors_bytes({"w": ("U32", (10, 8)), "s": ("BF16", (10, 1))})
    form, told = read(folder(tmp_path, {**QWEN, "quantization": {"bits": 4, "group_size": 64}}, weights))
    assert (form, told.quantisation, told.parameters) == ("mlx", "4-bit", 640)


def test_other_quantisations_keep_their_name(tmp_path):
    assert read(folder(tmp_path, {**QWEN, "quantization_config": {"quant_method": "awq"}}))[1].quantisation == "awq"


def test_the_template_lies_in_the_tokenizers_config_or_beside_it(tmp_path):
    folder(tmp_path, tokenizer_config=json.dumps({"chat_template": "{{ messages }}"}))
    assert read(tmp_path)[1].capabilities == ("chat_template",)
    (tmp_path / "chat_template.jinja").write_text("{{ tools }} <think>")
    assert read(tmp_path)[1].capabilities == ("chat_template", "tools", "thinking")


def test_of_several_templates_the_default_counts_and_that_for_tools(tmp_path):
    templates = [{"name": "rag", "template": "{{ tools }} <think>"}, {"name": "default", "template": "{{ messages }}"}]
    for known, more in ((("chat_template",), []), (("chat_template", "tools"), [{"name": "tool_use", "template": "{{ tools }}"}])):
        config = json.dumps({"chat_template": [*templates, *more]})
        assert read(folder(tmp_path, tokenizer_config=config))[1].capabilities == known


def test_an_encoder_embeds(tmp_path):
    assert read(folder(tmp_path, {**QWEN, "architectures": ["BertModel"]}))[1].capabilities == ("embeddings",)
    assert read(folder(tmp_path, QWEN))[1].capabilities == ()


@pytest.mark.parametrize("config", [[], {}, {"num_hidden_layers": -1, "architectures": 7, "text_config": [], "vocab_size": True}])
def test_a_config_with_nothing_of_use_is_no_crash(tmp_path, config):
    folder(tmp_path, config)
    if config == []:
        with pytest.raises(ModelLoadFailed, match=r"config\.json is not a JSON object"):
            read(tmp_path)
    else:
        assert read(tmp_path)[1].kv_bytes_per_token == 0


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (b"", "not a safetensors file, or is cut short"),
        (struct.pack("<Q", 2**63) + b"{}", "not a safetensors file, or is cut short"),
        (struct.pack("<Q", 2) + b"[]", "an invalid header"),
        (struct.pack("<Q", 5) + b"{]]]]", "an invalid header"),
        (safetensors_bytes()[:-1], r"is cut short: \d+ of \d+ bytes present"),
    ],
)
def test_damaged_weights_are_refused_with_the_reason(tmp_path, weights, told):
    with pytest.raises(BrokenModel, match=told):
        read(folder(tmp_path, weights=weights))


def test_a_config_that_is_not_json_is_refused(tmp_path):
    folder(tmp_path)
    (tmp_path / "config.json").write_text("{" * 100_000)
    with pytest.raises(ModelLoadFailed, match=r"config\.json is not JSON"):
        read(tmp_path)
